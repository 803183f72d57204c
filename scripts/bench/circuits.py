"""Circuits: exact edge effects, gradients, evaluation and ACDC beside hooks; and known circuits.

    python scripts/bench/circuits.py [--check] [--quick] [--only NAME ...]

`fe` is the CPU seconds of something, divided by those of one plain forward pass of the library on
the same batch, one thread. GPT-2 small's shape has random weights, 8 pairs of 15 tokens that differ
at position 10, as the second subject of an indirect-object prompt does. What takes the place of the
slow loop is compared with it in the same run: a hook on the input of each reader, one pass an edge,
on a sample of edges; its whole cost is scaled from that sample. `--check` exits with 1 if an
equality or a wanted figure falls short. `--quick` runs small shapes, for the equalities alone.
"""

import argparse
import ctypes
import gc
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from circuit_quality import gates, ground_truth, selection
from figures import Figure, cpu_seconds
from random_models import gpt2_shape, tiny_models
from transformer_lens import HookedTransformer

from mechinterp import (
    Pair,
    Prompts,
    Site,
    edit,
    load_model,
    logit_diff,
    run,
)
from mechinterp.circuits import (
    Circuit,
    Contrast,
    Graph,
    acdc,
    eap,
    eap_ig,
    evaluate,
    exact_edges,
    faithfulness_curve,
    top_n,
)
from mechinterp.models import Model
from mechinterp.tasks.ioi import indirect_objects

TOLERANCE = 1e-5


def main() -> None:
    """Run the parts, print their tables, check if asked."""
    given = _arguments()
    torch.set_num_threads(1)
    figures: list[Figure] = []
    for name, part in PARTS.items():
        if given.only and name not in given.only:
            continue
        print(f"\n{name}", flush=True)
        for figure in part(given.quick):
            print(f"  {figure}", flush=True)
            figures.append(figure)
    short = [figure.name for figure in figures if figure.falls_short]
    if given.check and short:
        raise SystemExit(f"falls short: {', '.join(short)}")


def _arguments() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="exit with 1 if it falls short")
    arguments.add_argument("--quick", action="store_true", help="small shapes, equalities alone")
    arguments.add_argument("--only", nargs="*", choices=PARTS, help="some parts")
    return arguments.parse_args()


def forward_seconds(model: Model, tokens: torch.Tensor) -> float:
    """CPU seconds of one plain forward pass."""
    with torch.no_grad():
        model(tokens)
        return cpu_seconds(lambda: model(tokens), 5)[0]


def extra_gib(call: Callable[[], Any]) -> tuple[float, Any]:
    """The most memory that a call held beyond what was held before it, and what it gave."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free goes back, or its use again would not be seen
    before, most, done = _held_gib(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            most[0] = max(most[0], _held_gib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    found = call()
    done.set()
    watcher.join()
    return max(most[0] - before, 0.0), found


def _held_gib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**30


# The slow obvious way


def with_every_hook(model: HookedTransformer) -> HookedTransformer:
    """The same weights, with the gated hook points on, each query head with keys of its own."""
    import copy

    on = copy.deepcopy(model)
    for flag in ("use_split_qkv_input", "use_hook_mlp_in"):
        setattr(on.cfg, flag, True)
    if on.cfg.n_key_value_heads:
        on.cfg.ungroup_grouped_query_attention = True
    return on


def effect_by_hook(model: HookedTransformer, contrast: Contrast, edge: tuple[int, ...]) -> Any:
    """One pass with a hook on the input of the edge's reader; `model` has every hook on."""
    graph = contrast.graph
    reader = graph.inputs[edge[1]]
    site = Site("resid_post", graph.n_layers - 1)
    if reader.kind == "mlp":
        site = Site("mlp_in", reader.layer)
    elif reader.kind != "logits":
        site = Site(f"{reader.kind}_input", reader.layer, reader.head)

    def add(value: torch.Tensor, at: Any) -> torch.Tensor:
        value[:, contrast.first :] += contrast.change[edge[0]]
        return value

    found = contrast.metric(run(model, contrast.prompts, edit(site, add), logits_at=("end",)))
    return contrast.base_scores - found.double().numpy()


