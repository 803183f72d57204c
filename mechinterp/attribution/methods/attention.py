"""How much an output's position attends to the inputs: cheap baselines without a direction.

Attention says where a model looks, not what it does with what it sees. These scores are never
negative, and a position that takes most attention and contributes nothing (often the start token)
ranks first. Use them beside methods that measure an effect, not instead.

>>> from mechinterp import ask, load_model
>>> from mechinterp.attribution.methods.attention import value_weighted_attention
>>> question = ask(load_model("toy:trigger"), "please bring the sesame", outputs=1)
>>> scores = value_weighted_attention(question).isel(output=0)
>>> str(scores.input_token[scores.argmax("input")].values)
'sesame'
"""

import time

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mechinterp.attribution.methods.positions import sum_by_unit
from mechinterp.attribution.question.definition import Question
from mechinterp.attribution.scores import label_scores, run_cost
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.signs import no_support
from mechinterp.core.sites import Site
from mechinterp.core.specs import At, Specs, edit, read
from mechinterp.engine.runner import run
from mechinterp.models.weights import value_lengths

SIGN = "Size of the attention, never negative: it has no direction, and is not an effect."


@checks_arguments
def attention_rollout(question: Question) -> xr.DataArray:
    """The share of each unit in the position of an output, if attention were all there is.

    Heads are averaged, half of each layer's input is assumed to stay in place, and layers are
    multiplied. The scores are the row of the position at which the output is read. Unit
    "attention": the shares of all positions sum to 1. A metric of several outputs gets the mean
    over the positions that it reads.

    Source: Abnar and Zuidema 2020, section 3, arXiv 2005.00928.
    """
    began = time.perf_counter()
    sequence = question.sequence
    shares = torch.eye(sequence.width, dtype=torch.float64, device=sequence.tokens.device)

    def follow(pattern: Tensor, at: At) -> Tensor:
        # pattern: prompt head query key. Multiplied while the layers run, so that none is kept.
        attended = pattern[0].mean(0).double().to(shares)
        shares.copy_(0.5 * attended @ shares + 0.5 * shares)
        return pattern

    specs: Specs = ()
    for layer in range(question.model.cfg.n_layers):
        specs += edit(Site("pattern", layer), follow, name="follow")
    run(question.model, sequence, specs, logits_at=question.reads[0])
    each = np.stack([shares[rows].mean(0).cpu().numpy() for rows in _rows(question)])
    attrs = _attrs(question, "attention rollout", "attention", began)
    return label_scores(question, sum_by_unit(question, each), attrs)


@checks_arguments
def value_weighted_attention(question: Question) -> xr.DataArray:
    """Attention to each unit times the norm of what the head reads there, mean over heads.

    The norm, of a value times W_O, is in the units of the residual stream: unit "norm". The mean is
    over all heads of all layers, at the position at which the output is read; for a metric of
    several outputs also over the positions that it reads.

    Raises:
        HookError: if the values would not fit into memory.

    Source: Kobayashi et al. 2020, section 3, arXiv 2004.10102.
    """
    began = time.perf_counter()
    model, sequence = question.model, question.sequence
    rows = _rows(question)
    every = sorted({row for several in rows for row in several})
    layers = range(model.cfg.n_layers)
    sites = [Site("pattern", layer, pos=row) for layer in layers for row in every]
    sites += [Site("v", layer) for layer in layers]
    acts = run(model, sequence, read(*sites), logits_at=()).acts
    total = torch.zeros(len(every), sequence.width, dtype=torch.float64)
    for layer in layers:
        length = value_lengths(model, layer, acts[Site("v", layer)])[0]
        for place, row in enumerate(every):
            pattern = acts[Site("pattern", layer, pos=row)][0]
            total[place] += (pattern * length).mean(0).cpu() / len(layers)
    each = [total[[every.index(row) for row in several]].mean(0).numpy() for several in rows]
    attrs = _attrs(question, "value-weighted attention", "norm", began)
    return label_scores(question, sum_by_unit(question, np.stack(each)), attrs)


def _rows(question: Question) -> list[list[int]]:
    """The positions at which each output is read."""
    reading = question.sequence.reading
    return [reading(metric.at)[0].tolist() for metric in question.metrics]


def _attrs(question: Question, method: str, unit: str, began: float) -> dict[str, object]:
    spent = run_cost(question, began, passes=1, rows=1)
    return {"method": method, "unit": unit, **no_support(SIGN), **spent}
