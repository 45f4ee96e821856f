"""Bases: frozen once, verified always, their variables read from the syntax tree and never by running them."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from golfctl.errors import InputError
from golfctl.store import bases
from golfctl.store.campaign import load
from golfctl.store.envvars import read_env
from golfctl.store.init import create
from golfctl.store.tree import Entry, Tree, pack, unpack
from tests.golfctl import plankit

READS = """\
import os
import os as system
from os import environ as env, getenv
raise SystemExit("running this is a mistake")
A = os.environ.get("A", "1")
B = os.environ["B"]
C = os.getenv("C", default=str(2 + 2))
if "D" in os.environ: pass
E = env.get("E")
F = getenv("F", 3)
G = system.environ.get("G", 0)
table = os.environ
H = table.get("H", 8)
read = os.environ.get
I = read("I", 9)
def number(name, default): return int(os.environ.get(name, default))
J = number("J", 1_000)
flag = lambda name, default=0: bool(int(os.environ.get(name, default)))
K = flag("K", 1)
class Hyper:
    L = float(os.environ.get("L", 1e-3))
os.environ["WRITTEN"] = "1"
other = {}.get("NOT_ENV", 1)
M = os.environ.get("PRE" + str(1))
"""


def test_envvars_finds_every_way_of_reading() -> None:
    """get, [], getenv, in, aliases, wrappers; writes and other mappings do not count."""
    reads = read_env(READS.encode(), "x.py")
    assert {item.name for item in reads.variables} == set("ABCDEFGHIJKL")
    by_name = {item.name: item for item in reads.variables}
    assert (by_name["A"].default, by_name["B"].default, by_name["C"].default) == ("'1'", None, "str(2 + 2)")
    assert (by_name["J"].default, by_name["K"].default, by_name["L"].default) == ("1000", "1", "0.001")
    assert by_name["L"].place == "x.py:21"
    assert reads.computed == (24,)


def test_envvars_reads_declared_settings_with_their_limits() -> None:
    """The bundled trainer declares settings by a call; literal limits come along."""
    source = b'x = setting("RATE", 0.1, "m", low=0, high=2**31 - 1, choices=(1, 2), source=S)'
    (item,) = read_env(source, "config.py", ("setting",)).variables
    assert (item.name, item.default) == ("RATE", "0.1")
    assert dict(item.limits) == {"default": 0.1, "low": 0, "high": 2**31 - 1, "choices": (1, 2)}


@pytest.mark.parametrize("source", [b"def (:\n", b"\xff\xfe", b"x = 1\n" + b"(" * 5000, b"\0"])
def test_envvars_unparsable_source_is_said_and_not_raised(source: bytes) -> None:
    """A foreign script may be anything."""
    assert "not Python" in str(read_env(source, "x.py").error)


def test_trainer_base_is_the_same_bytes_wherever_it_is_frozen(tmp_path: Path) -> None:
    """Two campaigns freeze one trainer to one hash and one archive."""
    one, two = (create(tmp_path / name, "cpu-demo") for name in ("one", "two"))
    first, second = (item.bases_folder / "tiny-bytes.tar.gz" for item in (one, two))
    assert first.read_bytes() == second.read_bytes()
    assert bases.load(one, "tiny-bytes").sha256 == bases.load(two, "tiny-bytes").sha256


def test_trainer_base_refuses_settings_the_trainer_refuses(tmp_path: Path) -> None:
    """A base that can't train is not frozen."""
    campaign = create(tmp_path / "golf", "cpu-demo")
    found = plankit.refusals(bases.freeze_trainer, campaign, "wide", {"MODEL_DIN": "256", "NUM_LAYERS": "0"})
    assert found[0] == "bases/wide.yaml settings: MODEL_DIN: unknown setting; did you mean MODEL_DIM?"
    assert "NUM_LAYERS=0: must be at least 1" in found[1]
    assert not (campaign.bases_folder / "wide.yaml").exists()
    wide = bases.freeze_trainer(campaign, "wide", {"MODEL_DIM": "256"})
    assert wide.settings == {"MODEL_DIM": "256"}
    assert wide.sha256 == bases.load(campaign, "tiny-bytes").sha256
    with pytest.raises(InputError, match=r"bases/wide\.yaml: exists; a base is frozen once"):
        bases.freeze_trainer(campaign, "wide", {})


