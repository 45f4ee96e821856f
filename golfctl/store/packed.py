"""Source text inside a script: `exec(lzma.decompress(base64.b85decode("...")))`, decoded by us and never executed.

Only plain chains are followed: literals, names bound once, `+`, the decoders of base64, zlib, gzip, bz2 and lzma, encode and
decode, compile. Whatever else a script does to itself stays closed, and that is said.
"""

from __future__ import annotations

import ast
import base64
import binascii
import bz2
import lzma
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from golfctl.store.syntax import MAX_BYTES, Budget, TooLargeError

MAX_DICTIONARY = 1 << 27
MAX_DEPTH = 40
_CHARACTERS = 100
"""So many characters of a text that was made cost as much as a node."""
_TOO_LONG = f"it holds more than {MAX_BYTES:,} bytes"

_TEXT_CODES: dict[str, Callable[[Any], bytes]] = {
    "b64decode": base64.b64decode,
    "standard_b64decode": base64.b64decode,
    "urlsafe_b64decode": base64.urlsafe_b64decode,
    "b85decode": base64.b85decode,
    "a85decode": base64.a85decode,
    "b32decode": base64.b32decode,
    "b16decode": base64.b16decode,
}
_COMPRESSIONS = ("zlib", "gzip", "bz2", "lzma")
_FORMATS = {f"lzma.{name}": getattr(lzma, name) for name in ("FORMAT_AUTO", "FORMAT_XZ", "FORMAT_ALONE", "FORMAT_RAW")}
_FILTERS = {f"lzma.{name}": getattr(lzma, name) for name in dir(lzma) if name.startswith(("FILTER_", "PRESET_"))}
_MODULES = frozenset({"base64", *_COMPRESSIONS})


class _ClosedError(Exception):
    """What can't be followed, in words."""


@dataclass(frozen=True)
class Packed:
    """A script that runs another text: `line` of the exec, `inner` that text (None: `why` not), `how` it was wrapped."""

    line: int
    inner: bytes | None
    how: str
    why: str = ""


def find(tree: ast.Module) -> Packed | None:
    """The text that a module-level `exec` of this syntax tree runs; None if there is no such call."""
    for statement in tree.body:
        call = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "exec" and call.args:
            return _Opener(tree).open(call)
    return None


