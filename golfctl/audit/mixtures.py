"""S4, S5, S6, S7: probabilities made with the help of the token they are of. Heuristics on names; each finding is a warning."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from golfctl.audit.names import LOSS, PROB, TARGET, assigned, called, functions, named, walk

_HASH_CALLS = {"bitwise_xor", "bitwise_and", "remainder", "fmod", "hash", "blake2b", "crc32"}
_READS = {"take", "gather", "index_select", "take_along_dim", "get"}
_GATE = re.compile(
    r"(^|_)(gate\w*|hints?|boost\w*|tilt\w*|alpha\w*|lam|lambda_\w+|within\w*|is_word\w*|mix_w\w*|bias)($|_)",
    re.IGNORECASE,
)
_STREAM = re.compile(r"^(val_)?(tokens?|ids|toks|stream|text|data|seq|all_tokens|targets?)(_np)?$")
_COUNT = re.compile(r"(byte|len|^nb$|count)", re.IGNORECASE)

Found = Iterator[tuple[int, str]]


def hashed_target(tree: ast.Module) -> Found:
    """S4: a hash of the target picks the bucket whose count becomes its probability, and no other bucket is looked at."""
    makers = {item.name for item in functions(tree) if any(_returns_key(node) for node in walk(item))}
    seen: set[int] = set()
    for function in functions(tree):
        keys = {name for name, value in assigned(function) if _key(value) or called(value) in makers}
        for node in walk(function):
            line = _read_by(node, keys, makers)
            if line and line not in seen:
                seen.add(line)
                yield (
                    line,
                    "the bucket of the target alone is looked up: its key hashes the target, so nothing is normalised",
                )


def _returns_key(node: ast.AST) -> bool:
    return isinstance(node, ast.Return) and node.value is not None and _key(node.value)


def _key(value: ast.AST) -> bool:
    """Whether an expression hashes a target: an xor, or a product taken modulo or masked, with the target inside."""
    for node in walk(value):
        hashing = isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitXor)
        hashing = hashing or called(node) in _HASH_CALLS - {"bitwise_and", "remainder", "fmod"}
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod | ast.BitAnd):
            hashing = hashing or any(
                isinstance(part, ast.BinOp) and isinstance(part.op, ast.Mult) for part in walk(node)
            )
        if hashing and any(TARGET.match(name) for name in named(node)):
            return True
    return False


def _read_by(node: ast.AST, keys: set[str], makers: set[str]) -> int:
    """Line of a read of a table at such a key; 0 for anything else, counting (`np.add.at`, `table[key] += 1`) included."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        index = node.slice
        if _key(index) or called(index) in makers or (isinstance(index, ast.Name) and index.id in keys):
            return node.lineno
        whole = [part for part in walk(index) if isinstance(part, ast.Name)]
        if whole and all(part.id in keys for part in whole[:1]) and isinstance(index, ast.Subscript):
            return node.lineno
    if called(node) in _READS and isinstance(node, ast.Call):
        for argument in node.args:
            if isinstance(argument, ast.Name) and argument.id in keys:
                return node.lineno
    return 0


def gate_on_target(tree: ast.Module) -> Found:
    """S5: what weighs the prediction of a token is looked up by that token."""
    for function in functions(tree):
        for node in walk(function):
            if not isinstance(node, ast.Assign):
                continue
            names = [name for name, _ in assigned(node) if _GATE.search(name)]
            if names and _looks_up_target(node.value) and _weighs(function, names[0]):
                yield node.lineno, f"{names[0]} is looked up by the target and weighs its own prediction"
        yield from _gate_in_loop(function)


def _looks_up_target(value: ast.AST) -> bool:
    for node in walk(value):
        if isinstance(node, ast.Subscript) and any(TARGET.match(name) for name in named(node.slice)):
            return True
        if called(node) in {"isin", "eq", "index_select", "take"} and any(TARGET.match(name) for name in named(node)):
            return True
    return False


