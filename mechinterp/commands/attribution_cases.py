"""What `mechinterp attribute --file` does: many prompts one by one, and what they have in common.

run_attribution_cases(model, AttributeOptions(file=Path("prompts.jsonl"), out=Path("runs/many")))
"""

import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np
import xarray as xr

from mechinterp.attribution.methods.batches import Case, attribute_each, by_span, read_cases
from mechinterp.attribution.question.expectations import compare
from mechinterp.commands.attribution_request import AttributionRequest
from mechinterp.commands.options.attribution import AttributeOptions
from mechinterp.commands.outcome import Outcome, View, finish
from mechinterp.commands.terminal import say
from mechinterp.models.model import Model
from mechinterp.stats.intervals import interval
from mechinterp.storage.run_folder import begin_run
from mechinterp.sweeps.progress import progress_bar

_SHARED = ("model", "metric", "unit", "method", "removal", "sign", "supports")
"""What a result says that is the same for all prompts."""


def run_attribution_cases(model: Model, options: AttributeOptions) -> None:
    """Run `mechinterp attribute` for the prompts of a file.

    Raises:
        ValueError: as `attribute_each`.
        HookError: as `attribute_each`.
    """
    assert options.file is not None
    cases = read_cases(options.file)
    request = AttributionRequest.of(model, options)
    begin_run(options.out, options.kind, sys.argv)
    given = (model, cases, request.outputs, request.how.removal, request.metric)
    with progress_bar(f"{len(cases)} prompts") as tick:
        parts = None if options.out is None else options.out / "prompts"
        results = attribute_each(*given, units=request.units, out=parts, progress=tick)
    verdicts = [
        _verdict(scores, case) if case.expect else ""
        for case, scores in zip(cases, results, strict=True)
    ]
    views: list[View] = [partial(_print_strongest, results, verdicts)]
    if any(case.spans for case in cases):
        spans = by_span(results, [dict(case.spans) for case in cases]).mean("output")
        views.append(partial(_print_spans, spans))
    facts = {
        "prompts": options.file.name,
        "n": len(results),
        "verdicts": verdicts,
        **{name: results[0].attrs[name] for name in _SHARED if name in results[0].attrs},
    }
    finish(model, Outcome(options.kind, views=tuple(views), facts=facts), options.out)


def _print_strongest(results: Sequence[xr.DataArray], verdicts: Sequence[str]) -> None:
    say("The strongest input of each prompt, by the mean over its outputs:")
    for number, (scores, verdict) in enumerate(zip(results, verdicts, strict=True)):
        best = int(np.where(np.isnan(scores.values), -1.0, np.abs(scores.values)).mean(0).argmax())
        value = float(scores.values[:, best].mean())
        text = str(scores.input_token.values[best]).strip()
        outputs = "".join(scores.output_token.values.tolist())
        said = f"  {verdict}" if verdict else ""
        say(f"{number:4}  {text!r} {value:+.2f} {scores.attrs['unit']}, for {outputs!r}{said}")
    for verdict, n in Counter(filter(None, verdicts)).most_common():
        say(f"{n} {verdict}")


def _print_spans(spans: xr.DataArray) -> None:
    say(f"\nmean over prompts, {spans.attrs.get('unit', '')}, with a 95% interval:")
    for name in spans["span"].values.tolist():
        say(f"{name}: {_mean(spans.sel(span=name).dropna('prompt'))}")


def _mean(values: xr.DataArray) -> str:
    if values.size < 2:
        return f"{float(values.mean()):+.2f} (of one prompt)"
    mean = interval(values)
    low, high = float(mean["low"]), float(mean["high"])
    return f"{float(mean['mean']):+.2f} [{low:+.2f}, {high:+.2f}] of {values.size} prompts"


def _verdict(scores: xr.DataArray, case: Case) -> str:
    try:
        return compare(scores, case.expect)[0].verdict
    except ValueError as error:  # these units cannot be compared
        return f"not compared: {error}"
