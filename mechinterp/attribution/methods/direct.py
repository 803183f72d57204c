"""Direct attribution: what each input position adds to an output's logit in the last hop alone.

With the final norm's scale frozen, a logit is a sum over what was written at its position, and a
head's output is a sum over the positions that it reads, pattern times value:

>>> from mechinterp import ask, load_model
>>> from mechinterp.attribution.methods.direct import direct_attribution
>>> question = ask(load_model("toy:trigger"), "the sesame and some sesame", outputs=1)
>>> scores = direct_attribution(question)
>>> [abs(round(float(score))) for score in scores[0, 1:]]
[0, 8, 0, 0, 8]
>>> (scores.sum("input") + scores.unattributed + scores.rest - scores.total).values.round(4) + 0
array([0.])

"Direct" refers to that hop. After the first layer a position already mixes those before it, and
what an MLP computes from them counts as the MLP's.
"""

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from mechinterp import models
from mechinterp.attribution.methods.positions import sum_by_unit
from mechinterp.attribution.question.definition import Question
from mechinterp.attribution.scores import label_scores, run_cost
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.metrics import Metric, centred_logit
from mechinterp.core.prompts import Prompts
from mechinterp.core.signs import sign_of_support
from mechinterp.core.sites import HookError, Pos, Site
from mechinterp.core.specs import Specs, read, zero
from mechinterp.engine.linear_readout import check_additive, is_nonlinear, linearize_metrics
from mechinterp.engine.runner import Run, run
from mechinterp.models.model import Model

REASON = "what the position of the output takes from the input raises its logit"


@checks_arguments
def direct_attribution(question: Question) -> xr.DataArray:
    """What each unit adds directly to each output's logit, over all heads and layers, in logits.

    The measure is the question's metric if that is linear in the logits, as `logit_diff` is; else
    the output's centred logit, or the sum of them for a metric of several outputs.
    `attrs["metric"]` says which. The output's own position also adds its embedding.

    Coordinates, of each output: `total`, the logit; `unattributed`, what comes from positions that
    are not attributed, such as the start token; `rest`, what comes from no position: MLPs, position
    embeddings and all biases, also those of the values. The scores, `unattributed` and `rest` sum
    to `total`.

    Raises:
        ValueError: if the logit is not a sum: heads pass a joint norm, or the logits are capped.
        HookError: if values times patterns do not equal what the heads wrote, or do not fit into
            memory.

    Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; by input
    position, "Logit" of Ferrando et al. 2023, arXiv 2305.12535.
    """
    began = time.perf_counter()
    parts = _parts(question)
    return _scored(question, parts, parts.heads.sum((1, 2)) + parts.own, began)


@checks_arguments
def direct_attribution_by_head(question: Question) -> xr.DataArray:
    """As `direct_attribution`, for each head: dims `("output", "layer", "head", "input")`.

    The coordinate `own` (output, input) is what passes no head: the embedding at the output's
    position. It and the sum over layers and heads make `direct_attribution`.

    Raises:
        ValueError: as `direct_attribution`.
        HookError: as `direct_attribution`.
    """
    began = time.perf_counter()
    parts = _parts(question)
    own = _scored(question, parts, parts.own, began)
    values = np.full((*parts.heads.shape[:-1], len(question.units)), np.nan)
    values[..., question.attributed] = sum_by_unit(question, parts.heads)
    return xr.DataArray(
        values,
        dims=("output", "layer", "head", "input"),
        name="score",
        coords={
            **own.coords,
            "layer": range(values.shape[1]),
            "head": range(values.shape[2]),
            "own": own.variable,
        },
        attrs=own.attrs,
    )


@dataclass(frozen=True, eq=False)
class _Parts:
    """The parts of each output's logit: from heads, from its own embedding, and the rest."""

    metric: Metric
    heads: Float[np.ndarray, "output layer head pos"]
    own: Float[np.ndarray, "output pos"]
    total: Float[np.ndarray, " output"]

    @property
    def rest(self) -> Float[np.ndarray, " output"]:
        """What comes from no position."""
        return np.asarray(self.total - self.heads.sum((1, 2, 3)) - self.own.sum(1))


def _scored(
    question: Question, parts: _Parts, each: Float[np.ndarray, "output pos"], began: float
) -> xr.DataArray:
    other = np.ones(question.sequence.width, dtype=bool)
    other[list(question.positions(question.attributed))] = False
    return label_scores(
        question,
        sum_by_unit(question, each),
        {
            "method": "direct attribution",
            "metric": parts.metric.name,
            "unit": parts.metric.unit,
            **sign_of_support(REASON, part="input"),
            **run_cost(question, began, passes=2, rows=1),
        },
        total=parts.total,
        unattributed=(parts.heads.sum((1, 2)) + parts.own)[:, other].sum(1),
        rest=parts.rest,
    )