def test_base_with_a_changed_snapshot_is_refused(tmp_path: Path) -> None:
    """Other code under the same name would make old verdicts lies."""
    campaign = plankit.make(tmp_path)
    snapshot = campaign.bases_folder / "tiny.tar.gz"
    snapshot.write_bytes(pack(Tree({"tiny.py": Entry(b"print('other')")})))
    with pytest.raises(InputError, match=r"bases/tiny\.tar\.gz: is not the code that was frozen"):
        bases.load(campaign, "tiny")
    snapshot.write_bytes(b"\x1f\x8b broken")
    with pytest.raises(InputError, match=r"bases/tiny\.tar\.gz: is damaged"):
        bases.load(campaign, "tiny")
    snapshot.unlink()
    with pytest.raises(InputError, match=r"bases/tiny\.tar\.gz: can't be read: No such file"):
        bases.load(campaign, "tiny")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("kind:", "kid:"), "bases/tiny.yaml:2:1 kind: is missing"),
        (('name: "tiny"', "name: other"), "bases/tiny.yaml:2:7 name: 'other' is not the file's name; write 'tiny'"),
        (("{python}", "{pyhton}"), "bases/tiny.yaml:6:10 launch[0]: '{pyhton}': only {python} and {processes}"),
        (('"tiny.tar.gz"', "../x.tar.gz"), "bases/tiny.yaml:4:11 snapshot: '../x.tar.gz' is no NAME.tar.gz"),
        (('"seed": "SEED"', '"sed": "SEED"'), "bases/tiny.yaml:8:8 vars.sed: unknown key; did you mean 'seed'?"),
    ],
)
def test_base_file_mistakes_have_places(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    """A base file may be edited by hand."""
    campaign = plankit.make(tmp_path)
    path = campaign.bases_folder / "tiny.yaml"
    assert change[0] in path.read_text()
    path.write_text(path.read_text().replace(*change))
    found = plankit.refusals(bases.load, campaign, "tiny")
    assert any(line.startswith(message) for line in found), found


def test_script_base_refuses_settings_it_does_not_read(tmp_path: Path) -> None:
    """A typo in a base's settings would silently be the default."""
    campaign = plankit.make(tmp_path)
    script = tmp_path / "b.py"
    script.write_text("import os\nprint(os.environ['WIDTH'])\n")
    with pytest.raises(
        InputError, match=r"settings\.WIDHT: the script does not read this variable; did you mean 'WIDTH'"
    ):
        bases.freeze_script(campaign, "b", script, score_label="final", settings={"WIDHT": "1"})
    with pytest.raises(InputError, match="base 'tinyy': unknown; did you mean 'tiny'"):
        bases.load(load(campaign.root), "tinyy")


def test_archive_is_deterministic_and_round_trips() -> None:
    """The order of making does not show, modes are kept, long and unusual names survive."""
    files = {"b/" + "x" * 150 + ".py": Entry(b"1"), "a é.txt": Entry(b""), "run.sh": Entry(b"#!", True)}
    tree = Tree(files)
    assert pack(tree) == pack(Tree(dict(reversed(files.items()))))
    assert unpack(pack(tree), "t").files == tree.files
    assert tree.sha256 != Tree(files | {"run.sh": Entry(b"#!")}).sha256


def test_archive_with_anything_but_plain_files_is_refused(tmp_path: Path) -> None:
    """Links, absolute names and parents could reach outside of the folder they are unpacked in."""
    import io
    import tarfile

    for name, kind in (
        ("../x", tarfile.REGTYPE),
        ("/x", tarfile.REGTYPE),
        ("x", tarfile.SYMTYPE),
        ("x", tarfile.DIRTYPE),
    ):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        with pytest.raises(InputError, match="is not a plain file inside the archive"):
            unpack(buffer.getvalue(), "t.tar.gz")
    whole = pack(Tree({"a": Entry(bytes(range(256)) * 64)}))
    with pytest.raises(InputError, match=r"t\.tar\.gz: is damaged"):
        unpack(whole[: len(whole) // 2], "t.tar.gz")


def test_tree_hash_follows_its_definition() -> None:
    """sha256 over sorted `path NUL mode NUL sha256 LF`: another program can recompute it."""
    import hashlib

    inner = hashlib.sha256(b"abc").hexdigest()
    text = f"a/x\0x\0{inner}\nb\0-\0{inner}\n"
    tree = Tree({"b": Entry(b"abc"), "a/x": Entry(b"abc", True)})
    assert tree.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_base_ignores_what_the_launcher_sets(tmp_path: Path) -> None:
    """RANK and its kin are torchrun's, not settings."""
    campaign = plankit.make(tmp_path)
    script = tmp_path / "r.py"
    script.write_text(
        textwrap.dedent("""\
        import os
        rank = int(os.environ.get("RANK", 0))
        lr = os.environ.get("LR", 1)
    """)
    )
    base = bases.freeze_script(campaign, "r", script, score_label="final", env=["HIDDEN"])
    assert sorted(base.variables(base.tree)) == ["HIDDEN", "LR"]
