"""Interchange against single runs, and the corrected p against all sign flips by hand."""

from itertools import product

import numpy as np
import pytest
from refusal.stage_toys import TRIGGER, stage_requests, stage_toy

from mechinterp import Site, load_model, patch, read, run, tokenize
from mechinterp.models.model import Model
from mechinterp.refusal.behaviour import refusal_behaviour
from mechinterp.refusal.drivers import Driver, Study, find_driver, plain_requests
from mechinterp.refusal.findings import Behaviour
from mechinterp.refusal.routing import Interchange, family_wise_p, parts_of, route


@pytest.fixture(scope="module")
def planted() -> tuple[Model, Behaviour, Driver]:
    model = load_model(stage_toy("content or trigger"))
    behaviour = refusal_behaviour(model)
    study = Study(model, behaviour, ((TRIGGER,),))
    plain = plain_requests(study, stage_requests())
    driver = find_driver(study, "content", plain, study.read(plain))
    assert driver is not None
    return model, behaviour, driver


def test_interchange_is_a_patch_of_single_runs(planted: tuple[Model, Behaviour, Driver]) -> None:
    model, behaviour, driver = planted
    between = Interchange.of(model, behaviour.metric, driver, range(4))
    site = Site("mlp_out", 0, pos="end")
    found = between.carried({"L0.mlp": site}, "necessity")[0]
    for row, (one, other) in enumerate(driver.pairs[:4]):
        refused, answered = (
            tokenize(model, str(driver.readings.prompts[at])) for at in (one, other)
        )
        source = run(model, answered, read(site)).acts
        before = behaviour.metric(run(model, refused))
        after = behaviour.metric(run(model, refused, patch(site, source)))
        assert found[row] == pytest.approx(float(before - after), abs=1e-4)


def test_prompts_of_unequal_length_are_interchanged_at_the_end_alone(
    planted: tuple[Model, Behaviour, Driver],
) -> None:
    model, behaviour, _ = planted
    words = [f"please bring the {word} map" for word in ("harm1", "harm2")]
    refused = tokenize(model, [text.replace("map", "gun1") for text in words])
    answered = tokenize(model, [f"now {text}" for text in words])
    between = Interchange(model, behaviour.metric, refused, answered)
    assert not between.is_aligned
    assert between.cut_attention(of_others=False) is None
    sites = {"L1.mlp": Site("mlp_out", 1, pos="end")}
    gap = np.subtract(*between.scores())
    assert between.carried(sites, "sufficiency")[0] == pytest.approx(gap, rel=0.02)


def test_attention_to_where_pairs_differ_is_cut(planted: tuple[Model, Behaviour, Driver]) -> None:
    model, behaviour, _ = planted
    sides = [tokenize(model, [f"please {verb} the gun1 now"] * 2) for verb in ("harm1", "help1")]
    between = Interchange(model, behaviour.metric, *sides)
    cut = between.cut_attention(of_others=False)
    other = between.cut_attention(of_others=True)
    assert cut is not None
    assert other is not None
    refused, answered = between.scores()
    assert cut[0] == pytest.approx(refused - answered, rel=0.02)
    assert cut[1:3] == pytest.approx(0, abs=0.05)
    assert cut[-1] == pytest.approx(cut[0], abs=0.1)


def test_corrected_p_is_that_of_all_flips() -> None:
    values = np.random.default_rng(0).normal(size=(4, 5)) + np.array([2, 1, 0, 0])[:, None]
    order = sorted(range(4), key=lambda part: -values[part].mean())
    expected, last = np.empty(4), 0.0
    for place, part in enumerate(order):
        rest = order[place:]
        hits = [
            max((values[r] * signs).mean() for r in rest) >= values[part].mean() - 1e-12
            for signs in product((1, -1), repeat=5)
        ]
        last = max(last, float(np.mean(hits)))
        expected[part] = last
    assert family_wise_p(values) == pytest.approx(expected)


def test_a_large_model_is_screened_by_other_pairs(
    planted: tuple[Model, Behaviour, Driver],
) -> None:
    model, behaviour, driver = planted
    whole = route(model, behaviour.metric, driver, n_pairs=5)
    some = route(model, behaviour.metric, driver, n_pairs=5, n_parts=4)
    assert list(parts_of(model)) == whole["part"].values.tolist()
    assert {"L0.mlp", "L1.mlp"} <= set(some["part"].values.tolist())
    assert some.sizes["part"] == 4
    for name in ("necessity", "sufficiency", "direct"):
        same = whole[name].sel(part=some["part"].values)
        assert some[name].values == pytest.approx(same.values, abs=1e-5)


def test_too_few_pairs_are_refused(planted: tuple[Model, Behaviour, Driver]) -> None:
    model, behaviour, driver = planted
    few = Driver(
        driver.name,
        "",
        driver.requests,
        driver.has,
        driver.readings,
        driver.pairs[:4],
        driver.effect,
    )
    with pytest.raises(ValueError, match="content: 4 pairs of prompts"):
        route(model, behaviour.metric, few)
