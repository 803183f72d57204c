"""What `mechinterp layers` does: it reads the clean prompts, and draws a page of charts.

run_layers(model, LayerOptions(task="ioi"))
"""

import sys
from collections.abc import Iterator
from functools import partial

import xarray as xr

from mechinterp import models
from mechinterp.commands.layer_findings import LayerFindings, bounds
from mechinterp.commands.options.layer import LayerOptions
from mechinterp.commands.outcome import Outcome, finish
from mechinterp.commands.prompt_request import PromptRequest
from mechinterp.layers import read_lens, train_lens, write_lens
from mechinterp.models.model import Model
from mechinterp.report import print_layers
from mechinterp.report.layers.chart import LayerLine
from mechinterp.report.layers.html import Chart, layers_page
from mechinterp.report.render.support import supporting_sign
from mechinterp.stats.intervals import WHAT_INTERVALS_HOLD
from mechinterp.storage.jsonl import filled_lines, located
from mechinterp.storage.run_folder import begin_run, frame_parquet
from mechinterp.sweeps.progress import progress_bar

_AXES = (
    "Layer 0 is the embedding. For a lens, a norm and a cosine, layer l is the stream after l "
    "layers. For what is written or ablated, layer l is the layer itself, counted from 0; in the "
    "table it stands in the row of the stream that it made. Rank: how many tokens are ahead of the "
    "answer, the median over prompts. A lens reads the stream with the final norm and the "
    "unembedding: what it does not show may be there in another basis, and what it shows need not "
    "be used. Direct attribution holds the final norm's scale fixed and counts what is written "
    "towards the answer itself, not what later layers make of it; ablation counts everything."
)
_BANDS = f"Bands are intervals over prompts, layer by layer. {WHAT_INTERVALS_HOLD}"


def run_layers(model: Model, options: LayerOptions) -> None:
    """Run `mechinterp layers`.

    Raises:
        HookError: if what is read does not fit into memory.
        ValueError: if an option does not fit the model or the prompts.
    """
    request = PromptRequest.of(model, options)
    lens = None if options.tuned is None else read_lens(options.tuned)
    if lens is not None:
        lens.check(model)
    begin_run(options.out, options.kind, sys.argv)
    if options.train is not None:
        texts = [text for _, text in filled_lines(options.train)]
        if not texts:
            raise ValueError(f"--train {options.train} is empty. Write one text a line.")
        with located(str(options.train)), progress_bar("training the tuned lens") as tick:
            lens = train_lens(model, texts, steps=options.steps, progress=tick)
        if options.out is not None:  # at once: training takes minutes
            write_lens(lens, options.out / "lens.safetensors")
    found = LayerFindings.of(model, request, options, lens)
    finish(model, _outcome(found, options), options.out)


def _outcome(found: LayerFindings, options: LayerOptions) -> Outcome:
    files = {}
    if options.out is not None:
        files = {"report.html": _page(found).encode(), "layers.parquet": _parquet(found)}
    facts = {
        "prompts": found.request.name,
        "found": found.sentences(),
        "layer": "layers that have run: 0 is the embedding; of writes and without, the last",
    }
    views = (partial(print_layers, found.rows(), found.sentences(), found.head_rows()),)
    return Outcome(options.kind, found.title, tuple(found.notes), views, files, facts)