def sampled_edges(graph: Graph, n: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Some edges, drawn at random, in every layer alike."""
    every = np.argwhere(graph.edges)
    return [tuple(edge) for edge in np.random.default_rng(seed).permutation(every)[:n].tolist()]


# The parts


def hooks(quick: bool) -> list[Figure]:
    """Exact effects on small models of four kinds, against hooks."""
    figures = []
    kinds = {**tiny_models(), "trained toy: attention only": "toy:induction-trained"}
    for name, original in kinds.items():
        options = {} if isinstance(original, str) else {"tokenizer": None}
        model = load_model(original, device="cpu", **options)
        drawn = torch.randint(1, 50, (3, 7), generator=torch.Generator().manual_seed(0))
        other = drawn.clone()
        other[:, 2:] = drawn[:, 2:].flip(0)
        pair = Pair(*(Prompts.from_ids(side.tolist()) for side in (drawn, other)))
        contrast = Contrast.from_pair(model, pair, logit_diff([3, 4, 5], [6, 7, 8]))
        scores, on = exact_edges(contrast), with_every_hook(model)
        edges = sampled_edges(contrast.graph, 30 if quick else 150)
        far = [
            np.abs(scores.per_pair.values[e] - effect_by_hook(on, contrast, e)).max() for e in edges
        ]
        figures.append(Figure(f"{name}: off hooks, logits", max(far), TOLERANCE))
        ends = evaluate(contrast, [Circuit.full(contrast.graph), Circuit.empty(contrast.graph)])
        clean, corrupt = (
            contrast.metric(run(model, side)).numpy() for side in (pair.clean, pair.corrupt)
        )
        off = max(np.abs(ends[0] - clean).max(), np.abs(ends[1] - corrupt).max())
        figures.append(Figure(f"{name}: full and empty circuit off the runs", off, TOLERANCE))
    return figures


def gpt2_runs(quick: bool) -> tuple[Any, Any, torch.Tensor]:
    """GPT-2 small's shape, and 8 pairs of 15 tokens that differ at position 10."""
    model = gpt2_shape(quick)
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(0, model.cfg.d_vocab, (8, 15), generator=generator)
    corrupt = clean.clone()
    corrupt[:, 10] = torch.randint(0, model.cfg.d_vocab, (8,), generator=generator)
    pair = Pair(*(Prompts.from_ids(side.tolist()) for side in (clean, corrupt)))
    metric = logit_diff(clean[:, 1].tolist(), clean[:, 2].tolist())
    return model, (pair, metric), clean


def gradients(quick: bool) -> list[Figure]:
    """EAP, EAP-IG, one circuit and a curve, each with both runs, in forward passes."""
    model, (pair, metric), tokens = gpt2_runs(quick)
    fe = forward_seconds(model, tokens)
    contrast = Contrast.from_pair(model, pair, metric)

    def whole(work: Callable[[Contrast], Any]) -> Any:
        return work(Contrast.from_pair(model, pair, metric))

    wants = {} if quick else {"EAP": 8, "EAP-IG": 25, "one circuit": 4, "curve": 30}
    scores = eap(contrast)
    half = top_n(scores, contrast.graph.n_edges // 20)
    figures = []
    for name, what, work in (
        ("EAP", "EAP, all edges", eap),
        ("EAP-IG", "EAP-IG, 5 steps, all edges", lambda b: eap_ig(b, 5)),
        ("one circuit", "one circuit run alone", lambda b: evaluate(b, [half])),
        ("curve", "CPR or CMD, 10 sizes", lambda b: faithfulness_curve(b, scores)),
    ):
        seconds, _ = cpu_seconds(lambda work=work: whole(work), 1 if quick else 5)
        figures.append(Figure(f"{what}, with both runs, fe", seconds / fe, wants.get(name)))
        figures.append(memory(model, tokens, lambda work=work: whole(work), quick))
    return figures


def memory(model: Model, tokens: torch.Tensor, call: Callable[[], Any], quick: bool) -> Figure:
    """What a call holds beyond the model and what a forward pass holds, in models."""
    with torch.no_grad():
        plain, _ = extra_gib(lambda: model(tokens))
    size = sum(p.numel() * p.element_size() for p in model.parameters()) / 2**30
    extra, _ = extra_gib(call)
    note = f"{extra:.2f} GiB; the model {size:.2f}, a forward pass {plain:.2f}"
    most = None if quick else 0.5
    return Figure(
        "  memory beyond model and forward, in models", (extra - plain) / size, most, note=note
    )


def all_edges(quick: bool) -> list[Figure]:
    """Every edge of GPT-2 small's shape exactly, and a sample by hooks."""
    model, (pair, metric), tokens = gpt2_runs(quick)
    fe = forward_seconds(model, tokens)
    contrast = Contrast.from_pair(model, pair, metric)
    seconds, scores = cpu_seconds(lambda: exact_edges(contrast))
    best = top_n(scores, min(300, contrast.graph.n_edges))  # a quick model has fewer
    held = memory(
        model, tokens, lambda: exact_edges(Contrast.from_pair(model, pair, metric), best), quick
    )
    edges, on = sampled_edges(contrast.graph, 30 if quick else 60), with_every_hook(model)
    slow, far = 0.0, 0.0
    for edge in edges:
        taken, effect = cpu_seconds(lambda edge=edge: effect_by_hook(on, contrast, edge))
        slow += taken
        far = max(far, float(np.abs(scores.per_pair.values[edge] - effect).max()))
    each = slow / len(edges)
    n = contrast.graph.n_edges
    return [
        Figure("off hooks, logits, of the sample", far, TOLERANCE),
        Figure("edges", n),
        Figure("all edges, exactly, fe", seconds / fe, None if quick else 1900),
        Figure("  CPU seconds", seconds),
        Figure("  by hooks, from the sample, fe", n * each / fe),
        Figure("  times faster", n * each / seconds),
        held,
    ]


def searches(quick: bool) -> list[Figure]:
    """ACDC on four layers of four heads, with MLPs: speculative and sequential."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    width = 64 if quick else 512
    config = GPT2Config(
        n_layer=4, n_head=4, n_embd=width, n_positions=64, vocab_size=1000, initializer_range=0.1
    )
    model = load_model(GPT2LMHeadModel(config).eval(), device="cpu")
    drawn = torch.randint(0, 1000, (8, 15), generator=torch.Generator().manual_seed(0))
    other = drawn.clone()
    other[:, 10] = (drawn[:, 10] + 1) % 1000
    pair = Pair(*(Prompts.from_ids(side.tolist()) for side in (drawn, other)))
    metric = logit_diff(drawn[:, 1].tolist(), drawn[:, 2].tolist())
    fe = forward_seconds(model, drawn)
    contrast = Contrast.from_pair(model, pair, metric)
    tau = 0.01
    seconds, found = cpu_seconds(lambda: acdc(contrast, tau))
    slowly, sequential = cpu_seconds(lambda: acdc(contrast, tau, at_once=1))
    differ = (found - sequential).n_edges + (sequential - found).n_edges
    return [
        Figure("edges", contrast.graph.n_edges),
        Figure("edges kept", found.n_edges),
        Figure("edges that the sequential algorithm keeps otherwise", differ, 0),
        Figure("ACDC, fe", seconds / fe, None if quick else 150),
        Figure("  one edge a pass, fe", slowly / fe),
    ]


def real_model(quick: bool) -> list[Figure]:
    """Indirect objects on SmolLM2: scores, their curves, exact effects of the best edges."""
    model = load_model("smollm2", device="cpu")
    task = indirect_objects(model, 2 if quick else 8, corruption="S2 to IO")
    fe = forward_seconds(model, task.pair.clean.tokens)

    def runs() -> Contrast:
        return Contrast.from_pair(model, task.pair, task.metric)

    contrast = runs()
    figures = [Figure("edges", contrast.graph.n_edges)]
    edge = Circuit.from_edges(contrast.graph, ["input->m0"])
    figures.append(Figure("input->m0, exactly, logits", exact_edges(contrast, edge)["input->m0"]))
    taken, scores = cpu_seconds(lambda: eap_ig(runs(), 5))
    plain = eap(contrast)
    figures += [
        Figure("  by EAP", plain["input->m0"]),
        Figure("  by EAP-IG, 5 steps", scores["input->m0"], 0, at_most=False),
        Figure("EAP-IG, 5 steps, with both runs, fe", taken / fe, None if quick else 25),
    ]
    if quick:
        return figures
    for name, made in (("EAP", plain), ("EAP-IG", scores)):
        by_size, signed = (
            faithfulness_curve(contrast, made),
            faithfulness_curve(contrast, made, rank="signed"),
        )
        wanted = (0.0096, 1.70) if name == "EAP-IG" else (None, None)
        figures += [
            Figure(f"{name}: CMD", by_size.attrs["CMD"], wanted[0]),
            Figure(f"{name}: CPR", signed.attrs["CPR"], wanted[1], False),
        ]
    taken, best = cpu_seconds(lambda: exact_edges(contrast, top_n(scores, 1000)))
    there = np.isfinite(best.mean)
    figures += [
        Figure("exact effects of the 1,000 best edges, CPU seconds", taken, 300),
        Figure(
            "  their correlation with EAP-IG",
            float(np.corrcoef(best.mean[there], scores.mean[there])[0, 1]),
        ),
    ]
    return figures


PARTS: dict[str, Callable[[bool], list[Figure]]] = {
    "hooks": hooks,
    "gradients": gradients,
    "searches": searches,
    "ground truth": ground_truth,
    "gates": gates,
    "real model": real_model,
    "selection": selection,
    "all edges": all_edges,
}


if __name__ == "__main__":
    main()
