"""What names of the field mean, and small questions to a syntax tree. Shared by the checks on code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

TARGET = re.compile(
    r"^(y|ys|y_\w+|tgts?|tgt_\w+|targets?|target_(?:np|ids?|tok\w*|t|i|flat)|labels?|true_(?:tok|id)\w*|next_(?:tok|id)\w*|gold\w*|actual\w*)$"
)
LOSS = re.compile(r"(^|_)(nlls?|loss(es)?|ce|xent|neg_?logp|bits|scored_nll)(_|\d|$)", re.IGNORECASE)
PROB = re.compile(
    r"(^|_)(p|ps|probs?|probabilit\w*|p_\w+|mix|mixture|mixed|logits?|log_?probs?|logp|lp)(_|\d|$)", re.IGNORECASE
)
VALIDATION = re.compile(
    r"(^|_)(val|valid|validation)_?(tokens?|data|ids|x|y|xs|ys|inputs?|targets?|batch|loader|files?|shards?|stream|seqs?|docs?|np|path\w*|pattern)$",
    re.IGNORECASE,
)

Function = ast.FunctionDef | ast.AsyncFunctionDef
_LARGE = ast.Module | ast.ClassDef | Function | ast.For | ast.While
_KEPT = "_golfctl_nodes"


def walk(node: ast.AST) -> Iterable[ast.AST]:
    """`ast.walk`, which many checks ask of the same code: what hangs below a large node is kept with it."""
    if not isinstance(node, _LARGE):
        return ast.walk(node)
    held = vars(node)
    if _KEPT not in held:
        held[_KEPT] = tuple(ast.walk(node))
    nodes: tuple[ast.AST, ...] = held[_KEPT]
    return nodes


def functions(tree: ast.AST) -> Iterator[Function]:
    """Every function, methods and inner ones included."""
    for node in walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def named(node: ast.AST) -> Iterator[str]:
    """Names and attributes that stand in an expression."""
    for item in walk(node):
        if isinstance(item, ast.Name):
            yield item.id
        elif isinstance(item, ast.Attribute):
            yield item.attr


def called(node: ast.AST) -> str:
    """The last word of what a call calls: `minimum` of `torch.minimum(...)`; "" for anything else."""
    if not isinstance(node, ast.Call):
        return ""
    return last(node.func)


def last(node: ast.expr) -> str:
    """The last word of a dotted name; "" for anything else."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def assigned(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """(name, value) of each assignment in a piece of code; of `a, b = f()` both names."""
    for item in walk(node):
        targets: list[ast.expr] = []
        value: ast.expr | None = None
        if isinstance(item, ast.Assign):
            targets, value = item.targets, item.value
        elif isinstance(item, ast.AnnAssign | ast.AugAssign | ast.NamedExpr):
            targets, value = [item.target], item.value
        elif isinstance(item, ast.For | ast.comprehension):
            targets, value = [item.target], item.iter
        if value is not None:
            for target in targets:
                for name in _bound(target):
                    yield name, value


def _bound(target: ast.expr) -> Iterator[str]:
    if isinstance(target, ast.Name):
        yield target.id
    elif isinstance(target, ast.Attribute):
        yield target.attr
    elif isinstance(target, ast.Tuple | ast.List):
        for part in target.elts:
            yield from _bound(part)
    elif isinstance(target, ast.Starred):
        yield from _bound(target.value)


def parents(tree: ast.AST) -> dict[ast.AST, ast.AST]:
    """Each node's parent."""
    return {child: node for node in walk(tree) for child in ast.iter_child_nodes(node)}


def above(node: ast.AST, up: dict[ast.AST, ast.AST]) -> Iterator[ast.AST]:
    """Parent, its parent, and so on."""
    while node in up:
        node = up[node]
        yield node
