"""The weights and measured figures of a trained toy, as they lie beside it.

>>> from mechinterp.toys.refusal import WEIGHTS
>>> from mechinterp.toys.stored import load
>>> weights, figures = load(WEIGHTS)
>>> figures["accuracy"]
1.0
"""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor


def load(file: Path) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Weights, stored in half precision, as float32, and the figures that were measured on them."""
    with safe_open(file, framework="pt") as stored:
        names = list(stored.keys())  # not a dict: it cannot be iterated itself
        weights = {name: stored.get_tensor(name).to(torch.float32) for name in names}
        return weights, json.loads(stored.metadata()["figures"])
