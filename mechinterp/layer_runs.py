"""What `mechinterp layers` does: lenses, direct attribution, ablation, the views and a folder.

read_layers(model, ReadLayers(task="ioi"))
"""

import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from mechinterp import models
from mechinterp.ablation import ablate_heads, ablate_layers, effect
from mechinterp.final_reading import bends
from mechinterp.layer_options import ReadLayers
from mechinterp.layers import (
    TunedLens,
    depths,
    direct_by_head,
    direct_by_layer,
    lens_metric,
    logit_lens,
    read_lens,
    residual_stream,
    train_lens,
    write_lens,
)
from mechinterp.metrics import Metric, centred_logit
from mechinterp.progress import progress_bar
from mechinterp.prompt_questions import AskedPrompts
from mechinterp.replacements import mean_of
from mechinterp.report import print_layers
from mechinterp.report.layer_chart import LayerLine
from mechinterp.report.layers import Chart, layers_page
from mechinterp.runner import run
from mechinterp.screening import top_k
from mechinterp.stats import interval
from mechinterp.store import begin_run, write_run

READING = (
    "Layer 0 is the embedding; of a lens, a norm and a cosine, layer l is the stream after l "
    "layers; of what is written or ablated, layer l is the layer itself, counted from 0 (in the "
    "table it stands in the row of the stream that it made). Rank: the median over prompts of how "
    "many tokens are ahead of the answer. A lens reads the stream with the final norm and the "
    "unembedding: what it does not show may be there in another basis, and what it shows need not "
    "be used. Direct attribution holds the final norm's scale and counts what is written towards "
    "the answer itself, not what later layers make of it; ablation beside it counts everything. "
    "Bands are bootstrap intervals over prompts, layer by layer."
)


def read_layers(model: Any, options: ReadLayers) -> None:
    """Run `mechinterp layers`.

    Raises:
        HookError: if what is read does not fit into memory.
        ValueError: if an option does not fit the model or the prompts.
    """
    asked = AskedPrompts.of(model, options)
    lens = None if options.tuned is None else read_lens(options.tuned)
    if lens is not None:
        lens.check(model)
    begin_run(options.out, options.kind, sys.argv)
    if options.train is not None:
        texts = [line for line in options.train.read_text("utf-8").splitlines() if line.strip()]
        with progress_bar("training the tuned lens") as tick:
            lens = train_lens(model, texts, steps=options.steps, progress=tick)
        if options.out is not None:
            write_lens(lens, options.out / "lens.safetensors")
    found = Found.of(model, asked, options, lens)
    for line in (found.title, *found.notes, ""):
        print(line)
    print_layers(found.rows(), found.sentences(), found.head_rows())
    if options.out is not None:
        found.write(options.out)


