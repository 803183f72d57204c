"""Gradients at sites: one pass for all, prompts by themselves, nothing left behind."""

import copy
from dataclasses import replace

import pytest
import torch

from mechinterp import (
    HookError,
    Metric,
    Prompts,
    Site,
    add,
    delete_token,
    edit,
    kl,
    log_prob,
    logit_diff,
    put,
    read,
    run,
    scale,
)
from mechinterp.core.metrics import top_token
from mechinterp.engine.gradients import plan_gradient_passes, site_gradients

SITES = [
    Site("embed"),
    Site("z", 1),
    Site("q", 0, 2, "end"),
    Site("pattern", 2, 1),
    Site("attn_out", 1, pos="S2"),
    Site("resid_post", 2),
]
METRICS = [log_prob([3, 20, 7]), logit_diff(5, [6, 7, 8], at="S2")]
CLOSE = {"atol": 2e-5, "rtol": 1e-4}


def assert_same(found, wanted):
    assert list(found) == list(wanted)
    for site in wanted:
        torch.testing.assert_close(found[site], wanted[site], **CLOSE)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_all_sites_at_once_are_each_by_itself(model, ragged, metric):
    together = site_gradients(model, ragged, SITES, metric)
    assert list(together) == SITES
    for site in SITES:
        alone = site_gradients(model, ragged, [site], metric)[site]
        torch.testing.assert_close(together[site], alone, **CLOSE)
        assert alone.shape == run(model, ragged, read(site)).acts[site].shape
        assert not alone.requires_grad


def test_a_ragged_batch_is_each_prompt_alone(model, ragged):
    answers = [3, 20, 7]
    together = site_gradients(model, ragged, SITES, log_prob(answers))
    for row, length in enumerate(ragged.lengths.tolist()):
        ids = ragged.tokens[row, :length].tolist()
        single = Prompts.from_ids([ids]).named(S2=int(ragged.positions("S2")[row]))
        alone = site_gradients(model, single, SITES, log_prob(answers[row]))
        for site in SITES:
            inside = (slice(None), *(slice(0, n) for n in alone[site].shape[1:]))
            slope = together[site][row : row + 1]
            torch.testing.assert_close(slope[inside], alone[site], **CLOSE)
            rest = slope.clone()
            rest[inside] = 0
            # A pattern's link to padding would change the metric if it were put there.
            assert site.act == "pattern" or not rest.any(), "padding changes no metric"


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_prompts_in_several_passes_are_prompts_in_one(model, ragged, metric):
    assert len(
        plan_gradient_passes(model, ragged, SITES, metric, 1, together=False, budget_bytes=1)
    ) == len(ragged)
    together = site_gradients(model, ragged, SITES, metric)
    assert_same(site_gradients(model, ragged, SITES, metric, budget_bytes=1), together)


def test_a_schedule_covers_every_variant_of_every_prompt(absolute_model, ragged):
    each = plan_gradient_passes(
        absolute_model, ragged, SITES, METRICS[0], 1, together=False, budget_bytes=1
    )[0].planned_bytes
    for budget, together in [(1, False), (2 * each, False), (7 * each, False), (1, True)]:
        chunks = plan_gradient_passes(
            absolute_model, ragged, SITES, METRICS[0], 5, together=together, budget_bytes=budget
        )
        covered = [
            (row, variant)
            for chunk in chunks
            for row in range(chunk.rows.start, chunk.rows.stop)
            for variant in chunk.variants
        ]
        assert sorted(covered) == [(row, variant) for row in range(3) for variant in range(5)]
        assert all(chunk.planned_bytes == each * chunk.n_rows for chunk in chunks)
        assert together or all(chunk.planned_bytes <= max(budget, each) for chunk in chunks)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_the_planned_bytes_hold_the_graph(model, ragged, metric):
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = (
            storage.nbytes(),
            tensor,
        )  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        site_gradients(model, ragged, SITES, metric)
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    graph = sum(n for at, (n, _) in kept.items() if at not in weights)
    planned = plan_gradient_passes(model, ragged, SITES, metric, 1, together=False)[0].planned_bytes
    assert graph < planned < 10 * graph


def test_gradients_of_a_run_with_specs(model, ragged):
    resid, last = Site("resid_post", 1), Site("resid_post", 2)
    metric = METRICS[0]
    vector = torch.linspace(-1, 1, model.cfg.d_model)
    moved = site_gradients(model, ragged, [last], metric, add(last, vector))[last]
    by_hand = site_gradients(model, ragged, [last], metric, edit(last, lambda v, at: v + vector))[
        last
    ]
    torch.testing.assert_close(moved, by_hand, **CLOSE)
    assert not torch.allclose(
        moved, site_gradients(model, ragged, [last], metric)[last], **CLOSE
    ) or (model.cfg.normalization_type is None)
    cut = site_gradients(model, ragged, [resid], metric, put(last, 0.5))[resid]
    assert not cut.any(), "what follows was put, whatever is here"
    mixed = edit(resid, lambda value, at: value.flip(0))  # an edit may look at all prompts
    assert_same(
        site_gradients(model, ragged, [resid], metric, mixed, budget_bytes=1),
        site_gradients(model, ragged, [resid], metric, mixed),
    )


