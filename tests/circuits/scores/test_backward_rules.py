"""The rules against the library's own pass, with hooks that detach and scale."""

import copy
from dataclasses import fields

import pytest
import torch
from torch import nn

from mechinterp.circuits import Contrast, Graph, eap, gim, relp
from mechinterp.circuits.scores.backward_rules import BackwardRuleContrast
from mechinterp.circuits.scores.relp_gim_layers import InteractionLayer, RelevanceLayer

RULES = {"relp": RelevanceLayer, "gim": InteractionLayer}


def part(value, share):
    """The value, with a share of its gradient."""
    return share * value + ((1 - share) * value).detach()


def hooked(model, name):
    """A copy whose hooks, and activation functions, have the rules of a method."""
    made = copy.deepcopy(model)
    scores = {}

    def tempered(pattern, hook):
        softer = (scores[hook.layer()] / 2).softmax(-1)
        return pattern.detach() + 2 * (softer - softer.detach())

    for point, module in made.hook_dict.items():
        if point.endswith("hook_scale"):
            module.add_hook(lambda value, hook: value.detach())
        if point.endswith("mlp.hook_post") and made.cfg.gated_mlp:
            module.add_hook(lambda value, hook: part(value, 0.5))
        if name == "gim" and point.endswith("attn.hook_attn_scores"):
            module.add_hook(lambda value, hook: scores.update({hook.layer(): value}))
        if name == "gim" and point.endswith("attn.hook_pattern"):
            module.add_hook(tempered)
        for kind, share in (("q", 0.25), ("k", 0.25), ("v", 0.5)):
            if name == "gim" and point.endswith(f"attn.hook_{kind}"):
                module.add_hook(lambda value, hook, share=share: part(value, share))
    for block in made.blocks if name == "relp" and not made.cfg.attn_only else ():
        own = block.mlp.act_fn
        block.mlp.act_fn = lambda x, own=own: x * (own(x) / x).detach()
    return made


def gradients_at(model, prompts, points):
    """The gradient of the metric, by the library's own backward pass."""
    kept = {}

    def keep(value, hook):
        if hook.name == "hook_embed":
            value = value.clone().requires_grad_()
        kept[hook.name] = value
        return value

    for point in points:
        model.hook_dict[point].add_hook(keep)
    end = model(prompts.tokens)[:, -1]
    total = end[[0, 1], [7, 11]].sum() - end[[0, 1], [20, 3]].sum()
    return dict(zip(points, torch.autograd.grad(total, [kept[p] for p in points]), strict=True))


@pytest.mark.parametrize(("name", "method"), [("relp", relp), ("gim", gim)])
def test_every_writer_scores_its_change_times_the_ruled_gradient(
    precise, pair, metric, name, method
):
    contrast = Contrast.from_pair(precise, pair, metric)
    found = method(contrast).node_scores()
    layers = range(precise.cfg.n_layers)
    points = ["hook_embed", *(f"blocks.{layer}.attn.hook_z" for layer in layers)]
    gradients = gradients_at(hooked(precise, name), pair.clean, points)
    for writer, node in enumerate(contrast.graph.nodes):
        if node.layer is None:
            gradient = gradients["hook_embed"]
        elif node.head is not None:
            at_z = gradients[points[1 + node.layer]][:, :, node.head]
            gradient = at_z @ torch.linalg.pinv(precise.W_O[node.layer, node.head]).T
        else:
            continue
        gradient = gradient[:, contrast.first :]
        wanted = -(contrast.change[writer] * gradient).sum((1, 2)).numpy()
        assert found[writer].values == pytest.approx(wanted, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", RULES)
def test_values_stay_as_they_are(model, pair, metric, name):
    contrast = Contrast.from_pair(model, pair, metric)
    own = {f.name: getattr(contrast, f.name) for f in fields(Contrast)}
    ruled = BackwardRuleContrast(**own, make_layer=RULES[name])
    for layer in range(model.cfg.n_layers):
        here, there = (b.run_layer(layer, b.resid[layer]) for b in (contrast, ruled))
        for field in fields(here):
            if getattr(here, field.name) is not None:
                torch.testing.assert_close(getattr(here, field.name), getattr(there, field.name))
    assert ruled.base_scores == pytest.approx(contrast.base_scores, abs=1e-6)


def test_without_norms_and_mlps_relp_is_eap(attention_only_model, pair, metric):
    graph = Graph.from_model(attention_only_model, positions=["S2"])
    contrast = Contrast.from_pair(attention_only_model, pair, metric, graph)
    found, plain = relp(contrast), eap(contrast)
    torch.testing.assert_close(*(torch.tensor(s.mean).nan_to_num() for s in (found, plain)))
    assert found.per_pair.attrs["residual"] == pytest.approx(plain.per_pair.attrs["residual"])


def test_a_norm_without_a_rule_is_refused(grouped_model, pair, metric, refuses):
    contrast = Contrast.from_pair(grouped_model, pair, metric)
    own = grouped_model.ln_final
    try:
        grouped_model.ln_final = nn.Tanh()
        refuses(lambda: relp(contrast), "Tanh", "no backward rule")
    finally:
        grouped_model.ln_final = own
