"""What the tests of estimates share: other prompts to patch from, and exact effects."""

import pytest

from mechinterp import Prompts, Site, patch, read, run, sweep

LAYERS = range(3)
ACTS = ("resid_pre", "attn_out", "z", "q", "k", "v", "pattern", "attn_scores")
WHOLE = [Site("embed"), *(Site(act, layer) for act in ACTS for layer in LAYERS)]


@pytest.fixture(scope="session")
def source_of():
    """Activations of prompts as long as `ragged`, with the position S2 elsewhere."""
    ids = [[11, 30, 2, 7, 19, 4, 25], [16, 1, 9, 22], [28, 3, 17, 5, 33, 6]]

    def acts(model, sites=WHOLE):
        return run(model, Prompts.from_ids(ids).named(S2=[4, 2, 1]), read(*sites)).acts

    return acts


@pytest.fixture(scope="session")
def exact():
    """The change of the metric by each patch, by a sweep."""

    def effects(model, prompts, source, over, site, metric):
        swept = sweep(model, prompts, over, lambda **p: patch(site(**p), source), metric)
        base = metric(run(model, prompts, logits_at=metric.at)).double().numpy()
        return swept - base

    return effects


@pytest.fixture(scope="session")
def by_hand():
    """(source - base) * gradient, summed over the site; 0 where both are -inf."""

    def estimate(source, base, slopes, site):
        change = (source[site] - base[site]).nan_to_num() * slopes[site]
        return change.double().reshape(len(change), -1).sum(1).numpy()

    return estimate
