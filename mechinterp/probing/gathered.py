"""Activations of many prompts at one position, layer by layer, in memory or on disk.

>>> from mechinterp import load_model, tokenize
>>> from mechinterp.probing import gather
>>> model = load_model("toy:trigger")
>>> acts = gather(model, tokenize(model, ["bring the sesame", "bring me the letter"]))
>>> acts.dims, acts["layer"].values.tolist(), acts["site"].values.tolist()
(('layer', 'prompt', 'feature'), [0, 1, 2], ['L0.resid_pre', 'L1.resid_pre', 'L1.resid_post'])

A layer of the residual stream is the number of blocks that have run: 0 is the embedding, n_layers
what the final norm reads. Any other activation has the number of its block.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from mechinterp import models
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.hashes import hash_of
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import Pos, Site
from mechinterp.core.specs import read
from mechinterp.engine.runner import run
from mechinterp.models.hook_points import axis_size, read_bytes
from mechinterp.models.model import Model, require_model
from mechinterp.probing.activation_parts import ActivationFolder
from mechinterp.storage.provenance import resumable_facts

MEAN = "mean"
"""Instead of a position: the mean over the user's text, without start token and template."""
TEXT_END = "text_end"
"""The last token of the user's text; "end" is the last token of the prompt, template included."""

CONTENT = "content"
"""The coordinate that says of each prompt which is the first with the same tokens."""

Values = Float[np.ndarray, "layer prompt feature"]

_BATCH_POSITIONS = 768
_BATCH_BYTES = 1 << 26


@checks_arguments
def residual_sites(model: Model, layers: Iterable[int] | None = None) -> list[Site]:
    """The sites of the residual stream at layers 0 (the embedding) to n_layers; by default all.

    Raises:
        ValueError: if there is no such layer.
    """
    require_model(model)
    n_layers = model.cfg.n_layers
    sites = []
    for layer in range(n_layers + 1) if layers is None else layers:
        if not 0 <= layer <= n_layers:
            raise ValueError(
                f"layer {layer}: the residual stream has layers 0 (the embedding) to {n_layers} "
                f"(after the last block)."
            )
        last = layer == n_layers
        sites.append(Site("resid_post", layer - 1) if last else Site("resid_pre", layer))
    return sites


