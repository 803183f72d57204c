"""By which parts what decides a refusal travels to the answer: heads and MLPs are interchanged.

A part is necessary if a refused prompt is answered once the part has what it had in an answered
prompt, and sufficient if an answered one is refused once it has what it had in a refused one. A
gate may write next to nothing to the answer itself, so attribution alone does not find it.

>>> from mechinterp import load_model
>>> from mechinterp.refusal.routing import parts_of
>>> list(parts_of(load_model("toy:and")))
['L0H0', 'L0H1', 'L0H2', 'L0H3', 'L0.mlp']

Source: arXiv 2604.04385, where parts of under 1% of direct attribution decide.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from mechinterp import models
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.metrics import Metric
from mechinterp.core.pairs import Pair
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import Site
from mechinterp.core.specs import Specs, knockout, patch, read
from mechinterp.engine.linear_readout import linearize_metrics
from mechinterp.engine.runner import run
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text, tokenize
from mechinterp.refusal.drivers import Driver
from mechinterp.sweeps.experiment import sweep
from mechinterp.sweeps.options import SweepOptions

LEAST_SHARE = 0.1
"""The share of the difference between refused and answered that a part on the route carries."""
LEVEL = 0.05
LEAST_PAIRS = 5
"""With fewer pairs no p value is below .05."""
N_EVERYWHERE = 12
"""Of a large model, how many parts are interchanged at all positions too."""
ALL_LAYERS = -1
Way = Literal["necessity", "sufficiency"]
WAYS: tuple[Way, ...] = ("necessity", "sufficiency")
_MOST_FLIPS = 1 << 14


@checks_arguments
def parts_of(model: Model) -> dict[str, Site]:
    """Each head ("L0H1") and MLP ("L0.mlp") with the site of what it gives out."""
    found = {}
    for layer in range(model.cfg.n_layers):
        for head in range(model.cfg.n_heads):
            found[f"L{layer}H{head}"] = Site("z", layer, head)
        if not model.cfg.attn_only:
            found[f"L{layer}.mlp"] = Site("mlp_out", layer)
    return found


@dataclass(frozen=True, eq=False)
class Interchange:
    """Refused prompts and an answered one for each, and what is measured."""

    model: Model
    metric: Metric
    refused: Prompts
    answered: Prompts

    @classmethod
    def of(cls, model: Model, metric: Metric, driver: Driver, rows: Sequence[int]) -> "Interchange":
        """Some pairs of a driver."""
        sides = [
            tokenize(
                model, cast(Text, [driver.readings.prompts[driver.pairs[n][side]] for n in rows])
            )
            for side in (0, 1)
        ]
        return cls(model, metric, *sides)

    @property
    def is_aligned(self) -> bool:
        """Whether the two prompts of each pair have as many tokens."""
        return bool((self.refused.lengths == self.answered.lengths).all())

    def scores(self) -> Float[np.ndarray, "side pair"]:
        """The scores of the refused and of the answered prompts."""
        return np.stack([self._score(prompts) for prompts in (self.refused, self.answered)])

    def carried(
        self, sites: Mapping[str, Site], way: Way, *, out: Path | None = None
    ) -> Float[np.ndarray, "part pair"]:
        """The change towards the other side's score by each site, in the metric's unit.

        way: "necessity" patches the refused prompts, "sufficiency" the answered ones.
        """
        is_refused = way == "necessity"
        base, other = self._sides if is_refused else self._sides[::-1]
        whole = dict.fromkeys(replace(site, head=None) for site in sites.values())
        source = run(self.model, other, read(*whole), logits_at=self.metric.at).acts

        def arm(part: str) -> Specs:
            return patch(sites[part], source)

        over = {"part": list(sites)}
        found = sweep(self.model, base, over, arm, self.metric, **_options(out))
        sign = -1 if is_refused else 1
        return np.asarray(sign * (found.values - self._score(base)))

    def direct(self, sites: Mapping[str, Site]) -> Float[np.ndarray, "part pair"]:
        """What the difference of each part's output writes to the metric itself."""
        last = Site("resid_post", self.model.cfg.n_layers - 1, pos="end")
        there = [replace(site, pos="end") for site in sites.values()]
        refused, answered = (
            run(self.model, prompts, read(last, *there), logits_at=("end",))
            for prompts in self._sides
        )
        reading = linearize_metrics(self.model, refused, [self.metric], refused.acts[last][:, None])
        found = []
        for site in there:
            apart = (refused.acts[site] - answered.acts[site]).double()
            if site.head is not None:
                weights = models.output_weights(self.model, site.layer or 0)[site.head]
                apart = apart @ weights.to(apart)
            found.append(reading.contribution(apart[:, None])[0])
        return np.stack(found)

    def cut_attention(
        self, *, of_others: bool, seed: int = 0, out: Path | None = None
    ) -> Float[np.ndarray, "layer pair"] | None:
        """The fall of the refused prompts' score without some attention of the last token.

        Cut is its attention to where the two prompts of a pair differ, or to as many other places,
        in each layer, and last in all. None if they differ at the end alone, or are not aligned.
        """
        keys = _keys(self, np.random.default_rng(seed), of_others=of_others)
        if keys is None:
            return None
        names = [f"key{n}" for n in range(keys.shape[1])]
        named = self.refused.named(**dict(zip(names, keys.T.tolist(), strict=True)))
        every = range(self.model.cfg.n_layers)

        def arm(layer: int) -> Specs:
            layers = every if layer == ALL_LAYERS else (layer,)
            return sum((knockout(n, None, "end", key) for n in layers for key in names), ())

        over = {"layer": [*every, ALL_LAYERS]}
        found = sweep(self.model, named, over, arm, self.metric, **_options(out))
        return np.asarray(self._score(self.refused) - found.values)

    @property
    def _sides(self) -> tuple[Prompts, Prompts]:
        return self.refused, self.answered

    def _score(self, prompts: Prompts) -> Float[np.ndarray, " pair"]:
        done = run(self.model, prompts, logits_at=self.metric.at)
        return np.asarray(self.metric(done).double().cpu().numpy())


