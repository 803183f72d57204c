"""Where harm is detected, how what decides travels to the answer, and where refusal is expressed.

>>> from mechinterp import load_model
>>> from mechinterp.refusal import find_stages
>>> from mechinterp.refusal.behaviour import refusal_behaviour
>>> from mechinterp.tasks import planted_requests
>>> from mechinterp.toys import named_refuser
>>> planted = named_refuser("refuses-route-cut")
>>> model = load_model(planted.toy)
>>> requests = planted_requests(planted, n_families=8)
>>> options = {"triggers": planted.triggers, "n_random": 19, "n_pairs": 5}
>>> found = find_stages(model, refusal_behaviour(model), requests, **options)
>>> found.routed_by == planted.stages.routed_by
True

Harm that is there to be read need not be used: detection is asked of the requests, whatever the
model does with them; routing and expression of each driver of its refusals (`drivers`).
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr

from mechinterp.core.arguments import checks_arguments
from mechinterp.models.model import Model
from mechinterp.probing.controls import random_weights
from mechinterp.refusal.cues import Cue
from mechinterp.refusal.detection import probe_harm
from mechinterp.refusal.drivers import Driver, Study, find_driver, plain_requests
from mechinterp.refusal.expression import directions_of
from mechinterp.refusal.findings import Behaviour, DirectionTest, Stages, WordSet
from mechinterp.refusal.readings import read_prompts
from mechinterp.refusal.routing import LEAST_PAIRS, LEAST_SHARE, route
from mechinterp.refusal.stage_sentences import sentences_of
from mechinterp.sweeps.options import Progress
from mechinterp.tasks.request_families import Request, some_families

CUT = "detection and routing"
LEAST_EFFECT = 0.25
"""By how much more often harmful than benign requests are refused where content decides."""
_MOST_TRIGGERS = 3


@checks_arguments
def find_stages(  # noqa: PLR0913 - each option is a choice of the study
    model: Model,
    behaviour: Behaviour,
    requests: Sequence[Request],
    *,
    triggers: Sequence[WordSet] = (),
    cue: Cue | None = None,
    n_random: int = 100,
    n_families: int = 24,
    n_pairs: int = 8,
    seed: int = 0,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Stages:
    """The stages of a model's refusals: detection of harm, routing and expression of each driver.

    `triggers`, `cue`: what was found to make it refuse; requests that hold a trigger are left out
    and the cue is switched off, but where the driver is one of them. Up to three words of triggers
    are looked at. `n_random`: random directions of each kind. `n_families`: how many are run.
    `n_pairs`: pairs for interchanges. `out`: a folder for its sweeps, from which a run that was
    stopped continues. `progress`: a function of (done, all), in steps.

    Raises:
        ValueError: if there are fewer than two families of harmful or of benign requests.
        HookError: as `sweep`.

    Source: detection and expression apart, Zhao et al. 2025, arXiv 2507.11878; routing by
    interchange, arXiv 2604.04385; directions, Arditi et al. 2024, arXiv 2406.11717.
    """
    n = min(n_families, len({request.family for request in requests}))
    chosen = some_families(requests, n, seed=seed)
    study = Study(model, behaviour, tuple(triggers), cue, n_pairs, seed)
    plain = plain_requests(study, chosen)
    if _fewest_families(plain) < 2:
        plain = tuple(chosen)
    if (n := _fewest_families(plain)) < 2:
        raise ValueError(
            f"requests: {n} families of harmful or of benign requests. Probes are tested on "
            f"families left out: give at least two of each."
        )
    names = {"content": ((), ()), **_trigger_drivers(study.triggers)}
    names |= {"cue": ((), ())} if cue else {}
    step = _Steps(progress, 2 + 3 * len(names))
    readings = study.read(plain)
    step()
    untrained = read_prompts(random_weights(model, seed), behaviour.metric, list(readings.prompts))
    detection = probe_harm(model, plain, readings, untrained, seed=seed)
    step()
    folder = None if out is None else Path(out).absolute()
    routing: dict[str, xr.Dataset] = {}
    directions: list[DirectionTest] = []
    drivers: dict[str, Driver] = {}
    for number, (name, (words, beside)) in enumerate(names.items()):
        driver = find_driver(study, name, plain, readings, words, beside=beside)
        step()
        if driver is not None:
            drivers[name] = driver
        inside = None if folder is None else folder / f"driver-{number}"
        if driver is not None and len(driver.pairs) >= LEAST_PAIRS:
            routing[name] = route(
                model,
                behaviour.metric,
                driver,
                n_pairs=n_pairs,
                seed=seed,
                out=None if inside is None else inside / "routing",
            )
        step()
        if name in routing and driver is not None:
            directions += directions_of(
                study,
                driver,
                n_random=n_random,
                out=None if inside is None else inside / "directions",
            )
        step()
    return _stages(detection, drivers, routing, tuple(directions), behaviour)


def _stages(
    detection: xr.Dataset,
    drivers: Mapping[str, Driver],
    routing: Mapping[str, xr.Dataset],
    directions: tuple[DirectionTest, ...],
    behaviour: Behaviour,
) -> Stages:
    """What follows from what was measured, and the sentences that say it."""
    detected_at = detection.attrs["detected_at"]
    routed_by: dict[str, None] = {}
    expressed_by: dict[str, None] = {}
    for found in routing.values():
        on_route = found["part"].values[found["is_on_route"].values].tolist()
        writes = found["part"].values[(found["direct"] >= LEAST_SHARE).values].tolist()
        routed_by |= dict.fromkeys(part for part in on_route if not part.endswith("mlp"))
        expressed_by |= dict.fromkeys(part for part in on_route if part in writes)
    works: dict[str, int] = {}
    for test in directions:
        if test.works:
            works[test.driver] = min(test.layer, works.get(test.driver, test.layer))
    content = drivers.get("content")
    is_cut = detected_at is not None and (content is None or content.effect < LEAST_EFFECT)
    stages = Stages(
        detection=detection,
        detected_at=detected_at,
        routing=_joined(routing),
        routed_by=tuple(routed_by),
        directions=directions,
        expressed_at=max(works.values(), default=None),
        cut=CUT if is_cut else "",
        expressed_by=tuple(expressed_by),
    )
    effects = {name: driver.effect for name, driver in drivers.items()}
    return replace(stages, sentences=sentences_of(stages, effects, verb=behaviour.name))


def _trigger_drivers(triggers: Sequence[WordSet]) -> dict[str, tuple[WordSet, WordSet]]:
    """Each word of a trigger, beside the others of it: what one part does alone is seen there."""
    found = {}
    for words in triggers:
        for at, word in enumerate(words):
            beside = (*words[:at], *words[at + 1 :])
            name = f"trigger: {word}" + (f" beside {' + '.join(beside)}" if beside else "")
            found[name] = ((word,), beside)
    if len(found) == 1:
        return {"trigger": next(iter(found.values()))}
    return dict(itertools.islice(found.items(), _MOST_TRIGGERS))


def _joined(routing: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """The routing of all drivers, dims (driver, part)."""
    if not routing:
        empty = {name: (("driver", "part"), np.empty((0, 0))) for name in _VALUES}
        return xr.Dataset(empty, {"driver": [], "part": []})
    named = []
    for name, found in routing.items():
        facts = {key: found.attrs[key] for key in ("n_pairs", "gap", "setting")}
        marked = found.assign(is_on_route=found["is_on_route"].astype(float))
        named.append(marked.assign(facts).expand_dims(driver=[name]).drop_attrs())
    joined = xr.concat(named, dim="driver", join="outer", data_vars="all")
    return joined.assign(is_on_route=joined["is_on_route"] == 1)


_VALUES = ("necessity", "sufficiency", "direct", "p")


def _fewest_families(requests: Sequence[Request]) -> int:
    """The number of families of harmful requests, or of benign ones if they are fewer."""
    return min(
        len({request.family for request in requests if request.harmful == harmful})
        for harmful in (False, True)
    )


class _Steps:
    """Tells a progress function how many steps are done."""

    def __init__(self, progress: Progress | None, n: int) -> None:
        self._progress, self._n, self._done = progress, n, 0
        if progress is not None:
            progress(0, n)

    def __call__(self) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._n)
