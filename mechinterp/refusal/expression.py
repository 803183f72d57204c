"""Is refusal a direction at the last token? Taken out of refused prompts, added to answered ones.

A direction is made from one half of the families and tested on the other, beside random directions
of the same norm. Which prompts are contrasted decides what is found, so there are two: "matched",
refused and answered prompts of the same families, and "unmatched", of different ones.

>>> from mechinterp.refusal.expression import halves
>>> train = halves(["a", "a", "b", "c", "d"], seed=0)
>>> bool(train[0] == train[1]), len(train)
(True, 5)
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
from jaxtyping import Bool, Float

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.metrics import kl
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import Site
from mechinterp.core.specs import Specs
from mechinterp.engine.runner import run
from mechinterp.models.tokenization import Text, tokenize
from mechinterp.probing.causal import (
    KINDS,
    Direction,
    ablate_direction,
    class_direction,
    steer_direction,
)
from mechinterp.probing.gathered import residual_sites
from mechinterp.probing.labelled import Labelled
from mechinterp.refusal.drivers import Driver, Study, in_turn
from mechinterp.refusal.findings import DirectionTest
from mechinterp.sweeps.experiment import sweep
from mechinterp.sweeps.options import SweepOptions

ContrastKind = Literal["matched", "unmatched"]
CONTRASTS: tuple[ContrastKind, ...] = ("matched", "unmatched")
LEVEL = 0.05
LEAST_FLIPS = 0.5
"""The share of prompts that a direction that works flips, taken out as well as added."""
_LEAST_PROMPTS = 2
"""Of each side, in training and in testing."""


@checks_arguments
def halves(families: Sequence[str], *, seed: int = 0) -> Bool[np.ndarray, " prompt"]:
    """True for prompts of the half of the families in which directions are made."""
    names = sorted(set(families))
    chosen = np.random.default_rng([seed, 3]).permutation(len(names))[: (len(names) + 1) // 2]
    train = {names[at] for at in chosen}
    return np.array([family in train for family in families])


@checks_arguments
def directions_of(
    study: Study,
    driver: Driver,
    *,
    n_random: int = 100,
    n_prompts: int = 6,
    n_layers: int = 2,
    out: Path | None = None,
) -> tuple[DirectionTest, ...]:
    """The directions of a driver at the last token, tested where they are most likely to work.

    For each contrast: at every layer the direction is tried on the families that it was made from;
    the first layer at which it flips half of the prompts both ways is tested on the other families,
    on up to `n_prompts` of each side; if it does not work there, the best ones are, until one works
    or `n_layers` are tested. Empty if there are too few prompts.
    """
    train = halves(driver.families, seed=study.seed)
    found: list[DirectionTest] = []
    for contrast in CONTRASTS:
        rows = _rows(driver, train, contrast)
        if rows is None or not _has_both(driver, ~train):
            continue
        made = _directions(driver, rows)
        trial = _Trial(study, driver, ~train, n_prompts)
        for layer in _best_layers(_Trial(study, driver, rows, n_prompts), made, n_layers):
            folder = None if out is None else out / f"{contrast}-layer-{layer}"
            found.append(trial.test(made[layer], (driver.name, contrast), n_random, folder))
            if found[-1].works:
                break
    return tuple(found)


def _rows(
    driver: Driver, train: Bool[np.ndarray, " prompt"], contrast: ContrastKind
) -> Bool[np.ndarray, " prompt"] | None:
    """The training prompts of a contrast, or None if a side has too few."""
    families = np.array(driver.families)
    if contrast == "matched":
        both = set(families[train & driver.has]) & set(families[train & ~driver.has])
        rows = train & np.array([family in both for family in families])
    else:
        names = sorted(set(families[train]))
        first = np.array([family in names[::2] for family in families])
        telling = np.array([bool(request.telling) for request in driver.requests])
        is_plain = ~telling if (~telling & train & ~driver.has).any() else np.ones_like(telling)
        rows = train & np.where(driver.has, first, ~first & is_plain)
    return rows if _has_both(driver, rows) else None


def _has_both(driver: Driver, rows: Bool[np.ndarray, " prompt"]) -> bool:
    return min(int((rows & driver.has).sum()), int((rows & ~driver.has).sum())) >= _LEAST_PROMPTS


def _directions(driver: Driver, rows: Bool[np.ndarray, " prompt"]) -> dict[int, Direction]:
    """The difference of means at each layer, but where it is nothing but rounding."""
    labels = ["refused" if has else "answered" for has in driver.has]
    texts = [str(number) for number in range(len(labels))]
    labelled = Labelled.of(texts, labels, list(driver.families))
    acts, has, found = driver.readings.end, driver.has[rows], {}
    for layer in acts["layer"].values.tolist():
        x = acts.sel(layer=layer).values[rows].astype(float)
        apart = np.linalg.norm(x[has].mean(0) - x[~has].mean(0))
        if apart > 1e-5 * float(np.linalg.norm(x, axis=1).mean()):
            found[layer] = class_direction(acts, labelled, layer, rows=rows)
    return found


Vectors = Sequence[Float[np.ndarray, " feature"]]


class _Trial:
    """Some prompts of both sides, on which directions are tried."""

    def __init__(
        self, study: Study, driver: Driver, rows: Bool[np.ndarray, " prompt"], n: int
    ) -> None:
        self._study = study
        self._prompts: list[Prompts] = []
        self._scores: list[Float[np.ndarray, " prompt"]] = []
        for has in (True, False):
            own = np.nonzero(rows & (driver.has == has))[0]
            some = own[in_turn([driver.families[at] for at in own], n)].tolist()
            texts = [driver.readings.prompts[at] for at in some]
            self._prompts.append(tokenize(study.model, cast(Text, texts)))
            self._scores.append(driver.readings.scores[some])

    def effects(
        self, direction: Direction, vectors: Vectors, out: Path | None = None
    ) -> tuple[Float[np.ndarray, "way vector"], Float[np.ndarray, "way vector"]]:
        """Mean changes of the score, and shares of flips: taken out of refused, added to answered.

        All at the direction's own layer and the last token.
        """
        sites = [replace(site, pos="end") for site in _sites(self._study, direction)]
        model, metric = self._study.model, self._study.metric
        means, flips = [], []
        for side, way in enumerate(("taken-out", "added")):

            def arm(number: int, side: int = side) -> Specs:
                if side == 0:
                    return ablate_direction(sites, vectors[number])
                return steer_direction(sites, vectors[number], direction.gap)

            options: SweepOptions = {} if out is None else {"out": out / way}
            over = {"number": range(len(vectors))}
            found = sweep(model, self._prompts[side], over, arm, metric, **options).values
            does = found > self._study.behaviour.over
            means.append(found.mean(1) - self._scores[side].mean())
            flips.append((does != (side == 0)).mean(1))
        return np.stack(means), np.stack(flips)

    def kl_on_answered(self, direction: Direction) -> float:
        """KL in nats of the answered prompts' next token when the direction is taken out."""
        model, answered = self._study.model, self._prompts[1]
        sites = [replace(site, pos="end") for site in _sites(self._study, direction)]
        base = run(model, answered, logits_at=("end",)).logits[:, 0]
        changed = run(
            model, answered, ablate_direction(sites, direction.vector), logits_at=("end",)
        )
        return float(kl(base)(changed).mean())

    def test(
        self, direction: Direction, labels: tuple[str, ContrastKind], n: int, out: Path | None
    ) -> DirectionTest:
        """A direction against n random ones of each kind."""
        drawn = [direction.drawn(kind, n, self._study.seed) for kind in KINDS]
        means, flips = self.effects(direction, [direction.vector, *drawn[0], *drawn[1]], out)
        sign = np.array([[-1.0], [1.0]])
        reached = sign * means >= (sign * means)[:, :1] - 1e-9
        p = [
            float((1 + reached[:, begin : begin + n].sum(1)).max() / (n + 1))
            for begin in (1, 1 + n)
        ]
        driver, contrast = labels
        return DirectionTest(
            contrast=contrast,
            layer=direction.layer,
            taken_out=float(means[0, 0]),
            added=float(means[1, 0]),
            flips_out=float(flips[0, 0]),
            flips_in=float(flips[1, 0]),
            p_norm=p[0],
            p_covariance=p[1],
            kl=self.kl_on_answered(direction),
            n_random=n,
            works=bool(max(p) <= LEVEL and flips[:, 0].min() >= LEAST_FLIPS),
            driver=driver,
        )


def _sites(study: Study, direction: Direction) -> list[Site]:
    return residual_sites(study.model, [direction.layer])


def _best_layers(trial: _Trial, made: Mapping[int, Direction], n: int) -> list[int]:
    """The first layer at which the direction flips half of both sides, and then the best ones."""
    ranked, first = [], None
    for layer, direction in made.items():
        means, flips = trial.effects(direction, [direction.vector])
        if first is None and flips.min() >= LEAST_FLIPS:
            first = layer
        ranked.append((-float(min(-means[0, 0], means[1, 0])), layer))
    order = [*([] if first is None else [first]), *(layer for _, layer in sorted(ranked))]
    return list(dict.fromkeys(order))[:n]