def _parts(question: Question) -> _Parts:
    model, sequence = question.model, question.sequence
    check_additive(model, "direct_attribution", by_head=True)
    asked = [pos for metric in question.metrics for pos in metric.at]
    at: tuple[Pos, ...] = tuple(dict.fromkeys([*asked, *question.reads]))
    layers = range(model.cfg.n_layers)
    end = Site("resid_post", layers[-1])
    sites = [
        Site(act, layer, pos=pos) for act in ("pattern", "z") for layer in layers for pos in at
    ]
    sites += [replace(site, pos=pos) for site in (Site("embed"), end) for pos in at]
    sites += [Site("v", layer) for layer in layers]
    done = run(model, sequence, read(*sites), logits_at=at)
    constant = _values_of_zero_input(model, sequence)

    def there(site: Site) -> Float[Tensor, "k ..."]:
        return torch.cat([done.acts[replace(site, pos=pos)] for pos in at])

    metrics = _linear(question, done)
    read_end = linearize_metrics(model, done, metrics, there(end)[None])
    total, toward = read_end.total[:, 0], read_end.gradients[:, 0]
    own = np.zeros((len(metrics), sequence.width))
    heads = np.zeros((len(metrics), len(layers), model.cfg.n_heads, sequence.width))
    written, summed = np.zeros(len(metrics)), np.zeros(len(metrics))
    rows = sequence.reading(at)[0].tolist()
    for place, (row, embed) in enumerate(zip(rows, there(Site("embed")).double(), strict=True)):
        own[:, row] += (toward[:, place] @ embed).cpu().numpy()
    for layer in layers:
        weights = models.output_weights(model, layer).double()
        pattern, z = (there(Site(act, layer)).double() for act in ("pattern", "z"))
        value, nothing = done.acts[Site("v", layer)][0].double(), constant[layer].double()
        group = model.cfg.n_heads // value.shape[1]  # heads that share a value
        value, nothing = (x.repeat_interleave(group, -2) for x in (value, nothing))
        for i, metric in enumerate(metrics):
            places = [at.index(pos) for pos in metric.at]
            here = torch.einsum("hcd,kd->khc", weights, toward[i, places])
            # The value of a zero input is a bias, so it is not the position's.
            # h head, c d_head, d d_model, k places, s source positions
            by_source = torch.einsum("shc,khc->khs", value - nothing, here) * pattern[places]
            bias = torch.einsum("hc,khc->kh", nothing, here) * pattern[places].sum(-1)
            heads[i, layer] = by_source.sum(0).cpu().numpy()
            summed[i] += float(by_source.sum() + bias.sum())
            written[i] += float((z[places] * here).sum())
    _check_written(model, written, summed, np.abs(heads).sum((1, 2, 3)))
    return _Parts(metrics[0], heads, own, total)


def _check_written(model: Model, written: np.ndarray, summed: np.ndarray, size: np.ndarray) -> None:
    off = np.abs(written - summed)
    if (off > 100 * torch.finfo(model.cfg.dtype).eps * (1 + size)).any():
        raise HookError(
            f"direct_attribution: patterns times values differ from what the heads wrote by "
            f"{off.max():.2g} logits: something changes the values or heads during the pass, such "
            f"as clipped values or a hook on the model. Remove such hooks, or use another method."
        )


def _values_of_zero_input(model: Model, sequence: Prompts) -> list[Float[Tensor, "head d_head"]]:
    """The values that each layer computes for a residual stream of zeros: its biases."""
    one = Prompts.from_ids([[0]], device=sequence.tokens.device)
    specs: Specs = ()
    sites = [Site("v", layer) for layer in range(model.cfg.n_layers)]
    for site in sites:
        specs += zero(Site("resid_pre", site.layer)) + read(site)
    acts = run(model, one, specs, logits_at=()).acts
    return [acts[site][0, 0] for site in sites]


def _linear(question: Question, done: Run) -> list[Metric]:
    """The question's metrics if they are linear in the logits, else centred logits."""
    if not any(is_nonlinear(metric, done) for metric in question.metrics):
        return list(question.metrics)
    reads = [
        centred_logit(answer, at=pos)
        for answer, pos in zip(question.read_ids, question.reads, strict=True)
    ]
    if question.metric.together is None:
        return reads

    def score(logits: Tensor) -> Tensor:
        each = [metric.score(logits[:, [i]]) for i, metric in enumerate(reads)]
        return torch.stack(each).sum(0)

    return [Metric("centred_logit", "logits", question.reads, score)]
