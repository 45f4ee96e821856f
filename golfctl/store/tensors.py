"""The weights of the bundled trainer's model as its settings describe them: shapes and bits, without loading the model.

golfctl may not import the model (and torch with it), so the shapes are written down a second time here. They hold for the
installed trainer only: `describes` says whether a bundle's model is that one, and a test compares them with the model itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from golfctl.store.tree import Tree
from trainer.config import Config, from_values

WEIGHT, TABLE, VECTOR = "weight", "table", "vector"
_VOCABULARY = {"bytes": 256, "sp1024": 1024}
_DECIDES = ("config.py", "artifact.py", "model/", "quant/")
"""What decides the shapes and how they are stored."""
_SIZES = frozenset(
    {"TOKENIZER", "NUM_LAYERS", "MODEL_DIM", "NUM_HEADS", "NUM_KV_HEADS", "MLP_MULT", "SKIP_CONNECTIONS"}
)
_SIZES |= {"NGRAM_MAX_ORDER", "NGRAM_BUCKETS", "NGRAM_DIM", "NGRAM_LOGITS", "MATRIX_BITS", "EMBED_BITS", "TABLE_BITS"}
"""Settings that change tensors; any other may change what training makes of the ones that stay."""


@dataclass(frozen=True)
class Tensor:
    """A weight of the artifact. kind: WEIGHT (quantised matrix or embedding), TABLE (n-gram rows), VECTOR (float16).

    bits: of each value; a quantised one takes a whole byte before the codec. Each row of it has a float16 scale.
    """

    kind: str
    shape: tuple[int, ...]
    bits: int

    @property
    def values(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def scale_bytes(self) -> int:
        """Bytes of the scales of its rows."""
        return 0 if self.kind == VECTOR else 2 * self.shape[0]


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
    return all(old[name] == new[name] for name in old if name not in _SIZES)


def tensors(settings: Mapping[str, str]) -> dict[str, Tensor]:
    """Every weight by its name in the model. Raises trainer.config.SettingsError (a ValueError) for impossible settings."""
    config = from_values(settings)
    vocabulary, width = _VOCABULARY[config.tokenizer], config.model_dim
    found = {"embed": Tensor(WEIGHT, (vocabulary, width), config.embed_bits)}
    for index in range(config.num_layers):
        found |= {f"blocks.{index}.{name}": tensor for name, tensor in _block(config).items()}
    if config.skip_connections and config.num_layers > 1:
        found["skip_scale"] = Tensor(VECTOR, (config.num_layers // 2, width), 16)
    if config.ngram_max_order:
        orders = config.ngram_max_order - 1
        rows = orders * config.ngram_dim
        found["ngrams.tables"] = Tensor(TABLE, (orders * config.ngram_buckets, config.ngram_dim), config.table_bits)
        found["ngrams.project"] = Tensor(WEIGHT, (width, rows), config.matrix_bits)
        if config.ngram_logits:
            found["ngrams.to_logits"] = Tensor(WEIGHT, (vocabulary, rows), config.embed_bits)
    return found


def _block(config: Config) -> dict[str, Tensor]:
    width, bits = config.model_dim, config.matrix_bits
    narrow = config.num_kv_heads * (width // config.num_heads)
    hidden = int(config.mlp_mult * width)
    matrices = {
        "attention.query": (width, width),
        "attention.key": (narrow, width),
        "attention.value": (narrow, width),
        "attention.output": (width, width),
        "mlp.up": (hidden, width),
        "mlp.down": (width, hidden),
    }
    vectors = {
        "attention.gain": (config.num_heads,),
        "resid_mix": (2, width),
        "attention_scale": (width,),
        "mlp_scale": (width,),
    }
    return {name: Tensor(WEIGHT, shape, bits) for name, shape in matrices.items()} | {
        name: Tensor(VECTOR, shape, 16) for name, shape in vectors.items()
    }