def test_gradients_with_a_deleted_token(absolute_model, ragged):
    site = Site("resid_pre", 1)
    found = site_gradients(absolute_model, ragged, [site], METRICS[0], delete_token(0))
    shorter = Prompts.from_ids([[1, 4, 1, 5, 9, 2], [5, 3, 5], [9, 7, 9, 3, 2]])
    alone = site_gradients(absolute_model, shorter, [site], METRICS[0])
    torch.testing.assert_close(found[site], alone[site], **CLOSE)
    assert found.prompts.lengths.tolist() == [6, 3, 5]


def test_logits_are_differentiated_by_themselves(model, ragged):
    site = Site("logits")
    slope = site_gradients(model, ragged, [site], logit_diff(5, 6))[site]
    ends = ragged.positions("end")
    wanted = torch.zeros_like(slope)
    wanted[range(3), ends, 5], wanted[range(3), ends, 6] = 1.0, -1.0
    torch.testing.assert_close(slope, wanted)


def test_nothing_is_left(model, ragged, snapshot):
    before = snapshot(model)
    site_gradients(model, ragged, SITES, METRICS[0])
    with pytest.raises(RuntimeError, match="wrong on purpose"):
        site_gradients(model, ragged, SITES, replace(METRICS[0], score=fails))
    before.check()
    assert all(weight.grad is None for weight in model.parameters())


def fails(logits):
    raise RuntimeError("wrong on purpose")


def test_a_model_in_training_keeps_its_parameters_and_gradients(absolute_model, ragged):
    training = copy.deepcopy(absolute_model).requires_grad_(True)
    found = site_gradients(training, ragged, SITES, METRICS[0])
    assert_same(found, site_gradients(absolute_model, ragged, SITES, METRICS[0]))
    assert all(weight.grad is None and weight.requires_grad for weight in training.parameters())
    assert not any(slope.requires_grad for slope in found.values())


def test_gradients_are_there_without_grad_mode(absolute_model, ragged):
    wanted = site_gradients(absolute_model, ragged, SITES, METRICS[0])
    with torch.no_grad():
        assert_same(site_gradients(absolute_model, ragged, SITES, METRICS[0]), wanted)
        assert not torch.is_grad_enabled()


def test_foreign_hooks_see_all_prompts(absolute_model, ragged):
    seen = []
    handle = absolute_model.blocks[0].hook_resid_pre.register_forward_hook(
        lambda module, args, value: seen.append(len(value))
    )
    try:
        site_gradients(absolute_model, ragged, SITES, METRICS[0], budget_bytes=1)
    finally:
        handle.remove()
    assert seen == [3]


def test_what_has_no_gradient(absolute_model, ragged, refuses):
    def ask(site=SITES[0], metric=METRICS[0], specs=()):
        return lambda: site_gradients(absolute_model, ragged, [site], metric, specs)

    refuses(ask(Site("tokens")), "token ids", 'Site("embed")')
    refuses(ask(Site("blocks.1.ln1.hook_scale")), "full hook name", "short name")
    refuses(ask(Site("z", 3)), "gradient at L3.z", "out of range")
    refuses(ask(Site("z", 1, head=4)), "head 4 is out of range")
    refuses(ask(Site("q_input", 1)), "split_qkv=True")
    refuses(ask(Site("z", 1, pos="S9")), "no position is called 'S9'")
    refuses(ask(metric=top_token()), "top_token has no gradient", "log_prob")
    refuses(ask(metric=replace(METRICS[0], score=lambda x: x.sum())), "each of 3 prompts")
    with pytest.raises(HookError, match=r"gradient of .* at L0\.resid_pre is not finite"):
        ask(Site("resid_pre", 0), specs=scale(Site("resid_mid", 0), float("inf")))()


@pytest.mark.usefixtures("as_users_call_it")
def test_specs_that_are_no_specs(absolute_model, ragged, refuses):
    specs = [scale(SITES[0], 2.0)]
    refuses(lambda: site_gradients(absolute_model, ragged, SITES, METRICS[0], specs), "HookSpec")


def test_gradients_that_do_not_fit_are_refused(absolute_model, ragged, monkeypatch):
    monkeypatch.setattr("mechinterp.engine.gradients.available_bytes", lambda device: 1000)
    with pytest.raises(HookError, match=r"1000 B are free"):
        site_gradients(absolute_model, ragged, SITES, METRICS[0])


def test_kl_is_flat_at_the_base_run(absolute_model, ragged):
    base = run(absolute_model, ragged).logits[:, 0]
    slopes = site_gradients(absolute_model, ragged, [Site("embed")], kl(base))
    assert slopes[Site("embed")].abs().max() < 1e-4


def test_a_metric_of_your_own(attention_only_model, ragged):
    ours = Metric("square", "logits", ("end", 0), lambda x: x[:, 0, 2] ** 2 + x[:, 1, 4])
    at = Site("resid_post", 2)
    logits = run(attention_only_model, ragged, logits_at="end").logits[:, 0, 2]
    slope = site_gradients(attention_only_model, ragged, [at], ours)
    W_U = attention_only_model.W_U
    torch.testing.assert_close(
        slope[Site("resid_post", 2, pos="end")], 2 * logits[:, None] * W_U[:, 2]
    )
    torch.testing.assert_close(slope[Site("resid_post", 2, pos=0)], W_U[:, 4].expand(3, -1))
