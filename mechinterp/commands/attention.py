"""What `mechinterp attention` does: patterns, links, knock-outs and scores of heads.

run_attention(model, AttentionOptions(("bring the sesame",), model="toy:trigger"))
"""

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr

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
from mechinterp.commands.attention_request import AttentionRequest, attention_requests
from mechinterp.commands.options.attention import AttentionOptions
from mechinterp.commands.outcome import Outcome, View, finish
from mechinterp.commands.terminal import complain, say
from mechinterp.models.memory import readable
from mechinterp.models.model import Model
from mechinterp.report import attention_page, print_links
from mechinterp.report.render.tables import Rows
from mechinterp.stats.intervals import interval
from mechinterp.storage.run_folder import begin_run, frame_parquet
from mechinterp.storage.seals import sealed_tensors
from mechinterp.sweeps.progress import progress_bar

_N_BEST = 5
_MUCH_BYTES, _MOST_BYTES = 1 << 25, 1 << 30
_SEEDS = 3
_SINK_NOTES = {
    "aside": "links to it are left out of the list",
    "renormalised": "it is left out, and the rest of each row adds up to 1",
    "listed": "links to it are listed as sink",
}
_COSTS = ("metric", "unit", "cut", "passes", "token_layers", "token_layers_naive", "seconds")


def run_attention(model: Model, options: AttentionOptions) -> None:
    """Run `mechinterp attention`.

    Raises:
        HookError: if the patterns would not fit into memory.
        ValueError: if an option does not fit the model or the prompts.
    """
    requests = attention_requests(model, options)
    if options.out is not None:
        _announce_size(model, requests, options.out)
    begin_run(options.out, options.kind, sys.argv)
    cases = [_case(model, options, request) for request in requests]
    scores = None
    if options.head_scores:
        seeds = range(options.seed, options.seed + _SEEDS)
        scores = head_scores(model, seeds=list(seeds))
    finish(model, _outcome(model, options, cases, scores), options.out)


def _announce_size(model: Model, requests: Sequence[AttentionRequest], out: Path) -> None:
    """Say how much `patterns.safetensors` will take, where it is much; refuse it beyond a bound.

    Raises:
        ValueError: if it is more than 1 GiB, or than is free on the disk.
    """
    cfg = model.cfg
    n = sum(4 * cfg.n_layers * cfg.n_heads * one.prompts.width**2 for one in requests)
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    most = min(_MOST_BYTES, shutil.disk_usage(there).free)
    if n > most:
        raise ValueError(
            f"--out {out}: patterns.safetensors would take {readable(n)}, and at most "
            f"{readable(most)} are written: {len(requests)} prompts, the longest of "
            f"{max(one.prompts.width for one in requests)} tokens, in {cfg.n_layers} layers of "
            f"{cfg.n_heads} heads. Give shorter or fewer prompts, or leave --out out."
        )
    if n > _MUCH_BYTES:
        complain(f"patterns.safetensors will take {readable(n)}")


@dataclass(frozen=True, eq=False)
class _Case:
    """What was found on one prompt, or on the prompts of a task together."""

    request: AttentionRequest
    patterns: xr.DataArray
    links: xr.Dataset
    random_links: xr.Dataset | None

    @property
    def sink_share(self) -> float:
        """How much of the attention goes to the first token, mean over heads."""
        return float(sink_share(self.patterns).mean())


def _case(model: Model, options: AttentionOptions, request: AttentionRequest) -> _Case:
    prompts = request.prompts
    every = patterns(model, prompts)
    found = over_prompts(every, prompts) if len(prompts) > 1 else every.isel(prompt=0)
    looked = without_sink(found) if options.sink == "renormalised" else found
    if options.last:
        looked = looked.isel(pos=[int(prompts.lengths[0]) - 1])
    links = (links_by_head if options.by_head else find_links)(looked, _rule(options))
    if options.sink == "aside":
        links = links.isel(link=links["kind"].values != "sink")
        links = links.assign_coords(link=range(links.sizes["link"]))
    if options.confirm is None or request.metric is None or not links.sizes["link"]:
        return _Case(request, found, links, None)
    drawn = random_links(found, links, options.seed)
    confirmed = _confirmed(model, options, request, links, "links")
    order = np.argsort(-abs(confirmed["mean_effect"].values), kind="stable")
    confirmed = confirmed.isel(link=order).assign_coords(link=range(len(order)))
    control = None
    if drawn.sizes["link"]:
        control = _confirmed(model, options, request, drawn, "random links")
    return _Case(request, found, confirmed, control)


def _confirmed(
    model: Model,
    options: AttentionOptions,
    request: AttentionRequest,
    links: xr.Dataset,
    what: str,
) -> xr.Dataset:
    """The links, with the effect of cutting each."""
    assert request.metric is not None
    cut = in_its_head if options.confirm == "head" else in_every_head
    with progress_bar(f"cutting {what}") as tick:
        given = (model, request.prompts, links, request.metric)
        return confirm(*given, cut=cut, threshold=options.effect, progress=tick)


def _rule(options: AttentionOptions) -> Rule:
    rules: Mapping[str, Callable[[float], Rule]] = {
        "head": head_above,
        "mean": mean_above,
        "uniform": above_uniform,
        "top-k": lambda k: top_k(int(k)),
    }
    return rules[options.rule](options.strength)


