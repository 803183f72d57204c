"""What `mechinterp layers` measures on the clean prompts: the figures of its views.

found = LayerFindings.of(model, request, LayerOptions(task="ioi"), None)
found.rows()[0]               # the embedding: what the lens says, how far from the output, norms
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from mechinterp import models
from mechinterp.ablation.single import ablate_heads, ablate_layers, effect
from mechinterp.commands.options.layer import LayerOptions
from mechinterp.commands.prompt_request import PromptRequest
from mechinterp.core.metrics import Metric, centred_logit
from mechinterp.engine.linear_readout import is_nonlinear
from mechinterp.engine.replacements import mean_of
from mechinterp.engine.runner import run
from mechinterp.layers import (
    TunedLens,
    depths,
    direct_by_head,
    direct_by_layer,
    lens_metric,
    logit_lens,
    residual_stream,
)
from mechinterp.models.model import Model
from mechinterp.patching.attribution import top_k
from mechinterp.stats.intervals import interval
from mechinterp.sweeps.progress import progress_bar


@dataclass(frozen=True, eq=False)
class LayerFindings:
    """All figures of the clean prompts, as dims (layer, prompt) or (layer, head, prompt)."""

    model: Model
    request: PromptRequest
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
        cls, model: Model, request: PromptRequest, options: LayerOptions, lens: TunedLens | None
    ) -> "LayerFindings":
        """Measure the clean prompts; ablation puts in the mean over the corrupt ones."""
        clean, metric = request.pair.clean, request.metric
        answers = None if metric.tokens is None else metric.tokens[:, 0].expand(len(clean))
        says = logit_lens(model, clean, answers, at=metric.at[-1])
        lenses = {"logit lens": lens_metric(model, clean, metric)}
        if lens is not None:
            lenses["tuned lens"] = lens_metric(model, clean, metric, lens=lens)
        linear = metric
        if is_nonlinear(metric, run(model, clean, logits_at=metric.at)):
            ids = says["top_id"].isel(layer=-1, place=0).values if answers is None else answers
            linear = centred_logit(torch.as_tensor(ids), at=metric.at[-1])
        heads = None if models.has_norm_after_heads(model) else direct_by_head(model, clean, linear)
        ablated = ablated_heads = None
        if options.ablation:
            how = mean_of(request.pair.corrupt, by_position=True)
            given, positions = (model, clean, linear, how), list(linear.at)
            with progress_bar("ablating layers") as tick:
                ablated = effect(ablate_layers(*given, positions=positions, progress=tick))
            if heads is not None and options.heads:
                best = top_k(
                    heads["from_head"], min(options.heads, heads["from_head"][..., 0].size)
                )
                with progress_bar("ablating heads") as tick:
                    found = ablate_heads(*given, positions=positions, only=best, progress=tick)
                ablated_heads = effect(found)
        stream = residual_stream(model, clean, at=metric.at[-1])
        direct = direct_by_layer(model, clean, linear)
        return cls(
            model, request, linear, lenses, says, stream, direct, heads, ablated, ablated_heads
        )

    @property
    def title(self) -> str:
        """The title of the views."""
        return f"Layers: {self.request.name} on {models.name(self.model)}"

    @property
    def notes(self) -> list[str]:
        """What was measured, and how."""
        metric = self.request.metric
        notes = [self.request.note, f"Lens: {metric.name}, in {metric.unit}, of the clean prompts."]
        if self.linear is not metric:
            notes.append(
                f"{metric.name} is not a sum over parts: direct attribution and ablation measure "
                f"{self.linear.name}, in {self.linear.unit}."
            )
        if self.ablated is not None:
            notes.append(
                "Ablation: what a layer or head writes at the position that is read is replaced by "
                "its mean over the corrupt prompts."
            )
        return notes

    def sentences(self) -> list[str]:
        """The findings in words."""
        said, found = [], depths(self.says)
        n, share = self.says.sizes["prompt"], found.attrs["share"]
        for name, how in (("first", "first leads after"), ("settled", "leads for good after")):
            known = found[name].dropna("prompt")
            if known.sizes["prompt"] > 1:
                low, mean, high = bounds(known)
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
                f"Over layers and parts, direct attribution and the drop by ablation have a "
                f"correlation of {r:.2f}."
            )
        return said

    def _direct_and_ablated(self) -> tuple[np.ndarray, np.ndarray] | None:
        if self.ablated is None:
            return None
        direct, taken = [], []
        for part, layer, value in self.written():
            direct.append(value.mean().item())
            taken.append(self.ablated.sel(part=part, layer=layer).mean().item())
        return np.array(direct), np.array(taken)

    def written(self) -> Iterator[tuple[str, int, xr.DataArray]]:
        """What each part of each layer writes: part, layer, values by prompt."""
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
            for part, at, value in self.written():
                if at == layer - 1:  # the layer that was the last of those to run
                    row[f"{part} writes"] = float(value.mean())
                    if self.ablated is not None:
                        taken = self.ablated.sel(part=part, layer=at)
                        row[f"without {part}"] = float(taken.mean())
            rows.append(row)
        return rows

    def head_rows(self) -> list[dict[str, object]]:
        """The heads of the largest direct attribution, beside the effect of ablating them."""
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
                low, mean, high = bounds(change)
                row["without it"] = mean
                row["interval"] = f"{low:+.3f} to {high:+.3f}" if np.isfinite(low) else ""
            rows.append(row)
        return rows

    def tops(self, prompt: int = 0) -> list[dict[str, object]]:
        """The most likely tokens after each layer, for one prompt."""
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


def bounds(values: xr.DataArray) -> tuple[float, float, float]:
    """Low, mean and high over prompts; of one prompt there is no interval."""
    if values.sizes["prompt"] < 2:
        return np.nan, float(values.mean()), np.nan
    found = interval(values.drop_attrs())
    return float(found["low"]), float(found["mean"]), float(found["high"])
