"""Lines that all families share: what a run is, what it weighs, how it scores, how it ends.

Each rule is a pattern for a whole line and what it means; every number is read strictly (`numbers`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from golfctl.logs import numbers
from golfctl.logs.damage import grown
from golfctl.logs.labels import KNOWN
from golfctl.logs.record import Eval

if TYPE_CHECKING:
    from golfctl.logs.builder import Builder

FACTS = {
    "model_params": "model_params",
    "total_params": "model_params",
    "world_size": "world_size",
    "grad_accum_steps": "grad_accum",
    "iterations": "iterations_planned",
    "max_wallclock_seconds": "max_wallclock_s",
    "seed": "seed",
    "params": "model_params",
    "ws": "world_size",
    "ga": "grad_accum",
    "s": "seed",
}
SHORT = frozenset({"params", "ws", "ga", "s"})
"""Keys that mean something only on the line of a model's dimensions."""
LABEL = r"(?!.*\b(?:step|train_loss|train_time|tok/s)\W*:)[A-Za-z][\w .:/+=()\-]{0,119}?"
_LOOSE = frozenset({"seed", "ws", "ga", "world_size", "grad_accum_steps"})

_PAIR = re.compile(r"(?:(?<=\s)|^)([A-Za-z_]\w*)[:=]\s?([^\s]+)(?=\s|$)")
_ASIDE = re.compile(r"\([^()]{0,200}\)")
_EVAL = re.compile(
    rf"(?P<label>{LABEL})[:\s]\s*val_loss:\s?(?P<loss>\S+?),?\s+(?:[a-z]+ )?val_bpb[:=]\s?(?P<bpb>[^\s,]+)(?P<rest>[\s,].*)?"
)
_PRINTABLE = re.compile(r"[ -~]*")
_EVAL_TIME = re.compile(r"(?:^|\s)(?:eval_)?time:\s?(\S+?)ms(?=\s|$)")
_DIMENSIONS = re.compile(r"(?:[\w-]+(?: [\w-]+)* \| )?params:\S+ .*\b(?:L|ws|d):\d")
_SETTINGS = re.compile(r"[\w]+=\S* (?:.* )?[\w]+=\S*")


def _facts(builder: Builder, line: int, text: str, keys: Callable[[str], bool]) -> bool:
    found = False
    for key, value in _PAIR.findall(text):
        if keys(key) and (name := FACTS.get(key)):
            found = True
            if name == "max_wallclock_s":
                builder.fact(name, numbers.real(value), line, text)
            else:
                builder.fact(name, numbers.whole(value), line, text)
    return found


def _fact_line(builder: Builder, line: int, match: re.Match[str]) -> bool:
    if re.search(r"\d", _PAIR.sub("", _ASIDE.sub("", match[0]))):
        builder.odd(line, match[0])
    return _facts(builder, line, match[0], lambda key: key not in SHORT)


def _dimensions(builder: Builder, line: int, match: re.Match[str]) -> bool:
    return _facts(builder, line, match[0].replace(" | ", " ").replace("(", " ").replace(")", " "), SHORT.__contains__)


def _settings(builder: Builder, line: int, match: re.Match[str]) -> bool:
    return _facts(builder, line, match[0], lambda key: key not in SHORT and key != "model_params")


def _uneven(loss: str, bpb: str) -> bool:
    """Both are printed with one format: where one has fewer digits, some were lost. Raw floats (over 8 digits) vary."""
    one, two = numbers.places(loss), numbers.places(bpb)
    return one != two and min(one, two) < 9 and "n" not in loss + bpb


def _evaluation(builder: Builder, line: int, match: re.Match[str]) -> bool:
    loss, bpb = numbers.real(match["loss"]), numbers.real(match["bpb"])
    digits = numbers.places(match["bpb"])
    if loss is None or bpb is None or _uneven(match["loss"], match["bpb"]):
        builder.damaged(line, match[0])
        return True
    time = _EVAL_TIME.search(match["rest"] or "")
    label = match["label"].strip().rstrip(":")
    if label not in KNOWN and any(grown(label, known) or known.endswith(label) for known in KNOWN):
        builder.odd(line, match[0])
    builder.evaluation(Eval(label, loss, bpb, numbers.real(time[1]) if time else None, digits, line))
    return True


def _size(field: str) -> Callable[[Builder, int, re.Match[str]], bool]:
    def act(builder: Builder, line: int, match: re.Match[str]) -> bool:
        size = numbers.whole(match["bytes"])
        if size is None or not _PRINTABLE.fullmatch(match[0]):
            builder.damaged(line, match[0])
        else:
            builder.size(field, size, line, match.groupdict().get("codec"))
        return True

    return act


def _ternary_artifact(builder: Builder, line: int, match: re.Match[str]) -> bool:
    builder.size("code", numbers.whole(match["code"]), line)
    return True


def _raw_and_code(builder: Builder, line: int, match: re.Match[str]) -> bool:
    builder.size("raw", numbers.whole(match["bytes"]), line)
    builder.size("code", numbers.whole(match["code"]), line)
    return True


def _parts(builder: Builder, line: int, match: re.Match[str]) -> bool:
    said = match.groupdict()
    for field in ("model", "code", "total"):
        if field in said:
            builder.size(field, numbers.whole(said[field]), line, said.get("codec"))
    return True