def _charts(found: LayerFindings) -> list[Chart]:
    """The curves of the page."""
    metric, n = found.request.metric, found.model.cfg.n_layers
    parts: dict[str, list[tuple[int, xr.DataArray]]] = {}
    for part, layer, value in found.written():
        parts.setdefault(part, []).append((layer, value))
    made = [
        Chart(
            "What each layer would say",
            f"{metric.name}, {metric.unit}",
            tuple(_line(name, values) for name, values in found.lenses.items()),
            f"After {n} layers it is what the model says.",
        ),
        Chart(
            "How far from the model's output",
            "KL(model || layer), nats",
            (_line("logit lens", found.says["kl"]),),
            "0: the layer says what the model says, of all tokens.",
        ),
        Chart(
            "What each layer writes",
            f"{found.linear.name}, {found.linear.unit}",
            tuple(_parts_line(part, values) for part, values in parts.items()),
            "Direct attribution, the final norm's scale held; with embeddings and constant the "
            "parts sum to the metric.",
        ),
    ]
    if found.ablated is not None:
        sign = -1 if supporting_sign(found.ablated.attrs) == "negative" else 1
        taken = {
            part: [(layer, sign * found.ablated.sel(part=part, layer=layer)) for layer, _ in values]
            for part, values in parts.items()
        }
        made.append(
            Chart(
                "What is lost without it",
                f"drop of {found.linear.name}, {found.linear.unit}",
                tuple(_parts_line(part, values) for part, values in taken.items()),
                "The same parts ablated: all that they do, also through later layers.",
            )
        )
    made.append(
        Chart(
            "How long the stream is",
            "norm",
            (
                _line("stream", found.stream["norm"]),
                _line("written by the layer", found.stream["written"]),
            ),
        )
    )
    made.append(
        Chart(
            "Where the stream points",
            "cosine with the last stream",
            (_line("cosine", found.stream["cosine"]),),
        )
    )
    return made


def _page(found: LayerFindings) -> str:
    clean = found.request.pair.clean
    n = int(clean.lengths[0])
    text = "".join(clean.token_text[0][:n])
    tables = {
        "By layer, means over prompts": found.rows(),
        "The heads that write the most": found.head_rows(),
        f"First choices of each layer for “{text}”": found.tops(),
    }
    return layers_page(
        _charts(found),
        title=found.title,
        eyebrow=[models.size(found.model), f"{len(clean)} prompts"],
        sentences=found.sentences(),
        notes=found.notes,
        tables={name: rows for name, rows in tables.items() if rows},
        reading=_reading(found),
    )


def _reading(found: LayerFindings) -> str:
    """How to read the figures: what a layer is, and which sign supports the answer."""
    signs = f"What a part writes is {supporting_sign(found.direct.attrs)} if it supports the answer"
    if found.ablated is not None:
        signs += f"; the change without it is then {supporting_sign(found.ablated.attrs)}"
    return f"{_AXES} {signs}. {_BANDS}"


def _parquet(found: LayerFindings) -> bytes:
    """A row for each layer and prompt."""
    columns = {name: values.drop_attrs() for name, values in found.lenses.items()}
    columns |= {name: found.says[name].drop_attrs() for name in ("log_prob", "rank", "kl")}
    columns |= {str(name): found.stream[name].drop_attrs() for name in found.stream.data_vars}
    for part, values in _by_part(found.written()).items():
        columns[f"{part} writes"] = values
    if found.ablated is not None:
        for part in found.ablated["part"].values.tolist():
            taken = found.ablated.sel(part=part, drop=True).drop_attrs()
            columns[f"without {part}"] = taken.assign_coords(layer=taken.layer + 1)
    return frame_parquet(xr.Dataset(columns).to_dataframe().reset_index())


def _line(name: str, values: xr.DataArray) -> LayerLine:
    """A curve over layers with its intervals."""
    return _parts_line(
        name, [(int(layer), values.sel(layer=layer)) for layer in values["layer"].values]
    )


def _parts_line(name: str, values: list[tuple[int, xr.DataArray]]) -> LayerLine:
    layers = tuple(layer for layer, _ in values)
    low, mean, high = zip(*(bounds(value) for _, value in values), strict=True)
    return LayerLine(name, layers, mean, low, high)


def _by_part(written: Iterator[tuple[str, int, xr.DataArray]]) -> dict[str, xr.DataArray]:
    """What is written by part: dims (layer, prompt), the layer as many as have run with it."""
    parts: dict[str, list[xr.DataArray]] = {}
    for part, layer, value in written:
        bare = value.reset_coords(drop=True).drop_attrs().assign_coords(layer=layer + 1)
        parts.setdefault(part, []).append(bare)
    return {part: xr.concat(values, "layer") for part, values in parts.items()}
