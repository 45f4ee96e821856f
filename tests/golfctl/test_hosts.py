"""Hosts without runs: archives that must be refused, places that can't be used, specifications."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from golfctl.domain.host import HostSpec
from golfctl.errors import HostError, InputError
from golfctl.hosts import open_host
from golfctl.hosts.base import Host
from golfctl.hosts.local import LocalHost
from golfctl.hostside.files import remove_tree, scrub


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Callable[[tarfile.TarFile], None]:
    """Adds one member to an archive."""

    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, link, 1 if kind == tarfile.REGTYPE else 0
        tar.addfile(info, io.BytesIO(b"x"))

    return add


def pack(path: Path, *members: Callable[[tarfile.TarFile], None]) -> Path:
    """A tar.gz of these members."""
    with tarfile.open(path, "w:gz") as tar:
        for add in members:
            add(tar)
    return path


@pytest.fixture
def host(tmp_path: Path) -> LocalHost:
    """A local host whose root does not exist yet."""
    return LocalHost(HostSpec("here", root=str(tmp_path / "root")))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (member("../evil"), "leads outside"),
        (member("a/../../evil"), "leads outside"),
        (member("/evil"), "leads outside"),
        (member("link", tarfile.SYMTYPE, "/etc"), "not a plain file"),
        (member("hard", tarfile.LNKTYPE, "good.py"), "not a plain file"),
        (member("pipe", tarfile.FIFOTYPE), "not a plain file"),
        (member("disk", tarfile.BLKTYPE), "not a plain file"),
        (member("good.py"), "comes twice"),
        (member("good.py/below"), "good.py"),
    ],
)
def test_put_refuses_a_dangerous_archive(host: LocalHost, tmp_path: Path, bad: object, said: str) -> None:
    """The member is named, nothing is unpacked anywhere, the bundle is not there."""
    path = pack(tmp_path / "b.tar.gz", member("good.py"), bad)  # type: ignore[arg-type]
    before = sorted(tmp_path.iterdir())
    with pytest.raises(HostError, match=said):
        host.put("abc", path)
    assert not host.has_bundle("abc")
    assert list((host.root / "bundles").iterdir()) == []
    assert sorted(tmp_path.iterdir()) == sorted([*before, host.root])


def test_put_refuses_a_damaged_archive(host: LocalHost, tmp_path: Path) -> None:
    """Cut, flipped, empty or not an archive at all: HostError, no bundle."""

    def noise(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo("noise")
        info.size = 20_000
        tar.addfile(info, io.BytesIO(os.urandom(20_000)))

    good = pack(tmp_path / "b.tar.gz", member("a.py"), noise).read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 255
    for number, content in enumerate([good[: len(good) // 2], good[:-4], bytes(flipped), b"", b"hello"]):
        bad = tmp_path / f"bad{number}.tar.gz"
        bad.write_bytes(content)
        with pytest.raises(HostError):
            host.put("abc", bad)
        assert not host.has_bundle("abc")
    with pytest.raises(HostError, match=r"missing\.tar\.gz: No such file"):
        host.put("abc", tmp_path / "missing.tar.gz")
    with pytest.raises(HostError, match="is no name in bundles"):
        host.put("../abc", tmp_path / "b.tar.gz")


def test_put_keeps_executable_bits(host: LocalHost, tmp_path: Path) -> None:
    """A script that could be executed still can be, and nobody may write."""

    def tool(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo("tool.sh")
        info.mode, info.size = 0o4777, 1
        tar.addfile(info, io.BytesIO(b"x"))

    host.put("abc", pack(tmp_path / "b.tar.gz", member("a.py"), tool))
    modes = {path.name: path.stat().st_mode & 0o7777 for path in (host.root / "bundles" / "abc").iterdir()}
    assert modes == {"a.py": 0o444, "tool.sh": 0o555}


def test_host_root_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    """check tells it, prepare raises it: what and where."""
    (tmp_path / "root").write_text("a file")
    host = LocalHost(HostSpec("here", root=str(tmp_path / "root")))
    assert host.check() == [f"{tmp_path}/root: not a folder"]
    with pytest.raises(HostError, match=r"here: .*/root") as caught:
        host.prepare()
    assert "\n" not in str(caught.value)


def test_host_on_a_read_only_disk_is_one_line(tmp_path: Path) -> None:
    """A read-only mount is told by check and by every step that would write."""
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,ro", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs root and the right to mount a tmpfs")
    try:
        host = LocalHost(HostSpec("here", root=str(tmp_path / "root")))
        assert host.check() == [f"{tmp_path}: can't be written"]
        with pytest.raises(HostError, match="Read-only file system"):
            host.prepare()
        assert (host.runs(), host.busy(), host.poll("r").state) == ([], 0, "absent")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_host_on_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """A bundle that does not fit leaves no half bundle; check tells how much is missing."""
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs root and the right to mount a tmpfs")
    try:
        host = LocalHost(HostSpec("here", root=str(tmp_path)))
        host.prepare()
        assert "bytes free, at least" in host.check()[0]
        path = pack(tmp_path / "b.tar.gz", member("a.py"))
        with (tmp_path / "fill").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(4096))
        with pytest.raises(HostError, match="No space left on device"):
            host.put("abc", path)
        assert not host.has_bundle("abc")
        (tmp_path / "fill").unlink()
        host.put("abc", path)
        assert host.has_bundle("abc")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_prepare_removes_litter_of_the_dead_only(host: LocalHost) -> None:
    """Half-made folders of a process that is gone go; those of a living one stay."""
    host.prepare()
    gone = subprocess.Popen(["true"])
    gone.wait()
    dead, living = (host.root / "runs" / f".r1.{pid}-abcd1234" for pid in (gone.pid, os.getpid()))
    dead.mkdir()
    living.mkdir()
    host.prepare()
    assert (dead.exists(), living.exists()) == (False, True)


def test_open_host_knows_its_kinds(tmp_path: Path) -> None:
    """An unknown kind and a missing root are the user's to mend."""
    host: Host = open_host(HostSpec("here", root=str(tmp_path)))
    assert host.spec.alias == "here"
    with pytest.raises(InputError, match="kind 'moon' is unknown; allowed are local"):
        open_host(HostSpec("there", kind="moon"))
    with pytest.raises(HostError, match="root is not set"):
        open_host(HostSpec("here"))


def test_scrub_leaves_nothing_a_terminal_obeys() -> None:
    """Escape sequences, control characters and bidirectional overrides are gone; letters of any language stay."""
    assert (
        scrub("\x1b[31mred\x1b[0m \x1b]0;title\x07größe\t漢\u202e\x00")
        == "redgröße".replace("red", "red ") + " 漢\ufffd\ufffd"
    )
    assert scrub("x" * 10_000) == "x" * 500


def test_remove_tree_does_not_follow_links(tmp_path: Path) -> None:
    """A link inside goes, what it points to stays."""
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep" / "file").write_text("x")
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "link").symlink_to(tmp_path / "keep")
    remove_tree(str(tmp_path / "gone"))
    assert (tmp_path / "keep" / "file").exists()
    assert not (tmp_path / "gone").exists()