def _options(out: Path | None) -> SweepOptions:
    return {} if out is None else {"out": out}


def _keys(
    between: Interchange, rng: np.random.Generator, *, of_others: bool
) -> Int[np.ndarray, "pair key"] | None:
    """Where each pair differs before its last token, or as many other places; rows by repeats."""
    if not between.is_aligned:
        return None
    differs = Pair(between.refused, between.answered).differ
    found = []
    for row, n in enumerate(between.refused.lengths.tolist()):
        own = differs[row, : n - 1].nonzero().flatten().tolist()
        if not own:
            return None
        if of_others:
            others = [at for at in range(1, n - 1) if at not in own] or [0]
            own = rng.permutation(others)[: len(own)].tolist()
        found.append(own)
    most = max(map(len, found))
    return np.array([(row * most)[:most] for row in found])


@checks_arguments
def family_wise_p(values: Float[np.ndarray, "part pair"]) -> Float[np.ndarray, " part"]:
    """p that a part's mean over pairs is not above 0, corrected for all parts; by sign flips.

    The largest mean over parts is compared (step-down), with the same signs for all parts. The
    smallest p of n pairs is 1 / 2^n.

    Source: Westfall and Young 1993, "Resampling-Based Multiple Testing", algorithm 4.1.

    >>> import numpy as np
    >>> from mechinterp.refusal.routing import family_wise_p
    >>> family_wise_p(np.array([[1.0, 2.0, 1.0, 1.0, 2.0], [1.0, -1.0, 0.0, 1.0, -1.0]])).round(2)
    array([0.03, 0.69])
    """
    n = values.shape[1]
    if 2**n <= _MOST_FLIPS:
        signs = 1 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        drawn = np.random.default_rng(0).choice([-1.0, 1.0], (_MOST_FLIPS - 1, n))
        signs = np.concatenate([np.ones((1, n)), drawn])
    order = np.argsort(values.mean(1))
    largest = np.full(len(signs), -np.inf)
    p = np.empty(len(values))
    for part in order:  # from the smallest on: each is compared with itself and all below it
        mean = signs @ values[part] / n
        largest = np.maximum(largest, mean)
        p[part] = (largest >= mean[0] - 1e-9 * max(1.0, abs(float(mean[0])))).mean()
    p[order[::-1]] = np.maximum.accumulate(p[order[::-1]])
    return p