@checks_arguments
def gather(
    model: Model,
    prompts: Prompts,
    sites: Sequence[Site] | None = None,
    *,
    position: Pos = "end",
    out: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> xr.DataArray:
    """The activation of each prompt at a position: dims (layer, prompt, feature), in float32.

    `sites`: one per layer, without positions, all of the same width; by default `residual_sites`.
    Heads are concatenated, head 0 first. `position`: "end", "text_end", a name, a number, or
    "mean". Prompts run in batches. `out`: a folder for the activations, so that they need not fit
    into memory: the result reads from there what is used, such as one layer; an interrupted run
    continues after its last part, with the same bytes.

    Raises:
        OSError: if `out` cannot be written.
        ValueError: if the sites or the position are invalid, or `out` holds other activations.
        HookError: if the model does not have a site.
    """
    sites = residual_sites(model) if sites is None else list(sites)
    prompts = _with_text_end(prompts) if position == TEXT_END else prompts
    layers, width = _check_sites(model, prompts, sites, position)
    shape = (len(sites), len(prompts), width)
    batches = list(_batches(model, prompts, sites))

    def found(rows: np.ndarray) -> Values:
        return _read(model, _trim(prompts, rows), sites, position)

    def tick(rows: np.ndarray) -> None:
        if progress is not None:
            progress(int(rows[-1]) + 1, len(prompts))

    if out is None:
        values = np.empty(shape, np.float32)
        for rows in batches:
            values[:, rows] = found(rows)
            tick(rows)
        gathered = xr.Variable(("layer", "prompt", "feature"), values)
    else:
        facts = _run_facts(prompts, sites, position)
        folder = ActivationFolder(
            Path(out), shape, batches, {**resumable_facts(model, out), **facts}
        )
        for number, group in enumerate(folder.groups):
            if not folder.has(number):
                folder.save(number, np.concatenate([found(rows) for rows in group], axis=1))
            for rows in group:
                tick(rows)
        gathered = folder.finish()
    return xr.DataArray(
        gathered,
        coords={
            "layer": layers,
            "site": ("layer", [str(site) for site in sites]),
            CONTENT: ("prompt", contents(prompts)),
        },
        attrs={"position": str(position), "model": models.name(model)}
        | {"size": models.size(model), "weights": models.processing(model)},
    )


def contents(prompts: Prompts) -> list[int]:
    """The number of the first prompt that has the same tokens, for each prompt."""
    rows = zip(prompts.tokens.tolist(), prompts.lengths.tolist(), strict=True)
    first: dict[tuple[int, ...], int] = {}
    return [first.setdefault(tuple(row[:n]), at) for at, (row, n) in enumerate(rows)]


def _read(
    model: Model, prompts: Prompts, sites: Sequence[Site], position: Pos
) -> Float[np.ndarray, "layer prompt feature"]:
    whole = position == MEAN
    asked = [site if whole else replace(site, pos=position) for site in sites]
    acts = run(model, prompts, read(*asked), logits_at=()).acts
    found = []
    for site in asked:
        value = acts[site].flatten(2 if whole else 1)
        found.append((_mean_over_text(value, prompts) if whole else value).float().cpu())
    return torch.stack(found).numpy()


def _mean_over_text(
    value: Float[Tensor, "prompt pos feature"], prompts: Prompts
) -> Float[Tensor, "prompt feature"]:
    there = torch.zeros(prompts.mask.shape, dtype=torch.double)
    for row, roles in enumerate(prompts.roles):
        there[row, _text(roles)] = 1
    there = there.to(value.device)
    return torch.einsum("rpf,rp->rf", value.double(), there) / there.sum(1, keepdim=True)


def _text(roles: Sequence[str]) -> list[int]:
    return [pos for pos, role in enumerate(roles) if role == "text"]


def _with_text_end(prompts: Prompts) -> Prompts:
    if TEXT_END in prompts.names:
        return prompts
    for row, roles in enumerate(prompts.roles):
        if not _text(roles):
            raise ValueError(f'prompt {row} has no user text: use position "end".')
    return prompts.named(**{TEXT_END: [_text(roles)[-1] for roles in prompts.roles]})


def _check_sites(
    model: Model, prompts: Prompts, sites: Sequence[Site], position: Pos
) -> tuple[list[int], int]:
    """The number of each layer, and the number of features."""
    layers, widths = [], set()
    for site in sites:
        axes = site.axes or ()
        if site.pos is not None or axes[:2] != ("prompt", "pos"):
            raise ValueError(
                f"{site}: give sites that have positions, but name none, such as "
                f'Site("resid_post", 3); give the position once, position="end".'
            )
        layers.append((site.layer or 0) + (site.act == "resid_post"))
        sizes = [axis_size(model, site.act, a) for a in (site.narrowed_axes or ())[2:]]
        widths.add(int(np.prod(sizes)))
    if len(set(layers)) < len(layers) or not sites:
        raise ValueError(
            f"sites {', '.join(map(str, sites))}: give at least one, and one per layer. For "
            f"several heads, gather each by itself, or all of z."
        )
    if len(widths) > 1:
        raise ValueError(f"the sites have {sorted(widths)} features: gather those of one size.")
    if position == MEAN:
        for row, roles in enumerate(prompts.roles):
            if not _text(roles):
                raise ValueError(f'prompt {row} has no user text: use position "end".')
    else:
        prompts.given_positions(position)
    return layers, widths.pop()


def _batches(model: Model, prompts: Prompts, sites: Sequence[Site]) -> Iterator[np.ndarray]:
    """The rows of each batch, in order: few enough for a quick pass and small reads."""
    each = max(1, read_bytes(model, prompts.rows(torch.tensor([0])), sites))
    size = max(1, min(_BATCH_POSITIONS // prompts.width, _BATCH_BYTES // each))
    for begin in range(0, len(prompts), size):
        yield np.arange(begin, min(begin + size, len(prompts)))


def _trim(prompts: Prompts, rows: np.ndarray) -> Prompts:
    chosen = prompts.rows(torch.from_numpy(rows))
    return replace(chosen, tokens=chosen.tokens[:, : int(chosen.lengths.max())])


def _run_facts(prompts: Prompts, sites: Sequence[Site], position: Pos) -> dict[str, object]:
    where = [] if position == MEAN else prompts.given_positions(position).tolist()
    given = [prompts.tokens.tolist(), prompts.lengths.tolist(), list(map(list, prompts.roles))]
    return {
        "prompts": hash_of(json.dumps([given, where]).encode()),
        "sites": [str(site) for site in sites],
        "position": str(position),
    }
