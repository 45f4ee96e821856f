"""What torch, numpy and arithmetic do with marked values, and what of it S1 to S7 want to hear of."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from golfctl.audit.marks import NOTHING, Mark, Value, mixed
from golfctl.audit.names import LOSS, PROB, last
from golfctl.audit.things import Routine, Thing
from golfctl.audit.vocabulary import (
    ANSWERS,
    BLANK,
    BYTES,
    COSTS,
    HASHES,
    LESSER,
    LIBRARIES,
    LOOKS,
    NET,
    TALKS,
    TOTAL,
    WARM,
    WHOLE,
    element,
    validation,
    words,
)

if TYPE_CHECKING:
    from golfctl.audit.follow import Walk


def model(walk: Walk, node: ast.Call, given: list[Value], named_: dict[str, Value]) -> Value:
    """A model is asked: logits for one text, a cost where the targets are given too."""
    texts = [value for value in [*given, *named_.values()] if value.has("val") or value.has("tok")]
    walk.asked.add(id(node))
    whole = mixed([*given, *named_.values()]).without("look", "count", "truth", "pred").plus(("pred",))
    if not texts:
        return whole.without("pred") if not given else whole
    if any(validation(value) for value in texts) and any(WARM.search(word) for word in walk.words[1:]):
        walk.seen.say("S2", walk.at(node), "a warm-up runs the model on validation tokens")
    if len(texts) > 1:
        walk.seen.target(texts[1])
        return _truth(walk, whole.plus(("truth",), ("whole",)))
    return whole


def _truth(walk: Walk, value: Value) -> Value:
    """A cost or probability of true tokens: late where these were learnt from before, counted where nothing learns."""
    if validation(value) and walk.seen.is_late(value, walk.path):
        value = value.plus(("late",))
    if walk.still and validation(value):
        walk.seen.score(value, walk.path)
    return value


def call(walk: Walk, node: ast.Call, word: str, holder: Value, given: list[Value], named_: dict[str, Value]) -> Value:
    """A call of something the package does not define."""
    values = [holder, *given, *named_.values()]
    all_ = mixed(values)
    if word in {"append", "extend", "add"} and isinstance(node.func, ast.Attribute):
        return _collected(walk, node, holder, given)
    if word in {"backward", "grad"}:
        return _learnt(walk, node, word, holder, given)
    if word == "step":
        return _stepped(walk, node, given)
    if word == "requires_grad_" or getattr(named_.get("requires_grad"), "thing", None) is True:
        return (
            Value(all_.marks | {("leaf", id(node))})
            if word == "requires_grad_"
            else Value(frozenset({("leaf", id(node))}))
        )
    if word == "Parameter":
        return all_.plus(("leaf", id(node)))
    if word in BLANK:
        return Value(frozenset({("mask", id(node), walk.path, True)}))
    if word == "len":
        return Value(frozenset({("count",)})) if any(BYTES.search(name) for name in words(node)) else NOTHING
    if word in ANSWERS or (word == "range" and not all_.marks):
        return NOTHING
    if word == "range":
        return Value(frozenset(all_.of("turn")))
    return _numbers(walk, node, word, holder, given, all_, named_)


def _numbers(
    walk: Walk, node: ast.Call, word: str, holder: Value, given: list[Value], all_: Value, named_: dict[str, Value]
) -> Value:
    """Calls that calculate."""
    if word in COSTS and len(given) + len(named_) >= 2:
        target = given[1] if len(given) > 1 else named_.get("target", NOTHING)
        walk.seen.target(target)
        apart = getattr(named_.get("reduction"), "thing", None) == "none"
        return _truth(walk, all_.without("look", "pred").plus(("truth",), *(() if apart else (("whole",),))))
    if word in {"gather", "take_along_dim", "take_along_axis"}:
        return _gathered(walk, node, holder, given, all_)
    if word in HASHES:
        return all_.plus(("hashed",))
    if word in LOOKS and given and given[-1].has("tok"):
        return _bucket(walk, node, given[-1], all_.plus(_look(given[-1])).without("val"))
    if word == "get" and given and given[0].has("hashed"):
        return _bucket(walk, node, given[0], all_)
    if word in LESSER:
        lesser(walk, node, word, holder, given, all_)
    if word == "where" and len(given) == 3:
        return _chosen(walk, node, given)
    if word == "lerp" and len(given) >= 2:
        first, second, weight = (
            ([holder, *given] if holder.marks else given)[-3:]
            if len(given) + bool(holder.marks) >= 3
            else (NOTHING,) * 3
        )
        if weight.has("look") and (first.has("truth") or second.has("truth")):
            _gate(walk, node, weight)
    if word in {"log1p"} and given and given[0].has("look"):
        return all_.plus(("rest",))
    if word in {"exp", "exp_", "repeat_interleave", "expand", "repeat"} and all_.has("share"):
        walk.seen.say("S7", walk.at(node), "a token's log-probability is divided by its bytes and spread over them")
    if word in {"logaddexp"} and len(given) == 2:
        return _sum(walk, node, given[0], given[1], all_)
    if word in {"pow", "power", "float_power"}:
        pair = given if len(given) == 2 else [holder, *given]
        if len(pair) == 2:
            return power(walk, node, pair[0], pair[1], all_)
    if word == "reciprocal" and (all_.has("count") or any(_counts(name) for name in words(node))):
        return Value(frozenset({("inverse",)}))
    if word in WHOLE and all_.has("truth"):
        if word == "item":
            counted(walk, node, all_)
        return all_.plus(("whole",))
    if word == "float" and not isinstance(node.func, ast.Attribute):
        counted(walk, node, all_)
    if word == "stack" and all_.has("truth"):
        return all_.plus(("stack",))
    if word in {"enumerate", "zip", "tqdm", "reversed", "list", "tuple", "iter", "sorted"}:
        return _paired(word, given, all_)
    return _other(walk, node, word, holder, given, named_, all_)


def _other(
    walk: Walk, node: ast.Call, word: str, holder: Value, given: list[Value], named_: dict[str, Value], all_: Value
) -> Value:
    """A call of something unknown: of a model, if text is given to what is neither a library nor a text itself."""
    wrapped = next((value for value in given if isinstance(value.thing, Thing)), None)
    if wrapped is not None and not all_.has("val"):
        return wrapped
    root = node.func
    while isinstance(root, ast.Attribute | ast.Call | ast.Subscript):
        root = root.func if isinstance(root, ast.Call) else root.value
    library = isinstance(root, ast.Name) and (root.id in LIBRARIES or root.id[:1].isupper())
    text = any(value.has("tok") or value.has("val") for value in given)
    if word and re.search(r"load\w*val|val\w*(tokens|load)", word):
        return all_.plus(("val",))
    if text and not library and (NET.search(" ".join(words(node.func))) or walk.variable(node.func)):
        asked = model(walk, node, given, named_)
        return Value(asked.marks | holder.without("val", "tok").marks)
    if TALKS.search(word) and validation(all_) and not isinstance(node.func, ast.Attribute):
        walk.seen.score(all_, walk.path)
    return all_


def _paired(word: str, given: list[Value], all_: Value) -> Value:
    if word == "zip":
        return Value(parts=(Value(parts=tuple(element(value) for value in given)),), thing=("many",))
    if word == "enumerate" and given:
        return Value(parts=(Value(parts=(NOTHING, element(given[0]))),), thing=("many",))
    return given[0] if given else all_


def _collected(walk: Walk, node: ast.Call, holder: Value, given: list[Value]) -> Value:
    assert isinstance(node.func, ast.Attribute)
    value = mixed(given)
    counted(walk, node, value)
    return NOTHING


def _learnt(walk: Walk, node: ast.Call, word: str, holder: Value, given: list[Value]) -> Value:
    engine = "autograd" in words(node.func)
    loss = given[0] if given and (engine or word == "grad") else holder
    if validation(loss) and (loss.has("truth") or loss.has("pred") or loss.has("leaf")):
        walk.seen.learn(loss, walk.at(node), walk.path, walk.stack)
        for leaf in loss.of("leaf"):
            for pick in loss.of("mask") | loss.of("sel"):
                walk.seen.fitted.add((leaf, (*pick, _turned(loss))))
    return Value(frozenset(loss.of("leaf")))


def _stepped(walk: Walk, node: ast.Call, given: list[Value]) -> Value:
    for value in given:
        if isinstance(value.thing, Routine):
            walk.enter(value.thing, [], {}, node)
    return NOTHING


def _turned(value: Value) -> frozenset[Mark]:
    return frozenset(value.of("turn"))


def counted(walk: Walk, node: ast.AST, value: Value) -> None:
    """A cost is added to a total, kept or returned."""
    if not value.has("truth") or not validation(value):
        return
    walk.seen.score(value, walk.path)
    fits(walk, node, value)


def fits(walk: Walk, node: ast.AST, value: Value) -> None:
    """Whether what is scored was made with something that these very positions fitted."""
    for leaf in value.of("leaf"):
        for pick in value.of("mask") | value.of("sel"):
            if (leaf, (*pick, _turned(value))) in walk.seen.fitted:
                walk.seen.say("S3", walk.at(node), "scored on the positions that what it is scored with was fitted on")


def returned(walk: Walk, node: ast.Return, value: Value) -> None:
    """What a function gives back."""
    learns = bool(walk.stack) and walk.stack[-1] in walk.seen.learners
    if learns and value.has("late") and value.has("whole") and validation(value):
        walk.seen.say("S1", walk.at(node), "gives back a cost of validation tokens that were learnt from before")
    if value.has("truth") and value.has("leaf"):
        fits(walk, node, value)


def dropped(walk: Walk, node: ast.expr, value: Value) -> None:
    """A statement whose value nobody keeps: a model run on validation tokens for nothing warms something up."""
    if id(node) in walk.asked and validation(value):
        ends = any("warmdown" in word.lower() for word in walk.words)
        if not ends and not value.has("leaf") and isinstance(node, ast.Call) and not TALKS.search(last(node.func)):
            walk.seen.say("S2", walk.at(node), "runs the model on validation tokens and drops what it says: a warm-up")


def compared(node: ast.Compare, value: Value) -> Value:
    """What `a < b` knows: which two stand against each other."""
    sides = [node.left, *node.comparators]
    if len(sides) == 2 and value.has("truth") and not any(isinstance(side, ast.Constant) for side in sides):
        return value.without("late").plus(("duel", frozenset(map(ast.unparse, sides))))
    return value.without("late")


def _look(index: Value) -> Mark:
    return ("look", frozenset(index.of("tok")))


def _gathered(walk: Walk, node: ast.Call, holder: Value, given: list[Value], all_: Value) -> Value:
    index = given[-1] if given else NOTHING
    if index.has("hashed"):
        return _bucket(walk, node, index, all_)
    if index.has("tok") or index.has("val"):
        walk.seen.target(index)
        return _truth(walk, all_.without("pred").plus(("truth",)))
    return all_


def _bucket(walk: Walk, node: ast.AST, key: Value, value: Value) -> Value:
    if not key.has("hashed"):
        return value
    return value.without("hashed").plus(("bucket", walk.at(node), frozenset(key.of("tok"))))


def _told(walk: Walk, value: Value) -> None:
    """A count from a bucket becomes a probability."""
    for mark in value.of("bucket"):
        if mark[2]:
            walk.seen.wait(
                "S4",
                mark[1],
                Value(mark[2]),
                "the bucket of the target alone is looked up: its key hashes the target, so nothing is normalised",
            )


def _gate(walk: Walk, node: ast.AST, weight: Value) -> None:
    for mark in weight.of("look") | weight.of("weighed"):
        walk.seen.wait(
            "S5", walk.at(node), Value(mark[1]), "a weight that is looked up by the target mixes its own prediction"
        )


def _chosen(walk: Walk, node: ast.Call, given: list[Value]) -> Value:
    test, one, other = given
    truths = one.has("truth") and other.has("truth") and not one.has("train")
    branches = frozenset(map(ast.unparse, node.args[1:3]))
    if any(mark[1] == branches for mark in test.of("duel")) and not one.has("train"):
        walk.seen.say("S6", walk.at(node), "of two costs of each true token one is chosen by looking at them")
    elif truths and test.has("look"):
        _gate(walk, node, test)
    return mixed([test.without("truth"), one, other])


def lesser(walk: Walk, node: ast.Call, word: str, holder: Value, given: list[Value], all_: Value) -> None:
    """min and max of costs, or of probabilities, of the same true tokens."""
    if all_.has("train"):
        return
    text = "the best of several costs of each true token is taken"
    true = [value for value in given if value.has("truth") and not value.has("bucket")]
    apart = [value for value in true if not value.has("whole")]
    if len(apart) > 1 and len({id(value) for value in apart}) > 1:
        walk.seen.say("S6", walk.at(node), text)
    many = [value for value in [*given[:1], holder] if value.parts and value.has("truth")]
    stacked = [value for value in [*given[:1], holder] if value.has("stack") and value.has("truth")]
    if (
        many
        and validation(many[0])
        and (len(many[0].parts or ()) > 1 or many[0].thing == ("many",))
        and len(given) == 1
    ) or stacked:
        walk.seen.say("S6", walk.at(node), text)


def part(walk: Walk, node: ast.Subscript, held: Value, index: Value) -> Value:
    """`held[index]`: a window of a text, what a table says, or the parts of a tuple."""
    if held.parts and isinstance(index.thing, int) and -len(held.parts) <= index.thing < len(held.parts):
        return held.parts[index.thing]
    value = mixed([held])
    if index.has("hashed") and isinstance(node.ctx, ast.Load):
        return _bucket(walk, node, index, value)
    slices = [
        item
        for item in (node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice])
        if isinstance(item, ast.Slice)
    ]
    if not value.has("pred") and not value.has("truth") and (value.has("val") or value.has("tok")):
        return _window(node, value, index, slices)
    tokens = index.has("tok")
    if tokens and isinstance(node.slice, ast.Tuple) and len(node.slice.elts) > 1 and not slices:
        walk.seen.target(index.parts[-1] if index.parts else index)
        return _truth(walk, Value(value.marks | index.without("look").marks | {("truth",)}))
    if tokens and not value.has("pred"):
        return Value(value.marks | index.of("turn") | {_look(index)})
    if slices:
        return value.plus(*index.of("turn"), *_picked(slices[-1]))
    return Value(value.marks | index.marks)


def _picked(piece: ast.Slice) -> set[Mark]:
    low, high = piece.lower, piece.upper
    if low is not None and high is None and not (isinstance(low, ast.Constant) and low.value in (0, 1)):
        return {("sel", "tail")}
    if low is None and high is not None and ast.unparse(high) != "-1":
        return {("sel", "head")}
    return set()


def _window(node: ast.Subscript, value: Value, index: Value, slices: list[ast.Slice]) -> Value:
    """A piece of a text: shifted where its bounds are plain numbers, a window of its own where they run."""
    turns = index.of("turn")
    base = value.of("tok") or {("tok", ("text", ast.unparse(_root(node))), 0)}
    rest = value.without("tok")
    if not slices:
        running = isinstance(node.slice, ast.Name)
        marks = {("tok", mark[1], "at") for mark in base} if running else set()
        if index.has("mask") or (value.of("tok") and not running):
            return Value(value.marks | turns | index.of("mask"))
        return Value(rest.marks | marks | turns)
    low, high = slices[-1].lower, slices[-1].upper
    if low is None or (isinstance(low, ast.Constant) and isinstance(low.value, int)) or isinstance(low, ast.UnaryOp):
        ends = high is None or isinstance(high, ast.Constant | ast.UnaryOp)
        step = low.value if isinstance(low, ast.Constant) and isinstance(low.value, int) else 0
        if low is None and not ends and not value.of("tok"):
            return Value(rest.marks | turns)
        if ends or value.of("tok"):
            moved = {(mark[0], mark[1], mark[2] + step if isinstance(mark[2], int) else mark[2]) for mark in base}
            return Value(
                rest.marks
                | moved
                | turns
                | (_picked(slices[-1]) if isinstance(low, ast.UnaryOp) or step == 0 else set())
            )
    if isinstance(low, ast.Name) and high is None and isinstance(low.ctx, ast.Load) and value.of("tok"):
        return Value(value.marks | turns | {("sel", "tail")})
    if (
        isinstance(high, ast.BinOp)
        and isinstance(high.op, ast.Add)
        and isinstance(high.left, ast.Name)
        and ast.unparse(high.right) == "1"
        and not value.of("tok")
    ):
        if not isinstance(low, ast.BinOp) or not isinstance(low.op, ast.Sub):
            return Value(rest.marks | turns)
        return Value(rest.marks | turns | {("tok", ("text", ast.unparse(_root(node))), "at")})
    return Value(rest.marks | turns | {("tok", (id(node), frozenset(turns)), 0)})


def _root(node: ast.expr) -> ast.expr:
    while isinstance(node, ast.Subscript):
        node = node.value
    return node


def combined(walk: Walk, node: ast.AST, how: ast.operator, left: Value, right: Value) -> Value:
    """`left how right`."""
    both = mixed([left, right])
    if (
        isinstance(how, ast.BitXor | ast.Mult | ast.LShift)
        and (both.has("tok") or both.has("val"))
        and not both.has("truth")
        and not both.has("pred")
    ):
        both = both.plus(("stirred",))
    if isinstance(how, ast.Mod | ast.BitAnd) and left.has("stirred") and not isinstance(left.thing, str):
        return both.without("stirred").plus(("hashed",))
    if isinstance(how, ast.BitXor) and both.has("stirred"):
        return both.plus(("hashed",))
    if isinstance(how, ast.Sub) and left.thing in (1, 1.0) and not left.marks:
        flipped = {("mask", mark[1], mark[2], not mark[3]) for mark in right.of("mask")}
        gone = right.without("mask") if flipped else both
        return gone.plus(*flipped, *((("rest",),) if right.has("look") else ()))
    if isinstance(how, ast.Div | ast.FloorDiv):
        return _divided(walk, node, left, right, both)
    if isinstance(how, ast.Pow):
        return power(walk, node, left, right, both)
    if isinstance(how, ast.Mult):
        return _product(walk, left, right, both)
    if isinstance(how, ast.Add):
        return _sum(walk, node, left, right, both)
    return both


def _divided(walk: Walk, node: ast.AST, left: Value, right: Value, both: Value) -> Value:
    _told(walk, left)
    names = words(node.right) if isinstance(node, ast.BinOp) else set()
    of_bytes = right.has("count") or any(mark for mark in right.of("look")) or any(_counts(name) for name in names)
    if left.thing in (1, 1.0) and not left.marks and of_bytes:
        return Value(frozenset({("inverse",)}))
    cost = left.has("truth") or (isinstance(node, ast.BinOp) and any(_cost(name) for name in words(node.left)))
    if cost and of_bytes and not left.has("whole") and not right.has("whole"):
        return both.plus(("share",))
    return both


def _counts(name: str) -> bool:
    return (bool(BYTES.search(name)) and not TOTAL.search(name)) or name in {"count", "counts", "n_bytes"}


def _cost(name: str) -> bool:
    return bool(LOSS.search(name) or PROB.search(name)) and not TOTAL.search(name)


def power(walk: Walk, node: ast.AST, base: Value, exponent: Value, both: Value) -> Value:
    """p ** (1 / n)."""
    names = (
        words(node.left)
        if isinstance(node, ast.BinOp)
        else words(node.args[0])
        if isinstance(node, ast.Call) and node.args
        else set()
    )
    if exponent.has("inverse") and (base.has("truth") or any(_cost(name) for name in names)):
        walk.seen.say(
            "S7",
            walk.at(node),
            "a token's probability is spread over its bytes as p^(1/n), which is no distribution of a byte",
        )
    return both


def _product(walk: Walk, left: Value, right: Value, both: Value) -> Value:
    for weight, other in ((left, right), (right, left)):
        if weight.has("look") and not weight.has("truth") and (other.has("truth") or other.has("pred")):
            kind = "restmix" if weight.has("rest") else "gatemix"
            looked = frozenset(token for mark in weight.of("look") for token in mark[1])
            return both.without("look", "rest").plus((kind, looked))
    return both


def _sum(walk: Walk, node: ast.AST, left: Value, right: Value, both: Value) -> Value:
    for one, other in ((left, right), (right, left)):
        rest = one.of("restmix") or ({("rest",)} if one.has("rest") and one.has("look") else set())
        if rest and (other.of("gatemix") or other.has("look") or other.has("truth")):
            for mark in one.of("restmix") | one.of("look"):
                walk.seen.wait(
                    "S5",
                    walk.at(node),
                    Value(mark[1]),
                    "a weight that is looked up by the target mixes its own prediction",
                )
    return both
