import itertools
from dataclasses import replace

import numpy as np
import pytest

from mechinterp import Prompts, load_model
from mechinterp.attention import (
    above_uniform,
    find_links,
    head_above,
    links_by_head,
    mean_above,
    over_prompts,
    patterns,
    random_links,
    top_k,
    without_sink,
)
from mechinterp.attention.links import kinds
from mechinterp.toys import toy


def slow_links(found, chosen):
    """A loop over every query and key: (query, key, mean, largest, layer, head)."""
    values, links = found.values, {}
    for q, k in itertools.product(range(found.sizes["pos"]), range(found.sizes["src"])):
        if k > q or not np.isfinite(values[0, 0, q, k]):
            continue
        n_keys = sum(bool(np.isfinite(values[0, 0, q, s])) for s in range(q + 1))
        weights = {
            (n, h): float(values[n, h, q, k])
            for n in range(found.sizes["layer"])
            for h in range(found.sizes["head"])
        }
        carrier = max(weights, key=weights.get)
        mean = sum(weights.values()) / len(weights)
        if n_keys > 1 and chosen(q, k, mean, weights[carrier], 1 / n_keys):
            links[q, k] = (mean, weights[carrier], *carrier)
    return links


RULES = {
    "mean": (mean_above(0.2), lambda q, k, mean, most, uniform: mean > 0.2),
    "head": (head_above(0.4), lambda q, k, mean, most, uniform: most > 0.4),
    "uniform": (above_uniform(1.2), lambda q, k, mean, most, uniform: most > 1.2 * uniform),
}