def _outcome(
    model: Model,
    options: AttentionOptions,
    cases: Sequence[_Case],
    scores: xr.DataArray | None,
) -> Outcome:
    of = cases[0].request.name if len(cases) == 1 else f"{len(cases)} prompts"
    title = f"Attention of {models.name(model)}: {of}"
    notes, tables = _notes(options, cases, scores), _tables(scores)
    attrs = _attrs(model, options, cases)
    files: dict[str, bytes] = {}
    if options.out is not None:
        names = _unique([case.request.name for case in cases])
        by_head = _by_head(model, cases, scores)
        page = attention_page(
            {name: case.patterns for name, case in zip(names, cases, strict=True)},
            {name: case.links for name, case in zip(names, cases, strict=True)},
            by_head,
            title=title,
            notes=notes,
            tables=tables,
            attrs=attrs,
        )
        files = {
            "report.html": page.encode(),
            "links.parquet": frame_parquet(_link_table(names, cases)),
            "heads.parquet": frame_parquet(xr.Dataset(by_head).to_dataframe().reset_index()),
            "patterns.safetensors": sealed_tensors(
                {
                    f"prompt {number}": torch.from_numpy(np.ascontiguousarray(case.patterns.values))
                    for number, case in enumerate(cases)
                },
                {},
            ),
        }
    facts = {
        "prompts": [case.request.name for case in cases],
        "seed": options.seed,
        "sink_share": [case.sink_share for case in cases],
        "links": [case.links.sizes["link"] for case in cases],
        "confirmed": [
            int(case.links["confirmed"].sum()) if "confirmed" in case.links else None
            for case in cases
        ],
        **attrs,
    }
    views = _case_views(cases)
    views += [partial(_print_rows, caption, rows) for caption, rows in tables.items()]
    return Outcome(options.kind, title, tuple(notes), tuple(views), files, facts)


def _case_views(cases: Sequence[_Case]) -> list[View]:
    views: list[View] = []
    for number, case in enumerate(cases):
        space = "\n" if number else ""
        views.append(partial(say, space + case.request.name))
        views.append(partial(print_links, case.links))
    return views


def _print_rows(caption: str, rows: Rows) -> None:
    say(f"\n{caption}")
    for row in rows:
        say("  " + "  ".join(f"{key} {_printed(value)}" for key, value in row.items()))


def _attrs(model: Model, options: AttentionOptions, cases: Sequence[_Case]) -> dict[str, object]:
    links = cases[0].links.attrs
    rule = f"rule {options.rule}, {options.strength:g}"
    return {
        "model": models.name(model),
        "weights": models.processing(model),
        "rule": rule + (", by head" if options.by_head else ""),
        **{name: links[name] for name in _COSTS if name in links},
    }


def _notes(
    options: AttentionOptions, cases: Sequence[_Case], scores: xr.DataArray | None
) -> list[str]:
    share = float(np.mean([sink_share(case.patterns).values for case in cases]))
    notes = [f"{share:.0%} of attention goes to the first token; {_SINK_NOTES[options.sink]}."]
    notes += [case.request.note for case in cases if case.request.note]
    if scores is not None:
        notes.append(
            f"Head scores: {scores.sizes['prompt']} prompts, each a block of "
            f"{scores.attrs['length']} random tokens twice, from {_SEEDS} seeds; copying: "
            f"eigenvalues of W_E W_V W_O W_U."
        )
    for case in cases:
        if case.random_links is not None:
            n = case.random_links.sizes["link"]
            yes = int(case.random_links["confirmed"].sum())
            notes.append(f"Control: {yes} of {n} random links of the same heads confirmed.")
    if options.confirm is None:
        notes.append("No link was cut: --confirm says which of them matter.")
    return notes


def _by_head(
    model: Model, cases: Sequence[_Case], scores: xr.DataArray | None
) -> dict[str, xr.DataArray]:
    """What the grid of heads can be coloured by: on these prompts, and on repeated tokens."""
    each = [where_heads_look(case.patterns) for case in cases]
    mean = xr.concat(each, "case").mean("case")
    found = {str(name): score for name, score in mean.data_vars.items()}
    if scores is not None:
        for name in scores["score"].values:
            found[f"{name} score"] = scores.sel(score=name, drop=True).mean("prompt")
        if not models.has_norm_after_heads(model):
            found["copying score (OV)"] = copying_scores(model)
    return found


def _tables(scores: xr.DataArray | None) -> dict[str, Rows]:
    """The best heads by each score."""
    if scores is None:
        return {}
    length, n = scores.attrs["length"], scores.sizes["prompt"]
    tables: dict[str, Rows] = {}
    for name in map(str, scores["score"].values):
        of = interval(scores.sel(score=name)).stack(place=("layer", "head"))
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


def _link_table(names: Sequence[str], cases: Sequence[_Case]) -> pd.DataFrame:
    tables = []
    for name, case in zip(names, cases, strict=True):
        bare = case.links.drop_dims("prompt", errors="ignore")
        tables.append(bare.to_dataframe().reset_index().assign(prompt=name))
    return xr.concat([table.to_xarray() for table in tables], "index").to_dataframe()


def _unique(names: Sequence[str]) -> list[str]:
    """The names, numbered where one comes twice."""
    return [
        f"{name} ({number + 1})" if list(names).count(name) > 1 else name
        for number, name in enumerate(names)
    ]


def _printed(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
