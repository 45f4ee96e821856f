"""The clean room: what a score does not need is refused and seen, and a score that differs is a FAIL."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from golfctl.audit import again, cleanroom
from golfctl.audit.cleanroom import LOOSE, TINY, Limits, Visit, Wanted, judged
from golfctl.audit.result import Answer
from golfctl.errors import InputError

LABEL, BPB = "final_sliding_window_exact", 1.23456789
SCORE = f'print("{LABEL} val_loss:1.00000000 val_bpb:{BPB} stride:64 eval_time:10ms")\n'
TRIES = "try:\n    {}\nexcept Exception as error:\n    print(error)\n"
ROOMS = pytest.mark.parametrize("namespaces", [True, False], ids=["kernel", "python"])


def visited(folder: Path, code: str, **how: Any) -> Visit:
    """A script in a room of its own, which does `code` and then prints the score."""
    script = folder / "script.py"
    script.write_text(code + SCORE)
    how.setdefault("limits", Limits(seconds=60, memory_bytes=4 << 30))
    return cleanroom.visit({"script.py": script}, ["script.py"], **how)


@pytest.mark.service
@ROOMS
def test_cleanroom_lets_a_plain_score_through(tmp_path: Path, namespaces: bool) -> None:
    """With the packages of this Python, a home of its own and nothing of the caller's environment."""
    os.environ["A_SECRET_OF_OURS"] = "hush"
    try:
        code = (
            "import os, numpy\nassert 'A_SECRET_OF_OURS' not in os.environ\nassert os.listdir('.') == ['script.py']\n"
        )
        code += "assert os.listdir(os.environ['HOME']) == []\nopen(os.environ['HOME'] + '/x', 'w').write('x')\n"
        seen = visited(tmp_path, code, namespaces=namespaces)
    finally:
        del os.environ["A_SECRET_OF_OURS"]
    assert judged("a.log", seen, Wanted(LABEL, BPB)).answer is Answer.PASS, seen


FAULTS = {
    "training data": [
        "open({train!r} + '/train.txt')",
        "import os; os.listdir({train!r})",
        "open('fineweb_train_000000.bin')",
    ],
    "network": [
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
        "import urllib.request; urllib.request.urlopen('http://example.invalid/')",
    ],
    "pickle": [
        "import pickle; pickle.loads(b'N.')",
        "import io, pickle; pickle.Unpickler(io.BytesIO(b'N.')).load()",
        "import numpy, io; numpy.load('script.py', allow_pickle=True)",
    ],
}


@pytest.mark.service
@ROOMS
@pytest.mark.parametrize("kind", FAULTS)
def test_cleanroom_catches_what_asks_for_more(tmp_path: Path, namespaces: bool, kind: str) -> None:
    """Each of three ways, though the script swallows the error and prints the right score."""
    train = tmp_path / "train"
    train.mkdir()
    (train / "train.txt").write_text("text")
    for way in FAULTS[kind]:
        code = TRIES.format(way.format(train=str(train)))
        seen = visited(tmp_path, code, namespaces=namespaces, hidden=[train])
        found = judged("a.log", seen, Wanted(LABEL, BPB))
        assert found.answer is Answer.FAIL, (way, seen)
        assert kind in found.text, found


@pytest.mark.service
def test_cleanroom_holds_files_and_processes_behind_pythons_back(tmp_path: Path) -> None:
    """Where the kernel gives namespaces, the folder is not there for native code either, nothing answers and nothing is left."""
    secret = tmp_path / "secret.bin"
    secret.write_text("x")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = struct.pack("<H", socket.AF_INET) + struct.pack(">H", server.getsockname()[1]) + bytes([127, 0, 0, 1])
        code = f"import ctypes, os\nlibc = ctypes.CDLL(None)\nassert libc.open({str(secret).encode()!r}, 0) == -1\n"
        code += f"assert libc.connect(libc.socket(2, 1, 0), {address.ljust(16, bytes(1))!r}, 16) == -1\n"
        code += "assert libc.open(b'/usr/x', 0o101) == -1\nassert os.getpid() == 1\n"
        seen = visited(tmp_path, code)
    if "kernel" not in seen.enforced[0]:
        pytest.skip(f"no namespaces here: {seen.enforced[0]}")
    assert seen.code == 0, seen
    assert not seen.refused


@pytest.mark.service
@ROOMS
def test_cleanroom_ends_what_hangs(tmp_path: Path, namespaces: bool) -> None:
    """After its time all its processes are gone, and there is no score."""
    began = time.monotonic()
    code = "import time\ntime.sleep(300)\n"
    seen = visited(tmp_path, code, namespaces=namespaces, limits=Limits(seconds=2))
    assert time.monotonic() - began < 60
    assert seen.code is None
    assert judged("a.log", seen, Wanted(LABEL, BPB)).answer is Answer.FAIL
    assert not [line for line in running() if str(tmp_path) in line or "golfctl-room" in line]


