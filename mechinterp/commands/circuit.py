"""What `mechinterp circuit` does: it scores edges, finds a circuit and measures its faithfulness.

run_circuit(model, CircuitOptions(task="ioi", method="eap-ig"))
"""

import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from mechinterp import models
from mechinterp.circuits import (
    MIB_SIZES,
    Circuit,
    Contrast,
    EdgeScores,
    Graph,
    acdc,
    best_first,
    eap,
    eap_ig,
    exact_edges,
    faithfulness,
    faithfulness_curve,
    optimal_circuit,
    read_circuit,
    refine,
    swap_edges,
    top_n,
    write_circuit,
    write_dot,
    write_mib,
    write_scores,
)
from mechinterp.circuits.contrast import OTHER_RUN
from mechinterp.circuits.evaluation.faithfulness import Target
from mechinterp.circuits.selection import Rank
from mechinterp.commands.options.circuit import CircuitOptions
from mechinterp.commands.outcome import Outcome, finish
from mechinterp.commands.prompt_request import PromptRequest, requested_positions
from mechinterp.core.sites import Site
from mechinterp.core.specs import read
from mechinterp.engine.replacements import Replacement, mean_of
from mechinterp.engine.runner import run
from mechinterp.models.model import Model
from mechinterp.report import circuit_page, print_circuit
from mechinterp.report.render.support import sign_sentence, supporting_sign
from mechinterp.storage.run_folder import begin_run
from mechinterp.sweeps.progress import progress_bar

_SELECT = {"best-first": best_first, "top-n": top_n, "optimal": optimal_circuit}
_RANKS: dict[str, Rank] = {"by size of score": "size", "by signed score": "signed"}
_SHARE = 0.01
"""The share of all edges that a circuit has unless a number is asked for."""
_TAU = 0.005
"""What an edge may cost, as a share of the difference between clean and corrupt prompts."""


def run_circuit(model: Model, options: CircuitOptions) -> None:
    """Run `mechinterp circuit`.

    Raises:
        HookError: if the model cannot be taken apart into edges.
        ValueError: if an option does not fit the model or the prompts.
    """
    request = PromptRequest.of(model, options)
    positions = requested_positions(options.positions, request.pair.clean)
    graph = Graph.from_model(model, by_kv_head=options.kv_heads, positions=positions)
    other = None if options.compare is None else _other_circuit(options.compare, graph)
    contrast = Contrast.from_pair(
        model, request.pair, request.metric, graph, ablate=_ablate(options, request)
    )
    empty = faithfulness(contrast, {})  # refuses prompts on which nothing happens, before the work
    begin_run(options.out, options.kind, sys.argv)
    scores, circuit = _search(contrast, options, empty.attrs["full"] - empty.attrs["empty"])
    finish(model, _outcome(contrast, options, request, scores, circuit, other), options.out)


def _search(
    contrast: Contrast, options: CircuitOptions, whole: float
) -> tuple[EdgeScores, Circuit]:
    """The scores and the circuit, by the method that was asked for.

    `whole`: the metric on the clean prompts minus that with all edges cut.
    """
    graph, tau = contrast.graph, options.tau
    if tau is None:
        tau = _TAU * abs(whole)
    steps = options.steps or None
    rank: Rank = "signed" if options.signed else "size"
    target: Target = "above" if options.signed else "model"
    parts = None if options.out is None else options.out / "edges"
    if options.method == "acdc":
        with progress_bar("removing edges") as tick:
            circuit = acdc(contrast, tau, target=target, progress=tick)
        with progress_bar("their exact effects") as tick:
            return exact_edges(contrast, circuit, out=parts, progress=tick), circuit
    if options.method == "refine":
        k = min(options.top, graph.n_edges)
        with progress_bar("refining") as tick:
            estimated = eap_ig(contrast, steps)
            return refine(
                contrast, estimated, k=k, tau=tau, target=target, out=parts, progress=tick
            )
    if options.method == "exact":
        with progress_bar("cutting edges") as tick:
            scores = exact_edges(contrast, out=parts, progress=tick)
    else:
        scores = eap(contrast) if options.method == "eap" else eap_ig(contrast, steps)
    n = options.edges or max(1, int(_SHARE * graph.n_edges))
    if n > graph.n_edges:
        raise ValueError(f"--edges {n}: the graph has {graph.n_edges}.")
    if options.select != "improved":
        return scores, _SELECT[options.select](scores, n, rank=rank)
    begin = [select(scores, n, rank=rank) for select in (best_first, top_n)]
    with progress_bar("swapping edges") as tick:
        return scores, swap_edges(contrast, *begin, target=target, progress=tick)