@checks_arguments
def route(
    model: Model,
    metric: Metric,
    driver: Driver,
    *,
    n_pairs: int = 8,
    n_parts: int = 48,
    seed: int = 0,
    out: Path | None = None,
) -> xr.Dataset:
    """Heads and MLPs interchanged in pairs of a driver: a Dataset over `part`.

    `necessity`, `sufficiency`: the share of the difference between refused and answered prompts
    that a part carries by what it gives the last token. `p`: the larger of the two, by sign flips
    over pairs, corrected for all parts. `direct`: the share that the part writes to the answer
    itself. `is_on_route`: p at most .05, and a share of at least .1 both ways.
    `necessity_everywhere`, `sufficiency_everywhere`: the same of what it gives all tokens; NaN
    where prompts are not of equal length. `attention`, `attention_elsewhere` (layer): the share
    that goes when the last token does not see where the pairs differ, or as many other places; -1
    is all layers. Of a model with more than `n_parts` parts, two other pairs choose as many.

    Raises:
        ValueError: if the driver has fewer than five pairs.
    """
    if len(driver.pairs) < LEAST_PAIRS:
        raise ValueError(
            f"{driver.name}: {len(driver.pairs)} pairs of prompts of equal length, one refused and "
            f"one answered. Give requests that make at least {LEAST_PAIRS}."
        )
    at_end = {name: replace(site, pos="end") for name, site in parts_of(model).items()}
    rows, is_large = list(range(len(driver.pairs))), len(at_end) > n_parts
    if is_large:
        n_tested = min(n_pairs, max(LEAST_PAIRS, len(rows) - 2))
        some = Interchange.of(model, metric, driver, rows[n_tested:][:2] or rows[:2])
        folder = None if out is None else out / "screen"
        at_end = _strongest(some, at_end, n_parts, folder)
        rows = rows[:n_tested]
    between = Interchange.of(model, metric, driver, rows[:n_pairs])
    refused, answered = between.scores()
    gap = float((refused - answered).mean())
    shares: dict[str, Float[np.ndarray, " part"]] = {}
    p = np.zeros(len(at_end))
    for way in WAYS:
        effect = between.carried(at_end, way, out=None if out is None else out / way)
        shares[way], p = effect.mean(1) / gap, np.maximum(p, family_wise_p(effect))
    least = np.minimum(*(shares[way] for way in WAYS))
    n_everywhere = N_EVERYWHERE if is_large else len(at_end)
    chosen = np.argsort(-least, kind="stable")[:n_everywhere]
    for way in WAYS:
        whole = np.full(len(at_end), np.nan)
        if between.is_aligned:
            sites = {name: replace(at_end[name], pos=None) for name in np.array([*at_end])[chosen]}
            folder = None if out is None else out / f"{way}-everywhere"
            whole[chosen] = between.carried(sites, way, out=folder).mean(1) / gap
        shares[f"{way}_everywhere"] = whole
    shares |= {"p": p, "direct": between.direct(at_end).mean(1) / gap}
    values = {name: ("part", value) for name, value in shares.items()}
    values["is_on_route"] = ("part", (p <= LEVEL) & (least >= LEAST_SHARE))
    coords: dict[str, list[str] | list[int]] = {"part": list(at_end)}
    for name, of_others in (("attention", False), ("attention_elsewhere", True)):
        folder = None if out is None else out / name
        cut = between.cut_attention(of_others=of_others, seed=seed, out=folder)
        if cut is not None:
            coords["layer"] = [*range(model.cfg.n_layers), ALL_LAYERS]
            values[name] = ("layer", cut.mean(1) / gap)
    attrs = {"n_pairs": len(refused), "gap": gap, "unit": metric.unit, "setting": driver.setting}
    return xr.Dataset(values, coords, attrs)


def _strongest(
    some: Interchange, sites: Mapping[str, Site], n: int, out: Path | None
) -> dict[str, Site]:
    """The n parts that carry most both ways in some pairs, in the model's order."""
    both = [
        some.carried(sites, way, out=None if out is None else out / way).mean(1) for way in WAYS
    ]
    order = np.argsort(-np.minimum(*both), kind="stable")[:n]
    names = list(sites)
    return {names[at]: sites[names[at]] for at in sorted(order.tolist())}
