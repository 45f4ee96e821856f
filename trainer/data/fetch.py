"""`python -m trainer.data fetch`: published shards and their tokenizer into a folder that DATA_PATH can name.

What is published lies under one address as the contest lays it out: `manifest.json`, the shards
`datasets/fineweb10B_<variant>/fineweb_val_000000.bin`, `fineweb_train_000000.bin` and on, and tokenizers at the paths that the
manifest states. The manifest says how many shards there are; where it also has `files` ({path: {"bytes": n, "sha256": hex}}),
each file must match its entry. The contest's has none: then length, header and token count must agree with each other, and the
sha256 of what arrived is kept.

The folder's own `manifest.json`, written last, lists every file with size and sha256; `trainer.data.dataset` holds it to that.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from trainer.contract import write_file
from trainer.data import download, shards
from trainer.data.errors import DataError
from trainer.data.files import sha256_of_file
from trainer.data.prepare import MANIFEST

MOST_SHARDS = 10**6
"""Their names have six digits."""
MOST_OTHER = 1 << 26
"""Bytes of a manifest or a tokenizer's model: a thousand times the contest's."""
LONGEST_SILENCE = 3600.0
"""Seconds: more than any server needs, less than a socket can't count."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Wanted:
    """One file to have: its path under the address, and what is known of it beforehand."""

    path: str
    size: int | None
    sha256: str | None

    @property
    def name(self) -> str:
        """What it is called in the folder."""
        return PurePosixPath(self.path).name


def fetch(
    base: str, variant: str, train_shards: int | None, folder: Path, how: download.How, say: Callable[[str], None]
) -> None:
    """Bring the shards of `variant` ("sp1024", "byte260", ...) from `base` into `folder`, and say a line for each file.

    train_shards: how many, the first ones; None: all. A file that is there and right is kept, another is replaced when the new
    one is complete. Raises DataError: one line that names the file, what is wrong with it, and how often it was tried.
    """
    _check_call(base, how)
    with _own(folder):
        published = folder / f".published-{MANIFEST}"
        address = f"{base.rstrip('/')}/{MANIFEST}"
        download.download(address, published, how, _manifest_problem, most=lambda head: MOST_OTHER)
        manifest = _manifest(published)
        published.unlink()
        earlier, listed = _listed(folder), {}
        for wanted in _wanted(manifest, variant, train_shards):
            listed[wanted.name] = _one(base, wanted, folder, earlier.get(wanted.name), how, say)
        _check_counts(manifest, variant, folder, list(listed))
        content = {"from": base, "variant": variant, "files": dict(sorted((earlier | listed).items()))}
        write_file(folder / MANIFEST, (json.dumps(content, indent=1) + "\n").encode())
    say(f"complete:{folder} files:{len(listed)} bytes:{sum(entry['bytes'] for entry in listed.values())}")


