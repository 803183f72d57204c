"""One run of a model with specs: `run`.

>>> from mechinterp import Site, load_model, read, run
>>> done = run(load_model("toy:trigger"), "please bring the sesame", read(Site("z", 1)))
>>> done.acts[Site("z", 1, head=0, pos="end")].ndim
2
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from mechinterp import models
from mechinterp.core.activations import Activations
from mechinterp.core.indices import positions
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import HookError, Pos
from mechinterp.core.specs import Specs
from mechinterp.engine.arms import prepare_arm
from mechinterp.engine.batch import Extent
from mechinterp.engine.passes import forward
from mechinterp.models.hook_points import read_bytes
from mechinterp.models.memory import available_bytes, readable
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text, tokenize


@dataclass(frozen=True, eq=False)
class Run:
    """The result of a run: logits `[prompt, pos, vocab]` at `logits_at`, and what was read."""

    logits: Float[Tensor, "prompt pos vocab"]
    logits_at: tuple[Pos, ...]
    acts: Activations
    prompts: Prompts

    def logits_of(self, at: tuple[Pos, ...]) -> Float[Tensor, "prompt pos vocab"]:
        """The logits at some of the positions that the run kept.

        Raises:
            ValueError: if the run did not keep them.
        """
        missing = [pos for pos in at if pos not in self.logits_at]
        if missing:
            raise ValueError(
                f"the run kept logits at {list(self.logits_at)}, not at {missing}. "
                f"Ask for them: run(..., logits_at={list(at)})."
            )
        return self.logits[:, [self.logits_at.index(pos) for pos in at]]


def run(
    model: Model,
    prompts: Text,
    specs: Specs = (),
    *,
    logits_at: Pos | Sequence[Pos] = "end",
) -> Run:
    """One pass over the prompts with the specs, left to right; nothing stays on the model.

    `logits_at`: the position or positions whose logits are kept. With none, `()`, the pass only
    reads, and ends after the last layer that a spec touches. Logits "at" a deleted token are those
    of the last token before it: what the model predicts next. Activations are kept, as copies, only
    where `read` names them.

    Raises:
        HookError: if a spec cannot run or did not, or what it reads would not fit into memory.
        ValueError: if the prompts or a position do not fit the model.
    """
    arm = prepare_arm(model, tokenize(model, prompts), specs)
    at = tuple(positions(logits_at, "logits_at"))
    if not at and not any(spec.edit is None for spec in specs):
        raise ValueError(
            'logits_at names no position, and nothing is read. Give a position: "end".'
        )
    wanted = read_bytes(model, arm.prompts, [s.site for s in specs if s.edit is None])
    free = available_bytes(models.device(model))
    if wanted > free:
        raise HookError(
            f"the reads need {readable(wanted)}, but {readable(free)} are free. "
            f'Read fewer sites, or narrow them: Site(..., pos="end").'
        )
    stop_layer = None if at or arm.alone else arm.last_layer + 1
    output = forward(model, [arm], arm.prompts.reading(at), Extent(stop_layer=stop_layer))
    return Run(output.logits(), at, arm.activations, arm.prompts)
