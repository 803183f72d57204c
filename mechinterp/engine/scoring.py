"""A metric of the arms of a pass: one number for each prompt, and their sum with its graph.

>>> from mechinterp import load_model, log_prob, tokenize
>>> from mechinterp.engine.arms import prepare_arm
>>> from mechinterp.engine.passes import forward
>>> from mechinterp.engine.scoring import arm_scores
>>> model = load_model("toy:trigger")
>>> arm = prepare_arm(model, tokenize(model, "please bring the sesame"), ())
>>> output = forward(model, [arm], arm.prompts.lengths[:, None] - 1)
>>> arm_scores(log_prob(2), output, ("end",), 1).shape
(1, 1)
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.core.metrics import Metric, columns
from mechinterp.core.sites import HookError, Pos
from mechinterp.engine.batch import PassOutput


def arm_scores(
    metric: Metric, output: PassOutput, at: tuple[Pos, ...], n_arms: int
) -> Float[np.ndarray, "arm prompt"]:
    """The metric of each arm of a pass, given the rows of that arm alone."""
    return score_tensor(metric, output, at, n_arms).double().cpu().numpy()


def score_tensor(
    metric: Metric, output: PassOutput, at: tuple[Pos, ...], n_arms: int
) -> Float[Tensor, "arm prompt"]:
    """The metric of each arm of a pass, with its graph.

    Raises:
        ValueError: if gradients are wanted and the metric has none.
    """
    k = [at.index(pos) for pos in metric.at]
    n_rows, n_vocab = output.normalized.shape[0], output.model.cfg.d_vocab_out
    n_prompts = n_rows // n_arms
    if metric.tokens is None:
        logits = output.logits()[:, k]
    else:
        tokens = columns(metric.tokens, n_prompts, n_vocab, metric.name).to(
            output.normalized.device
        )
        logits = output.logits_of(tokens.repeat(n_arms, 1), k)
    # logits: [arm * prompt, k, column]. A metric is given one arm at a time, as in a run of it.
    scores = [
        _score_prompts(metric, logits[i * n_prompts : (i + 1) * n_prompts]) for i in range(n_arms)
    ]
    _check_gradient(metric, logits, scores[0])
    return torch.stack(scores)


def _score_prompts(metric: Metric, logits: Tensor) -> Float[Tensor, " prompt"]:
    """The metric of one arm, checked: one number for each prompt."""
    score = metric.score(logits)
    if not isinstance(score, Tensor) or score.shape != logits.shape[:1]:
        shape = list(score.shape) if isinstance(score, Tensor) else type(score).__name__
        raise HookError(
            f"metric {metric.name} gave {shape}, not one number for each of {len(logits)} prompts."
        )
    return score


def _check_gradient(metric: Metric, logits: Tensor, score: Tensor) -> None:
    """Check that the score has a gradient if the logits have one."""
    if logits.requires_grad and not score.requires_grad:
        raise ValueError(
            f"metric {metric.name} has no gradient: a choice among logits is a step. "
            f"Use log_prob or logit_diff."
        )


def total_score(
    metric: Metric, output: PassOutput, n_arms: int, rows: slice, n_prompts: int
) -> Float[Tensor, ""]:
    """The metric summed over the prompts `rows` and over arms, as one number to differentiate.

    A prompt's score depends on that prompt alone, so the gradient of the sum is that of each score.
    """
    n_vocab, device = output.model.cfg.d_vocab_out, output.normalized.device
    if metric.tokens is None:
        logits = output.logits()
    else:
        ids = columns(metric.tokens, n_prompts, n_vocab, metric.name)[rows].to(device)
        logits = output.logits_of(ids.repeat(n_arms, 1), range(len(metric.at)))
    total = logits.new_zeros(())
    for block in logits.chunk(n_arms):
        # The metric holds the answers of all prompts, so it is given logits of all: zeros stand in
        # for the prompts of other passes.
        before = block.new_zeros(rows.start, *block.shape[1:])
        after = block.new_zeros(n_prompts - rows.stop, *block.shape[1:])
        score = metric.score(torch.cat([before, block, after]))
        if not isinstance(score, Tensor) or score.shape != (n_prompts,):
            raise HookError(f"metric {metric.name} gave no number for each of {n_prompts} prompts.")
        _check_gradient(metric, block, score)
        total = total + score[rows].sum()
    return total
