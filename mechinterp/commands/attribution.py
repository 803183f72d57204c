"""What `mechinterp attribute` does: the question, its scores, their views and their folder.

>>> from mechinterp import load_model
>>> from mechinterp.commands.options.attribution import Attribute
>>> from mechinterp.commands.attribution import attributed
>>> found = attributed(load_model("toy:trigger"), Attribute("bring the sesame", outputs=1))
>>> found.scores[0].sizes["input"]
4
"""

import dataclasses
import json
import os
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from mechinterp.attribution.methods.batches import Case, attribute_each, by_span, read_cases
from mechinterp.attribution.methods.by_name import METHODS, MethodOptions
from mechinterp.attribution.methods.levels import attribute_by_level
from mechinterp.attribution.methods.redundancy import pair_removals
from mechinterp.attribution.methods.single_removal import RedundancyWarning
from mechinterp.attribution.question.definition import ask
from mechinterp.attribution.question.expectations import Comparison, check_expected, compare
from mechinterp.attribution.question.outputs import last
from mechinterp.attribution.question.units import units_of
from mechinterp.attribution.tables import to_json
from mechinterp.attribution.trust.faithfulness import faithfulness
from mechinterp.commands.options.attribution import Attribute
from mechinterp.core import metrics
from mechinterp.core.metrics import Metric
from mechinterp.models.facts import fingerprint
from mechinterp.models.model import Model
from mechinterp.models.tokenization import token_id, tokenize
from mechinterp.report import (
    attribution_page,
    print_attribution,
    print_faithfulness,
    print_interactions,
)
from mechinterp.stats.intervals import interval
from mechinterp.storage.output_folder import manifest_in
from mechinterp.storage.run_folder import scores_parquet, write_run
from mechinterp.sweeps.progress import progress_bar
from mechinterp.tasks.refusals import refusal_log_odds

N_OUTPUTS = 5


@dataclass(frozen=True, eq=False)
class Found:
    """All results of one prompt: the scores of each level, and what is shown with them."""

    scores: tuple[xr.DataArray, ...]
    comparisons: tuple[Comparison, ...] = ()
    interactions: xr.Dataset | None = None
    beside: xr.DataArray | None = None
    faithfulness: xr.Dataset | None = None


def attributed(model: Model, options: Attribute) -> Found:
    """The results for one prompt.

    Raises:
        ValueError: as `attribute`.
        HookError: as `attribute`.
    """
    text = sys.stdin.read() if options.prompt == "-" else options.prompt
    prompt: Any = [{"role": "user", "content": text}] if options.chat else text
    outputs, how = _outputs(options), _how(options)
    metric, expected = _metric(model, options), options.expected()
    if options.units == "levels":
        if expected:
            check_expected(units_of(model, tokenize(model, prompt), "word"), expected)
        with progress_bar("sentences, then words") as tick:
            levels = attribute_by_level(model, prompt, outputs, how.removal, metric, progress=tick)
        try:
            return Found(levels, compare(levels[-1], expected) if expected else ())
        except ValueError as error:  # what was not opened cannot be compared
            warnings.warn(f"--expect was not compared: {error}", stacklevel=2)
            return Found(levels)
    units: Any = options.units if options.spans is None else options.named_spans()
    question = ask(model, prompt, outputs, metric, units=units)
    if expected:
        check_expected(question.units, expected)
    interactions = None
    with progress_bar(options.method) as tick:
        if options.method == "pairs":
            interactions = pair_removals(question, how.removal, progress=tick)
            scores = interactions["score"]
        else:
            scores = METHODS[options.method](question, _told(how, tick))
    comparisons = compare(scores, expected) if expected else ()
    beside, curves = None, None
    if options.beside is not None:
        with progress_bar(options.beside) as tick:
            beside = METHODS[options.beside](question, _told(how, tick))
    if options.faithfulness:
        rivals: dict[str, xr.DataArray] = {options.method: scores}
        if beside is not None:
            rivals[str(options.beside)] = beside
        with progress_bar("faithfulness") as tick:
            curves = faithfulness(question, rivals, seed=how.seed, progress=tick)
    if interactions is not None and not bool(interactions["interaction"].notnull().any()):
        interactions = None  # no two can be removed together
    return Found((scores,), comparisons, interactions, beside, curves)


def shown(model: Model, options: Attribute) -> None:
    """Attribute one prompt, print it, and write the folder if one is named."""
    asked = None if options.out is None else _claimed(model, options, options.out)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RedundancyWarning)  # the views say it
        found = attributed(model, options)
    for scores in found.scores:
        is_last = scores is found.scores[-1]
        print_attribution(scores, found.comparisons if is_last else ())
    if found.interactions is not None:
        print_interactions(found.interactions, warned=True)
    if found.faithfulness is not None:
        print_faithfulness(found.faithfulness)
    if asked is not None:
        _write(model, options, found, asked)


