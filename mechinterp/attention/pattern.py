"""Attention patterns of prompts as one labelled array; average it with xarray.

>>> from mechinterp import load_model
>>> from mechinterp.attention import patterns
>>> found = patterns(load_model("toy:trigger"), "please bring the sesame")
>>> found.dims, found.sizes["layer"], found.sizes["head"]
(('prompt', 'layer', 'head', 'pos', 'src'), 2, 3)
>>> found.sel(prompt=0, layer=1, head=0).isel(pos=-1).values.round(2)
array([0.01, 0.  , 0.  , 0.  , 0.99], dtype=float32)
>>> found.mean(["layer", "head"]).dims
('prompt', 'pos', 'src')
"""

from collections.abc import Iterable

import numpy as np
import xarray as xr
from jaxtyping import Bool, Int

from mechinterp import models
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import Site
from mechinterp.core.specs import read
from mechinterp.engine.runner import run
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text, tokenize
from mechinterp.sweeps.axes import layers as chosen_layers
from mechinterp.sweeps.axes import token_labels

LINK_DIMS = ("layer", "head", "pos", "src")


@checks_arguments
def patterns(model: Model, prompts: Text, *, layers: Iterable[int] | None = None) -> xr.DataArray:
    """The attention of each head: dims (prompt, layer, head, pos, src), pos attends to src.

    Weights from 0 to 1; a row sums to 1. The padding of shorter prompts is NaN, so that means leave
    it out. Keys after the query are 0 in a causal model. Coordinates `token` (prompt, pos) and
    `source_token` (prompt, src).

    Raises:
        HookError: if the patterns do not fit into memory: take fewer prompts, or fewer `layers`.
    """
    given = tokenize(model, prompts)
    numbers = chosen_layers(model, layers)
    acts = run(model, given, read(*(Site("pattern", n) for n in numbers)), logits_at=()).acts
    made = np.stack([acts[Site("pattern", n)].float().cpu().numpy() for n in numbers], 1)
    there = given.mask.cpu().numpy()
    seen = there[:, :, None] & there[:, None, :]
    made = np.where(seen[:, None, None], made, np.float32(np.nan))
    return label_patterns(model, given, numbers, made, "attention", unit="share")


def label_patterns(
    model: Model,
    prompts: Prompts,
    layers: list[int],
    values: np.ndarray,
    name: str,
    **attrs: str,
) -> xr.DataArray:
    """Values `[prompt, layer, head, pos, src]`, with labels and attributes."""
    tokens = np.full((len(prompts), prompts.width), "", dtype=object)
    for row, texts in enumerate(prompts.token_text):
        tokens[row, : len(texts)] = texts
    return xr.DataArray(
        values,
        {
            "prompt": range(len(prompts)),
            "layer": layers,
            "head": range(values.shape[2]),
            "pos": range(prompts.width),
            "src": range(prompts.width),
            "token": (("prompt", "pos"), tokens),
            "source_token": (("prompt", "src"), tokens),
        },
        ("prompt", *LINK_DIMS),
        name,
        {
            **attrs,
            "causal": int(model.cfg.attention_dir == "causal"),
            "model": models.name(model),
            "weights": models.processing(model),
        },
    )


@checks_arguments
def over_prompts(found: xr.DataArray, prompts: Prompts) -> xr.DataArray:
    """The mean over prompts of one length, labelled with up to three tokens per position.

    Raises:
        ValueError: if the prompts differ in length: a position would mix different places.
    """
    lengths = sorted(set(prompts.lengths.tolist()))
    if len(lengths) > 1:
        raise ValueError(
            f"the prompts have {lengths[0]} to {lengths[-1]} tokens: a mean by position would mix "
            f"places that have nothing in common. Take prompts one by one, or of one length."
        )
    texts = token_labels(prompts, range(prompts.width))
    labels = {"token": ("pos", texts), "source_token": ("src", texts)}
    averaged = found.mean("prompt", keep_attrs=True).assign_coords(labels)
    return averaged.assign_attrs(n_prompts=len(prompts))


def seen_keys(found: xr.DataArray) -> Bool[np.ndarray, "pos src"]:
    """True where a query can attend to a key: not a later one, and not one that is set aside."""
    ordered = found.transpose(..., "pos", "src")
    there: np.ndarray = np.isfinite(ordered.values).any(tuple(range(found.ndim - 2)))
    past = found["src"].values <= found["pos"].values[:, None]
    return np.asarray(there & past) if found.attrs.get("causal", 1) else there


def n_keys(found: xr.DataArray) -> Int[np.ndarray, " pos"]:
    """How many keys each query can attend to; uniform attention is one over that."""
    return np.asarray(seen_keys(found).sum(1))
