"""How good circuits are: beside known ones, gates with redundancy, one way of choosing and another.

Parts of `circuits.py`, which runs them.
"""

import itertools
import statistics
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from figures import Figure, cpu_seconds

from mechinterp import (
    Pair,
    load_model,
    log_prob,
    run,
    token_id,
    tokenize,
)
from mechinterp.circuits import (
    MIB_SIZES,
    Circuit,
    Contrast,
    acdc_scores,
    best_first,
    eap,
    eap_ig,
    exact_edges,
    faithfulness,
    known_circuit,
    optimal_circuit,
    rank_auc,
    redundancy,
    swap_edges,
    top_n,
)
from mechinterp.circuits.evaluation.faithfulness import Target
from mechinterp.circuits.selection import Rank
from mechinterp.core.metrics import Metric
from mechinterp.tasks.ioi import indirect_objects
from mechinterp.toys import example_inputs, random_circuit, toy

PROGRAMS = ("reverse", "x-proportion", "sort", "histogram", "dyck")

_TARGETS: dict[Target, str] = {"model": "by size of score: CMD", "above": "signed: CPR"}


def ground_truth(quick: bool) -> list[Figure]:
    """The rank AUC of edges where the circuit is known; the least over the models of a kind."""
    kinds: dict[str, list[Any]] = {
        "compiled programs": [toy(f"rasp-{name}") for name in PROGRAMS],
        "random circuits": [
            random_circuit(seed, n_circuit_mlps=n)
            for seed in range(2 if quick else 8)
            for n in (2, 0)
        ],
    }
    figures = []
    for kind, planted in kinds.items():
        methods = ("exact", "ACDC", "ACDC, near the model", "EAP-IG", "EAP")
        found: dict[str, list[float]] = {method: [] for method in methods}
        for one in planted:
            contrast = runs_of(one)
            truth = known_circuit(contrast.graph, one.truth)
            scores = exact_edges(contrast)
            taus = [abs(scores.strongest(1)[0][1]) * share for share in (1e-5, 1e-4, 1e-3, 1e-2)]
            for name, made in (
                ("exact", scores),
                ("ACDC", acdc_scores(contrast, taus)),
                ("ACDC, near the model", acdc_scores(contrast, taus, target="model")),
                ("EAP-IG", eap_ig(contrast, 5)),
                ("EAP", eap(contrast)),
            ):
                found[name].append(rank_auc(made, truth))
        wanted: dict[str, float] = {"exact": 0.99, "EAP-IG": 0.99}
        if kind == "compiled programs":
            wanted = {"exact": 0.999, "ACDC": 0.999, "EAP-IG": 0.95}
        figures += [
            Figure(f"{kind}: least AUC of {len(each)}, {name}", min(each), wanted.get(name), False)
            for name, each in found.items()
        ]
    return figures


def runs_of(planted: Any, n: int = 24) -> Contrast:
    """Random pairs; at all positions, the answer's logit minus that of the other prompt's."""
    model = load_model(planted)
    texts = [" ".join(words) for words in example_inputs(planted, 2 * n)]
    clean, corrupt = tokenize(model, texts[:n]), tokenize(model, texts[n:])
    at = tuple(range(1, clean.width))
    right, wrong = (run(model, s, logits_at=at).logits.argmax(-1) for s in (clean, corrupt))

    def score(logits: torch.Tensor) -> torch.Tensor:
        chosen = [logits.gather(2, ids[..., None])[..., 0] for ids in (right, wrong)]
        return (chosen[0] - chosen[1]).sum(1)

    return Contrast.from_pair(
        model, Pair(clean, corrupt), Metric("answer - other", "logits", at, score)
    )