def each_shown(model: Model, options: Attribute) -> None:
    """Attribute the prompts of a file, and print what they have in common."""
    assert options.file is not None
    cases = read_cases(options.file)
    units: Any = options.units if options.spans is None else options.named_spans()
    with progress_bar(f"{len(cases)} prompts") as tick:
        results = attribute_each(
            model,
            cases,
            _outputs(options),
            _how(options).removal,
            _metric(model, options),
            units=units,
            out=options.out,
            progress=tick,
        )
    verdicts = [
        _verdict(scores, case) if case.expect else ""
        for case, scores in zip(cases, results, strict=True)
    ]
    print("The strongest input of each prompt, by the mean over its outputs:")
    for number, scores in enumerate(results):
        best = int(np.where(np.isnan(scores.values), -1.0, np.abs(scores.values)).mean(0).argmax())
        value = float(scores.values[:, best].mean())
        text = str(scores.input_token.values[best]).strip()
        outputs = "".join(scores.output_token.values.tolist())
        said = f"  {verdicts[number]}" if verdicts[number] else ""
        print(f"{number:4}  {text!r} {value:+.2f} {scores.attrs['unit']}, for {outputs!r}{said}")
    for verdict, n in Counter(filter(None, verdicts)).most_common():
        print(f"{n} {verdict}")
    if any(case.spans for case in cases):
        spans = by_span(results, [dict(case.spans) for case in cases]).mean("output")
        print(f"\nmean over prompts, {spans.attrs.get('unit', '')}, with a 95% interval:")
        for name in spans["span"].values.tolist():
            _print_mean(name, spans.sel(span=name).dropna("prompt"))
    if options.out is not None:
        print(f"wrote {len(results)} results into {options.out}")


def _verdict(scores: xr.DataArray, case: Case) -> str:
    try:
        return compare(scores, case.expect)[0].verdict
    except ValueError as error:  # of these units it cannot be told
        return f"not compared: {error}"


def _print_mean(name: str, values: xr.DataArray) -> None:
    if values.size < 2:
        print(f"{name}: {float(values.mean()):+.2f} (of one prompt)")
        return
    mean = interval(values)
    low, high = float(mean["low"]), float(mean["high"])
    print(f"{name}: {float(mean['mean']):+.2f} [{low:+.2f}, {high:+.2f}] of {values.size} prompts")


def _outputs(options: Attribute) -> Any:
    if options.last is not None:
        return last(options.last)
    return options.continuation or options.outputs or N_OUTPUTS


def _how(options: Attribute) -> MethodOptions:
    """What methods are told; what was not given is left at its default."""
    given: dict[str, Any] = {
        "removal": options.removal,
        "n_subsets": options.subsets,
        "seed": options.seed,
    }
    return MethodOptions(**{name: value for name, value in given.items() if value is not None})


def _told(how: MethodOptions, tick: Any) -> MethodOptions:
    return dataclasses.replace(how, options={"progress": tick})


def _metric(model: Model, options: Attribute) -> Metric:
    if options.contrast is not None:
        first, second = (token_id(model, text) for text in options.contrast)
        return metrics.logit_diff(first, second)
    if options.metric == "refusal":
        return refusal_log_odds(model)
    made: Metric = getattr(metrics, options.metric or "log_prob")()
    return made


def _claimed(model: Model, options: Attribute, folder: Path) -> dict[str, Any]:
    """What has to be the same for a result to take the place of the one in the folder.

    The folder is made, so that one that cannot be written is known before anything is computed.

    Raises:
        ValueError: if the result of something else is in it, or it cannot be made.
    """
    given = {k: v for k, v in dataclasses.asdict(options).items() if k != "out"}
    given["fingerprint"] = fingerprint(model)
    asked: dict[str, Any] = json.loads(json.dumps(given, default=str))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {folder} cannot be made: {error.strerror}.") from error
    if not os.access(folder, os.W_OK):
        raise ValueError(f"--out {folder} cannot be written to.")
    there = manifest_in(folder)
    if (folder / "manifest.json").exists() and there.get("asked") != asked:
        raise ValueError(
            f"--out {folder} holds another result, of {there.get('prompt', '?')!r} or of other "
            f"options. Name another folder, or delete it."
        )
    return asked


def _write(model: Model, options: Attribute, found: Found, asked: dict[str, Any]) -> None:
    scores = found.scores[-1]
    facts = {
        "kind": "attribution",
        "asked": asked,
        "command": sys.argv,
        "fingerprint": asked["fingerprint"],
        "dtype": str(model.cfg.dtype),
        "threads": torch.get_num_threads(),
        "input_token_ids": scores.input_token_id.values.tolist(),
        "output_token_ids": scores.output_token_id.values.tolist(),
        "expected": [dataclasses.asdict(c) for c in found.comparisons],
        **scores.attrs,
    }
    levels: Sequence[xr.DataArray] = found.scores
    page = attribution_page(
        levels if len(levels) > 1 else scores,
        found.comparisons,
        interactions=found.interactions,
        faithfulness=found.faithfulness,
        beside=None if found.beside is None else {str(options.beside): found.beside},
    )
    files = {
        "scores.parquet": scores_parquet(scores),
        "scores.json": to_json(scores).encode(),
        "report.html": page.encode(),
    }
    more = {
        "coarse": levels[0] if len(levels) > 1 else None,
        "interactions": found.interactions,
        "beside": found.beside,
        "faithfulness": found.faithfulness,
    }
    files |= {f"{name}.json": to_json(r).encode() for name, r in more.items() if r is not None}
    assert options.out is not None
    write_run(options.out, facts, files)
    others = sorted({*files, "manifest.json"} - {"report.html"})
    print(f"wrote {options.out / 'report.html'}, {', '.join(others)}")
