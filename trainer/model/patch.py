"""Byte patches: the trunk reads groups of P bytes, a decoder predicts the next group byte by byte.

Patch j of the input ends with ids[j P]: the first holds P - 1 learned bytes and the id before the first target (the separator at
the start of a text), so that row j of the trunk predicts the P targets behind ids[j P]. Row t = j P + i of the logits has seen
ids[..j P] through the trunk and ids[j P + 1 .. t] through the decoder, nothing else: within a patch too, each byte is
predicted from the ones before it, every row is a distribution over the alphabet, and the product over a patch sums to one.
Ids that do not fill their last patch are padded inside, the padding's rows are cut off: no loss, no byte, no score.

MEGABYTE (Yu et al. 2023) is the autoregressive decoder; see `trainer.model.patch_heads` for the others. P = 1 with identities
for its two matrices is the plain byte model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import Config
from trainer.model.parts import Adapter, Pass, empty
from trainer.model.patch_heads import KINDS


class Patches(nn.Module):
    """Bytes to patches before the trunk, patches to bytes behind it. d: width of the trunk, w: of a byte; J = ceil(T / P)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.size, width = config.patch_size, config.patch_dim
        self.project = empty(config.model_dim, self.size * width)
        self.bos_patch = empty(self.size - 1, width)
        self.decoder = KINDS[config.patch_decoder](config)

    def gather(self, x: Tensor, adapter: Adapter | None) -> Tensor:
        """Embedded ids (B, T, w) -> patches (B, J, d)."""
        batch, length, width = x.shape
        count = self.count(length)
        lead = self.bos_patch.to(x.dtype).expand(batch, self.size - 1, width)
        whole = torch.cat([lead, x[:, : (count - 1) * self.size + 1]], dim=1)
        whole = whole.view(batch, count, self.size * width)
        plain = F.linear(whole, self.project)
        more = adapter("patches.project", whole) if adapter is not None else None
        return plain if more is None else plain + more

    def scatter(self, h: Tensor, x: Tensor, shared: Pass) -> Tensor:
        """Normed rows of the trunk (B, J, d) and embedded ids (B, T, w) -> what each row's logits are made of, (B, T, w)."""
        batch, length, width = x.shape
        full = F.pad(x, (0, 0, 0, h.shape[1] * self.size - length)).view(batch, -1, self.size, width)
        # The trunk has seen the first id of each group; the others are the targets that come before the last of the patch.
        return self.decoder(h, full[:, :, 1:], shared)[:, :length]

    def count(self, length: int) -> int:
        """Patches that hold the targets of `length` ids."""
        return -(-length // self.size)
