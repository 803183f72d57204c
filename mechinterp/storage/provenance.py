"""How a finished run was made, as every manifest says it: the command, the model, the machine.

>>> from mechinterp import load_model
>>> from mechinterp.storage.provenance import provenance_facts
>>> provenance_facts(load_model("toy:trigger"), "layers")["dtype"]
'torch.float32'
"""

import sys

import torch

from mechinterp import models
from mechinterp.models.model import Model


def provenance_facts(model: Model, kind: str) -> dict[str, object]:
    """The facts that do not depend on what was asked; `kind`: what the folder holds."""
    return {
        "kind": kind,
        "command": sys.argv,
        "complete": True,
        "fingerprint": models.fingerprint(model),
        "dtype": str(model.cfg.dtype),
        "threads": torch.get_num_threads(),
    }
