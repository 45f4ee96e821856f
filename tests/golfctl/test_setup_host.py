"""Making a bare machine ready: downloads from a real and unreliable server, a real virtual environment, kills in between."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import importlib.metadata
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from golfctl.hostside import environment, fetch, package, setup
from golfctl.hostside.processes import process_table

pytestmark = pytest.mark.service
BODY = os.urandom(1 << 20)
Requests = list[tuple[str, str | None]]


class Server(http.server.ThreadingHTTPServer):
    """Serves BODY at /MODE[-COUNT]/name: the first COUNT answers go wrong in that manner, the later ones are right."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: Requests = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """Clients go away in these tests."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        span = self.headers.get("Range")
        with self.server.lock:
            self.server.seen.append((self.path, span))
            number = sum(1 for path, _ in self.server.seen if path == self.path)
        mode, _, count = self.path.split("?")[0].split("/")[1].partition("-")
        wrong = number <= int(count or 1 << 30)
        start = int(span.split("=")[1].rstrip("-")) if span and mode != "norange" else 0
        if mode == "missing":
            self.send_error(404)
        elif mode == "error" and wrong:
            self.send_error(503)
        elif mode == "empty" and wrong:
            self.answer(200, b"", 0)
        elif mode == "short" and wrong:
            self.answer(200, BODY[:1000], 1000)
        elif mode == "drop" and wrong:  # the connection ends in the middle of what was announced
            self.answer(206 if start else 200, BODY[start : start + 300_000], len(BODY) - start, start)
        elif mode == "changed" and wrong:
            self.answer(200, BODY[:-1] + bytes([BODY[-1] ^ 1]), len(BODY))
        elif mode == "long":
            self.answer(200, BODY + b"more", len(BODY) + 4)
        elif mode == "page":
            self.answer(200, b"<html>quota exceeded</html>" * 60000, 27 * 60000)
        else:
            cut = len(BODY) // 2 if mode == "norange" and number == 1 else len(BODY)
            self.answer(206 if start else 200, BODY[start:cut], len(BODY) - start, start)

    def answer(self, status: int, content: bytes, announced: int, start: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(announced))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    """A server on a port the system chose; its requests are in `seen`."""
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def silent(_: str) -> None:
    """Nobody listens."""


def wanted(url: str, path: str = "fineweb_train_000000.bin", **changes: Any) -> dict[str, Any]:
    """An entry of `files` for BODY."""
    return {"path": path, "bytes": len(BODY), "sha256": hashlib.sha256(BODY).hexdigest(), "url": url, **changes}


def get(folder: Path, *entries: dict[str, Any], say: Callable[[str], None] = silent) -> dict[str, Any]:
    """Fetch without pauses."""
    return fetch.fetch_all(str(folder), entries, say, pause_s=0.0)


def names(folder: Path) -> list[str]:
    """Files that are there, without the note of what was verified."""
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != fetch.VERIFIED
    )


# -- files


def test_fetch_once_and_never_again(server: Server, tmp_path: Path) -> None:
    """Files arrive in their folders, byte for byte; the second call asks the server nothing and reads nothing."""
    entries = [wanted(f"{server.url}/ok/{name}", f"sub/{name}") for name in ("a.bin", "b.bin", "c.model")]
    assert get(tmp_path, *entries) == {"present": 0, "fetched": 3, "bytes": 3 * len(BODY)}
    assert names(tmp_path) == ["sub/a.bin", "sub/b.bin", "sub/c.model"]
    assert (tmp_path / "sub" / "b.bin").read_bytes() == BODY
    asked = len(server.seen)
    assert get(tmp_path, *entries) == {"present": 3, "fetched": 0, "bytes": 0}
    assert len(server.seen) == asked


@pytest.mark.parametrize("mode", ["empty-3", "short-3", "changed-3", "error-2", "drop-3", "norange-1"])
def test_fetch_from_an_unreliable_server(server: Server, tmp_path: Path, mode: str) -> None:
    """0 bytes, too few, a flipped bit, a server error, broken connections: asked again until the file is right."""
    said: list[str] = []
    get(tmp_path, wanted(f"{server.url}/{mode}/x"), say=said.append)
    assert (tmp_path / "fineweb_train_000000.bin").read_bytes() == BODY
    assert names(tmp_path) == ["fineweb_train_000000.bin"]
    assert sum("trying again" in line for line in said) == len(server.seen) - 1
    assert len(server.seen) == int(mode.partition("-")[2]) + 1


