"""Words of torch, numpy and the field that a walk through a script knows, and small questions about them."""

from __future__ import annotations

import ast
import re

from golfctl.audit.marks import Value, join
from golfctl.audit.names import named

NO_GRAD = {"no_grad", "inference_mode"}
SIZES = {"shape", "ndim", "dtype", "device", "size", "nbytes", "itemsize"}
SAME = {"to", "cuda", "cpu", "eval", "train", "half", "float", "bfloat16", "double", "compile", "requires_grad_"}
FEW = 4
"""Parts of a literal that a loop goes through one by one, up to its turns."""
PLAIN = {
    "get",
    "to",
    "item",
    "append",
    "add",
    "update",
    "step",
    "sum",
    "mean",
    "keys",
    "values",
    "items",
    "split",
    "view",
    "size",
}
ANSWERS = {"numel", "len", "size", "dim", "isinstance", "print", "randint", "rand", "randn", "randperm", "synchronize"}
BLANK = {
    "zeros",
    "ones",
    "empty",
    "full",
    "zeros_like",
    "ones_like",
    "empty_like",
    "full_like",
    "new_zeros",
    "new_ones",
    "arange",
}
COSTS = {"cross_entropy", "nll_loss"}
WHOLE = {"mean", "sum", "item"}
HASHES = {"hash", "crc32", "adler32", "blake2b", "md5", "sha1", "sha256", "xxh64", "mmh3"}
LOOKS = {"index_select", "take", "embedding"}
LESSER = {"minimum", "fmin", "min", "amin", "maximum", "fmax", "max", "amax"}
LIBRARIES = {
    "torch",
    "np",
    "numpy",
    "F",
    "math",
    "os",
    "dist",
    "nn",
    "json",
    "zlib",
    "lzma",
    "time",
    "Path",
    "glob",
    "sp",
    "random",
}
WARM = re.compile(r"(^|[_ ])(warm(?!_?down)|prime|precompile)", re.IGNORECASE)
BYTES = re.compile(r"(byte|utf|^raw$|^nb$|^blen$|_nb$)", re.IGNORECASE)
TOTAL = re.compile(r"(sum|total|mean|avg|val_|train_|best)", re.IGNORECASE)
NET = re.compile(r"model|(^|_| )net|fwd|forward|head|emb|compiled|(^|_| )(lm|gpt)( |$)", re.IGNORECASE)
TALKS = re.compile(r"^(score|eval|log|print|report|record|say|tell|warn|write|note|show|emit)", re.IGNORECASE)


def words(node: ast.AST) -> set[str]:
    """Names and attributes in a piece of code."""
    return set(named(node))


def element(value: Value) -> Value:
    """One of the things a value holds."""
    return join(value.parts).plus(*value.marks) if value.parts else Value(value.marks)


def validation(value: Value) -> bool:
    """Whether a value is made of validation text."""
    return value.has("val")


def plain(node: ast.AST) -> bool:
    """Whether a call shows all that it gives: then what it leaves out has its default."""
    if not isinstance(node, ast.Call):
        return False
    return not any(isinstance(part, ast.Starred) for part in node.args) and all(part.arg for part in node.keywords)


def outcome(test: ast.expr, given: object) -> bool | None:
    """Whether `name == "text"`, `!=`, `in (...)` or `not in (...)` holds for a name of this text; None for another form."""
    if not isinstance(test, ast.Compare) or len(test.ops) != 1 or not isinstance(given, str):
        return None
    other, how = test.comparators[0], test.ops[0]
    held: bool | None = None
    if isinstance(how, ast.Eq | ast.NotEq) and isinstance(other, ast.Constant):
        held = given == other.value
    elif isinstance(how, ast.In | ast.NotIn) and isinstance(other, ast.Tuple | ast.List | ast.Set):
        texts = [part.value for part in other.elts if isinstance(part, ast.Constant)]
        held = given in texts if len(texts) == len(other.elts) else None
    return not held if held is not None and isinstance(how, ast.NotEq | ast.NotIn) else held
