"""Directions against single runs, and one of random labels, which does not work."""

from dataclasses import replace

import numpy as np
import pytest
from refusal.stage_toys import TRIGGER, stage_requests, stage_toy

from mechinterp import load_model, run, tokenize
from mechinterp.probing import Labelled, ablate_direction, class_direction, residual_sites
from mechinterp.refusal.behaviour import refusal_behaviour
from mechinterp.refusal.drivers import Driver, Study, find_driver, plain_requests
from mechinterp.refusal.expression import directions_of, halves


@pytest.fixture(scope="module")
def found() -> tuple[Study, Driver]:
    model = load_model(stage_toy("trigger"))
    study = Study(model, refusal_behaviour(model), ((TRIGGER,),), n_pairs=4)
    plain = plain_requests(study, stage_requests(12))
    driver = find_driver(study, "trigger", plain, study.read(plain), (TRIGGER,))
    assert driver is not None
    return study, driver


def test_a_direction_is_made_from_one_half_and_tested_on_the_other(
    found: tuple[Study, Driver],
) -> None:
    study, driver = found
    test = directions_of(study, driver, n_random=19, n_prompts=99)[0]
    assert (test.contrast, test.layer, test.works) == ("matched", 2, True)
    assert (test.p_norm, test.p_covariance) == (0.05, 0.05)
    train = halves(driver.families)
    labels = ["refused" if has else "answered" for has in driver.has]
    labelled = Labelled.of(list(map(str, range(len(labels)))), labels, list(driver.families))
    direction = class_direction(driver.readings.end, labelled, 2, rows=train)
    (site,) = residual_sites(study.model, [2])
    specs = ablate_direction([replace(site, pos="end")], direction.vector)
    changes = []
    for at in np.nonzero(~train & driver.has)[0]:
        prompt = tokenize(study.model, driver.requests[at].text)
        before, after = (study.metric(run(study.model, prompt, each)) for each in ((), specs))
        changes.append(float(after - before))
    assert test.taken_out == pytest.approx(np.mean(changes), abs=1e-3)
    assert test.flips_out == 1.0


def test_directions_of_noise_do_not_work(found: tuple[Study, Driver]) -> None:
    study, driver = found
    acts = driver.readings.acts
    noise = acts.copy(data=np.random.default_rng(1).normal(size=acts.shape).astype(np.float32))
    noisy = replace(driver, readings=replace(driver.readings, acts=noise))
    tests = directions_of(study, noisy, n_random=19, n_prompts=4)
    assert len(tests) == 4
    assert not any(test.works for test in tests)


def test_families_stay_whole() -> None:
    families = [name for name in "abcdefg" for _ in range(3)]
    train = halves(families, seed=3)
    assert all(len(set(train[at : at + 3].tolist())) == 1 for at in range(0, 21, 3))
    assert 3 * 3 <= train.sum() <= 3 * 4
