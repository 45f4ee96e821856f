"""The single-file trainer."""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path

import pytest

from tests.trainer.test_train import TINY
from tests.trainer.tiny import call, environment, text_folder
from trainer import contract, pack

PACKAGE = Path(pack.__file__).parent


def embedded(content: str) -> dict[str, str]:
    """Module name to source, as the packed file would see them."""
    found = {}
    for node in ast.parse(content).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            found[ast.literal_eval(node.targets[0].slice)] = ast.literal_eval(node.value)
    return found


def test_pack_holds_every_module_as_it_is() -> None:
    """Each source comes out of the packed file unchanged, and only the packer stays behind."""
    sources = embedded(pack.pack(PACKAGE))
    for path in contract.code_files(PACKAGE):
        words = ["trainer", *path.relative_to(PACKAGE).with_suffix("").parts]
        name = ".".join(words[:-1] if words[-1] == "__init__" else words)
        assert name == "trainer.pack" or sources[name] == path.read_text(encoding="utf-8")
    assert "trainer.pack" not in sources
    assert len(sources) == len(contract.code_files(PACKAGE)) - 1


@pytest.mark.parametrize("source", ["x = '''a'''\n", "y = 1\\", "z = 'a'", "tab\t\r\n", "ü = r'\\N{}'\n", ""])
def test_pack_survives_awkward_sources(tmp_path: Path, source: str) -> None:
    """Quotes, backslashes and line ends of all kinds come back as they were."""
    (tmp_path / "__init__.py").write_bytes(source.encode())
    assert embedded(pack.pack(tmp_path)) == {"trainer": source.replace("\r\n", "\n")}


def test_pack_refuses_what_is_not_python(tmp_path: Path) -> None:
    """A folder with compiled or foreign code can't become one readable file."""
    (tmp_path / "kernel.cu").write_text("")
    with pytest.raises(ValueError, match=r"kernel\.cu"):
        pack.pack(tmp_path)


@pytest.mark.service
def test_packed_trainer_trains_from_an_empty_folder_and_counts_itself(tmp_path: Path) -> None:
    """One file, copied to a folder of its own, trains two steps and reports its own bytes as the code."""
    env = environment(tmp_path / "cache")
    made = call("-m", "trainer.pack", tmp_path / "made.py", env=env, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    size = (tmp_path / "made.py").stat().st_size
    assert f": {size} bytes" in made.stdout
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "made.py").rename(empty / "only.py")
    alone = {name: value for name, value in env.items() if name != "PYTHONPATH"}
    line = [*TINY, f"DATA_PATH={text_folder(tmp_path / 'text')}", "OUT_DIR=out", "ITERATIONS=2"]
    done = call("only.py", *line, env=alone, cwd=empty)
    assert done.returncode == 0, done.stderr
    result = json.loads((empty / "out" / contract.RESULT).read_text())
    assert result["steps"] == 2
    assert result["code_bytes"] == size
    assert result["total_bytes"] == size + (empty / "out" / contract.ARTIFACT).stat().st_size
    own = hashlib.sha256((empty / "only.py").read_bytes()).hexdigest()
    assert result["code_sha256"] == hashlib.sha256(f"only.py\0{own}\n".encode()).hexdigest()


def test_pack_called_wrongly_says_how(capsys: pytest.CaptureFixture[str]) -> None:
    """No name, a flag, or a name that is not Python: usage and exit 2."""
    for words in ([], ["--wrong"], ["out.txt"], ["a.py", "b.py"]):
        assert pack.main(words) == 2
        assert "usage" in capsys.readouterr().err
