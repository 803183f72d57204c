"""The trained induction toy: its stored figures, and the edges that carry the prompt."""

import itertools
from functools import partial

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from mechinterp.toys import toy
from mechinterp.toys.trained import WEIGHTS


def test_trained_figures_are_those_of_the_stored_weights(
    build, repeated_blocks, next_margin, zero_head
):
    built, model = build("induction-trained")
    seen: dict[str, list[Tensor]] = {}
    for period in range(6, 21):
        tokens = repeated_blocks(built, n_prompts=40, period=period, seed=period)
        logits, acts = model.run_with_cache(tokens)
        queries = torch.arange(period + 1, 2 * period)
        found = {
            "accuracy": next_margin(tokens, logits) > 0,
            "previous_token_score": acts["pattern", 0][:, 0, queries, queries - 1],
            "induction_score": acts["pattern", 1][:, 0, queries, queries - period + 1],
        }
        for layer in range(2):
            without = model.run_with_hooks(
                tokens, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", partial(zero_head, head=0))]
            )
            found[f"accuracy_zero_L{layer}H0"] = next_margin(tokens, without) > 0
        for figure, values in found.items():
            seen.setdefault(figure, []).append(values.float().flatten())
    for figure, parts in seen.items():
        stated = built.truth.figures[figure]
        assert torch.cat(parts).mean().item() == pytest.approx(stated, abs=0.02), figure


def test_trained_figures_show_induction_by_both_heads():
    figures = toy("induction-trained").truth.figures
    assert figures["accuracy"] >= 0.999
    assert figures["induction_score"] > 0.97
    for layer, ablation in itertools.product(range(2), ("zero", "mean")):
        assert figures[f"accuracy_{ablation}_L{layer}H0"] < 0.15


def test_trained_edges_are_those_that_carry_the_prompt(
    build, planted, next_margin, all_edges, reader_inputs, run_without_edge
):
    """Each edge in turn carries what it would on another prompt; only stated ones matter."""
    built, model = build("induction-trained")
    tokens = planted(built)
    accuracy = {}
    for edge in all_edges(model):
        with reader_inputs(model):
            without = run_without_edge(model, tokens, edge, instead=lambda value: value.roll(1, 0))
        accuracy[edge] = (next_margin(tokens, without) > 0).float().mean().item()
    assert {edge for edge, value in accuracy.items() if value < 0.98} == set(built.truth.edges)
    assert all(accuracy[edge] < 0.8 for edge in built.truth.edges)


def test_trained_weights_are_small_and_in_half_precision():
    assert WEIGHTS.stat().st_size < 400_000
    with safe_open(WEIGHTS, framework="pt") as stored:
        names = list(stored.keys())  # not a dict: it cannot be iterated itself
        assert {stored.get_tensor(name).dtype for name in names} == {torch.float16}