def selection(quick: bool) -> list[Figure]:
    """Circuits of SmolLM2 at MIB's sizes, chosen in four ways; on other pairs too."""
    model = load_model("smollm2", device="cpu")
    tasks = [
        indirect_objects(model, 2 if quick else 8, corruption="S2 to IO", seed=seed)
        for seed in (0, 1)
    ]
    contrast, other = (Contrast.from_pair(model, task.pair, task.metric) for task in tasks)
    scores = eap_ig(contrast, 5)
    sizes = (0.001, 1.0) if quick else MIB_SIZES
    figures = []
    for target, name in _TARGETS.items():
        rank: Rank = "size" if target == "model" else "signed"
        ways: dict[str, list[Circuit]] = {"top-n": [], "greedy": [], "optimal": [], "improved": []}
        seconds = []
        for size in sizes:
            n = int(size * contrast.graph.n_edges)
            made = [way(scores, n, rank=rank) for way in (top_n, best_first, optimal_circuit)]
            taken, better = cpu_seconds(
                lambda made=made, target=target: swap_edges(contrast, *made, target=target)
            )
            seconds.append(taken)
            for each, circuit in zip(ways.values(), [*made, better], strict=True):
                each.append(circuit)
        shares = {way: shares_of(contrast, made) for way, made in ways.items()}
        areas = {way: area(found, sizes, target) for way, found in shares.items()}
        for way, made in ways.items():
            elsewhere = area(shares_of(other, made), sizes, target)
            note = f"on other pairs {elsewhere:.4g}; by size {np.round(shares[way], 3).tolist()}"
            figures.append(Figure(f"{name}, {way}", areas[way], note=note))
        for way, most in (("optimal", None), ("improved", 0)):
            worse = sum(
                badness(mine, target) > badness(greedy, target) + 1e-4
                for mine, greedy in zip(shares[way], shares["greedy"], strict=True)
            )
            figures.append(Figure(f"  sizes where {way} is less faithful than greedy", worse, most))
        figures += [
            Figure(
                "  improved, above EAP-IG's top-n",
                areas["improved"],
                areas["top-n"],
                target == "model",
            ),
            Figure("  improving, CPU seconds a size", statistics.median(seconds)),
        ]
    return figures


def shares_of(contrast: Contrast, circuits: list[Circuit]) -> list[float]:
    """The faithfulness of each."""
    named = {str(at): circuit for at, circuit in enumerate(circuits)}
    return [float(share) for share in faithfulness(contrast, named)["faithfulness"]]


def badness(share: float, target: Target) -> float:
    """How far it is from the model, or how little it does."""
    return abs(1 - share) if target == "model" else -share


def area(shares: list[float], sizes: Any, target: Target) -> float:
    """CMD, or CPR."""
    values = [abs(1 - share) for share in shares] if target == "model" else shares
    return float(np.trapezoid(values, sizes))


def gates(quick: bool) -> list[Figure]:
    """Planted OR gates: what each branch does alone, and what two branches do beyond that."""
    figures = []
    for name, clean, corrupt in (
        ("either", "bring the copper lantern", "bring the garden letter"),
        ("redundant", "bring the sesame", "bring the letter"),
        ("backup", "bring the sesame", "bring the letter"),
    ):
        planted = toy(name)
        model = load_model(planted)
        pair = Pair(tokenize(model, clean), tokenize(model, corrupt))
        contrast = Contrast.from_pair(model, pair, log_prob(token_id(model, "REFUSE")))
        truth = known_circuit(contrast.graph, planted.truth)
        found = redundancy(contrast, truth)["interaction"].isel(pair=0)
        alone = exact_edges(contrast, truth)
        groups = [
            known_circuit(contrast.graph, replace(planted.truth, edges=group)).names
            for group in planted.truth.redundant
        ] or [("a0.h0->m0", "a0.h3->m0")]
        pairs = [two for group in groups for two in itertools.combinations(group, 2)]
        least = min(float(found.sel(edge=a, other=b)) for a, b in pairs)
        most = max(min(alone[a], alone[b]) for a, b in pairs)
        figures += [
            Figure(f"{name}: redundant edges, largest effect alone, nats", most),
            Figure(f"{name}: least interaction of two of them, nats", least, 1, False),
        ]
    return figures