def test_fetch_goes_on_where_a_connection_broke(server: Server, tmp_path: Path) -> None:
    """What has arrived is not fetched twice: the requests name the byte to go on from."""
    get(tmp_path, wanted(f"{server.url}/drop-3/x"))
    assert [span for _, span in server.seen] == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


@pytest.mark.parametrize(
    ("mode", "why", "asked"),
    [
        ("empty", "0 bytes of 1048576 arrived", 4),
        ("short", "1000 of 1048576 bytes arrived", 4),
        ("changed", "sha256 [0-9a-f]{12}, [0-9a-f]{12} expected", 4),
        ("long", "longer than 1048576 bytes", 4),
        ("page", "longer than 1048576 bytes", 4),
        ("missing", "Not Found", 1),
    ],
)
def test_fetch_gives_up_and_leaves_no_wrong_file(
    server: Server, tmp_path: Path, mode: str, why: str, asked: int
) -> None:
    """After four tries the error says what arrived and from where, without the secrets of the URL; no name holds wrong bytes."""
    with pytest.raises(OSError, match=why) as error:
        get(tmp_path, wanted(f"{server.url}/{mode}/x?token=secret"))
    assert "secret" not in str(error.value)
    assert f"({asked} tries, from {server.url}/{mode}/x)" in str(error.value)
    assert len(server.seen) == asked
    assert all(name.endswith(".part") for name in names(tmp_path))


def test_fetch_counts_failures_and_keeps_the_rest(server: Server, tmp_path: Path) -> None:
    """One bad file does not undo the others, and the message counts the bad ones."""
    entries = [
        wanted(f"{server.url}/{mode}/x", name) for mode, name in (("missing", "a"), ("ok", "b"), ("missing", "c"))
    ]
    with pytest.raises(OSError, match=r"^a: .*\(and 1 more of 3 files\)$"):
        get(tmp_path, *entries)
    assert names(tmp_path) == ["b"]


def test_fetch_replaces_a_file_that_changed(server: Server, tmp_path: Path) -> None:
    """A file of the right size and other content is found, though it was verified before it changed."""
    entry = wanted(f"{server.url}/ok/x", "d.bin")
    get(tmp_path, entry)
    (tmp_path / "d.bin").write_bytes(bytes(len(BODY)))
    assert get(tmp_path, entry)["fetched"] == 1
    assert (tmp_path / "d.bin").read_bytes() == BODY
    (tmp_path / "d.bin").write_bytes(b"")
    assert get(tmp_path, entry)["fetched"] == 1


def test_fetch_from_the_host_itself(tmp_path: Path) -> None:
    """A path on the host serves as well; one that is not there fails at once."""
    (tmp_path / "image").write_bytes(BODY)
    entry = {**wanted("", "d.bin", source=str(tmp_path / "image")), "url": None}
    assert get(tmp_path / "data", entry)["fetched"] == 1
    assert (tmp_path / "data" / "d.bin").read_bytes() == BODY
    with pytest.raises(OSError, match="No such file"):
        get(tmp_path / "data", {**entry, "path": "e.bin", "source": str(tmp_path / "nothing")})


def test_fetch_refuses_what_does_not_fit(tmp_path: Path) -> None:
    """More than the disk holds is refused before the first byte."""
    with pytest.raises(OSError, match=r"are to come and .* are free; make room"):
        get(tmp_path, wanted("http://127.0.0.1:9/x", bytes=1 << 60))


@pytest.mark.parametrize(
    "change",
    [
        {"path": "../x"},
        {"path": "/etc/x"},
        {"bytes": 0},
        {"bytes": "9"},
        {"sha256": "00"},
        {"url": "file:///etc/passwd"},
        {"url": "ftp://127.0.0.1/x"},
        {"source": "/x"},
        {"url": None},
    ],
)
def test_fetch_refuses_a_bad_list(tmp_path: Path, change: dict[str, Any]) -> None:
    """Nothing is fetched for a list with a wrong entry."""
    with pytest.raises(ValueError, match=r"files\[0\]"):
        get(tmp_path, {**wanted("http://127.0.0.1:9/x"), **change})


# -- the environment


