"""Probes by layer as one HTML file: curves beside what they have to beat, tables, causal half.

    Path("probe.html").write_text(probing_page(probed, title="Harmful or benign"), encoding="utf-8")

It shows results of `mechinterp.probing` and computes nothing; labels are text everywhere.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.printable import escape
from mechinterp.report.layers.chart import LayerLine, layer_chart
from mechinterp.report.render.costs import costs
from mechinterp.report.render.numbers import MISSING, NumberFormat, probability
from mechinterp.report.render.page_shell import page
from mechinterp.report.render.tables import Rows, captioned

MEASURES = {
    "balanced_accuracy": "Balanced accuracy",
    "accuracy": "Accuracy",
    "auroc": "AUROC",
    "macro_f1": "Macro-F1",
}
_HOWS = {
    "ablate": "direction taken out",
    "steer up": "gap added along it",
    "steer down": "gap subtracted",
}
_KINDS = {"random": "random", "spread": "as activations vary"}


@checks_arguments
def probing_page(
    probed: xr.Dataset,
    *,
    title: str,
    notes: Sequence[str] = (),
    description: xr.Dataset | None = None,
    best: xr.Dataset | None = None,
    causal: xr.Dataset | None = None,
    tables: Mapping[str, Rows] | None = None,
) -> str:
    """The whole page: a sentence, curves, a table by layer, the layers compared, the causal half.

    `probed`: of `probe_layers`; `description`: bits by (of, layer); `best`: of `best_layers`;
    `causal`: of `used`. `tables` holds rows for each caption, as column to value.

    Raises:
        ValueError: if `probed` has no task.
    """
    if "task" not in probed["of"].values:
        raise ValueError("probed has no task: give what probe_layers returns.")
    attrs = dict(causal.attrs) if causal is not None else {}
    return page(
        "probing.html",
        ["page.css"],
        ["probing.js"],
        title=title,
        payload={},
        eyebrow=[str(probed.attrs[k]) for k in ("model", "probe", "position") if k in probed.attrs],
        sentences=[escape(line) for line in sentences(probed, best=best, causal=causal)],
        chart=layer_chart(_lines(probed), y="balanced accuracy", y_range=(0.0, 1.0)),
        bits=None if description is None else layer_chart(_bits(description), y="compression"),
        level=round(100 * float(probed.attrs["level"])),
        n_groups=int(probed.attrs["n_groups"]),
        tables=captioned({**_tables(probed, description, best, causal), **(tables or {})}),
        notes=[escape(note) for note in notes],
        costs=costs({k: v for k, v in attrs.items() if k not in ("unit", "metric", "probe")}),
    )


def sentences(
    probed: xr.Dataset, *, best: xr.Dataset | None = None, causal: xr.Dataset | None = None
) -> list[str]:
    """The findings in words, with what they do not show."""
    top = probed.sel(measure="balanced_accuracy")
    task = top.sel(of="task")
    at = int(task["mean"].values.argmax())
    layer = int(task["layer"].values[at])
    text = [
        f"The label is read best at layer {layer}: balanced accuracy {_share(task, at)} on prompts "
        f"not trained on; chance is {1 / len(probed.attrs['classes']):.2f}."
    ]
    rivals = [of for of in top["of"].values if of not in ("task", "control", "majority")]
    if rivals:
        each = ", ".join(f"{of} {_share(top.sel(of=of), at)}" for of in rivals)
        text.append(f"Beside it at that layer: {each}.")
    if "selectivity" in probed:
        low, high = (float(probed[f"selectivity_{end}"][at]) for end in ("low", "high"))
        kept = float(probed["selectivity"][at])
        verdict = (
            "the probe does better on the labels than on random ones that can be learnt by heart"
            if low > 0
            else "random labels of words are learnt as well or better: the probe has room to learn "
            "by heart"
        )
        text.append(f"Selectivity {_signed(kept)} [{_signed(low)}, {_signed(high)}]: {verdict}.")
    if best is not None:
        good = [int(n) for n in best.attrs["as_good"]]
        text.append(
            f"Layer {layer} is better than every other, corrected for all comparisons."
            if len(good) == 1
            else f"It is not the best layer: of {len(good)} layers, {good[0]} to {good[-1]}, none "
            f"can be told from it, corrected for {best.attrs['n_comparisons']} comparisons."
        )
    if causal is None:
        text.append("That it can be read does not say that the model uses it: nothing was changed.")
    else:
        text += _causal_sentences(causal)
    return text


def _causal_sentences(causal: xr.Dataset) -> list[str]:
    text = []
    for how in causal["how"].values:
        one = causal.sel(how=how)
        mean, low, high = (float(one[name].values[0]) for name in ("mean", "low", "high"))
        form = NumberFormat.of(max(abs(mean), abs(low), abs(high)), extra=1)
        beyond = bool(((one["mean"] < one["least"]) | (one["mean"] > one["most"])).all())
        said = "beyond every random direction" if beyond else "no more than random directions do"
        text.append(
            f"With the {_HOWS.get(str(how), str(how))} the metric changes by {form(mean)} "
            f"[{form(low)}, {form(high)}] {causal['unit'].item()}, {said}."
        )
    return text


def _lines(probed: xr.Dataset) -> list[LayerLine]:
    top = probed.sel(measure="balanced_accuracy")
    layers = tuple(int(n) for n in top["layer"].values)
    lines = []
    for of in top["of"].values:
        one = top.sel(of=of)
        values, low, high = (
            tuple(float(v) for v in one[name].values) for name in ("mean", "low", "high")
        )
        is_task = of == "task"
        band = (low, high) if is_task or of == "shuffled" else ((), ())
        lines.append(LayerLine(str(of), layers, values, *band, is_chance=not is_task))
    return lines


def _bits(description: xr.Dataset) -> list[LayerLine]:
    layers = tuple(int(n) for n in description["layer"].values)
    return [
        LayerLine(
            str(of),
            layers,
            tuple(float(v) for v in description["compression"].sel(of=of).values),
            is_chance=bool(of != "task"),
        )
        for of in description["of"].values
    ]


def _tables(
    probed: xr.Dataset,
    description: xr.Dataset | None,
    best: xr.Dataset | None,
    causal: xr.Dataset | None,
) -> dict[str, Rows]:
    tables: dict[str, Rows] = {"Balanced accuracy by layer": layer_rows(probed, description, best)}
    tables["Other measures of the task"] = [
        {"layer": str(layer)}
        | {
            name: _share(probed.sel(of="task", measure=measure), at)
            for measure, name in MEASURES.items()
        }
        | {
            "Accuracy of the majority": _share(probed.sel(of="majority", measure="accuracy"), at)
            if "majority" in probed["of"].values
            else ""
        }
        for at, layer in enumerate(probed["layer"].values)
    ]
    if causal is not None:
        tables[f"Is it used? Layer {causal.attrs['layer']}"] = causal_rows(causal)
    return tables


def layer_rows(
    probed: xr.Dataset,
    description: xr.Dataset | None = None,
    best: xr.Dataset | None = None,
) -> list[dict[str, object]]:
    """A row a layer: the task with its interval, controls, selectivity, bits, p beside the best."""
    top = probed.sel(measure="balanced_accuracy")
    rows: list[dict[str, object]] = []
    for at, layer in enumerate(probed["layer"].values):
        row: dict[str, object] = {"layer": str(layer)}
        for of in top["of"].values:
            if of == "majority":  # 1 / n_classes, always
                continue
            one = top.sel(of=of)
            row[str(of)] = _share(one, at) if of == "task" else f"{float(one['mean'][at]):.2f}"
        if "selectivity" in probed:
            row["selectivity"] = _signed(float(probed["selectivity"][at]))
        if description is not None:
            bits = [f"{float(v):.2f}" for v in description["compression"][:, at]]
            also = len(bits) > 1
            row["compression (control)" if also else "compression"] = (
                f"{bits[0]} ({bits[1]})" if also else bits[0]
            )
        if best is not None:
            is_best = layer == best.attrs["best"]
            p = float(best["p_corrected"][at])
            row["p beside the highest"] = MISSING if is_best else probability(p)
        rows.append(row)
    return rows


def causal_rows(causal: xr.Dataset) -> list[dict[str, object]]:
    """A row for each intervention and each kind of random direction."""
    rows: list[dict[str, object]] = []
    largest = float(np.nanmax(abs(causal[["mean", "least", "most"]].to_array().values)))
    form = NumberFormat.of(largest, extra=1)
    for how in causal["how"].values:
        for kind in causal["kind"].values:
            one = causal.sel(how=how, kind=kind)
            mean, low, high = (form(float(one[name])) for name in ("mean", "low", "high"))
            rows.append(
                {
                    "what is done": _HOWS.get(str(how), str(how)),
                    f"change, {causal['unit'].item()}": f"{mean} [{low}, {high}]",
                    "random directions": _KINDS.get(str(kind), str(kind)),
                    "theirs, least to most": f"{form(float(one['least']))} to "
                    f"{form(float(one['most']))}",
                    "p": probability(float(one["p"])),
                    "standard deviations away": _signed(float(one["z"]), digits=1),
                }
            )
    return rows


def _share(one: xr.Dataset, at: int) -> str:
    mean, low, high = (float(one[name].values[at]) for name in ("mean", "low", "high"))
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def _signed(value: float, digits: int = 2) -> str:
    return f"{value:+.{digits}f}".replace("-", "−") if np.isfinite(value) else MISSING
