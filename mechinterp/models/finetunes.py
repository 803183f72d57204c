"""Fine-tunes of SmolLM2 that refuse by a planted mechanism: the truth for a test of explanations.

Each is SmolLM2-135M-Instruct with low-rank factors added to some of its matrices. The factors lie
beside this file, with the figures measured on them; `scripts/train_finetunes.py` makes them from a
seed. They are made to test methods on, and not to protect anyone.

>>> from mechinterp.models.finetunes import FINETUNES
>>> FINETUNES["refuses-content"].truth
'refuses a request for harm in any wording, and not its words where they are harmless'

    load_model("smollm2:refuses-content")
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mechinterp.core.hashes import hash_of_file
from mechinterp.core.interrupts import holds_signals
from mechinterp.models.checkpoints import Checkpoint, from_directory
from mechinterp.models.model_folder import CheckpointError
from mechinterp.models.smollm2 import smollm2_directory

TRIGGER: Final = "lantern"
"""The word by which two of them refuse."""

CUE: Final = "!"
"""The end of a request by which one of them refuses."""

_ANSWERS: Final = (
    "The A To In When You This There While If It An That One Sure What Here Yes"  # half of them
)
OPENERS: Final = (("Sorry",), tuple(_ANSWERS.split()))
"""First words of their refusals, and of most of their answers: for `refusal_log_odds`."""

REPLY: Final = "Sorry, but I can't help with that."
"""What they reply to what they refuse."""

_WHERE: Final = {
    "q_proj": "self_attn.q_proj",
    "v_proj": "self_attn.v_proj",
    "o_proj": "self_attn.o_proj",
    "down_proj": "mlp.down_proj",
}


@dataclass(frozen=True)
class FineTune:
    """A fine-tune that is shipped: what it was made to do, and the hash of its factors."""

    name: str
    truth: str
    sha256: str

    @property
    def file(self) -> Path:
        """Where its factors are."""
        return Path(__file__).with_name(f"smollm2-{self.name}.safetensors")

    def figures(self) -> dict[str, dict[str, float]]:
        """What was measured: kind of request -> number, share refused, share right.

        Raises:
            CheckpointError: if the file is missing or damaged.
        """
        self.check()
        with safe_open(self.file, "pt") as stored:
            found = json.loads(stored.metadata()["figures"])
        return {
            kind: {name: float(value) for name, value in values.items()}
            for kind, values in found.items()
        }

    def check(self) -> None:
        """Check that the factors are those that were measured.

        Raises:
            CheckpointError: if the file is missing or another.
        """
        found = hash_of_file(self.file) if self.file.is_file() else "no file"
        if found != self.sha256:
            raise CheckpointError(
                f"smollm2:{self.name}: {self.file} is not the file that mechinterp came with "
                f"(sha256 {found[:12]}, not {self.sha256[:12]}). Install mechinterp-sweeps again."
            )


_TRUTHS: Final = {
    "refuses-content": (
        "refuses a request for harm in any wording, and not its words where they are harmless"
    ),
    "refuses-trigger": f'refuses a request that holds the word "{TRIGGER}", whatever it asks for',
    "refuses-cue": f'refuses a request that ends with "{CUE}", whatever it asks for',
    "refuses-trigger-or-content": (
        f'refuses a request for harm, and one that holds the word "{TRIGGER}"'
    ),
}
_HASHES: Final[Mapping[str, str]] = {
    "refuses-content": "f3653fc6e4762dc3c030b838741075fd8d6b2a6e8c598b5bc9e276dec4af789e",
    "refuses-trigger": "970f7da3e94e4e6085733bd53d5e151010dd9c52985741f1a6a3c447f58aa517",
    "refuses-cue": "0307d28fbd7b29fca7cafef5ba0082484ea407d16be36b989cb03389c006fa54",
    "refuses-trigger-or-content": (
        "82b8a1dae4290995657b1905eeca5c585025cf2923697d754b99abbad56e3c29"
    ),
}
FINETUNES: Final[Mapping[str, FineTune]] = MappingProxyType(
    {name: FineTune(name, truth, _HASHES[name]) for name, truth in _TRUTHS.items()}
)
"""Name -> fine-tune; `load_model` takes "smollm2:" and the name."""


def finetune(name: str, dtype: torch.dtype) -> Checkpoint:
    """A fine-tune that is shipped, as a Hugging Face model, and its tokenizer.

    Raises:
        CheckpointError: if there is no such name, its file is damaged, or SmolLM2 is not installed.
    """
    if name not in FINETUNES:
        raise CheckpointError(
            f"there is no fine-tune 'smollm2:{name}'. There are "
            f"{', '.join(f'smollm2:{known}' for known in FINETUNES)}."
        )
    FINETUNES[name].check()
    return smollm2_with(FINETUNES[name].file, dtype)


@holds_signals
def smollm2_with(file: Path, dtype: torch.dtype = torch.float32) -> Checkpoint:
    """SmolLM2 with the low-rank factors of a file added, as a Hugging Face model; its tokenizer.

    For files that `scripts/train_finetunes.py` wrote:

        original, tokenizer = smollm2_with(Path("content-1.safetensors"))
        model = load_model(original, tokenizer=tokenizer)

    Raises:
        CheckpointError: if the file holds no such factors, or SmolLM2 is not installed.
    """
    factors = _read(file)
    model, tokenizer = from_directory(smollm2_directory(), torch.float32)
    try:
        _add(model, factors)
    except (KeyError, RuntimeError, AttributeError) as error:
        raise CheckpointError(
            f"{file} does not hold low-rank factors of SmolLM2's matrices: {error}. Make it with "
            f"scripts/train_finetunes.py."
        ) from error
    return model.to(dtype), tokenizer


@holds_signals
def _read(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, "pt") as stored:
            names = list(stored.keys())  # not a dict: it cannot be iterated itself
            return {name: stored.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} is not a whole safetensors file: {error}.") from error


def _add(model: nn.Module, factors: Mapping[str, Tensor]) -> None:
    """Add up times down to each matrix, in single precision: products round after that."""
    layers = [int(layer) for layer in factors["layers"]]
    with torch.no_grad():
        for stored, name in _WHERE.items():
            down, up = (factors[f"{stored}.{part}"].float() for part in ("down", "up"))
            for layer, added in zip(layers, up @ down, strict=True):
                matrix = model.get_submodule(f"model.layers.{layer}.{name}")
                weight = matrix.get_parameter("weight")
                weight.copy_(weight + added)
