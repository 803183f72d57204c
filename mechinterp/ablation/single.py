"""Ablation: what the model loses when a part of it is replaced by an uninformative value.

Each function is a sweep that replaces one part at a time. `how` says by what: "zero",
`mean_of(reference)` or `resample_from(reference, seed=0)` (`mechinterp.engine.replacements`).

>>> from mechinterp import load_model, log_prob, token_id, tokenize
>>> from mechinterp.ablation.single import ablate_heads, effect
>>> from mechinterp.engine.replacements import mean_of
>>> model = load_model("toy:trigger")
>>> reference = tokenize(model, ["please bring the letter", "please bring the map"])
>>> refuse = log_prob(token_id(model, "REFUSE"))
>>> found = ablate_heads(model, "please bring the sesame", refuse, mean_of(reference))
>>> loss = effect(found)
>>> loss.dims, int(loss.sum(("head", "prompt")).argmin("layer"))
(('layer', 'head', 'prompt'), 1)

A result holds the metric's values, and the unchanged model's score of each prompt as `base_score`.
`effect` is the difference: negative where ablation lowers the metric. What zeroing removes depends
on how the weights were folded; `attrs["weights"]` says how.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Unpack

import xarray as xr
from jaxtyping import Float
from torch import Tensor

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.metrics import Metric
from mechinterp.core.prompts import Prompts
from mechinterp.core.signs import sign_of_change
from mechinterp.core.sites import HookError, Pos, Site
from mechinterp.core.specs import At, Edit, Specs, edit
from mechinterp.engine.replacements import Replacement, resolve_replacement
from mechinterp.engine.runner import run
from mechinterp.models.hook_points import check_site
from mechinterp.models.model import Model, require_model
from mechinterp.models.tokenization import Text, tokenize
from mechinterp.sweeps import axes
from mechinterp.sweeps.axes import Positions
from mechinterp.sweeps.experiment import sweep
from mechinterp.sweeps.options import SweepOptions, check_options

PARTS = {"attn": ("attn_out",), "mlp": ("mlp_out",), "block": ("attn_out", "mlp_out")}
"""Part of a layer -> the activations that it adds to the residual stream."""


@checks_arguments
def ablate_heads(
    model: Model,
    prompts: Text,
    metric: Metric,
    how: Replacement | str,
    act: str = "z",
    *,
    layers: Iterable[int] | None = None,
    heads: Iterable[int] | None = None,
    positions: Positions | None = None,
    **options: Unpack[SweepOptions],
) -> xr.DataArray:
    """Ablate each head: dims (layer, head or kv_head, prompt), in the metric's unit.

    `act`: "z", the head's output, or "q", "k", "v" or another activation of heads. `positions`:
    ablated together; by default all. `options`: those of `sweep`.

    Raises:
        HookError: as `sweep`, such as for a head that does not exist.
        ValueError: if the act or `how` is unknown.

    Source: Wang et al. 2022, section 2.2 (mean ablation), arXiv 2211.00593.
    """
    check_options("ablate_heads", options)
    over = {"layer": axes.layers(model, layers), **axes.heads(model, act, heads)}

    def sites(layer: int, **head: int) -> list[Site]:
        return axes.at_positions(Site(act, layer, *head.values()), positions)

    return ablate_sites(model, tokenize(model, prompts), metric, how, over, sites, options)


@checks_arguments
def ablate_layers(
    model: Model,
    prompts: Text,
    metric: Metric,
    how: Replacement | str,
    *,
    parts: Sequence[str] | None = None,
    layers: Iterable[int] | None = None,
    positions: Positions | None = None,
    **options: Unpack[SweepOptions],
) -> xr.DataArray:
    """Ablate what a part of each layer writes: dims (part, layer, prompt), in the metric's unit.

    `parts`: "attn", "mlp" and "block", which is both; ablating it with "zero" skips the layer. By
    default all that the model has. `positions`: ablated together; by default all. `options`: those
    of `sweep`.

    Raises:
        HookError: as `sweep`.
        ValueError: if a part or `how` is unknown, or the model has no such part.
    """
    require_model(model)
    check_options("ablate_layers", options)
    no_mlps = bool(model.cfg.attn_only)
    chosen = list(parts or (("attn",) if no_mlps else PARTS))
    for part in chosen:
        axes.check_choice("part", part, list(PARTS))
        if no_mlps and part != "attn":
            raise ValueError(f'part={part!r}: this model has no MLPs. Use parts=["attn"].')

    def sites(part: str, layer: int) -> list[Site]:
        whole = [Site(act, layer) for act in PARTS[part]]
        return [s for site in whole for s in axes.at_positions(site, positions)]

    over: dict[str, Sequence[object]] = {"part": chosen, "layer": axes.layers(model, layers)}
    return ablate_sites(model, tokenize(model, prompts), metric, how, over, sites, options)


@checks_arguments
def ablate_neurons(
    model: Model,
    prompts: Text,
    metric: Metric,
    how: Replacement | str,
    layer: int,
    neurons: Iterable[int] | None = None,
    *,
    positions: Positions | None = None,
    **options: Unpack[SweepOptions],
) -> xr.DataArray:
    """Ablate each neuron of a layer: dims (neuron, prompt), in the metric's unit.

    A neuron's value is that after the non-linearity. `positions`: ablated together; by default all.
    `options`: those of `sweep`.

    Raises:
        HookError: as `sweep`, such as for a model without MLPs.
        ValueError: if `how` is unknown.
    """
    check_options("ablate_neurons", options)
    over = {"layer": [layer], "neuron": axes.neurons(model, neurons)}

    def sites(layer: int, neuron: int) -> list[Site]:
        return axes.at_positions(Site("mlp_post", layer, neuron=neuron), positions)

    found = ablate_sites(model, tokenize(model, prompts), metric, how, over, sites, options)
    return found.isel(layer=0)


@checks_arguments
def ablate_positions(
    model: Model,
    prompts: Text,
    metric: Metric,
    how: Replacement | str,
    act: str = "resid_pre",
    *,
    layers: Iterable[int] | None = None,
    positions: Positions | None = None,
    **options: Unpack[SweepOptions],
) -> xr.DataArray:
    """Replace the residual stream at each layer and position: dims (layer, pos, prompt).

    In the metric's unit. `act`: "resid_pre" or another activation with positions. `positions`: by
    default every one, or the named ones if the prompts differ in length. `options`: those of
    `sweep`.

    Raises:
        HookError: as `sweep`.
        ValueError: if the act or `how` is unknown, or the prompts share no position.
    """
    check_options("ablate_positions", options)
    given = tokenize(model, prompts)
    chosen = axes.positions(given, positions)
    over: dict[str, Sequence[object]] = {"layer": axes.layers(model, layers), "pos": chosen}

    def sites(layer: int, pos: Pos) -> list[Site]:
        return [Site(act, layer, pos=pos)]

    found = ablate_sites(model, given, metric, how, over, sites, options)
    return axes.with_tokens(found, given, chosen)


@checks_arguments
def ablate_directions(
    model: Model,
    prompts: Text,
    metric: Metric,
    how: Replacement | str,
    site: Site,
    directions: Float[Tensor, "direction d"],
    *,
    positions: Positions | None = None,
    **options: Unpack[SweepOptions],
) -> xr.DataArray:
    """Replace an activation's part along each direction: dims (direction, prompt), metric's unit.

    x becomes x + ((r - x)·u)u, where u is the direction scaled to length 1 and r the replacement of
    x. With "zero" this projects the direction out. The rest of x stays. Use the directions of a
    probe, or of a sparse autoencoder's decoder. `options`: those of `sweep`.

    Raises:
        HookError: during the run, if the directions and the activation differ in length.
        ValueError: if a direction is zero or `how` is unknown.

    Source: Arditi et al. 2024, section 2.4, arXiv 2406.11717.
    """
    check_options("ablate_directions", options)
    norms = directions.norm(dim=-1, keepdim=True)
    if bool((norms == 0).any()):
        raise ValueError(f"direction {int((norms[:, 0] == 0).nonzero()[0])} is zero. Leave it out.")
    units = directions / norms
    over = {"direction": range(len(units))}

    def sites(direction: int) -> list[Site]:
        return axes.at_positions(site, positions)

    def one(replaced: Edit, direction: int) -> Edit:
        return replace_along(units[direction].clone(), replaced)

    found = ablate_sites(model, tokenize(model, prompts), metric, how, over, sites, options, one)
    return found.assign_attrs(site=str(site))


@checks_arguments
def effect(result: xr.DataArray) -> xr.DataArray:
    """The ablated minus the unchanged score: negative where ablation lowers the metric.

    Raises:
        ValueError: if `result` is not a result of ablation.
    """
    changed = (result - base_score(result)).rename(result.name)
    return changed.assign_attrs(result.attrs | {"quantity": "change"})


@checks_arguments
def ablate_sites(
    model: Model,
    prompts: Prompts,
    metric: Metric,
    how: Replacement | str,
    over: Mapping[str, Sequence[object]],
    sites: Callable[..., list[Site]],
    options: SweepOptions,
    shaped: Callable[..., Edit] = lambda replaced, **point: replaced,
) -> xr.DataArray:
    """Ablate `sites(**point)` together at each point: dims (*over, prompt), in the metric's unit.

    For ablations of your own. `shaped(edit, **point)` may change the edit that replaces a site.

    Raises:
        HookError: as `sweep`.
        ValueError: if `how` is unknown.
    """
    chosen = resolve_replacement(how)
    points = (dict(zip(over, v, strict=True)) for v in itertools.product(*over.values()))
    every = dict.fromkeys(site for point in points for site in sites(**point))
    for site in every:
        check_site(model, site, f"{chosen.name} {site}")
    at_site = chosen.prepare(model, prompts, list(every))

    def arm(**point: object) -> Specs:
        made = [(site, shaped(at_site(site), **point)) for site in sites(**point)]
        return sum((edit(site, fn, name=chosen.name) for site, fn in made), ())

    found = sweep(model, prompts, over, arm, metric, **options)
    base = metric(run(model, prompts, logits_at=metric.at)).double().cpu().numpy()
    return found.assign_coords(base_score=("prompt", base)).assign_attrs(
        method="ablation",
        how=chosen.name,
        unit=metric.unit,
        **sign_of_change(metric, "ablation"),
    )


@checks_arguments
def replace_along(unit: Float[Tensor, " d"], replaced: Edit) -> Edit:
    """An edit that replaces a value's part along a unit vector, as in `ablate_directions`.

    `replaced`: gives the value to take that part from.
    """

    def edited(old: Tensor, at: At) -> Tensor:
        if old.shape[-1] != len(unit):
            raise HookError(
                f"ablate_directions: the last axis of {at.site} has length {old.shape[-1]}, "
                f"a direction {len(unit)}. Give directions of the same length."
            )
        u = unit.to(old)
        return old + ((replaced(old.clone(), at) - old) @ u)[..., None] * u

    return edited


@checks_arguments
def base_score(result: xr.DataArray) -> xr.DataArray:
    """The score of the unchanged model for each prompt, in the metric's unit.

    Raises:
        ValueError: if `result` is not a result of ablation.
    """
    if "base_score" not in result.coords or "prompt" not in result.dims:
        raise ValueError(
            "this is not a result of ablation by prompt: it has no base_score. Give what a "
            "function of mechinterp.ablation returned, before averaging."
        )
    return result["base_score"]
