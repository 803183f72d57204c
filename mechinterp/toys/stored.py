"""The weights and measured figures of a trained toy, from the file beside it.

>>> from mechinterp.toys.refusal import WEIGHTS
>>> from mechinterp.toys.stored import load_weights
>>> weights, figures = load_weights(WEIGHTS)
>>> figures["accuracy"]
1.0
"""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor


def load_weights(file: Path) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The weights in float32 (stored in half precision), and the figures measured on them."""
    with safe_open(file, framework="pt") as stored:
        names = list(stored.keys())  # not a dict: it cannot be iterated itself
        weights = {name: stored.get_tensor(name).to(torch.float32) for name in names}
        return weights, json.loads(stored.metadata()["figures"])