class _Opener:
    def __init__(self, tree: ast.Module) -> None:
        self.names: dict[str, str] = {}  # a name of the script to `module` or `module.member`
        self.values: dict[str, ast.expr] = {}
        self.steps: list[str] = []
        self.known: dict[str, Any] = {}
        self.budget = Budget()
        bound: Counter[str] = Counter()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self.names |= {item.asname or item.name: item.name for item in node.names if item.name in _MODULES}
            elif isinstance(node, ast.ImportFrom) and node.module in _MODULES:
                self.names |= {item.asname or item.name: f"{node.module}.{item.name}" for item in node.names}
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                bound[node.id] += 1
        for statement in tree.body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                name = statement.targets[0].id
                if bound[name] == 1 and len(statement.targets) == 1:
                    self.values[name] = statement.value

    def open(self, call: ast.Call) -> Packed:
        try:
            text = self.value(call.args[0], 0)
            if not isinstance(text, str | bytes):
                raise _ClosedError("it runs something that is no text")
        except _ClosedError as error:
            return Packed(call.lineno, None, self.how, str(error))
        except TooLargeError as error:
            return Packed(call.lineno, None, self.how, f"it is {error}")
        except (
            ValueError,
            TypeError,
            LookupError,
            EOFError,
            zlib.error,
            lzma.LZMAError,
            OSError,
            binascii.Error,
        ) as error:
            return Packed(call.lineno, None, self.how, f"it can't be decoded: {error}")
        return Packed(call.lineno, text.encode() if isinstance(text, str) else text, self.how)

    @property
    def how(self) -> str:
        return ", ".join(dict.fromkeys(self.steps)) or "exec"

    def value(self, node: ast.expr, depth: int) -> Any:
        """The text an expression stands for. Raises _ClosedError, and what a decoder raises on damage."""
        if depth > MAX_DEPTH:
            raise _ClosedError("it is wrapped too deeply")
        self.budget.spend()
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name) and node.id in self.values:
            if node.id not in self.known:
                self.known[node.id] = self.value(self.values[node.id], depth + 1)
            return self.known[node.id]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self._limited(self.value(node.left, depth + 1) + self.value(node.right, depth + 1))
        if isinstance(node, ast.Call):
            return self._call(node, depth)
        raise _ClosedError(f"line {node.lineno} computes it: {_short(node)}")

    def _call(self, node: ast.Call, depth: int) -> Any:
        name = self.dotted(node.func)
        if name == "compile" and node.args:
            return self.value(node.args[0], depth + 1)
        module, _, member = name.rpartition(".")
        if module == "base64" and member in _TEXT_CODES and len(node.args) == 1:
            inner = self.value(node.args[0], depth + 1)
            self.steps.append(member.removesuffix("decode").replace("b", "base", 1))
            return self._limited(_TEXT_CODES[member](inner))
        if module in _COMPRESSIONS and member == "decompress" and node.args:
            content = self.value(node.args[0], depth + 1)
            self.steps.append(module)
            return self._inflate(module, content, node)
        if isinstance(node.func, ast.Attribute) and node.func.attr in {"decode", "encode"} and not node.keywords:
            inner, codec = self.value(node.func.value, depth + 1), "utf-8"
            if node.args and isinstance(node.args[0], ast.Constant):
                codec = str(node.args[0].value)
            if codec.lower().replace("_", "-") not in {"utf-8", "utf8", "ascii", "latin-1", "latin1"}:
                raise _ClosedError(f"line {node.lineno} uses the codec {codec!r}")
            return inner.decode(codec) if node.func.attr == "decode" else inner.encode(codec)
        raise _ClosedError(f"line {node.lineno} computes it: {_short(node)}")

    def dotted(self, node: ast.expr) -> str:
        """`L.decompress` as `lzma.decompress`, through the imports."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return f"{self.names.get(node.value.id, '?')}.{node.attr}"
        return "?"

    def _inflate(self, module: str, content: bytes, node: ast.Call) -> bytes:
        decoder: Any
        if module == "lzma":
            decoder = self._lzma(node)
        elif len(node.args) > 1 or node.keywords:
            raise _ClosedError(f"line {node.lineno}: {module}.decompress with options")
        else:
            decoder = bz2.BZ2Decompressor() if module == "bz2" else zlib.decompressobj(31 if module == "gzip" else 15)
        found: bytes = decoder.decompress(content, MAX_BYTES + 1)
        if not decoder.eof and len(found) <= MAX_BYTES and not (module == "lzma" and self._raw(node)):
            raise _ClosedError(f"line {node.lineno}: its {module} stream is cut off")
        self._limited(found)
        return found

    def _raw(self, node: ast.Call) -> bool:
        """Raw lzma has no mark at its end that must be there."""
        return any(item.arg == "format" and self.dotted(item.value) == "lzma.FORMAT_RAW" for item in node.keywords)

    def _lzma(self, node: ast.Call) -> lzma.LZMADecompressor:
        form, filters = lzma.FORMAT_AUTO, None
        for item in node.keywords:
            if item.arg == "format" and (name := self.dotted(item.value)) in _FORMATS:
                form = _FORMATS[name]
            elif item.arg == "filters":
                filters = self._filters(item.value)
            else:
                raise _ClosedError(f"line {node.lineno}: lzma.decompress with {item.arg}")
        if form == lzma.FORMAT_RAW:
            return lzma.LZMADecompressor(form, filters=filters)
        return lzma.LZMADecompressor(form, memlimit=2 * MAX_DICTIONARY)

    def _filters(self, node: ast.expr) -> list[dict[str, int]]:
        """`[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}]`, with a dictionary that fits into memory."""
        found = []
        for item in node.elts if isinstance(node, ast.List | ast.Tuple) else []:
            if not isinstance(item, ast.Dict):
                raise _ClosedError(f"line {node.lineno}: lzma filters that are no plain list")
            pairs = zip(item.keys, item.values, strict=True)
            chain = {str(key.value): self._number(value) for key, value in pairs if isinstance(key, ast.Constant)}
            if chain.get("dict_size", 0) > MAX_DICTIONARY:
                raise _ClosedError(f"line {node.lineno}: an lzma dictionary of {chain['dict_size']:,} bytes")
            found.append(chain)
        return found

    def _number(self, node: ast.expr) -> int:
        if (name := self.dotted(node)) in _FILTERS:
            return int(_FILTERS[name])
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.LShift | ast.Pow | ast.BitOr):
            left, right = self._number(node.left), self._number(node.right)
            if isinstance(node.op, ast.BitOr):
                return left | right
            if 0 <= left <= 64 and 0 <= right <= 32:
                return left << right if isinstance(node.op, ast.LShift) else left**right
        raise _ClosedError(f"line {node.lineno}: an lzma option that is computed")

    def _limited(self, content: Any) -> Any:
        if len(content) > MAX_BYTES:
            raise _ClosedError(_TOO_LONG)
        self.budget.spend(len(content) // _CHARACTERS)
        return content


def _short(node: ast.expr) -> str:
    """What an expression calls, or its kind: the whole could be the packed text."""
    if isinstance(node, ast.Call):
        return f"a call of {ast.unparse(node.func)[:60]}"
    return type(node).__name__.lower()
