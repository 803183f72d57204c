"""What `mechinterp attribute` does with one prompt: its scores, their views and their folder.

>>> from mechinterp import load_model
>>> from mechinterp.commands.options.attribution import AttributeOptions
>>> from mechinterp.commands.attribution import attribute_prompt
>>> options = AttributeOptions("bring the sesame", outputs=1)
>>> found = attribute_prompt(load_model("toy:trigger"), options)
>>> found.scores[0].sizes["input"]
4
"""

import dataclasses
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import xarray as xr

from mechinterp.attribution.methods.by_name import METHODS
from mechinterp.attribution.methods.levels import attribute_by_level
from mechinterp.attribution.methods.redundancy import pair_removals
from mechinterp.attribution.methods.single_removal import RedundancyWarning
from mechinterp.attribution.question.definition import Question, ask
from mechinterp.attribution.question.expectations import Comparison, check_expected, compare
from mechinterp.attribution.question.units import units_of
from mechinterp.attribution.tables import to_json
from mechinterp.attribution.trust.faithfulness import faithfulness
from mechinterp.commands.attribution_request import AttributionRequest
from mechinterp.commands.options.attribution import AttributeOptions
from mechinterp.commands.outcome import Outcome, View, finish
from mechinterp.commands.prompt_request import requested_text
from mechinterp.core.cautions import caution
from mechinterp.models.facts import fingerprint
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text, tokenize
from mechinterp.report import (
    attribution_page,
    print_attribution,
    print_faithfulness,
    print_interactions,
)
from mechinterp.storage.output_folder import manifest_in
from mechinterp.storage.run_folder import scores_parquet
from mechinterp.sweeps.progress import progress_bar


@dataclass(frozen=True, eq=False)
class PromptAttribution:
    """All results of one prompt: the scores of each level, and what is shown with them."""

    scores: tuple[xr.DataArray, ...]
    comparisons: tuple[Comparison, ...] = ()
    interactions: xr.Dataset | None = None
    beside: xr.DataArray | None = None
    faithfulness: xr.Dataset | None = None


def run_attribution(model: Model, options: AttributeOptions) -> None:
    """Run `mechinterp attribute` for one prompt.

    Raises:
        ValueError: as `attribute`, or if the folder holds another result.
        HookError: as `attribute`.
    """
    asked = {} if options.out is None else _claimed(model, options, options.out)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RedundancyWarning)  # the views say it
        found = attribute_prompt(model, options)
    files = {} if options.out is None else _files(options, found)
    facts = _facts(found.scores[-1], found.comparisons, asked)
    outcome = Outcome(options.kind, views=_views(found), files=files, facts=facts)
    finish(model, outcome, options.out)


def attribute_prompt(model: Model, options: AttributeOptions) -> PromptAttribution:
    """The results for the prompt of the options.

    Raises:
        ValueError: as `attribute`.
        HookError: as `attribute`.
    """
    assert options.prompt is not None
    text = requested_text(options.prompt)
    prompt: Text = [{"role": "user", "content": text}] if options.chat else text
    request = AttributionRequest.of(model, options)
    if options.units == "levels":
        return _attribute_levels(model, prompt, request, options.expected())
    question = ask(model, prompt, request.outputs, request.metric, units=request.units)
    expected = options.expected()
    if expected:
        check_expected(question.units, expected)
    scores, interactions = _scores(question, options, request)
    comparisons = compare(scores, expected) if expected else ()
    beside, curves = None, None
    if options.beside is not None:
        with progress_bar(options.beside) as tick:
            beside = METHODS[options.beside](question, request.told(tick))
    if options.faithfulness:
        rivals: dict[str, xr.DataArray] = {options.method: scores}
        if beside is not None:
            rivals[str(options.beside)] = beside
        with progress_bar("faithfulness") as tick:
            curves = faithfulness(question, rivals, seed=request.how.seed, progress=tick)
    return PromptAttribution((scores,), comparisons, interactions, beside, curves)


def _attribute_levels(
    model: Model, prompt: Text, request: AttributionRequest, expected: list[str]
) -> PromptAttribution:
    """Sentences first, then the words within those that matter."""
    if expected:
        check_expected(units_of(model, tokenize(model, prompt), "word"), expected)
    given = (model, prompt, request.outputs, request.how.removal, request.metric)
    with progress_bar("sentences, then words") as tick:
        levels = attribute_by_level(*given, progress=tick)
    try:
        return PromptAttribution(levels, compare(levels[-1], expected) if expected else ())
    except ValueError as error:  # what was not opened cannot be compared
        caution(f"--expect was not compared: {error}")
        return PromptAttribution(levels)


def _scores(
    question: Question, options: AttributeOptions, request: AttributionRequest
) -> tuple[xr.DataArray, xr.Dataset | None]:
    """The scores, and the interactions of pairs if any two inputs can be removed together."""
    with progress_bar(options.method) as tick:
        if options.method != "pairs":
            return METHODS[options.method](question, request.told(tick)), None
        found = pair_removals(question, request.how.removal, progress=tick)
    has_pairs = bool(found["interaction"].notnull().any())
    return found["score"], found if has_pairs else None


def _views(found: PromptAttribution) -> tuple[View, ...]:
    *coarse, finest = found.scores
    views: list[View] = [partial(print_attribution, scores) for scores in coarse]
    views.append(partial(print_attribution, finest, found.comparisons))
    if found.interactions is not None:
        views.append(partial(print_interactions, found.interactions, warned=True))
    if found.faithfulness is not None:
        views.append(partial(print_faithfulness, found.faithfulness))
    return tuple(views)


def _files(options: AttributeOptions, found: PromptAttribution) -> dict[str, bytes]:
    *coarse, scores = found.scores
    page = attribution_page(
        found.scores if coarse else scores,
        found.comparisons,
        interactions=found.interactions,
        faithfulness=found.faithfulness,
        beside=None if found.beside is None else {str(options.beside): found.beside},
    )
    more = {
        "coarse": coarse[0] if coarse else None,
        "interactions": found.interactions,
        "beside": found.beside,
        "faithfulness": found.faithfulness,
    }
    return {
        "report.html": page.encode(),
        "scores.parquet": scores_parquet(scores),
        "scores.json": to_json(scores).encode(),
        **{f"{name}.json": to_json(r).encode() for name, r in more.items() if r is not None},
    }


def _facts(
    scores: xr.DataArray, comparisons: tuple[Comparison, ...], asked: Mapping[str, object]
) -> dict[str, object]:
    return {
        "asked": asked,
        "input_token_ids": scores.input_token_id.values.tolist(),
        "output_token_ids": scores.output_token_id.values.tolist(),
        "expected": [dataclasses.asdict(comparison) for comparison in comparisons],
        **{str(name): value for name, value in scores.attrs.items()},
    }


def _claimed(model: Model, options: AttributeOptions, folder: Path) -> Mapping[str, object]:
    """What has to be the same for a result to take the place of the one in the folder.

    The folder is made, so that one that cannot be written is known before anything is computed.

    Raises:
        ValueError: if it holds the result of something else, or cannot be made or written.
    """
    given = {k: v for k, v in dataclasses.asdict(options).items() if k != "out"}
    given["fingerprint"] = fingerprint(model)
    asked: dict[str, object] = json.loads(json.dumps(given, default=str))
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