def _outcome(
    contrast: Contrast,
    options: CircuitOptions,
    request: PromptRequest,
    scores: EdgeScores,
    circuit: Circuit,
    other: Circuit | None,
) -> Outcome:
    method = str(scores.per_pair.attrs["method"])
    name = models.name(contrast.model)
    title = f"Circuit by {options.method}: {request.name} on {name}"
    notes = _notes(contrast, request, scores)
    found = faithfulness(contrast, {method: circuit})
    files: dict[str, bytes] = {}
    if options.out is not None:
        curves = _curves(contrast, scores) if options.curve else {"this circuit": found}
        page = circuit_page(
            scores,
            circuit if other is None else {method: circuit, str(options.compare): other},
            title=title,
            notes=notes,
            curves=curves,
            patterns=_patterns(contrast),
        )
        files = {"report.html": page.encode(), **_formats(contrast, scores, circuit)}
    facts = {
        "prompts": request.name,
        "seed": options.seed,
        "edges": circuit.n_edges,
        "requested": circuit.requested,
        "faithfulness": float(found["faithfulness"][0]),
        **{str(name): value for name, value in scores.per_pair.attrs.items()},
    }
    views = (partial(print_circuit, scores, circuit, found),)
    return Outcome(options.kind, title, tuple(notes), views, files, facts)


def _notes(contrast: Contrast, request: PromptRequest, scores: EdgeScores) -> list[str]:
    metric, attrs = contrast.metric, scores.per_pair.attrs
    sign = sign_sentence(supporting_sign(attrs), "the metric", "the edge")
    notes = [
        request.note,
        f"The clean prompts run; an edge that is cut carries {contrast.ablate}.",
        f"Metric: {metric.name}, in {metric.unit}. {sign}",
    ]
    if "residual_share" in attrs:
        notes.append(
            f"Scores of the edges out of the embedding miss {attrs['residual_share']:.1%} of "
            f"the difference between clean and corrupt, which they should add up to."
        )
    return notes


def _curves(contrast: Contrast, scores: EdgeScores) -> dict[str, xr.Dataset]:
    """Faithfulness at up to ten sizes, those for which enough edges have a score."""
    n_scores = int(np.isfinite(scores.mean).sum())
    sizes = [s for s in MIB_SIZES if int(s * contrast.graph.n_edges) <= n_scores]
    made = {}
    for name, rank in _RANKS.items():
        with progress_bar(f"faithfulness {name}") as tick:
            made[name] = faithfulness_curve(contrast, scores, sizes=sizes, rank=rank, progress=tick)
    return made


def _patterns(contrast: Contrast) -> xr.DataArray:
    """The attention of the first clean prompt, in all heads: (layer, head, pos, src)."""
    first = contrast.prompts.rows(torch.tensor([0]))
    sites = [Site("pattern", layer) for layer in range(contrast.graph.n_layers)]
    acts = run(contrast.model, first, read(*sites), logits_at=()).acts
    n = int(first.lengths[0])
    values = torch.stack([acts[site][0, :, :n, :n] for site in sites]).float().cpu().numpy()
    texts = list(first.token_text[0])[:n]
    return xr.DataArray(
        values, dims=("layer", "head", "pos", "src"), coords={"token": ("pos", texts)}
    )


def _formats(contrast: Contrast, scores: EdgeScores, circuit: Circuit) -> dict[str, bytes]:
    """Scores and circuit in our own format, for Graphviz, and for MIB where it has a place."""
    graph = circuit.graph
    is_whole = np.isfinite(scores.mean[graph.edges]).all()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = [
            write_scores(scores, folder / "scores.safetensors"),
            write_circuit(circuit, folder / "circuit.json"),
            write_dot(circuit, folder / "circuit.dot", scores=scores),
        ]
        if not graph.positions and graph.n_key_readers == graph.n_heads and is_whole:
            d_model = contrast.model.cfg.d_model
            files.append(write_mib(circuit, folder / "mib.json", d_model=d_model, scores=scores))
        return {file.name: file.read_bytes() for file in files}


def _other_circuit(file: Path, graph: Graph) -> Circuit:
    """The circuit to compare with, checked to be of the same graph."""
    other = read_circuit(file)
    if other.graph != graph:
        raise ValueError(f"--compare {file} is of {other.graph}, this run of {graph}.")
    return other


def _ablate(options: CircuitOptions, request: PromptRequest) -> Replacement | str:
    """What an edge that is cut carries."""
    if options.ablate == "mean":
        return mean_of(request.pair.corrupt, by_position=True)
    return OTHER_RUN if options.ablate == "corrupt" else options.ablate