@dataclass(frozen=True, eq=False)
class Found:
    """All that was read of the clean prompts."""

    model: Any
    asked: AskedPrompts
    linear: Metric
    lenses: dict[str, xr.DataArray]
    says: xr.Dataset
    stream: xr.Dataset
    direct: xr.DataArray
    heads: xr.Dataset | None
    ablated: xr.DataArray | None
    ablated_heads: xr.DataArray | None

    @classmethod
    def of(
        cls, model: Any, asked: AskedPrompts, options: ReadLayers, lens: TunedLens | None
    ) -> "Found":
        """Read the clean prompts; the corrupt ones are the mean that ablation puts in place."""
        clean, metric = asked.pair.clean, asked.metric
        answers = None if metric.tokens is None else metric.tokens[:, 0].expand(len(clean))
        says = logit_lens(model, clean, answers, at=metric.at[-1])
        lenses = {"logit lens": lens_metric(model, clean, metric)}
        if lens is not None:
            lenses["tuned lens"] = lens_metric(model, clean, metric, lens=lens)
        linear = metric
        if bends(metric, run(model, clean, logits_at=metric.at)):
            ids = says["top_id"].isel(layer=-1, place=0).values if answers is None else answers
            linear = centred_logit(torch.as_tensor(ids), at=metric.at[-1])
        heads = None if models.heads_pass_a_norm(model) else direct_by_head(model, clean, linear)
        ablated = ablated_heads = None
        if not options.no_ablation:
            how = mean_of(asked.pair.corrupt, by_position=True)
            at: dict[str, Any] = {"positions": list(linear.at)}
            with progress_bar("ablating layers") as tick:
                ablated = effect(ablate_layers(model, clean, linear, how, progress=tick, **at))
            if heads is not None and options.heads:
                best = top_k(
                    heads["from_head"], min(options.heads, heads["from_head"][..., 0].size)
                )
                with progress_bar("ablating heads") as tick:
                    found = ablate_heads(model, clean, linear, how, only=best, progress=tick, **at)
                ablated_heads = effect(found)
        stream = residual_stream(model, clean, at=metric.at[-1])
        direct = direct_by_layer(model, clean, linear)
        return cls(
            model, asked, linear, lenses, says, stream, direct, heads, ablated, ablated_heads
        )

    @property
    def title(self) -> str:
        """What the page is of."""
        return f"Layers: {self.asked.name} on {models.name(self.model)}"

    @property
    def notes(self) -> list[str]:
        """How it was made."""
        metric = self.asked.metric
        notes = [self.asked.note, f"Lens: {metric.name}, in {metric.unit}, of the clean prompts."]
        if self.linear is not metric:
            notes.append(
                f"{metric.name} is no sum of parts: direct attribution and ablation are of "
                f"{self.linear.name}, in {self.linear.unit}."
            )
        if self.ablated is not None:
            notes.append(
                "Ablated: what a layer or head writes at the position read takes its mean over the "
                "corrupt prompts."
            )
        return notes

    def sentences(self) -> list[str]:
        """What is seen first."""
        said, found = [], depths(self.says)
        n, share = self.says.sizes["prompt"], found.attrs["share"]
        for name, how in (("first", "first leads after"), ("settled", "leads for good after")):
            known = found[name].dropna("prompt")
            if known.sizes["prompt"] > 1:
                low, mean, high = _bounds(known)
                said.append(
                    f"The answer {how} {mean:.1f} layers on average [{low:.1f}, {high:.1f}], of "
                    f"{self.model.cfg.n_layers}, in {known.sizes['prompt']} of {n} prompts."
                )
        said.append(f"It leads at the end in {share:.0%} of the prompts.")
        parts = self.direct.mean("prompt")
        most = parts.sel(part=parts.layer.notnull().values)
        best = most.isel(part=int(np.abs(most.values).argmax()))
        said.append(
            f"{best.part.item()} writes the most towards it: {float(best):+.2f} of "
            f"{float(self.direct.total.mean()):+.2f} {self.linear.unit}."
        )
        if (both := self._direct_and_ablated()) is not None and len(both[0]) > 2:
            r = float(np.corrcoef(both[0], -both[1])[0, 1])
            said.append(
                f"Over layers and parts, direct attribution and what ablation takes away correlate "
                f"by {r:.2f}."
            )
        return said

    def _direct_and_ablated(self) -> tuple[np.ndarray, np.ndarray] | None:
        if self.ablated is None:
            return None
        direct, taken = [], []
        for part, layer, value in self._written():
            direct.append(value.mean().item())
            taken.append(self.ablated.sel(part=part, layer=layer).mean().item())
        return np.array(direct), np.array(taken)

    def _written(self) -> Iterator[tuple[str, int, xr.DataArray]]:
        """What each part of each layer writes."""
        for at in range(self.direct.sizes["part"]):
            one = self.direct.isel(part=at)
            if np.isfinite(one.layer.item()):
                yield one.part.item().split(".")[1], int(one.layer), one

    def rows(self) -> list[dict[str, object]]:
        """The figures of each layer, means over prompts."""
        rows = []
        for layer in self.says["layer"].values.tolist():
            here = self.says.sel(layer=layer)
            row: dict[str, object] = {"layers run": layer}
            for name, values in self.lenses.items():
                row[name] = float(values.sel(layer=layer).mean())
            row["rank"] = float(here["rank"].median())
            row["KL"] = float(here["kl"].mean())
            stream = self.stream.sel(layer=layer)
            row["norm"] = float(stream["norm"].mean())
            row["cosine"] = float(stream["cosine"].mean())
            for part, at, value in self._written():
                if at == layer - 1:  # the layer that was the last of those to run
                    row[f"{part} writes"] = float(value.mean())
                    if self.ablated is not None:
                        taken = self.ablated.sel(part=part, layer=at)
                        row[f"without {part}"] = float(taken.mean())
            rows.append(row)
        return rows

    def head_rows(self) -> list[dict[str, object]]:
        """The heads of the largest direct attribution, beside what ablating them does."""
        if self.heads is None:
            return []
        means = self.heads["from_head"].mean("prompt")
        order = np.argsort(-np.abs(means.values), axis=None, kind="stable")
        rows = []
        for at in order[: 10 if self.ablated_heads is None else 1000]:
            layer, head = (int(i) for i in np.unravel_index(at, means.shape))
            row: dict[str, object] = {"head": f"L{layer}H{head}"}
            row[f"writes, {self.linear.unit}"] = float(means[layer, head])
            if self.ablated_heads is not None:
                change = self.ablated_heads.sel(layer=layer, head=head)
                if not np.isfinite(change).all():
                    break
                low, mean, high = _bounds(change)
                row["without it"] = mean
                row["interval"] = f"{low:+.3f} to {high:+.3f}" if np.isfinite(low) else ""
            rows.append(row)
        return rows

    def charts(self) -> list[Chart]:
        """The curves of the page."""
        metric, n = self.asked.metric, self.model.cfg.n_layers
        parts: dict[str, list[tuple[int, xr.DataArray]]] = {}
        for part, layer, value in self._written():
            parts.setdefault(part, []).append((layer, value))
        made = [
            Chart(
                "What each layer would say",
                f"{metric.name}, {metric.unit}",
                tuple(_line(name, values) for name, values in self.lenses.items()),
                f"After {n} layers it is what the model says.",
            ),
            Chart(
                "How far from the model's output",
                "KL(model || layer), nats",
                (_line("logit lens", self.says["kl"]),),
                "0: the layer says what the model says, of all tokens.",
            ),
            Chart(
                "What each layer writes",
                f"{self.linear.name}, {self.linear.unit}",
                tuple(_parts_line(part, values) for part, values in parts.items()),
                "Direct attribution, the final norm's scale held; with embeddings and constant the "
                "parts sum to the metric.",
            ),
        ]
        if self.ablated is not None:
            taken = {
                part: [(layer, -self.ablated.sel(part=part, layer=layer)) for layer, _ in values]
                for part, values in parts.items()
            }
            made.append(
                Chart(
                    "What is lost without it",
                    f"drop of {self.linear.name}, {self.linear.unit}",
                    tuple(_parts_line(part, values) for part, values in taken.items()),
                    "The same parts ablated: all that they do, also through later layers.",
                )
            )
        made.append(
            Chart(
                "How long the stream is",
                "norm",
                (
                    _line("stream", self.stream["norm"]),
                    _line("written by the layer", self.stream["written"]),
                ),
            )
        )
        made.append(
            Chart(
                "Where the stream points",
                "cosine with the last stream",
                (_line("cosine", self.stream["cosine"]),),
            )
        )
        return made

    def tops(self, prompt: int = 0) -> list[dict[str, object]]:
        """The first choices of each layer for one prompt."""
        here = self.says.isel(prompt=prompt)
        rows = []
        for layer in here["layer"].values.tolist():
            row: dict[str, object] = {"layers run": layer}
            for place in range(here.sizes["place"]):
                one = here.sel(layer=layer).isel(place=place)
                share = float(np.exp(one["top_log_prob"]))
                row[str(place + 1)] = f"{one['top_token'].item()}  {share:.0%}"
            rows.append(row)
        return rows

    def write(self, out: Path) -> None:
        """The page, the numbers and the manifest."""
        clean = self.asked.pair.clean
        n = int(clean.lengths[0])
        text = "".join(clean.token_text[0][:n])
        tables = {
            "By layer, means over prompts": self.rows(),
            "The heads that write the most": self.head_rows(),
            f"First choices of each layer for “{text}”": self.tops(),
        }
        page = layers_page(
            self.charts(),
            title=self.title,
            eyebrow=[models.size(self.model), f"{len(clean)} prompts"],
            sentences=self.sentences(),
            notes=self.notes,
            tables={name: rows for name, rows in tables.items() if rows},
            reading=READING,
        )
        files = {"report.html": page.encode(), "layers.parquet": self._parquet()}
        write_run(out, self._facts(), files)
        print(f"wrote {out / 'report.html'}, layers.parquet and manifest.json")

    def _parquet(self) -> bytes:
        """A row for each layer and prompt."""
        columns = {name: values.drop_attrs() for name, values in self.lenses.items()}
        columns |= {name: self.says[name].drop_attrs() for name in ("log_prob", "rank", "kl")}
        columns |= {str(name): self.stream[name].drop_attrs() for name in self.stream.data_vars}
        for part, values in _by_part(self._written()).items():
            columns[f"{part} writes"] = values
        if self.ablated is not None:
            for part in self.ablated["part"].values.tolist():
                taken = self.ablated.sel(part=part, drop=True).drop_attrs()
                columns[f"without {part}"] = taken.assign_coords(layer=taken.layer + 1)
        frame = xr.Dataset(columns).to_dataframe().reset_index()
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        return buffer.getvalue()

    def _facts(self) -> dict[str, Any]:
        return {
            "kind": "layers",
            "command": sys.argv,
            "complete": True,
            "prompts": self.asked.name,
            "fingerprint": models.fingerprint(self.model),
            "dtype": str(self.model.cfg.dtype),
            "threads": torch.get_num_threads(),
            "notes": self.notes,
            "found": self.sentences(),
            "layer": "layers that have run: 0 is the embedding; of writes and without, the last",
        }