def _rounded(builder: Builder, line: int, match: re.Match[str]) -> bool:
    builder.rounded_artifact(match["codec"], numbers.real(match["total"]), line)
    return True


def _stopped(builder: Builder, line: int, match: re.Match[str]) -> bool:
    ms, step = match["ms"], match["step"]
    if numbers.real(ms or "") is None:
        builder.damaged(line, match[0])
    builder.stopped(numbers.real(ms or ""), numbers.whole(step or ""), line)
    return True


def _peak(builder: Builder, line: int, match: re.Match[str]) -> bool:
    builder.fact("peak_mem_mib", numbers.real(match["peak"]), line)
    if match["reserved"]:
        builder.fact("reserved_mem_mib", numbers.real(match["reserved"]), line)
    return True


def _total_eval(builder: Builder, line: int, match: re.Match[str]) -> bool:
    builder.fact("total_eval_time_s", numbers.real(match[1]), line)
    return True


def _loose(builder: Builder, line: int, match: re.Match[str]) -> bool:
    """Settings among other words, before the first step."""
    return builder.run.log.empty and _facts(builder, line, match[0], _LOOSE.__contains__)


def _val_tokens(builder: Builder, line: int, match: re.Match[str]) -> bool:
    builder.fact("val_tokens", numbers.whole(match[1]), line)
    return True


def _footer(builder: Builder, line: int, match: re.Match[str]) -> bool:
    builder.footer(match[1], match[2], line)
    return True


def _new_run(builder: Builder, line: int, match: re.Match[str]) -> bool:
    builder.header(line)
    return True


Act = Callable[["Builder", int, re.Match[str]], bool]
RULES: tuple[tuple[re.Pattern[str], Act], ...] = tuple(
    (re.compile(pattern), act)
    for pattern, act in (
        (_EVAL.pattern, _evaluation),
        (
            r"(?:seed|model_params|total_params|iterations|max_wallclock_seconds|grad_accum_steps|world_size):.*",
            _fact_line,
        ),
        (r"train_batch_tokens:\S+ .*", _fact_line),
        (_DIMENSIONS.pattern + ".*", _dimensions),
        (_SETTINGS.pattern, _settings),
        (r"Serialized model: (?P<bytes>\S+) bytes", _size("raw")),
        (r"Serialized model (?P<codec>\S.*?): (?P<bytes>\S+) bytes(?: .*)?", _size("model")),
        (r"serialized_model_(?P<codec>\w+):(?P<bytes>\S+) bytes(?: .*)?", _size("model")),
        (r"Code size(?: \(compressed\))?: (?P<bytes>\S+) bytes", _size("code")),
        (r"Total submission size (?P<codec>\S.*?): (?P<bytes>\S+) bytes", _size("total")),
        (r"artifact:\S+MB .*\bcode:(?P<code>\S+)", _ternary_artifact),
        (r"budget:(?P<bytes>\d+)/\d+ .*", _size("total")),
        (r"(?P<codec>[\w+./-]{3,}): \S+MB model \+ \S+MB code = (?P<total>\S+?)/\S+MB .*", _rounded),
        (r"stopping_early:(?:.*train_time: ?(?P<ms>\S+)ms)?(?: step: ?(?P<step>[^\s/]+)(?:/\S+)?)?.*", _stopped),
        (r"peak memory(?: allocated| consumption)?: (?P<peak>\S+) MiB(?: reserved: (?P<reserved>\S+) MiB)?", _peak),
        (r"Raw model: (?P<bytes>\S+) bytes \| Code: (?P<code>\S+) bytes \|.*", _raw_and_code),
        (r"(?P<codec>\S+) model: (?P<model>\S+) bytes \| Total submission: (?P<total>\S+) bytes", _parts),
        (r"model:(?P<model>\S+) code:(?P<code>\S+) total:(?P<total>\S+)(?: .*)?", _parts),
        (r"total_eval_time: ?(\S+)s", _total_eval),
        (r"val_loader:.* tokens: ?(\S+)", _val_tokens),
        (r"val_tokens: (\S+)", _val_tokens),
        (r"tokenizer:\S+ vocab_size:\d+ train_tokens:\d+ val_tokens:(\d+) val_bytes:\d+", _val_tokens),
        (r"(val_bpb|peak_vram_mb|num_steps|training_seconds): +(\S+)", _footer),
        (r"Running Python .*|Running PyTorch .*", _new_run),
        (r"[\w+]+:\S+ (?:.* )?(?:seed|ws|ga|world_size|grad_accum_steps):\d+(?: .*)?", _loose),
    )
)


_SURE_AT_END = (_evaluation, _stopped)
"""Rules that know by themselves whether a number at the end of a line is whole."""


def read(builder: Builder, line: int, text: str) -> bool:
    """Give what a line says to the builder; False if no rule knows it."""
    for pattern, act in RULES:
        match = pattern.fullmatch(text)
        if match and builder.open_end and text[-1].isdigit() and act not in _SURE_AT_END:
            builder.damaged(line, text)
            return True
        if match and act(builder, line, match):
            return True
    return False
