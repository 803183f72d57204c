"""What `mechinterp circuit` does: scores, a circuit, its faithfulness, the views and a folder.

found_circuit(model, FindCircuit(task="ioi", method="eap-ig"))
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from mechinterp.commands.options.circuit import FindCircuit
from mechinterp.commands.prompt_questions import AskedPrompts, asked_positions
from mechinterp.core.sites import Site
from mechinterp.core.specs import read
from mechinterp.engine.replacements import Replacement, mean_of
from mechinterp.engine.runner import run
from mechinterp.models.model import Model
from mechinterp.report import circuit_page, print_circuit
from mechinterp.storage.provenance import provenance_facts
from mechinterp.storage.run_folder import begin_run, write_run
from mechinterp.sweeps.progress import progress_bar

_SELECT = {"best-first": best_first, "top-n": top_n, "optimal": optimal_circuit}
_RANKS: dict[str, Rank] = {"by size of score": "size", "by signed score": "signed"}
_SHARE = 0.01
"""The part of all edges that a circuit has unless a number is asked for."""
_TAU = 0.005
"""What an edge may cost, as a part of the difference between clean and corrupt prompts."""


def found_circuit(model: Model, options: FindCircuit) -> None:
    """Run `mechinterp circuit`.

    Raises:
        HookError: if the model cannot be taken apart into edges.
        ValueError: if an option does not fit the model or the prompts.
    """
    prompts = AskedPrompts.of(model, options)
    positions = asked_positions(options.positions, prompts.pair.clean)
    graph = Graph.from_model(model, by_kv_head=options.kv_heads, positions=positions)
    other = None if options.compare is None else _compared(options.compare, graph)
    contrast = Contrast.from_pair(
        model, prompts.pair, prompts.metric, graph, ablate=_ablate(options, prompts)
    )
    empty = faithfulness(contrast, {})  # refuses prompts on which nothing happens, before the work
    begin_run(options.out, options.kind, sys.argv)
    whole = empty.attrs["full"] - empty.attrs["empty"]
    scores, circuit = _found(contrast, options, whole)
    made = _Made(contrast, options, prompts, scores, circuit, other)
    made.show()


def _found(contrast: Contrast, options: FindCircuit, whole: float) -> tuple[EdgeScores, Circuit]:
    """The scores and the circuit, by the method that was asked for."""
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


@dataclass(frozen=True, eq=False)
class _Made:
    """What came out, to be printed and kept."""

    contrast: Contrast
    options: FindCircuit
    prompts: AskedPrompts
    scores: EdgeScores
    circuit: Circuit
    other: Circuit | None

    def show(self) -> None:
        """Print the circuit, and write it if there is a folder for it."""
        found = faithfulness(self.contrast, {self._method: self.circuit})
        for line in (self._title, *self._notes, ""):
            print(line)
        print_circuit(self.scores, self.circuit, found)
        out = self.options.out
        if out is None:
            return
        curves = {"this circuit": found} if self.options.no_curve else self._curves()
        page = circuit_page(
            self.scores,
            self.circuit,
            title=self._title,
            notes=self._notes,
            curves=curves,
            patterns=self._patterns(),
            other=self.other,
            names=(self._method, "" if self.other is None else str(self.options.compare)),
        )
        write_run(out, self._facts(found), {"report.html": page.encode()})
        write_scores(self.scores, out / "scores.safetensors")
        write_circuit(self.circuit, out / "circuit.json")
        write_dot(self.circuit, out / "circuit.dot", scores=self.scores)
        names = ["report.html", "scores.safetensors", "circuit.json", "circuit.dot"]
        graph, there = self.circuit.graph, self.scores.mean[self.circuit.graph.edges]
        if (
            not graph.positions
            and graph.n_key_readers == graph.n_heads
            and np.isfinite(there).all()
        ):
            d_model = self.contrast.model.cfg.d_model
            write_mib(self.circuit, out / "mib.json", d_model=d_model, scores=self.scores)
            names.append("mib.json")
        print(f"wrote {out / names[0]}, {', '.join(names[1:])} and manifest.json")

    def _curves(self) -> dict[str, xr.Dataset]:
        """Faithfulness at ten sizes, as far as there are scores."""
        n_scores = int(np.isfinite(self.scores.mean).sum())
        sizes = [s for s in MIB_SIZES if int(s * self.circuit.graph.n_edges) <= n_scores]
        made = {}
        for name, rank in _RANKS.items():
            with progress_bar(f"faithfulness {name}") as tick:
                made[name] = faithfulness_curve(
                    self.contrast, self.scores, sizes=sizes, rank=rank, progress=tick
                )
        return made

    def _patterns(self) -> xr.DataArray:
        """The attention of the first clean prompt, in all heads."""
        prompts = self.contrast.prompts
        first = prompts.rows(torch.tensor([0]))
        sites = [Site("pattern", layer) for layer in range(self.circuit.graph.n_layers)]
        acts = run(self.contrast.model, first, read(*sites), logits_at=()).acts
        n = int(first.lengths[0])
        values = torch.stack([acts[site][0, :, :n, :n] for site in sites]).float().cpu().numpy()
        texts = list(first.token_text[0])[:n]
        return xr.DataArray(
            values, dims=("layer", "head", "pos", "src"), coords={"token": ("pos", texts)}
        )

    @property
    def _method(self) -> str:
        return str(self.scores.per_pair.attrs["method"])

    @property
    def _title(self) -> str:
        name = models.name(self.contrast.model)
        return f"Circuit by {self.options.method}: {self.prompts.name} on {name}"

    @property
    def _notes(self) -> list[str]:
        metric, attrs = self.contrast.metric, self.scores.per_pair.attrs
        notes = [
            self.prompts.note,
            f"The clean prompts run; an edge that is cut carries {self.contrast.ablate}.",
            f"Metric: {metric.name}, in {metric.unit}; positive scores: the edge supports it.",
        ]
        if "residual_share" in attrs:
            notes.append(
                f"Scores of the edges out of the embedding miss {attrs['residual_share']:.1%} of "
                f"the difference between clean and corrupt, which they should add up to."
            )
        return notes

    def _facts(self, found: xr.Dataset) -> Mapping[str, Any]:
        model = self.contrast.model
        return {
            **provenance_facts(model, self.options.kind),
            "prompts": self.prompts.name,
            "seed": self.options.seed,
            "notes": self._notes,
            "edges": self.circuit.n_edges,
            "requested": self.circuit.requested,
            "faithfulness": float(found["faithfulness"][0]),
            **self.scores.per_pair.attrs,
        }


def _compared(file: Path, graph: Graph) -> Circuit:
    other = read_circuit(file)
    if other.graph != graph:
        raise ValueError(f"--compare {file} is of {other.graph}, this run of {graph}.")
    return other


def _ablate(options: FindCircuit, prompts: AskedPrompts) -> Replacement | str:
    if options.ablate == "mean":
        return mean_of(prompts.pair.corrupt, by_position=True)
    return OTHER_RUN if options.ablate == "corrupt" else options.ablate