def wheel(folder: Path, name: str, version: str) -> None:
    """A package made on the fly: one module with a version."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    entries = {
        f"{name}.py": f'__version__ = "{version}"\n',
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, text in entries.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text)}\n"
    entries[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in entries.items():
            archive.writestr(path, text)


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], subprocess.Popen[str]]]:
    """Starts `setup` as a host does: a process of the travelling file. Ends what is left."""
    file = tmp_path / "golfctl.pyz"
    file.write_bytes(package.single_file())
    started: list[subprocess.Popen[str]] = []

    def start(request: dict[str, Any]) -> subprocess.Popen[str]:
        command = [sys.executable, "-I", str(file), "tool", "setup"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdin
        process.stdin.write(json.dumps(request))
        process.stdin.close()
        process.stdin = None
        return process

    yield start
    for process in started:
        with contextlib.suppress(OSError):
            process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def answer(process: subprocess.Popen[str]) -> tuple[dict[str, Any], list[str]]:
    """The end of a setup: its last answer and what it said."""
    output, _ = process.communicate(timeout=240)
    lines = [json.loads(line) for line in output.splitlines()]
    return lines[-1], [line["say"] for line in lines[:-1]]


def test_setup_makes_an_environment_once(pods: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """Two at once make one; a third does nothing in under a second; other pins change it in place; a kill is made good."""
    wheels, root = tmp_path / "wheels", tmp_path / "root"
    for version in ("1.0", "1.1"):
        wheel(wheels, "tinypkg", version)
    request: dict[str, Any] = {
        "root": str(root),
        "requirements": ["# pinned", "tinypkg==1.0  # why not"],
        "imports": ["tinypkg"],
        "find_links": str(wheels),
        "no_index": True,
    }
    both = [pods(request), pods(request)]
    ends = [answer(process) for process in both]
    assert sorted(end["done"]["changed"] for end, _ in ends) == [False, True]
    assert any("Successfully installed tinypkg-1.0" in line for _, said in ends for line in said)
    for end, _ in ends:
        assert end["done"]["versions"] == {"tinypkg": "1.0"}
    python = ends[0][0]["done"]["python"]
    assert python == str(root / "venv" / "bin" / "python")

    times = []
    for _ in range(3):
        again = setup.run(request, silent)
        assert again["changed"] is False
        times.append(again["wall_s"])
    assert min(times) < 1.0

    changed = setup.run({**request, "requirements": ["tinypkg==1.1"]}, silent)
    assert (changed["changed"], changed["versions"]) == (True, {"tinypkg": "1.1"})

    # Killed before it is complete: no installer goes on, nothing claims to be ready, and the next call makes it whole.
    request["system_site_packages"] = True
    killed = pods(request)
    assert killed.stdout
    for line in killed.stdout:
        if "tinypkg" in line:
            break
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    wait_until(lambda: not using(python))
    (root / "venv" / environment.MARKER).unlink(missing_ok=True)  # where the kill came too late to matter
    end, said = answer(pods(request))
    assert (end["done"]["changed"], end["done"]["versions"]) == (True, {"tinypkg": "1.0"})
    assert said[0] == f"making {root / 'venv'}"


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Poll; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def using(python: str) -> list[int]:
    """Processes with this interpreter on their command line."""
    found = []
    for pid in process_table():
        with contextlib.suppress(OSError):
            if python.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def test_setup_tells_what_cannot_be_installed(tmp_path: Path) -> None:
    """A package that is nowhere is named, and the environment does not count as ready. The system's pip serves."""
    (tmp_path / "wheels").mkdir()
    request = {
        "root": str(tmp_path / "root"),
        "requirements": ["no-such-thing==1"],
        "find_links": str(tmp_path / "wheels"),
    }
    with pytest.raises(OSError, match=r"packages could not be installed: .*no-such-thing==1"):
        setup.run({**request, "no_index": True, "system_site_packages": True, "imports": []}, silent)
    assert not (tmp_path / "root" / "venv" / environment.MARKER).exists()


