"""Is a direction used? Ablate it, or steer along it, and compare with random directions.

>>> from mechinterp import load_model, logit_diff, token_id, tokenize
>>> from mechinterp.probing import Labelled, class_direction, gather
>>> from mechinterp.probing import compare_with_random, direction_effects
>>> model = load_model("toy:trigger")
>>> things = "sesame", "letter", "map", "book", "coat"
>>> given = Labelled.of([f"bring the {t}" for t in things], ["yes", "no", "no", "no", "no"])
>>> prompts = tokenize(model, given.prompts)
>>> along = class_direction(gather(model, prompts), given, layer=2)
>>> refuse = logit_diff(token_id(model, "REFUSE"), token_id(model, "COMPLY"))
>>> found = compare_with_random(direction_effects(model, prompts, along, refuse, n_random=4))
>>> float(found["mean"].sel(how="steer up", kind="random").round()), found["unit"].item()
(16.0, 'logits')

A probe finds what is present; an intervention shows whether the model uses it. The effect counts
only if random directions of the same length have less. Directions along which activations vary have
larger effects than uniformly random ones, so both kinds are drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float

from mechinterp.ablation.single import replace_along
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.metrics import Metric
from mechinterp.core.prompts import Prompts
from mechinterp.core.signs import no_support
from mechinterp.core.sites import Site
from mechinterp.core.specs import Specs, add, edit
from mechinterp.models.model import Model
from mechinterp.probing.by_layer import layer_of
from mechinterp.probing.gathered import residual_sites
from mechinterp.probing.labelled import Labelled
from mechinterp.probing.probes import Probe, mass_mean
from mechinterp.stats.intervals import interval
from mechinterp.sweeps.experiment import sweep
from mechinterp.sweeps.options import SweepOptions, check_options

HOWS = ("ablate", "steer up", "steer down")
KINDS = ("random", "spread")
"""Random directions: uniform, and spread as activations vary."""

_SIGN = (
    "Positive: the intervention raises the metric. Where the direction supports it, ablating and "
    "steering down lower it, and steering up raises it."
)


@dataclass(frozen=True, eq=False)
class Direction:
    """A unit vector in the residual stream, and the distance of two classes along it.

    `gap`: the mean of the second class minus the mean of the first, along `vector`; positive.
    `cloud`: the activations in which it was found, each minus the mean of its class.
    """

    vector: Float[np.ndarray, " feature"]
    gap: float
    site: str
    layer: int
    name: str
    cloud: Float[np.ndarray, "prompt feature"]

    def drawn(self, kind: str, n: int, seed: int = 0) -> Float[np.ndarray, "draw feature"]:
        """Random unit vectors: "random", uniform; "spread", random sums of the cloud.

        If activations do not vary within a class, "spread" is the same as "random".

        Raises:
            ValueError: if the kind is unknown.
        """
        if kind not in KINDS:
            raise ValueError(f"kind={kind!r} is none of {', '.join(map(repr, KINDS))}.")
        rng = np.random.default_rng([seed, KINDS.index(kind)])
        varies = np.linalg.norm(self.cloud) > 1e-5 * abs(self.gap)
        if kind == "spread" and varies:
            drawn = rng.normal(size=(n, len(self.cloud))) @ self.cloud
        else:
            drawn = rng.normal(size=(n, len(self.vector)))
        unit: Float[np.ndarray, "draw feature"] = drawn / np.linalg.norm(
            drawn, axis=1, keepdims=True
        )
        return unit


@checks_arguments
def class_direction(
    acts: xr.DataArray,
    labelled: Labelled,
    layer: int,
    *,
    probe: Probe | None = None,
    rows: Bool[np.ndarray, " prompt"] | None = None,
) -> Direction:
    """The direction of a probe at a layer, from the first of two classes to the second.

    `probe`: by default `mass_mean()`. The difference of means moves activations from one class to
    the other; logistic weights point to what separates them best, and may be small along what the
    model uses. `rows`: the prompts in which to find it; measure its effects on others.

    Raises:
        ValueError: if the layer was not gathered, there are not two classes, or their means are
            equal.
        ProbeError: if the probe does not converge.

    Source: Marks and Tegmark 2023, section 6, arXiv 2310.06824.
    """
    layers = acts["layer"].values.tolist()
    if layer not in layers:
        raise ValueError(f"layer {layer} was not gathered: {layers}.")
    chosen = np.ones(len(labelled), bool) if rows is None else rows
    x, y = layer_of(acts, layers.index(layer))[chosen], labelled.y[chosen]
    if len(labelled.classes) != 2 or len(np.unique(y)) != 2:
        raise ValueError(
            f"a direction leads from one class to another, but these prompts are of "
            f"{len(np.unique(y))} of {len(labelled.classes)} classes. Give prompts of two."
        )
    probe = probe or mass_mean()
    leads = probe.fit(x, y).direction
    if not np.linalg.norm(leads) > 0:
        raise ValueError(
            f"layer {layer}: the classes have the same mean, as if all prompts had the same token "
            f"at this position. Take a later layer, or another position."
        )
    unit = leads / np.linalg.norm(leads)
    means = np.stack([x[y == number].mean(0) for number in (0, 1)])
    gap = float((means[1] - means[0]) @ unit)
    site = str(acts["site"].values[layers.index(layer)])
    return Direction(unit, gap, site, layer, probe.name, x - means[y])


@checks_arguments
def ablate_direction(sites: Sequence[Site], vector: Float[np.ndarray, " feature"]) -> Specs:
    """The specs that remove the component along a vector at each site: x - (x . u) u, |u| = 1.

    Source: Arditi et al. 2024, section 2.4, arXiv 2406.11717.
    """
    unit = torch.from_numpy(np.asarray(vector, np.float64) / np.linalg.norm(vector))
    without = replace_along(unit, lambda old, at: torch.zeros_like(old))
    return tuple(spec for site in sites for spec in edit(site, without, name="ablate direction"))


@checks_arguments
def steer_direction(
    sites: Sequence[Site], vector: Float[np.ndarray, " feature"], scale: float = 1.0
) -> Specs:
    """The specs that add `scale` times a vector to the value at each site.

    Source: Turner et al. 2023, arXiv 2308.10248; Rimsky et al. 2023, arXiv 2312.06681.
    """
    added = torch.from_numpy(np.asarray(vector, np.float32))

    def plus(site: Site) -> Specs:
        return add(site, added, scale)

    return tuple(spec for site in sites for spec in plus(site))


@checks_arguments
def direction_effects(
    model: Model,
    prompts: Prompts,
    direction: Direction,
    metric: Metric,
    *,
    ablate_at: Sequence[Site] | None = None,
    steer_at: Sequence[Site] | None = None,
    n_random: int = 10,
    seed: int = 0,
    **options: Unpack[SweepOptions],
) -> xr.DataArray:
    """The change of the metric by each intervention, in its unit: dims (how, direction, prompt).

    `how`: "ablate", the component is removed at `ablate_at` (default: all layers and positions);
    "steer up" and "steer down", the gap between the classes is added or subtracted along the
    direction at `steer_at` (default: its own layer, all positions). `direction`: "probe", then
    `n_random` random ones of each `kind`, of the same length. `unchanged` (prompt): the metric
    without intervention. `options`: those of `sweep`, such as `progress`.

    Raises:
        ValueError: if the direction does not fit the residual stream.
        HookError: as `sweep`.
    """
    check_options("direction_effects", options)
    if len(direction.vector) != model.cfg.d_model:
        raise ValueError(
            f"a direction of {len(direction.vector)} features found at {direction.site}; the "
            f"residual stream has {model.cfg.d_model}. Gather residual_sites(model)."
        )
    ablate_at = residual_sites(model) if ablate_at is None else ablate_at
    steer_at = residual_sites(model, [direction.layer]) if steer_at is None else steer_at
    vectors = [direction.vector]
    for kind in KINDS:
        vectors += list(direction.drawn(kind, n_random, seed))
    names = ["probe"] + [f"{kind} {n}" for kind in KINDS for n in range(n_random)]

    def arm(how: str, number: int) -> Specs:
        if how == "ablate":
            return ablate_direction(ablate_at, vectors[number])
        sign = 1.0 if how == "steer up" else -1.0
        return steer_direction(steer_at, vectors[number], sign * direction.gap)

    over = {"how": HOWS, "number": range(len(vectors))}
    changed = sweep(model, prompts, over, arm, metric, **options)
    unchanged = sweep(model, prompts, {"number": [0]}, lambda number: (), metric)
    effect = (changed - unchanged.isel(number=0, drop=True)).rename(number="direction")
    attrs = changed.attrs | {
        "unit": metric.unit,
        "metric": metric.name,
        "probe": direction.name,
        "layer": direction.layer,
        "gap": direction.gap,
        "n_random": n_random,
        **no_support(_SIGN),
    }
    return effect.assign_coords(
        direction=names,
        kind=("direction", [name.partition(" ")[0] for name in names]),
        unchanged=("prompt", unchanged.values[0]),
    ).assign_attrs(attrs)


@checks_arguments
def compare_with_random(effects: xr.DataArray, *, level: float = 0.95) -> xr.Dataset:
    """The probe's direction compared with random ones: dims (how, kind), means over prompts.

    `mean`, `low`, `high`: the change by the probe's direction, with its interval over prompts.
    `least`, `most`: the smallest and largest mean change by random ones. `p`: the share of random
    directions with a change at least as large in size, counting the probe's own: at least
    1 / (n_random + 1). `z`: the distance from the random mean, in random standard deviations.

    Raises:
        ValueError: if there are fewer than two prompts, or no random directions.
    """
    own = effects.sel(direction="probe", drop=True)
    found = interval(own, level=level)
    cells: dict[str, list[list[float]]] = {name: [] for name in ("least", "most", "p", "z")}
    for how in effects["how"].values:
        row: dict[str, list[float]] = {name: [] for name in cells}
        probe = float(found["mean"].sel(how=how))
        for kind in KINDS:
            drawn = effects.sel(how=how).isel(direction=effects["kind"].values == kind)
            if not drawn.sizes["direction"]:
                raise ValueError("there are no random directions to compare with: n_random=10.")
            means = drawn.mean("prompt").values
            as_much = int((abs(means) >= abs(probe)).sum())
            spread = float(means.std(ddof=1)) if len(means) > 1 else np.nan
            row["least"].append(float(means.min()))
            row["most"].append(float(means.max()))
            row["p"].append((1 + as_much) / (1 + len(means)))
            row["z"].append((probe - float(means.mean())) / spread if spread else np.nan)
        for name, values in row.items():
            cells[name].append(values)
    shape = {"how": effects["how"].values, "kind": list(KINDS)}
    both = xr.Dataset({name: (("how", "kind"), value) for name, value in cells.items()}, shape)
    for name in ("mean", "low", "high"):
        both[name] = found[name].expand_dims(kind=list(KINDS)).transpose("how", "kind")
    unchanged = effects["unchanged"].mean()
    return both.assign_coords(unchanged=float(unchanged), unit=effects.attrs["unit"]).assign_attrs(
        effects.attrs
    )
