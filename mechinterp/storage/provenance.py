"""How a run was made, as every manifest says it: the command, the model, the machine.

>>> from mechinterp import load_model
>>> from mechinterp.storage.provenance import provenance_facts
>>> provenance_facts(load_model("toy:trigger"), "layers")["dtype"]
'torch.float32'
"""

import platform
import sys
from pathlib import Path

import torch

from mechinterp import models
from mechinterp.models.model import Model
from mechinterp.storage.run_folder import PACKAGES, package_version


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


def resumable_facts(model: Model, out: str | Path) -> dict[str, object]:
    """What must agree, of model and machine, for a run to continue another with the same bytes.

    Raises:
        ValueError: if the model has hooks of other code; `out` is named.
    """
    if models.has_foreign_hooks(model):
        raise ValueError(
            f"out={str(out)!r}: the model has hooks of other code. Another run could not tell "
            f"whether it has the same ones. Remove them, or run without out."
        )
    return {
        "model": models.name(model),
        "fingerprint": models.fingerprint(model),
        "dtype": str(model.cfg.dtype),
        "device": str(models.device(model)),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: package_version(name) for name in PACKAGES},
    }
