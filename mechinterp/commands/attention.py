"""What `mechinterp attention` does: patterns, links, knock-outs, head scores, views and a folder.

read_attention(model, ReadAttention(("bring the sesame",), model="toy:trigger"))
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from safetensors.numpy import save

from mechinterp import models
from mechinterp.attention import (
    above_uniform,
    confirm,
    copying_scores,
    find_links,
    head_above,
    head_scores,
    in_every_head,
    in_its_head,
    links_by_head,
    mean_above,
    over_prompts,
    patterns,
    random_links,
    sink_share,
    top_k,
    where_heads_look,
    without_sink,
)
from mechinterp.attention.links import Rule
from mechinterp.commands.attention_questions import AskedText, asked_texts
from mechinterp.commands.options.attention import ReadAttention
from mechinterp.models.model import Model
from mechinterp.report import attention_page, print_links
from mechinterp.stats.intervals import interval
from mechinterp.storage.provenance import provenance_facts
from mechinterp.storage.run_folder import begin_run, frame_parquet, write_run
from mechinterp.sweeps.progress import progress_bar

_N_BEST = 5
_SEEDS = 3


def read_attention(model: Model, options: ReadAttention) -> None:
    """Run `mechinterp attention`.

    Raises:
        HookError: if the patterns would not fit into memory.
        ValueError: if an option does not fit the model or the prompts.
    """
    asked = asked_texts(model, options)
    begin_run(options.out, options.kind, sys.argv)
    cases = [_case(model, options, one) for one in asked]
    scores = None
    if options.head_scores:
        seeds = range(options.seed, options.seed + _SEEDS)
        scores = head_scores(model, seeds=list(seeds))
    _Made(model, options, cases, scores).show()


@dataclass(frozen=True, eq=False)
class _Case:
    """What was found of one prompt, or of a task's."""

    asked: AskedText
    patterns: xr.DataArray
    links: xr.Dataset
    drawn: xr.Dataset | None

    @cached_property
    def share(self) -> xr.DataArray:
        """What goes to the first token, by head."""
        return sink_share(self.patterns)


def _case(model: Model, options: ReadAttention, asked: AskedText) -> _Case:
    every = patterns(model, asked.prompts)
    found = over_prompts(every, asked.prompts) if len(asked.prompts) > 1 else every.isel(prompt=0)
    looked = without_sink(found) if options.sink == "renormalised" else found
    if options.last:
        looked = looked.isel(pos=[int(asked.prompts.lengths[0]) - 1])
    links = (links_by_head if options.by_head else find_links)(looked, _rule(options))
    if options.sink == "aside":
        links = links.isel(link=links["kind"].values != "sink")
        links = links.assign_coords(link=range(links.sizes["link"]))
    if options.confirm is None or asked.metric is None or not links.sizes["link"]:
        return _Case(asked, found, links, None)
    cut = in_its_head if options.confirm == "head" else in_every_head
    drawn = random_links(found, links, options.seed)
    checked: list[xr.Dataset | None] = []
    for what, some in (("links", links), ("random links", drawn)):
        with progress_bar(f"cutting {what}") as tick:
            if not some.sizes["link"]:
                checked.append(None)
                continue
            given = (model, asked.prompts, some, asked.metric)
            checked.append(confirm(*given, cut=cut, threshold=options.effect, progress=tick))
    done = checked[0]
    assert done is not None
    order = np.argsort(-abs(done["mean_effect"].values), kind="stable")
    done = done.isel(link=order).assign_coords(link=range(len(order)))
    return _Case(asked, found, done, checked[1])


def _rule(options: ReadAttention) -> Rule:
    rules: Mapping[str, Callable[[float], Rule]] = {
        "head": head_above,
        "mean": mean_above,
        "uniform": above_uniform,
        "top-k": lambda k: top_k(int(k)),
    }
    return rules[options.rule](options.strength)


