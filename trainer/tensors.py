"""Tensors of configurations, for programs: `python -m trainer.tensors` reads settings and answers, JSON objects, one a line.

Answer: {"tensors": {name: [role, shape, scheme, k]}}, in the artifact's order, or {"error": one line or more}. k: of
QUANT_CLIP=sigma, 0 where something else clips. No weight is made.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from trainer.artifact import clip_of, scheme_of
from trainer.config import SettingsError, from_values
from trainer.describe import unborn
from trainer.model.roles import role


def answer(line: str) -> dict[str, Any]:
    """What to say to one line of settings."""
    try:
        config = from_values(json.loads(line))
    except SettingsError as error:
        return {"error": str(error)}
    sigma = config.quant_clip == "sigma"
    found = {
        name: [role(name), list(p.shape), scheme_of(name, config), clip_of(name, config).sigmas if sigma else 0]
        for name, p in unborn(config).named_parameters()
    }
    return {"tensors": found}


if __name__ == "__main__":
    for asked in sys.stdin:
        print(json.dumps(answer(asked)), flush=True)