def running() -> list[str]:
    """Command lines of all processes."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(entry.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


@pytest.mark.service
@ROOMS
def test_cleanroom_ends_what_eats_memory_or_disk(tmp_path: Path, namespaces: bool) -> None:
    """Past its limits an allocation and a write fail, and the script with them."""
    limits = Limits(seconds=60, memory_bytes=1 << 30, file_bytes=1 << 20)
    for code in ("x = b'1' * (2 << 30)\n", "open('x', 'wb').write(b'1' * (4 << 20))\n"):
        seen = visited(tmp_path, code, namespaces=namespaces, limits=limits)
        assert seen.code not in {0, None}, seen
        assert judged("a.log", seen, Wanted(LABEL, BPB)).answer is Answer.FAIL


def test_cleanroom_needs_a_python_and_its_files(tmp_path: Path) -> None:
    """Both are the user's to give."""
    with pytest.raises(InputError, match="clean room"):
        cleanroom.visit({"x": tmp_path / "none"}, ["x"])
    with pytest.raises(InputError, match="not a Python"):
        cleanroom.visit({}, ["x"], python=str(tmp_path / "python"))


def seen(bpb: float = BPB, **changes: Any) -> Visit:
    """A visit that went well."""
    values: dict[str, Any] = {
        "code": 0,
        "seconds": 1.0,
        "enforced": ("all",),
        "scores": {LABEL: bpb},
        "val_sha256": "a" * 64,
    }
    return Visit(**(values | changes))


GPU = {"device": "cuda"}
CASES = [
    ("PASS", "to the last digit", seen(), Wanted(LABEL, BPB + 4e-9)),
    ("PASS", "as another CPU rounds", seen(BPB + TINY / 2), Wanted(LABEL, BPB)),
    ("PASS", "another device", seen(BPB + LOOSE / 2), Wanted(LABEL, BPB, environment=GPU)),
    ("PASS", "another number of processes", seen(BPB - LOOSE / 2), Wanted(LABEL, BPB, processes=8)),
    ("FAIL", "a hair too far on a CPU", seen(BPB + 3 * TINY), Wanted(LABEL, BPB, environment={"device": "cpu"})),
    ("FAIL", "off by 0.0037", seen(BPB + 0.0037), Wanted(LABEL, BPB, environment=GPU)),
    ("FAIL", "better than logged is not the same either", seen(BPB - 0.01), Wanted(LABEL, BPB, processes=8)),
    ("FAIL", "another label", seen(scores={"other": BPB}), Wanted(LABEL, BPB)),
    ("FAIL", "crashed", seen(code=1), Wanted(LABEL, BPB)),
    ("NOT CHECKABLE", "another text", seen(val_sha256="b" * 64), Wanted(LABEL, BPB, val_sha256="c" * 64)),
]


@pytest.mark.parametrize(("answer", "name", "visit", "wanted"), CASES, ids=[case[1] for case in CASES])
def test_judged_holds_the_score_against_the_log(answer: str, name: str, visit: Visit, wanted: Wanted) -> None:
    """Exact on one CPU; a stated tolerance for another device or number of processes; no more."""
    assert str(judged("a.log", visit, wanted).answer) == answer


def test_check_of_nothing_is_not_checkable() -> None:
    """No artifact, no script: no blame."""
    assert cleanroom.check({}).answer is Answer.NOT_CHECKABLE
    assert cleanroom.check({"a.log": "its artifact is not here"}).answer is Answer.NOT_CHECKABLE


def test_scores_alone_reads_packed_scripts() -> None:
    """The word counts inside a compressed script, too."""
    import base64
    import zlib

    inner = base64.b64encode(zlib.compress(b"import sys\nif sys.argv[1] == '--score': pass\n")).decode()
    assert again.scores_alone(f"import zlib,base64\nexec(zlib.decompress(base64.b64decode({inner!r})))\n".encode())
    assert not again.scores_alone(b"print(1)\n")


@pytest.mark.service
def test_room_starts_without_namespaces_where_they_are_refused(tmp_path: Path) -> None:
    """The command runs all the same, its exit code comes back, and the report says why it was not isolated."""
    spec = {"root": str(tmp_path / "none"), "room": str(tmp_path), "cwd": str(tmp_path), "isolate": True, "env": {}}
    spec |= {"report": str(tmp_path / "report.json"), "shown": [], "hidden": [], "devices": [], "memory_bytes": 0}
    spec |= {"file_bytes": 1 << 20, "argv": [sys.executable, "-c", "raise SystemExit(7)"]}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    room = Path(cleanroom.__file__).with_name("room.py")
    done = subprocess.run([sys.executable, "-I", "-S", str(room), str(tmp_path / "spec.json")], check=False, timeout=60)
    assert done.returncode == 7
    told = json.loads((tmp_path / "report.json").read_text())
    assert not told["isolated"]
    assert told["why_not"]
