"""S8, S9, S10: a look back without document bounds, the network, and byte counts of another table."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from golfctl.audit.names import called, functions, named

_BOUNDS = re.compile(r"(bos|eos|doc|boundar|cu_?seq|segment|starts|separator|varlen)", re.IGNORECASE)
_LOOKS_BACK = re.compile(r"(smear|prev|shift)", re.IGNORECASE)
_NETWORK = {"requests", "urllib", "urllib3", "http", "socket", "httpx", "aiohttp", "ftplib", "boto3", "wget", "gdown"}
_DOWNLOADS = {
    "hf_hub_download",
    "snapshot_download",
    "load_dataset",
    "urlretrieve",
    "urlopen",
    "wget",
    "load_state_dict_from_url",
}
_FETCHERS = re.compile(r"(curl|wget|pip|huggingface-cli|aws|gsutil|git)$")

Found = Iterator[tuple[int, str]]


def unbounded_look_back(tree: ast.Module) -> Found:
    """S8: the token before is mixed in, and nothing asks whether it belongs to the same document."""
    for item in ast.walk(tree):
        if not isinstance(item, ast.ClassDef) or not (_LOOKS_BACK.search(item.name) or _mentions_smear(item)):
            continue
        forward = next(
            (one for one in item.body if isinstance(one, ast.FunctionDef) and one.name in {"forward", "__call__"}), None
        )
        if forward is None or any(_BOUNDS.search(name) for name in _words(item)):
            continue
        line = next((node.lineno for node in ast.walk(forward) if isinstance(node, ast.Call) and _one_later(node)), 0)
        if line:
            yield line, f"{item.name} mixes in the token before, across the bounds of documents"


def _mentions_smear(item: ast.ClassDef) -> bool:
    return any("smear" in name.lower() for name in named(item) if name != item.name) and len(item.body) < 6


def _words(item: ast.AST) -> Iterator[str]:
    yield from named(item)
    for node in ast.walk(item):
        if isinstance(node, ast.arg):
            yield node.arg


def _one_later(node: ast.AST) -> bool:
    """`x[:, :-1]` put behind something, or `x.roll(1)`."""
    if called(node) == "roll" and isinstance(node, ast.Call):
        return True
    if called(node) in {"cat", "concat", "concatenate", "pad"}:
        return any(isinstance(part, ast.Slice) and _minus_one(part.upper) for part in ast.walk(node))
    return False


def _minus_one(node: ast.AST | None) -> bool:
    return (
        isinstance(node, ast.UnaryOp)
        and isinstance(node.op, ast.USub)
        and isinstance(node.operand, ast.Constant)
        and node.operand.value == 1
    )


def network(tree: ast.Module) -> Found:
    """S9: anything that reaches for the network in a script that is shipped to be scored."""
    asked = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and "socket" in named(node.value)}
    quiet = {"socket"} if asked and asked <= {"gethostname", "getfqdn"} else set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] in _NETWORK - quiet and alias.name not in {"http", "urllib.parse"}:
                    yield node.lineno, f"imports {alias.name}"
        elif (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").partition(".")[0] in _NETWORK
            and node.module != "urllib.parse"
        ):
            yield node.lineno, f"imports from {node.module}"
        elif isinstance(node, ast.ImportFrom) and any(one.asname and one.name in _DOWNLOADS for one in node.names):
            yield node.lineno, f"imports a downloader from {node.module} under another name"
        elif (
            isinstance(node, ast.Call) and called(node) in {"import_module", "__import__"} and _modules(node) & _NETWORK
        ):
            yield node.lineno, f"imports {min(_modules(node) & _NETWORK)}"
        elif isinstance(node, ast.Call) and called(node) == "load" and "hub" in named(node.func):
            yield node.lineno, "calls torch.hub.load"
        elif isinstance(node, ast.Call) and called(node) in _DOWNLOADS:
            yield node.lineno, f"calls {called(node)}"
        elif isinstance(node, ast.Call) and called(node) in {
            "run",
            "Popen",
            "check_call",
            "check_output",
            "system",
            "call",
        }:
            yield from _child(node)


def _modules(node: ast.Call) -> set[str]:
    """Top-level packages that are imported by a name in a string."""
    return {
        part.value.partition(".")[0]
        for part in node.args[:1]
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    }


def _child(node: ast.Call) -> Found:
    words: list[str] = []
    for part in node.args[:1]:
        for item in ast.walk(part):
            if isinstance(item, ast.Constant) and isinstance(item.value, str):
                words += item.value.split()
    fetch = next((word for word in words if _FETCHERS.search(word)), None)
    if fetch and not {"rev-parse", "diff", "log", "status", "freeze", "list", "show", "describe", "--version"} & set(
        words
    ):
        yield node.lineno, f"starts {fetch}"


def byte_tables(tree: ast.Module) -> Found:
    """S10: a table of bytes a token, made from sentencepiece, that does not count as the canonical one does.

    Canonical (the contest's train_gpt.py): control, unknown and unused pieces 0; byte pieces 1; else the UTF-8 bytes of the piece
    without its leading space mark, and that space as 1 byte unless the token before is a boundary.
    """
    for function in functions(tree):
        calls = {called(node) for node in ast.walk(function)}
        if not calls & {"id_to_piece", "IdToPiece"} or not calls & {"encode", "len"}:
            continue
        text = {
            node.value for node in ast.walk(function) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        counted = [node for node in ast.walk(function) if isinstance(node, ast.Call) and called(node) == "len"]
        pieces = [node for node in counted if any("piece" in name.lower() or name == "encode" for name in named(node))]
        if not pieces:
            continue
        line = pieces[0].lineno
        if not calls & {"is_byte", "IsByte"}:
            yield line, "byte pieces such as <0xE2> are not counted as one byte"
        if all(called(node.args[0]) != "encode" for node in pieces if node.args):
            yield line, "a piece is counted in characters, not in UTF-8 bytes"
        if not any("▁" in item for item in text):
            yield line, "the mark of a leading space is counted as its three UTF-8 bytes"
        elif _keeps_space(function) and any("leading_space" in name for name in named(function)):
            yield line, "a leading space is counted in the piece and once more beside it"


def _keeps_space(function: ast.AST) -> bool:
    """Whether the mark is replaced by a space before counting, where it should be cut off."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and called(node) == "replace" and len(node.args) == 2:
            values = [part.value for part in node.args if isinstance(part, ast.Constant)]
            if values == ["▁", " "]:
                return True
    return False