def _bounds(values: xr.DataArray) -> tuple[float, float, float]:
    """Low, mean and high over prompts; one prompt has no interval."""
    if values.sizes["prompt"] < 2:
        return np.nan, float(values.mean()), np.nan
    found = interval(values.drop_attrs())
    return float(found["low"]), float(found["mean"]), float(found["high"])


def _line(name: str, values: xr.DataArray) -> LayerLine:
    """A curve over layers with its intervals."""
    return _parts_line(
        name, [(int(layer), values.sel(layer=layer)) for layer in values["layer"].values]
    )


def _parts_line(name: str, values: list[tuple[int, xr.DataArray]]) -> LayerLine:
    layers = tuple(layer for layer, _ in values)
    low, mean, high = zip(*(_bounds(value) for _, value in values), strict=True)
    return LayerLine(name, layers, mean, low, high)


def _by_part(written: Iterator[tuple[str, int, xr.DataArray]]) -> dict[str, xr.DataArray]:
    """What is written by part: dims (layer, prompt), the layer as many as have run with it."""
    parts: dict[str, list[xr.DataArray]] = {}
    for part, layer, value in written:
        bare = value.reset_coords(drop=True).drop_attrs().assign_coords(layer=layer + 1)
        parts.setdefault(part, []).append(bare)
    return {part: xr.concat(values, "layer") for part, values in parts.items()}