@dataclass(frozen=True, eq=False)
class _Made:
    """What came out, to be printed and kept."""

    model: Model
    options: ReadAttention
    cases: list[_Case]
    scores: xr.DataArray | None

    def show(self) -> None:
        """Print the links and the scores, and write them if there is a folder."""
        for line in (self._title, *self._notes):
            print(line)
        for case in self.cases:
            print(f"\n{case.asked.name}")
            print_links(case.links)
        for caption, rows in self._tables.items():
            print(f"\n{caption}")
            for row in rows:
                print("  " + "  ".join(f"{key} {_printed(value)}" for key, value in row.items()))
        out = self.options.out
        if out is None:
            return
        names = _unique([case.asked.name for case in self.cases])
        page = attention_page(
            {name: case.patterns for name, case in zip(names, self.cases, strict=True)},
            {name: case.links for name, case in zip(names, self.cases, strict=True)},
            self._by_head,
            title=self._title,
            notes=self._notes,
            tables=self._tables,
            attrs=self._attrs,
        )
        files = {
            "report.html": page.encode(),
            "links.parquet": frame_parquet(self._link_table(names)),
            "heads.parquet": frame_parquet(xr.Dataset(self._by_head).to_dataframe().reset_index()),
            "patterns.safetensors": save(
                {
                    f"prompt {number}": np.ascontiguousarray(case.patterns.values)
                    for number, case in enumerate(self.cases)
                }
            ),
        }
        write_run(out, self._facts, files)
        print(f"wrote {out / 'report.html'}, {', '.join(list(files)[1:])} and manifest.json")

    @property
    def _title(self) -> str:
        of = self.cases[0].asked.name if len(self.cases) == 1 else f"{len(self.cases)} prompts"
        return f"Attention of {models.name(self.model)}: {of}"

    @cached_property
    def _attrs(self) -> dict[str, Any]:
        links = self.cases[0].links.attrs
        kept = ("metric", "unit", "cut", "passes", "token_layers", "token_layers_naive", "seconds")
        rule = f"rule {self.options.rule}, {self.options.strength:g}"
        return {
            "model": models.name(self.model),
            "weights": models.processing(self.model),
            "rule": rule + (", by head" if self.options.by_head else ""),
            **{name: links[name] for name in kept if name in links},
        }

    @cached_property
    def _notes(self) -> list[str]:
        share = float(np.mean([case.share.values for case in self.cases]))
        said = {
            "aside": "links to it are left out of the list",
            "renormalised": "it is left out, and the rest of each row adds up to 1",
            "listed": "links to it are listed as sink",
        }
        notes = [f"{share:.0%} of attention goes to the first token; {said[self.options.sink]}."]
        notes += [case.asked.note for case in self.cases if case.asked.note]
        if self.scores is not None:
            notes.append(
                f"Scores of heads: {self.scores.sizes['prompt']} prompts of a block of "
                f"{self.scores.attrs['length']} random tokens, twice, of {_SEEDS} seeds; copying: "
                f"eigenvalues of W_E W_V W_O W_U."
            )
        for case in self.cases:
            if case.drawn is not None:
                yes, n = int(case.drawn["confirmed"].sum()), case.drawn.sizes["link"]
                notes.append(f"Control: {yes} of {n} random links of the same heads confirmed.")
        if self.options.confirm is None:
            notes.append("No link was cut: --confirm says which of them matter.")
        return notes

    @cached_property
    def _by_head(self) -> dict[str, xr.DataArray]:
        """What the grid can be coloured by: of the prompts here, and on repeated tokens."""
        each = [where_heads_look(case.patterns) for case in self.cases]
        mean = xr.concat(each, "case").mean("case")
        found = {str(name): score for name, score in mean.data_vars.items()}
        if self.scores is not None:
            for name in self.scores["score"].values:
                here = self.scores.sel(score=name, drop=True).mean("prompt")
                found[f"{name} score"] = here
            if not models.has_norm_after_heads(self.model):
                found["copying score (OV)"] = copying_scores(self.model)
        return found

    @cached_property
    def _tables(self) -> dict[str, list[dict[str, object]]]:
        if self.scores is None:
            return {}
        length, n = self.scores.attrs["length"], self.scores.sizes["prompt"]
        tables: dict[str, list[dict[str, object]]] = {}
        for name in map(str, self.scores["score"].values):
            of = interval(self.scores.sel(score=name)).stack(place=("layer", "head"))
            order = np.argsort(-of["mean"].values, kind="stable")[:_N_BEST]
            caption = f"{name.capitalize()} heads, on {n} prompts of {length} random tokens, twice"
            tables[caption] = [
                {
                    "head": "L{}H{}".format(*of["place"].values[at]),
                    "score": float(of["mean"][at]),
                    "low": float(of["low"][at]),
                    "high": float(of["high"][at]),
                }
                for at in order
            ]
        return tables

    def _link_table(self, names: list[str]) -> Any:
        tables = []
        for name, case in zip(names, self.cases, strict=True):
            bare = case.links.drop_dims("prompt", errors="ignore")
            tables.append(bare.to_dataframe().reset_index().assign(prompt=name))
        return xr.concat([table.to_xarray() for table in tables], "index").to_dataframe()

    @property
    def _facts(self) -> dict[str, Any]:
        return {
            **provenance_facts(self.model, self.options.kind),
            "prompts": [case.asked.name for case in self.cases],
            "seed": self.options.seed,
            "notes": self._notes,
            "sink_share": [float(case.share.mean()) for case in self.cases],
            "links": [case.links.sizes["link"] for case in self.cases],
            "confirmed": [
                int(case.links["confirmed"].sum()) if "confirmed" in case.links else None
                for case in self.cases
            ],
            **self._attrs,
        }


def _unique(names: list[str]) -> list[str]:
    """The names, numbered where one comes twice."""
    return [
        f"{name} ({number + 1})" if names.count(name) > 1 else name
        for number, name in enumerate(names)
    ]


def _printed(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
