"""What every manifest says of how a finished run was made: the command, the model, the machine.

>>> from mechinterp import load_model
>>> from mechinterp.storage.provenance import made_by
>>> made_by(load_model("toy:trigger"), "layers")["dtype"]
'torch.float32'
"""

import sys
from typing import Any

import torch

from mechinterp import models
from mechinterp.models.model import Model


def made_by(model: Model, kind: str) -> dict[str, Any]:
    """The facts that do not depend on what was asked; `kind` is what the folder holds."""
    return {
        "kind": kind,
        "command": sys.argv,
        "complete": True,
        "fingerprint": models.fingerprint(model),
        "dtype": str(model.cfg.dtype),
        "threads": torch.get_num_threads(),
    }
