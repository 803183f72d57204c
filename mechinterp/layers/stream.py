"""The residual stream after each layer: its norm and its direction at some positions.

>>> from mechinterp import load_model
>>> from mechinterp.layers import residual_stream
>>> found = residual_stream(load_model("toy:trigger"), ["please bring the sesame"])
>>> found["norm"].dims, found["cosine"].sel(layer=2).item()
(('layer', 'prompt'), 1.0)

Norms mostly grow from layer to layer, so compare what a layer writes with the stream to which it is
added. A stream that is very long in a few dimensions (at a start token) has a cosine near 1 with
any stream that is long in the same ones, whatever the other dimensions hold.
"""

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from mechinterp import models
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import Pos, Site
from mechinterp.core.specs import read
from mechinterp.engine.runner import run
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text, tokenize


@checks_arguments
def residual_stream(model: Model, prompts: Text, *, at: Pos = "end") -> xr.Dataset:
    """The residual stream at one position: `norm`, `written`, `cosine`, dims (layer, prompt).

    `norm`: its length after that many layers. `written`: the length of what the last of them added;
    NaN at 0. `cosine`: with the stream after the last layer. The logits see none of them directly:
    the final norm comes in between.

    Raises:
        HookError: if the residual streams do not fit into memory.
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
    """The residual stream at some positions: layer 0 is the embedding, then after each layer."""
    wanted = [[Site(s.act, s.layer, pos=pos) for pos in at] for s in stream_sites(model)]
    acts = run(model, prompts, read(*(s for row in wanted for s in row)), logits_at=()).acts
    return torch.stack([torch.stack([acts[site] for site in row], 1) for row in wanted])


def stream_sites(model: Model) -> list[Site]:
    """The sites of the residual stream after 0, 1, 2 ... layers."""
    return [Site("resid_pre", 0), *(Site("resid_post", n) for n in range(model.cfg.n_layers))]


def by_layer(model: Model, prompts: Prompts) -> dict[str, Int[np.ndarray, " label"]]:
    """The coordinates of a result with dims (layer, prompt)."""
    return {"layer": np.arange(model.cfg.n_layers + 1), "prompt": np.arange(len(prompts))}
