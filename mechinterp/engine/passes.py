"""One forward pass: arms as blocks of rows of a batch, each with its specs, nothing left behind.

`forward` is how everything else runs a model. It decides what a pass must compute in full, and
where attention may be fused.

>>> from mechinterp import Site, load_model, tokenize, zero
>>> from mechinterp.engine.arms import prepare_arm
>>> from mechinterp.engine.passes import forward
>>> model = load_model("toy:trigger")
>>> arm = prepare_arm(model, tokenize(model, "please bring the sesame"), zero(Site("z", 1)))
>>> forward(model, [arm], arm.prompts.lengths[:, None] - 1).logits().shape[:2]
torch.Size([1, 1])
"""

from collections.abc import Sequence
from dataclasses import replace

from jaxtyping import Int
from torch import Tensor

from mechinterp import models
from mechinterp.core.prompts import Prompts
from mechinterp.engine.arms import Arm
from mechinterp.engine.base_run import BaseRun, compute_base
from mechinterp.engine.batch import WHOLE, Extent, PassOutput, run_batch
from mechinterp.engine.exactness import check_not_random, fuses_exactly
from mechinterp.engine.hooks import Watch
from mechinterp.models.model import Model


def forward(
    model: Model,
    arms: Sequence[Arm],
    reading: Int[Tensor, "row k"],
    extent: Extent = WHOLE,
    *,
    watch: Watch | None = None,
) -> PassOutput:
    """One pass of all arms, read at the positions `reading` of each row; without gradients.

    All arms have prompts of one width. `extent`: how much of the model is computed. `watch` is
    shown every activation. Long prompts run with fused attention where nothing looks at the scores.

    Raises:
        HookError: if a spec goes wrong, or did not run.
    """
    extent = _complete(model, arms, extent, watch)
    width = arms[0].prompts.width - extent.first_pos
    fused = not extent.whole_logits and fuses_exactly(model, width)
    return run_batch(model, arms, reading, extent, fused=fused, differentiable=False, watch=watch)


def forward_with_graph(
    model: Model, arms: Sequence[Arm], reading: Int[Tensor, "row k"], extent: Extent = WHOLE
) -> PassOutput:
    """As `forward`, keeping the graph, for gradients at what edits return.

    Raises:
        HookError: if a spec goes wrong, or did not run.
    """
    extent = _complete(model, arms, extent, None)
    return run_batch(model, arms, reading, extent, fused=False, differentiable=True)


def run_base(model: Model, prompts: Prompts, layers: set[int], first_pos: int = 0) -> BaseRun:
    """The unchanged run: the residual stream before some layers, and keys and values.

    These are those of the positions before `first_pos`, in every layer; none if it is 0.
    """
    fused = not models.has_foreign_hooks(model) and fuses_exactly(model, prompts.width)
    return compute_base(model, prompts, layers, first_pos, fused=fused)


def _complete(model: Model, arms: Sequence[Arm], extent: Extent, watch: Watch | None) -> Extent:
    """The extent, with whole logits where a hook or `watch` looks behind the last layer.

    Raises:
        HookError: if dropout is on.
    """
    check_not_random(model)
    n_layers = model.cfg.n_layers
    whole = extent.whole_logits or watch is not None
    whole = whole or any(arm.last_layer == n_layers for arm in arms)
    whole = whole or models.has_foreign_hooks(model)
    return replace(extent, whole_logits=True) if whole and not extent.whole_logits else extent
