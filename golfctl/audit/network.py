"""S9: the network."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from golfctl.audit.names import called, named, walk

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


def network(tree: ast.Module) -> Found:
    """S9: anything that reaches for the network in a script that is shipped to be scored."""
    asked = {node.attr for node in walk(tree) if isinstance(node, ast.Attribute) and "socket" in named(node.value)}
    quiet = {"socket"} if asked and asked <= {"gethostname", "getfqdn"} else set()
    for node in walk(tree):
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
        for item in walk(part):
            if isinstance(item, ast.Constant) and isinstance(item.value, str):
                words += item.value.split()
    fetch = next((word for word in words if _FETCHERS.search(word)), None)
    if fetch and not {"rev-parse", "diff", "log", "status", "freeze", "list", "show", "describe", "--version"} & set(
        words
    ):
        yield node.lineno, f"starts {fetch}"
