"""The residual stream at some positions after each layer: how long it is, and where it points.

>>> from mechinterp import load_model
>>> from mechinterp.layers import residual_stream
>>> found = residual_stream(load_model("toy:trigger"), ["please bring the sesame"])
>>> found["norm"].dims, found["cosine"].sel(layer=2).item()
(('layer', 'prompt'), 1.0)

Norms mostly grow, layer by layer: what a layer writes is small or large only beside the stream that
it is added to. A stream that is long at one position in a few dimensions (a start token's) has a
cosine near 1 with anything alike there, whatever the rest says.
"""

from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from mechinterp import models
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import Pos, Site
from mechinterp.core.specs import read
from mechinterp.engine.runner import run
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text, tokenize


def residual_stream(model: Model, prompts: Text, *, at: Pos = "end") -> xr.Dataset:
    """Dims (layer, prompt), at one position: `norm`, `written`, `cosine`.

    `norm`: the length of the residual stream after so many layers. `written`: of what the last of
    them added; NaN at 0. `cosine`: with the stream after the last layer. None is what the logits
    see: the final norm comes between.

    Raises:
        HookError: if the streams would not fit into memory.
        ValueError: if a prompt has no such position.
    """
    given = tokenize(model, prompts)
    each = streams(model, given, (at,))[:, :, 0].double()
    added = (each[1:] - each[:-1]).norm(dim=-1)
    values = {
        "norm": each.norm(dim=-1),
        "written": torch.cat([torch.full_like(added[:1], torch.nan), added]),
        "cosine": torch.nn.functional.cosine_similarity(each, each[-1:], dim=-1),
    }
    arrays = {name: (("layer", "prompt"), value.cpu().numpy()) for name, value in values.items()}
    attrs = {"at": str(at), "model": models.name(model), "weights": models.processing(model)}
    return xr.Dataset(arrays, by_layer(model, given), attrs)


def streams(
    model: Model, prompts: Prompts, at: tuple[Pos, ...]
) -> Float[Tensor, "layer prompt k d_model"]:
    """The residual stream at some positions: layer 0 the embedding, then after each layer."""
    wanted = [[Site(s.act, s.layer, pos=pos) for pos in at] for s in stream_sites(model)]
    acts = run(model, prompts, read(*(s for row in wanted for s in row)), logits_at=()).acts
    return torch.stack([torch.stack([acts[site] for site in row], 1) for row in wanted])


def stream_sites(model: Model) -> list[Site]:
    """Where the stream after 0, 1, 2 ... layers is read."""
    return [Site("resid_pre", 0), *(Site("resid_post", n) for n in range(model.cfg.n_layers))]


def by_layer(model: Model, prompts: Prompts) -> dict[str, Any]:
    """The coordinates of a result by layers and prompts."""
    return {"layer": np.arange(model.cfg.n_layers + 1), "prompt": np.arange(len(prompts))}
