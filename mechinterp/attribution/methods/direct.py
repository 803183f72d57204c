"""Direct attribution: what each input position puts into an output's logit in the last hop alone.

With the final norm's scale taken as it is, a logit is a sum over what was written at its position,
and what a head writes is a sum over the positions it reads, pattern times value:

>>> from mechinterp import ask, load_model
>>> from mechinterp.attribution.methods.direct import direct_attribution
>>> question = ask(load_model("toy:trigger"), "the sesame and some sesame", outputs=1)
>>> scores = direct_attribution(question)
>>> [abs(round(float(score))) for score in scores[0, 1:]]
[0, 8, 0, 0, 8]
>>> (scores.sum("input") + scores.unattributed + scores.rest - scores.total).values.round(4) + 0
array([0.])

"Direct" is about that hop: after the first layer, what stands at a position already mixes those
before it, and what an MLP makes of what was read counts as the MLP's.
"""

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from mechinterp import models
from mechinterp.attribution.methods.positions import of_units
from mechinterp.attribution.question.definition import Question
from mechinterp.attribution.scores import run_cost, scored
from mechinterp.core.metrics import Metric, centred_logit
from mechinterp.core.prompts import Prompts
from mechinterp.core.signs import sign_of_support
from mechinterp.core.sites import HookError, Pos, Site
from mechinterp.core.specs import Specs, read, zero
from mechinterp.engine.linear_readout import bends, check_sum, final_reading
from mechinterp.engine.runner import Run, run
from mechinterp.models.model import Model

REASON = "what the position of the output takes from the input raises its logit"


def direct_attribution(question: Question) -> xr.DataArray:
    """What each output's logit takes directly from each unit, over all heads and layers, in logits.

    Measured is the question's metric where that is linear in the logits, as `logit_diff` is; else
    the output's centred logit, of several outputs together their sum; `attrs["metric"]` says which.
    The output's own position also gives the embedding that it began with.

    Coordinates, of each output: `total`, the logit; `unattributed`, what comes from positions that
    are not attributed, such as the start token's; `rest`, what comes from no position: MLPs,
    position embeddings and all biases, those of the values too. The sum over the inputs,
    `unattributed` and `rest` make `total`.

    Raises:
        ValueError: if the logit is no sum: what the heads write passes a norm of its own, or the
            logits are capped.
        HookError: if values and patterns do not make what the heads wrote, or do not fit into
            memory.

    Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; by input
    position, "Logit" of Ferrando et al. 2023, arXiv 2305.12535.
    """
    began = time.perf_counter()
    parts = _parts(question)
    return _scored(question, parts, parts.heads.sum((1, 2)) + parts.own, began)


def direct_attribution_by_head(question: Question) -> xr.DataArray:
    """As `direct_attribution`, of each head: dims `("output", "layer", "head", "input")`.

    The coordinate `own` (output, input) is what passes no head, the embedding that the output's
    position began with. It and the sum over layers and heads make `direct_attribution`.

    Raises:
        ValueError: as `direct_attribution`.
        HookError: as `direct_attribution`.
    """
    began = time.perf_counter()
    parts = _parts(question)
    own = _scored(question, parts, parts.own, began)
    values = np.full((*parts.heads.shape[:-1], len(question.units)), np.nan)
    values[..., question.attributed] = of_units(question, parts.heads)
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
    """The parts of each output's logit; `rest` is all but the heads' and its own embedding's."""

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
    return scored(
        question,
        of_units(question, each),
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
    check_sum(model, "direct_attribution", by_head=True)
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
    constant = _values_of_nothing(model, sequence)

    def there(site: Site) -> Float[Tensor, "k ..."]:
        return torch.cat([done.acts[replace(site, pos=pos)] for pos in at])

    metrics = _linear(question, done)
    read_end = final_reading(model, done, metrics, there(end)[None])
    total, toward = read_end.total[:, 0], read_end.slopes[:, 0]
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
            # What a value is without an input is a bias: it says nothing of the position.
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
            f"direct_attribution: patterns times values miss what the heads wrote by "
            f"{off.max():.2g} logits: something changes the values or heads on the way, such as "
            f"clipped values or a hook on the model."
        )


def _values_of_nothing(model: Model, sequence: Prompts) -> list[Float[Tensor, "head d_head"]]:
    """The values that each layer computes of a residual stream of zeros: its biases."""
    one = Prompts.from_ids([[0]], device=sequence.tokens.device)
    specs: Specs = ()
    sites = [Site("v", layer) for layer in range(model.cfg.n_layers)]
    for site in sites:
        specs += zero(Site("resid_pre", site.layer)) + read(site)
    acts = run(model, one, specs, logits_at=()).acts
    return [acts[site][0, 0] for site in sites]


def _linear(question: Question, done: Run) -> list[Metric]:
    """The question's metrics if they are linear in the logits, else centred logits."""

    if not any(bends(metric, done) for metric in question.metrics):
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