def test_setup_keeps_torch_of_the_system(tmp_path: Path) -> None:
    """Where torch is installed already it is verified and kept, and the note says that another was asked for."""
    wheel(tmp_path / "wheels", "tinypkg", "1.0")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "v")], check=True)
    python = str(tmp_path / "v" / "bin" / "python")
    # A path file makes this machine's real torch visible there, as a system's own packages are.
    spec = importlib.util.find_spec("torch")
    assert spec
    assert spec.origin
    torch = Path(spec.origin).parent.parent
    site = next((tmp_path / "v" / "lib").glob("python*")) / "site-packages"
    (site / "machine.pth").write_text(f"{torch}\n")
    wish = {"torch": "torch==1.0", "requirements": ["torch==1.0", "tinypkg"], "system_site_packages": True}
    installer = [sys.executable, "-I", "-m", "pip", "--python", python, "--no-input", "install"]
    request = {"find_links": str(tmp_path / "wheels"), "no_index": True}
    notes = environment.install(python, installer, {**wish, "torch_index_url": ""}, request, silent, ())
    version = importlib.metadata.version("torch")
    assert notes == [f"torch {version} of the system kept; torch==1.0 was asked for"]
    assert environment.verify(python, ["tinypkg"]) == {"tinypkg": "1.0"}


def test_setup_without_a_way_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's Python without python3-venv: what to install is named. A Python whose venv fails stands for it."""
    broken = tmp_path / "python3"
    broken.write_text("#!/bin/sh\necho 'Error: ensurepip is not available.'\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "_base_executable", str(broken))
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(OSError, match=r"ensurepip is not available.*install your system's python3-venv package, or uv"):
        setup.run({"root": str(tmp_path / "root"), "requirements": []}, silent)


def test_setup_hides_passwords_of_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address of a private index is neither on a command line nor in the error."""
    monkeypatch.setenv("PIP_RETRIES", "0")
    url = "http://me:hunter2@127.0.0.1:9/simple"
    said: list[str] = []
    request = {"root": str(tmp_path), "requirements": ["tinypkg"], "index_url": url, "imports": []}
    seen: list[bytes] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            for pid in process_table():
                with contextlib.suppress(OSError):
                    seen.append(Path(f"/proc/{pid}/cmdline").read_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with pytest.raises(OSError, match="packages could not be installed") as error:
            setup.run({**request, "system_site_packages": True}, said.append)
    finally:
        stop.set()
        watcher.join()
    assert any(b"requirements.txt" in line for line in seen)
    assert not any(b"hunter2" in line for line in seen)
    assert "hunter2" not in str(error.value) + "".join(said)


@pytest.mark.parametrize("line", ["--index-url http://x", "-e .", "a\n-e b"])
def test_setup_refuses_options_as_requirements(tmp_path: Path, line: str) -> None:
    """Requirement lines are packages, not options."""
    with pytest.raises(ValueError, match="options are not allowed"):
        setup.run({"root": str(tmp_path), "requirements": [line]}, silent)


# -- the whole


def test_setup_data_and_caches(server: Server, pods: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """Files and cache folders through the travelling file, without an environment; what it says is progress."""
    request = {
        "root": str(tmp_path / "root"),
        "venv": False,
        "data": str(tmp_path / "data"),
        "files": [wanted(f"{server.url}/empty-1/x", "x.bin")],
        "retry_s": 0.0,
    }
    end, said = answer(pods(request))
    done = end["done"]
    assert done["files"] == {"present": 0, "fetched": 1, "bytes": len(BODY)}
    assert said == ["x.bin: 0 bytes of 1048576 arrived; trying again", "x.bin: complete (1 of 1)"]
    for folder in done["env"].values():
        assert Path(folder).is_dir()
    assert set(done["env"]) == {"TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"}
    bad, _ = answer(pods({**request, "files": [wanted(f"{server.url}/missing/y", "y.bin")]}))
    assert re.match(r"y\.bin: .*Not Found \(1 tries, from http://127\.0\.0\.1:\d+/missing/y\)", bad["error"])


def test_setup_cache_leaves_a_network_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a network file system the caches go elsewhere, and the note says so; someone else's folder is refused."""
    monkeypatch.setattr(setup, "filesystem", lambda _: "nfs4")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    place, note = setup.local_cache(str(tmp_path / "net"))
    assert place == str(tmp_path / "tmp" / f"golfctl-cache-{os.getuid()}")
    assert "network file system (nfs4)" in note
    assert not (tmp_path / "net").exists()
    if os.getuid() == 0:
        os.chown(place, 12345, 12345)
        with pytest.raises(OSError, match="belongs to someone else"):
            setup.local_cache(str(tmp_path / "net"))