@pytest.mark.parametrize("set_aside", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_they_are_those_of_a_slow_loop(model, even, name, set_aside):
    rule, chosen = RULES[name]
    found = patterns(model, even)
    found = (without_sink(found) if set_aside else found).isel(prompt=0)
    links, slow = find_links(found, rule), slow_links(found, chosen)
    assert 0 < len(slow) < 21
    columns = [links[c].values.tolist() for c in ("query", "key")]
    assert sorted(zip(*columns, strict=True)) == sorted(slow)
    for i, (q, k) in enumerate(zip(*columns, strict=True)):
        mean, most, layer, head = slow[q, k]
        np.testing.assert_allclose(links["mean"][i], mean, atol=1e-6)
        np.testing.assert_allclose(links["largest"][i], most, atol=1e-6)
        assert (int(links["layer"][i]), int(links["head"][i])) == (layer, head)
    assert (np.diff(links["strength"].values) <= 0).all()


@pytest.mark.parametrize("k", [1, 2])
def test_the_top_of_each_query(model, even, k):
    found = patterns(model, even).isel(prompt=1)
    links = find_links(found, top_k(k))
    for query in range(1, 6):
        largest = found.sel(pos=query).max(["layer", "head"]).values[: query + 1]
        expected = set(np.argsort(-largest)[:k].tolist())
        assert set(links["key"].values[links["query"].values == query].tolist()) == expected
    assert 0 not in links["query"].values


def test_links_by_head_are_those_of_each_head_alone(model, even):
    found = patterns(model, even).isel(prompt=0)
    links = links_by_head(found, above_uniform(1.5))
    slow = {
        (n, h, *place)
        for n, h in itertools.product(range(3), range(model.cfg.n_heads))
        for place in slow_links(
            found.isel(layer=[n], head=[h]),
            lambda q, k, mean, most, uniform: most > 1.5 * uniform,
        )
    }
    assert places(links) == slow
    assert links.sizes["link"] == len(slow)


def word_heads(heads, words):
    return {
        (*place, query, words.index(word) + 1)
        for place, word in heads.items()
        for query in range(words.index(word) + 1, len(words) + 1)
    }


def places(links):
    columns = [links[c].values.tolist() for c in ("layer", "head", "query", "key")]
    return set(zip(*columns, strict=True))


def test_every_planted_link_is_found_head_by_head(planted):
    """Precision and recall 1: no link but those planted, where resting on <bos> is set apart."""
    for name, model, prompt, truth in planted:
        links = links_by_head(patterns(model, prompt).isel(prompt=0), above_uniform(1.5))
        found = links.isel(link=links["kind"].values != "sink")
        assert places(found) == {link for link in truth if link[3]}, (name, prompt.token_text)
        assert {link for link in truth if not link[3]} <= places(links)


def test_renormalised_rows_show_one_thing_that_is_not_there(planted):
    """A head that rests on <bos> and shuns its word leaves a row in which little is made much."""
    more = set()
    for name, model, prompt, truth in planted:
        found = without_sink(patterns(model, prompt)).isel(prompt=0)
        links = links_by_head(found, above_uniform(1.5))
        # The query at 1 has one key left, and so no choice.
        assert {link for link in truth if link[2] > 1 and link[3]} <= places(links)
        more |= {(name, *link) for link in places(links) - truth}
    assert more == {("backup", 1, 1, 2, 1)}


def test_the_plain_average_over_heads_misses_them(planted):
    """At no threshold has the average the links that were planted, and no others."""
    for name in ("trigger", "and", "either", "redundant", "backup", "induction"):
        cases = [(found_mean(m, p), t) for n, m, p, t in planted if n == name]
        pairs = [{(q, k) for _, _, q, k in truth} for _, truth in cases]
        score = {
            at: f1([links_above(mean, at) for mean, _ in cases], pairs)
            for at in (0.1, *np.linspace(0.02, 0.98, 49))
        }
        assert max(score.values()) < 0.95, name
        assert score[0.1] < 0.75, name


def test_among_many_heads_that_rest_the_classic_recipe_lists_none_of_them():
    """The trigger with twelve heads a layer, the others resting on <bos> as trained ones do."""
    model = resting_trigger(n_heads=12)
    words = ["the", "old", "door", "to", "my", "box", "sesame", "and"]
    found = patterns(model, " ".join(words)).isel(prompt=0)
    truth = word_heads({(1, 0): "sesame", (0, 2): "sesame"}, words)
    classic = find_links(found, mean_above(0.1))
    assert set(classic["kind"].values) == {"sink"}
    links = links_by_head(found, above_uniform(2.5))
    assert places(links.isel(link=links["kind"].values != "sink")) == truth
    one = find_links(found, above_uniform(2.5))
    one = one.isel(link=one["kind"].values != "sink")
    assert (one["largest"] > 0.98).all()
    assert (one["mean"] < 0.1).all()


def resting_trigger(n_heads):
    planted = toy("trigger")
    weights, bos = {}, planted.vocabulary.index("<bos>")
    for name, weight in planted.weights.items():
        if name.rpartition(".")[2] in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V"):
            grown = weight.new_zeros(n_heads, *weight.shape[1:])
            grown[: len(weight)] = weight
            looks = planted.weights[name.rpartition(".")[0] + ".b_Q"][:, 0] > 0
            idle = [h for h in range(n_heads) if h >= len(weight) or not looks[h]]
            if name.endswith("b_Q"):
                grown[idle, 0] = 10.0
            if name.endswith("W_K"):
                grown[idle, bos, 0] = 1.0
            weight = grown
        weights[name] = weight
    config = {**planted.config, "n_heads": n_heads}
    return load_model(replace(planted, config=config, weights=weights))


def found_mean(model, prompt):
    return patterns(model, prompt).isel(prompt=0).mean(["layer", "head"]).values


def links_above(mean, threshold):
    return {(q, k) for q, k in np.argwhere(mean > threshold).tolist() if q}


def f1(got, truth):
    right = sum(len(g & t) for g, t in zip(got, truth, strict=True))
    return 2 * right / (sum(map(len, got)) + sum(map(len, truth)))


def test_kinds():
    query, key = np.array([1, 3, 3, 3, 0]), np.array([0, 3, 2, 1, 0])
    assert kinds(query, key).tolist() == ["sink", "self", "previous", "other", "self"]


def test_random_links_are_others_of_the_same_heads(model):
    found = patterns(model, Prompts.from_ids([[3, 1, 4, 1, 5, 9, 2, 6, 5, 3]])).isel(prompt=0)
    links = find_links(found, top_k(2))
    drawn, again = random_links(found, links), random_links(found, links)
    other = random_links(found, links, seed=1)
    assert drawn.identical(again)
    assert not drawn["key"].equals(other["key"])
    listed = set(zip(links["query"].values.tolist(), links["key"].values.tolist(), strict=True))
    for i in range(drawn.sizes["link"]):
        q, k = int(drawn["query"][i]), int(drawn["key"][i])
        assert (q, k) not in listed
        assert 0 < k <= q
        own = found.sel(layer=int(drawn["layer"][i]), head=int(drawn["head"][i]), pos=q, src=k)
        assert float(drawn["largest"][i]) == pytest.approx(float(own))
    heads = list(
        zip(links["layer"].values, links["head"].values, links["query"].values, strict=True)
    )
    for i in range(drawn.sizes["link"]):
        assert tuple(drawn[c].values[i] for c in ("layer", "head", "query")) in heads


def test_of_a_mean_over_prompts(model, even):
    averaged = over_prompts(patterns(model, even), even)
    links = find_links(averaged, top_k(1))
    assert links["query_token"].values[0] in averaged["token"].values


def test_several_prompts_are_refused(absolute_model, even, refuses):
    refuses(lambda: find_links(patterns(absolute_model, even)), "Select a prompt")


def test_none_may_be_found(model, even):
    none = find_links(patterns(model, even).isel(prompt=0), mean_above(1.0))
    assert none.sizes["link"] == 0
