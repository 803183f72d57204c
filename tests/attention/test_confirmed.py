import copy

import numpy as np
import pytest
import torch

from mechinterp import kl, knockout, load_model, log_prob, logit_diff, run, token_id, tokenize
from mechinterp.attention import (
    above_uniform,
    confirm,
    find_links,
    in_every_head,
    in_its_head,
    links_by_head,
    mean_above,
    over_prompts,
    patterns,
    random_links,
    top_k,
)
from mechinterp.attention.confirmed import as_links
from mechinterp.toys import toy


@pytest.mark.parametrize("cut", [in_its_head, in_every_head])
def test_effects_are_those_of_one_run_a_knockout(model, even, cut):
    links = find_links(over_prompts(patterns(model, even), even), top_k(2))
    metric = logit_diff([7, 11], [20, 3])
    found = confirm(model, even, links, metric, cut=cut, threshold=0.01)
    base = metric(run(model, even))
    for i, link in enumerate(as_links(links)):
        if cut is in_its_head:
            specs = knockout(link.layer, link.head, link.query, link.key)
        else:
            specs = ()
            for layer in range(3):
                specs += knockout(layer, None, link.query, link.key)
        effect = (base - metric(run(model, even, specs))).numpy()
        np.testing.assert_allclose(found["effect"].values[i], effect, atol=1e-5)
        mean = effect.mean()
        assert float(found["mean_effect"][i]) == pytest.approx(mean, abs=1e-5)
        sure = float(found["low"][i]) > 0 or float(found["high"][i]) < 0
        assert bool(found["confirmed"][i]) == (abs(mean) >= 0.01 and sure)
    assert int(found["confirmed"].sum()) < links.sizes["link"]  # two prompts make few sure


def test_all_together(model, even):
    links = find_links(over_prompts(patterns(model, even), even), top_k(2))
    metric = logit_diff([7, 11], [20, 3])
    specs = ()
    for link in as_links(links):
        if link.query != link.key:
            specs += in_its_head(model, link)
    slow = (metric(run(model, even)) - metric(run(model, even, specs))).numpy()
    found = confirm(model, even, links, metric)
    np.testing.assert_allclose(found["together"].values, slow, atol=1e-5)


def test_of_a_distance_more_is_a_larger_effect(model, even):
    base = run(model, even).logits[:, 0]
    links = find_links(over_prompts(patterns(model, even), even), top_k(1))
    found = confirm(model, even, links, kl(base))
    assert (found["effect"].values > -1e-6).all()
    assert (found["effect"].values > 1e-4).any()


def test_the_planted_link_is_confirmed_and_the_decoy_is_not():
    model, prompt = load_model("toy:trigger"), "please bring the sesame to me"
    found = patterns(model, prompt).isel(prompt=0).sel(pos=[6])
    links = links_by_head(found, above_uniform(2.0))
    links = links.isel(link=links["kind"].values != "sink")
    margin = logit_diff(*(token_id(model, word) for word in ("REFUSE", "COMPLY")))
    checked = confirm(model, prompt, links, margin)
    by_head = {
        (int(n), int(h)): (round(float(e), 1), bool(yes))
        for n, h, e, yes in zip(
            checked["layer"],
            checked["head"],
            checked["mean_effect"],
            checked["confirmed"],
            strict=True,
        )
    }
    assert by_head == {(1, 0): (15.9, True), (0, 2): (0.0, False)}
    assert float(checked["together"][0]) > checked.attrs["base"]  # without them it complies


def test_of_two_that_are_each_enough_neither_is_confirmed_but_both_are():
    """Redundancy: one link at a time sees nothing; cut together, the answer changes."""
    model, prompt = load_model("toy:redundant"), "please bring the sesame to me"
    links = links_by_head(patterns(model, prompt).isel(prompt=0).sel(pos=[6]), above_uniform(2.0))
    links = links.isel(link=links["kind"].values != "sink")
    margin = logit_diff(*(token_id(model, word) for word in ("REFUSE", "COMPLY")))
    checked = confirm(model, prompt, links, margin)
    assert checked.sizes["link"] == 2
    assert not checked["confirmed"].any()
    assert float(checked["together"][0]) == pytest.approx(16, abs=0.1)
    together = confirm(model, prompt, links.isel(link=[0]), margin, cut=in_every_head)
    assert bool(together["confirmed"][0])


def test_random_links_of_the_same_heads_are_not_confirmed():
    model, prompt = load_model("toy:trigger"), "please bring the sesame to me"
    found = patterns(model, prompt).isel(prompt=0).sel(pos=[6])
    links = find_links(found, above_uniform(2.0))
    drawn = random_links(found, links.isel(link=links["kind"].values != "sink"))
    refuse = log_prob(token_id(model, "REFUSE"))
    assert not confirm(model, prompt, drawn, refuse)["confirmed"].any()


def test_without_its_links_the_trained_toy_no_longer_copies():
    """Cut where its known heads look, and it is as if nothing had been repeated."""
    planted = toy("induction-trained")
    model = load_model(planted)
    words = "q a Z 7 m k 3 b"
    texts = [
        f"{words} {words[:-2]}",
        *(f"{' '.join(w)} {' '.join(w[:-1])}" for w in ("xKp4uR9d", "s2DfGh1J", "Q8wErT5y")),
    ]
    prompts = tokenize(model, texts)
    answers = log_prob([token_id(model, text.split()[7]) for text in texts])
    found = over_prompts(patterns(model, prompts), prompts)
    end = prompts.width - 1
    links = find_links(found.sel(pos=[end]), above_uniform(3.0))
    checked = confirm(model, prompts, links, answers)
    first = checked.isel(link=0)
    (induction,) = planted.truth.heads["induction"]
    assert (int(first["layer"]), int(first["head"])) == induction
    assert (int(first["query"]), int(first["key"])) == (end, end - 8 + 1)
    assert bool(first["confirmed"])
    assert float(first["low"]) > 4  # nats: certain before, a guess among 63 after
    assert float(torch.tensor(checked.attrs["base"])) > -0.1


def test_no_links_and_no_threshold_below_0(absolute_model, even, refuses):
    found = patterns(absolute_model, even).isel(prompt=0)
    none = find_links(found, mean_above(1.0))
    refuses(lambda: confirm(absolute_model, even, none, log_prob(3)), "no link to confirm")
    some = find_links(found, top_k(1))
    refuses(lambda: confirm(absolute_model, even, some, log_prob(3), threshold=-1.0), "at least 0")


def test_links_to_later_tokens_are_refused(refuses):
    model, prompt = load_model("toy:rasp-reverse"), "a b c b a"
    links = find_links(patterns(model, prompt).isel(prompt=0), above_uniform(2.0))
    assert (links["key"] > links["query"]).any()
    refuses(lambda: confirm(model, prompt, links, log_prob(1)), "knockouts need causal attention")


def test_the_model_stays_as_it_was(model, even, snapshot):
    tried = copy.deepcopy(model)
    before = snapshot(tried)
    links = find_links(patterns(tried, even).isel(prompt=0), top_k(1))
    confirm(tried, even, links, log_prob(3))
    before.check()