def _weighs(function: ast.AST, gate: str) -> bool:
    """Whether the gate stands in arithmetic, or in a choice, with something like a probability."""
    for node in walk(function):
        if isinstance(node, ast.BinOp) or called(node) in {"where", "lerp", "logaddexp"}:
            words = set(named(node))
            if gate in words and any(PROB.search(word) or LOSS.search(word) for word in words - {gate}):
                return True
    return False


def _gate_in_loop(function: ast.AST) -> Found:
    """The same written position by position: a gate from tokens[i] where tokens[i] is what is scored."""
    for loop in walk(function):
        if not isinstance(loop, ast.For) or not isinstance(loop.target, ast.Name):
            continue
        index = loop.target.id
        scored = {
            ast.dump(node)
            for item in walk(loop)
            if isinstance(item, ast.Subscript) and any(PROB.search(word) for word in named(item.value))
            for node in walk(item.slice)
            if _plain(node, index)
        }
        for item in walk(loop):
            if not isinstance(item, ast.Assign) or not any(_GATE.search(name) for name, _ in assigned(item)):
                continue
            if any(_plain(node, index) and ast.dump(node) in scored for node in walk(item.value)):
                yield item.lineno, f"the gate at {index} reads the token at {index}, which it helps to predict"


def _plain(node: ast.AST, index: str) -> bool:
    """`tokens[i]`."""
    return (
        isinstance(node, ast.Subscript)
        and isinstance(node.slice, ast.Name)
        and node.slice.id == index
        and isinstance(node.value, ast.Name)
        and bool(_STREAM.match(node.value.id))
    )


def best_of_losses(tree: ast.Module) -> Found:
    """S6: the smaller of two losses of the true token: a choice made with knowledge of it."""
    for node in walk(tree):
        name = called(node)
        if not isinstance(node, ast.Call):
            continue
        if (name in {"minimum", "fmin"} and len(node.args) == 2 and all(map(_token_losses, node.args))) or (
            name == "min"
            and len(node.args) == 2
            and isinstance(node.func, ast.Attribute)
            and all(map(_token_losses, node.args))
        ):
            yield node.lineno, "the smaller of two losses of each true token counts"
        elif name in {"min", "amin"} and _stacked(node):
            yield node.lineno, "the smallest of several losses of each true token counts"
        elif (
            name == "where"
            and len(node.args) == 3
            and isinstance(node.args[0], ast.Compare)
            and all(map(_token_losses, node.args[1:]))
        ):
            compared = {ast.dump(part) for part in (node.args[0].left, *node.args[0].comparators)}
            if any(ast.dump(part) in compared for part in node.args[1:]):
                yield node.lineno, "of two losses of each true token the smaller is chosen"


def _token_losses(node: ast.AST) -> bool:
    words = [word for word in named(node) if word not in {"torch", "np", "float"}]
    return any(LOSS.search(word) for word in words) and not any("clip" in word or "scale" in word for word in words)


def _stacked(node: ast.Call) -> bool:
    """`torch.stack([nll_a, nll_b]).min(0)` or `torch.min(torch.stack([...]), 0)`."""
    source = node.func.value if isinstance(node.func, ast.Attribute) else None
    return any(part is not None and called(part) == "stack" and _token_losses(part) for part in [source, *node.args])


def spread_over_bytes(tree: ast.Module) -> Found:
    """S7: a probability of several bytes spread as p^(1/n): what each byte gets does not sum to one over the alphabet."""
    for node in walk(tree):
        base, exponent = _power(node)
        if base is None or exponent is None or not _one_over(exponent):
            continue
        if any(PROB.search(word) for word in named(base)) and any(_COUNT.search(word) for word in named(exponent)):
            yield (
                getattr(node, "lineno", 0),
                "a token's probability is spread over its bytes as p^(1/n), which is no distribution of a byte",
            )


def _power(node: ast.AST) -> tuple[ast.expr | None, ast.expr | None]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return node.left, node.right
    if called(node) in {"pow", "power"} and isinstance(node, ast.Call):
        if len(node.args) == 2:
            return node.args[0], node.args[1]
        if len(node.args) == 1 and isinstance(node.func, ast.Attribute):
            return node.func.value, node.args[0]
    return None, None


def _one_over(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Div)
        and isinstance(node.left, ast.Constant)
        and node.left.value == 1
    )