def _one(
    base: str,
    wanted: Wanted,
    folder: Path,
    before: dict[str, Any] | None,
    how: download.How,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Have one file; `before` is its entry in the folder's manifest. Returns the new one."""
    path = folder / wanted.name
    kept = path.exists() and _problem(path, wanted) is None
    if kept and before is not None:
        kept = sha256_of_file(path) == before.get("sha256")
    if not kept:
        download.download(
            f"{base.rstrip('/')}/{wanted.path}",
            path,
            how,
            lambda part: _problem(part, wanted),
            most=_most_of_shard if wanted.name.endswith(".bin") else lambda head: MOST_OTHER,
            size=wanted.size,
            resume=wanted.sha256 is not None,
        )
    entry = {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
    known = "as published" if wanted.sha256 else "not published, kept for later"
    state = "kept" if kept else "fetched"
    say(f"{state}:{wanted.name} bytes:{entry['bytes']} sha256:{entry['sha256'][:16]}... ({known})")
    return entry


def _check_call(base: str, how: download.How) -> None:
    """Raise DataError for an address that no path can be put behind, and for times and numbers that make no sense."""
    if not base.startswith(("http://", "https://")) or "?" in base or "#" in base:
        raise DataError(f"--base {base}: must be an http or https address without ? and #")
    if not 0 < how.timeout <= LONGEST_SILENCE:  # refuses nan, too
        raise DataError(f"--timeout {how.timeout:g}: must be over 0 and at most {LONGEST_SILENCE:g} seconds")
    if how.retries < 0:
        raise DataError(f"--retries {how.retries}: must be at least 0")


def _most_of_shard(head: bytes) -> int:
    """Bytes of the shard that begins like this; of what is none (an error page, to be told as such) not many."""
    count = shards.announced(head)
    return MOST_OTHER if count is None else shards.HEADER_BYTES + 2 * count


def _problem(path: Path, wanted: Wanted) -> str | None:
    """What is wrong with a file, or None: size, then header and token count, then hash."""
    size = path.stat().st_size
    if wanted.size is not None and size != wanted.size:
        return f"{size} bytes, the manifest says {wanted.size}"
    if wanted.name.endswith(".bin"):
        try:
            shards.read(path)
        except DataError as error:
            return str(error).removeprefix(f"{path}: ")
    if size == 0:
        return "0 bytes"
    if wanted.sha256 is not None and (found := sha256_of_file(path)) != wanted.sha256:
        return f"sha256 {found[:16]}..., the manifest says {wanted.sha256[:16]}..."
    return None


def _manifest_problem(path: Path) -> str | None:
    """The published manifest must be a JSON object; anything else is likely an error page."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):  # brackets in brackets, a hundred thousand deep
        return "not JSON"
    return None if isinstance(found, dict) else "not a JSON object"


def _manifest(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _dataset(manifest: dict[str, Any], variant: str) -> dict[str, Any]:
    """The manifest's entry of a variant. Raises DataError that lists what there is."""
    name = f"fineweb10B_{variant}"
    entries: dict[str, dict[str, Any]] = {}
    try:
        for entry in manifest["datasets"]:
            if not all(0 <= int(entry["stats"][key]) < MOST_SHARDS for key in ("files_train", "files_val")):
                raise ValueError(entry)
            entries[str(entry["name"])] = entry
    except (KeyError, TypeError, ValueError, OverflowError):  # the last: Infinity, which is JSON to Python
        raise DataError(
            f"{MANIFEST}: must list datasets, each with name and stats.files_train, stats.files_val"
        ) from None
    if name not in entries:
        known = ", ".join(sorted(key.removeprefix("fineweb10B_") for key in entries)) or "none"
        raise DataError(f"{MANIFEST}: no dataset {name}; variants there are {known}")
    return entries[name]


def _wanted(manifest: dict[str, Any], variant: str, train_shards: int | None) -> Iterator[Wanted]:
    """Validation shards, the tokenizer's model, then training shards. Raises DataError for a manifest that makes no sense."""
    entry = _dataset(manifest, variant)
    train, val = int(entry["stats"]["files_train"]), int(entry["stats"]["files_val"])
    if train_shards is not None and not 1 <= train_shards <= train:
        raise DataError(f"--train-shards {train_shards}: {variant} has 1 to {train}")
    folder = f"datasets/{entry['name']}"
    paths = [f"{folder}/fineweb_val_{number:06d}.bin" for number in range(val)]
    models = [str(tool["model_path"]) for tool in _tokenizers(manifest, entry) if tool.get("model_path")]
    paths += models
    paths += [f"{folder}/fineweb_train_{number:06d}.bin" for number in range(train_shards or train)]
    known = manifest.get("files", {})
    for path in paths:
        if not all(_NAME.fullmatch(part) for part in path.split("/")):
            raise DataError(f"{MANIFEST}: {path!r} is no path to write to")
    # In the folder they lie side by side: a model must not take the place of a shard, of the manifest or of another model.
    names = {path.split("/")[-1] for path in models}
    if len(names) < len(models) or not all(name.endswith(".model") for name in names):
        raise DataError(f"{MANIFEST}: model_path {', '.join(models)}: must be *.model, each with a name of its own")
    for path in paths:
        yield _with_facts(path, known)


def _tokenizers(manifest: dict[str, Any], entry: dict[str, Any]) -> list[dict[str, Any]]:
    found = manifest.get("tokenizers", [])
    if not isinstance(found, list) or not all(isinstance(tool, dict) for tool in found):
        raise DataError(f"{MANIFEST}: tokenizers must be a list of objects")
    return [tool for tool in found if tool.get("name") == entry.get("tokenizer_name")]


def _with_facts(path: str, known: Any) -> Wanted:
    try:
        facts = known.get(path)
        if facts is None:
            return Wanted(path, None, None)
        size, digest = int(facts["bytes"]), str(facts["sha256"]).lower()
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        raise DataError(f"{MANIFEST}: files[{path!r}] must hold bytes and sha256") from None
    if size < 1 or not re.fullmatch("[0-9a-f]{64}", digest):
        raise DataError(f"{MANIFEST}: files[{path!r}] must hold bytes and sha256")
    return Wanted(path, size, digest)


def _check_counts(manifest: dict[str, Any], variant: str, folder: Path, names: list[str]) -> None:
    """Where the manifest states how many tokens a part has and all of its shards are here, they must add up."""
    stats = _dataset(manifest, variant)["stats"]
    for part in ("val", "train"):
        held = [name for name in names if name.startswith(f"fineweb_{part}_")]
        if len(held) != int(stats[f"files_{part}"]) or not isinstance(stats.get(f"tokens_{part}"), int):
            continue
        found = sum(shards.read(folder / name).size for name in held)
        if found != stats[f"tokens_{part}"]:
            raise DataError(
                f"{folder}: the {part} shards hold {found} tokens, the published manifest says {stats[f'tokens_{part}']}"
            )


def _listed(folder: Path) -> dict[str, dict[str, Any]]:
    """What the folder's manifest says of the files that are still there; nothing if there is none, or not one of ours."""
    with contextlib.suppress(OSError, ValueError, KeyError, AttributeError, TypeError):
        held = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        return {name: dict(entry) for name, entry in held.items() if _NAME.fullmatch(name) and (folder / name).exists()}
    return {}


@contextlib.contextmanager
def _own(folder: Path) -> Iterator[None]:
    """The folder, made if need be, for this process alone. Raises DataError if it can't be that, or the disk refuses."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".fetch.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(f"{folder}: another process fetches into it") from None
            yield
    except OSError as error:
        raise DataError(f"{error.filename or folder}: can't be written ({error.strerror})") from None
