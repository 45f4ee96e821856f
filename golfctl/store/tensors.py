"""The weights of the bundled trainer's model as its settings describe them: shapes and bits, before anything is trained.

golfctl may not import the model (and torch with it), so a process of the trainer is asked, and its answers are kept. They hold
for the installed trainer only: `describes` says whether a bundle's model is that one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import subprocess
import sys
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from golfctl.errors import InputError
from golfctl.store.tree import Tree
from trainer.config import SettingsError, from_values
from trainer.contract import write_file

WEIGHT, TABLE, VECTOR = "weight", "table", "vector"
MOST_KEPT = 2000
"""Answers in the file; when there are more, it begins anew."""
_DECIDES = ("config.py", "options/", "artifact.py", "model/", "quant/", "tensors.py")
"""What decides the shapes and how they are stored."""
_SIZES = frozenset(
    {"TOKENIZER", "NUM_LAYERS", "MODEL_DIM", "NUM_HEADS", "NUM_KV_HEADS", "MLP_MULT", "SKIP_CONNECTIONS"}
)
_SIZES |= {"NGRAM_MAX_ORDER", "NGRAM_BUCKETS", "NGRAM_DIM", "NGRAM_LOGITS"}
"""Settings that change tensors and nothing else; any other may change what training makes of the ones that stay."""
_ROUNDING = frozenset({"MATRIX_BITS", "ATTN_BITS", "MLP_BITS", "EMBED_BITS", "TABLE_BITS", "INT8_STEP"})
_ROUNDING |= {f"{part}_CLIP_SIGMAS" for part in ("MATRIX", "ATTN", "MLP", "EMBED", "TABLE")}
"""The same where training sees exact weights, QAT_START=1."""
GROUP = 128
"""Ternary values that share a scale."""
LEVELS = {"int8": 127, "int6": 31, "int5": 15, "int4": 7, "int8x4": 31}
"""Symbols above zero; those of int8x4 are multiples of 4."""
ENTROPY = math.log2(math.sqrt(2 * math.pi * math.e))
"""Bits of a normal distribution in fine steps of its own spread."""


@dataclass(frozen=True)
class Tensor:
    """A weight of the artifact. kind: WEIGHT (matrix or embedding), TABLE (n-gram rows), VECTOR (float16).

    bits: of each value; a quantised one takes a whole byte before the codec. known: these are the bits behind it, not those of
    the grid: the codec finds next to nothing more. scale_bytes: of the float16 scales of its rows.
    """

    kind: str
    shape: tuple[int, ...]
    bits: float
    known: bool = False
    scale_bytes: int = 0

    @property
    def values(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    def coded(self, slack: float) -> float:
        """Bytes of its values behind a codec that saves `slack` bits of each; of coarse ones it saves less."""
        if self.known or self.kind == VECTOR:
            return self.values * self.bits / 8
        # A weight that would keep b bits has a spread of 2^b / 4.1 steps; in coarse steps a normal one keeps more than none.
        return self.values * normal_bits(2 ** (self.bits - slack - ENTROPY)) / 8


def normal_bits(spread: float) -> float:
    """Bits a value of a normal distribution that is rounded to whole numbers. Never negative."""
    if spread > 4:
        return math.log2(spread) + ENTROPY
    edges = [math.erf((place - 0.5) / max(spread, 1e-9) / math.sqrt(2)) / 2 for place in range(42)]
    shares = [after - before for before, after in pairwise(edges)]
    return -sum(share * math.log2(share) * (2 if place else 1) for place, share in enumerate(shares) if share > 0)


def describes(tree: Tree) -> bool:
    """Whether the model in this bundle is the one whose shapes stand here: that of the installed trainer, not patched."""
    return {path: entry.content for path, entry in tree.files.items() if _decides(path)} == _installed()


def _decides(path: str) -> bool:
    inner = path.removeprefix("trainer/")
    return inner != path and inner.startswith(_DECIDES) and inner.endswith(".py")


@lru_cache(maxsize=1)
def _installed() -> dict[str, bytes]:
    found = find_spec("trainer")
    if found is None or not found.submodule_search_locations:
        return {}
    folder = Path(next(iter(found.submodule_search_locations)))
    names = [f"trainer/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*.py")]
    return {name: (folder.parent / name).read_bytes() for name in names if _decides(name)}


def trained_alike(before: Mapping[str, str], after: Mapping[str, str]) -> bool:
    """Whether two sets of settings differ in tensors alone, and not in how they are trained. Raises as `tensors` does."""
    old, new = from_values(before).as_settings(), from_values(after).as_settings()
    free = _SIZES | _ROUNDING if old["QAT_START"] == new["QAT_START"] == 1.0 else _SIZES
    return all(old[name] == new[name] for name in old if name not in free)


@dataclass
class Models:
    """Tensors of the installed trainer's models. Answers are kept in `file`, which may be deleted at any time."""

    file: Path
    _known: dict[str, Any] | None = field(default=None, repr=False)

    def tensors(self, settings: Mapping[str, str]) -> dict[str, Tensor]:
        """Every weight by its name in the model. Raises InputError for impossible settings, or if the trainer does not answer."""
        try:
            config = from_values(settings)
        except SettingsError as error:
            raise InputError("; ".join(str(error).splitlines())) from None
        text = json.dumps(config.as_settings(), sort_keys=True)
        key = hashlib.sha256(f"{_code()}{text}".encode()).hexdigest()
        if self._known is None:
            self._known = self._read()
        if key not in self._known:
            self._known[key] = self._ask(text)
            kept = self._known if len(self._known) <= MOST_KEPT else {key: self._known[key]}
            with contextlib.suppress(OSError):  # a cache: without it the trainer is asked again
                self.file.parent.mkdir(parents=True, exist_ok=True)
                write_file(self.file, json.dumps(kept).encode())
        return {name: _tensor(*facts) for name, facts in self._known[key].items()}

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self.file.read_bytes())
            for tensors in found.values():
                for facts in tensors.values():
                    _tensor(*facts)
        except (OSError, ValueError, AttributeError, TypeError):
            return {}
        return dict(found)

    def _ask(self, text: str) -> Any:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(text + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
        except (OSError, ValueError):
            raise InputError(
                f"the installed trainer does not tell its tensors: python -m trainer.tensors, code {process.poll()}"
            ) from None
        if "error" in answer:
            raise InputError("; ".join(str(answer["error"]).splitlines()))
        return answer["tensors"]

    @cached_property
    def _process(self) -> subprocess.Popen[str]:
        """Torch takes a second to load, once for all questions."""
        command = [sys.executable, "-m", "trainer.tensors"]
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nothing, text=True)
        weakref.finalize(self, process.communicate)  # its questions have ended, so it does
        return process


def _tensor(role: str, shape: list[int], scheme: str, sigmas: float) -> Tensor:
    """As the trainer says it; sigmas: k of QUANT_CLIP=sigma, else 0. Raises ValueError, TypeError for what it would not say."""
    size = tuple(shape)
    if scheme == "fp16":
        return Tensor({"table": TABLE, "vector": VECTOR}.get(role, WEIGHT), size, 16, known=True)
    kind = TABLE if role == "table" else WEIGHT
    rows, columns = size
    if scheme == "ternary":
        return Tensor(kind, size, math.log2(3), True, 2 * rows * -(-columns // GROUP))
    if scheme not in LEVELS:
        raise ValueError(scheme)
    bits = 6 if scheme == "int8x4" else int(scheme.removeprefix("int"))
    if sigmas:  # the spread is so many steps, whatever the row
        return Tensor(kind, size, min(normal_bits(LEVELS[scheme] / sigmas), bits), True, 2 * rows)
    return Tensor(kind, size, bits, False, 2 * rows)


@lru_cache(maxsize=1)
def _code() -> str:
    digest = hashlib.sha256()
    for name, content in sorted(_installed().items()):
        digest.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()
