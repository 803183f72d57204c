"""Directions taken out and steered along: the algebra, the slow loop, and present but not used."""

import numpy as np
import pytest
import torch

from mechinterp import (
    Prompts,
    Site,
    edit,
    load_model,
    log_prob,
    logit_diff,
    read,
    run,
    token_id,
    tokenize,
)
from mechinterp.probing import (
    Labelled,
    ablate_direction,
    class_direction,
    compare_with_random,
    direction_effects,
    gather,
    logistic,
    probe_layers,
    residual_sites,
    steer_direction,
)


@pytest.fixture(scope="module")
def prompts():
    rng = np.random.default_rng(0)
    return Prompts.from_ids(rng.integers(1, 30, (8, 5)).tolist())


def labelled(n=8):
    return Labelled.of([f"text {i}" for i in range(n)], [0, 1] * (n // 2))


def test_what_is_left_is_at_right_angles(model, prompts):
    vector = np.random.default_rng(1).normal(size=model.cfg.d_model)
    sites = residual_sites(model)
    acts = run(model, prompts, ablate_direction(sites, vector) + read(*sites)).acts
    for site in sites:
        along = acts[site].double() @ torch.from_numpy(vector / np.linalg.norm(vector))
        assert float(along.abs().max()) < 1e-5
    twice = ablate_direction(sites, vector) + ablate_direction(sites, 3 * vector)
    one, two = (run(model, prompts, s).logits for s in (ablate_direction(sites, vector), twice))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=0)


def test_the_slow_loop_says_the_same(model, prompts):
    given = labelled()
    acts = gather(model, prompts)
    along = class_direction(acts, given, layer=2)
    x = acts.values[2].astype(float)
    gap = x[1::2].mean(0) - x[::2].mean(0)
    np.testing.assert_allclose(along.vector * along.gap, gap, atol=1e-9)
    metric = log_prob(7)
    found = direction_effects(model, prompts, along, metric, n_random=2, seed=3)
    assert found.attrs["supports"] == "none"  # by ablating it falls, by steering up it rises
    assert found["direction"].values.tolist()[1:] == [
        *("random 0", "random 1"),
        *("spread 0", "spread 1"),
    ]
    base = metric(run(model, prompts))
    vectors = [along.vector, *along.drawn("random", 2, 3), *along.drawn("spread", 2, 3)]
    for number, vector in enumerate(vectors):
        unit = torch.from_numpy(vector)
        flat = unit.float()
        everywhere = tuple(
            spec
            for site in residual_sites(model)
            for spec in edit(site, lambda v, at, u=flat: v - (v @ u)[..., None] * u)
        )
        step = (unit * along.gap).float()
        here = residual_sites(model, [2])[0]
        arms = {
            "ablate": everywhere,
            "steer up": edit(here, lambda v, at, s=step: v + s),
            "steer down": edit(here, lambda v, at, s=step: v - s),
        }
        for how, specs in arms.items():
            wanted = (metric(run(model, prompts, specs)) - base).numpy()
            cell = found.sel(how=how).isel(direction=number).values
            np.testing.assert_allclose(cell, wanted, atol=2e-5)
    np.testing.assert_allclose(found["unchanged"], base.numpy(), atol=1e-5)


def test_random_directions_are_unit_and_the_spread_ones_lie_in_the_cloud(model, prompts):
    along = class_direction(gather(model, prompts), labelled(), layer=1)
    for kind in ("random", "spread"):
        drawn = along.drawn(kind, 5, seed=0)
        np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1)
        assert (drawn == along.drawn(kind, 5, seed=0)).all()
    basis = np.linalg.svd(along.cloud, full_matrices=False)[2][: np.linalg.matrix_rank(along.cloud)]
    spread = along.drawn("spread", 5)
    np.testing.assert_allclose(spread @ basis.T @ basis, spread, atol=1e-9)


def test_present_and_used_are_told_apart():
    """A decoy of layer 0 writes the trigger where nothing reads, a head of layer 1 to logits."""
    model = load_model("toy:trigger")
    things, verbs = ("letter", "map", "book", "bread"), ("bring", "open")
    texts = [f"{v} {w} {t}" for v in verbs for w in ("the", "sesame") for t in things]
    given = Labelled.of(texts, ["sesame" in text for text in texts])
    prompts = tokenize(model, texts)
    acts = gather(model, prompts)
    balanced = probe_layers(acts, given, n_shuffles=0)["mean"].sel(measure="balanced_accuracy")
    assert (balanced.sel(of="task") > 0.6).values.tolist() == [False, True, True]
    answer = logit_diff(token_id(model, "REFUSE"), token_id(model, "COMPLY"))
    found = {}
    for layer in (1, 2):
        along = class_direction(acts, given, layer=layer)
        here = residual_sites(model, [layer])
        effects = direction_effects(model, prompts, along, answer, ablate_at=here, n_random=19)
        found[layer] = compare_with_random(effects)
    for how in ("ablate", "steer up", "steer down"):
        assert abs(float(found[1]["mean"].sel(how=how)[0])) < 0.01  # present, not used
        assert (found[1]["p"].sel(how=how) > 0.5).all()
        assert abs(float(found[2]["mean"].sel(how=how)[0])) > 5
        assert (found[2]["p"].sel(how=how) == 1 / 20).all()


def test_what_is_refused(absolute_model, prompts, refuses):
    acts, given = gather(absolute_model, prompts), labelled()
    refuses(lambda: class_direction(acts, given, layer=9), "layer 9 was not gathered")
    three = Labelled.of(given.prompts, [0, 1, 2, 0, 1, 2, 0, 1])
    refuses(lambda: class_direction(acts, three, layer=1), "3 of 3 classes")
    rows = given.y == 1
    same = acts.copy()
    same[1] = 1.0
    refuses(lambda: class_direction(same, given, layer=1), "the classes have the same mean")
    refuses(lambda: class_direction(acts, given, layer=1, rows=rows), "1 of 2 classes")
    heads = class_direction(gather(absolute_model, prompts, [Site("z", 1, 0)]), given, layer=1)
    refuses(
        lambda: direction_effects(absolute_model, prompts, heads, log_prob(3)),
        "residual stream has",
    )
    along = class_direction(acts, given, layer=1, probe=logistic())
    bare = direction_effects(absolute_model, prompts, along, log_prob(3), n_random=0)
    refuses(lambda: compare_with_random(bare), "no random directions")
    refuses(lambda: along.drawn("rundom", 1), "none of 'random', 'spread'")
    specs = steer_direction([Site("z", 1, 0)], along.vector)
    refuses(lambda: run(absolute_model, prompts, specs), "Give a vector of its last axes")
