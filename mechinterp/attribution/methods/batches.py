"""Many prompts: `attribute_each`, files of prompts (JSON lines), and scores by position or span.

>>> from mechinterp import attribute_each, load_model
>>> from mechinterp.attribution.methods.batches import by_span
>>> model = load_model("toy:trigger")
>>> texts = ["please bring the sesame", "the sesame to me", "bring a map"]
>>> found = attribute_each(model, texts, outputs=1)
>>> [scores.sizes["input"] for scores in found]
[5, 5, 4]
>>> spans = [{"trigger": "sesame"}, {"trigger": "sesame"}, {"thing": "map"}]
>>> by_span(found, spans).sel(span="trigger").round().values.ravel().tolist()
[8.0, 8.0, nan]

Prompts are attributed one after the other, each exactly as alone. A batch of them would not be
faster: the variants of one prompt fill the passes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Unpack, cast

import numpy as np
import xarray as xr

from mechinterp.attribution.methods.single_removal import attribute
from mechinterp.attribution.question.definition import DropOptions
from mechinterp.attribution.question.outputs import Last
from mechinterp.attribution.question.removals import Removal, RemoveOne, removal_of
from mechinterp.attribution.question.units import (
    Span,
    Spans,
    allowed_positions,
    find,
    find_or_raise,
    parse_spans,
)
from mechinterp.attribution.tables import from_json, to_json
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.indices import is_index
from mechinterp.core.metrics import Metric
from mechinterp.core.prompts import Prompts
from mechinterp.models.chats import read_prompt
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text, tokenize
from mechinterp.storage.digest import digest
from mechinterp.storage.jsonl import JsonObject, located, read_objects
from mechinterp.storage.parts_folder import PartsFolder
from mechinterp.storage.provenance import resumable_facts
from mechinterp.sweeps.options import check_options

KEYS = ("prompt", "continuation", "spans", "expect")


@dataclass(frozen=True)
class Case:
    """A prompt, text or chat, with the continuation to explain, named spans and expected inputs.

    `where`: how error messages name it, such as by its line in a file.
    """

    prompt: Text | None
    continuation: str | None = None
    spans: Mapping[str, Span | Sequence[Span]] = field(default_factory=dict)
    expect: tuple[Span, ...] = ()
    where: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        """Check the continuation."""
        _check_continuation(self.continuation)


@checks_arguments
def read_cases(file: str | Path) -> tuple[Case, ...]:
    """The prompts of a file with one JSON object a line.

    Keys: "prompt" (text, or a list of messages) and optionally "continuation" (text), "spans"
    (name -> a token or phrase, a position, [first, last], or a list of these) and "expect" (a list
    of these).

    Raises:
        ValueError: naming the file and the line, if a line is not such an object.
    """
    cases = []
    for record in read_objects(file, KEYS, '{"prompt": "..."}'):
        with located(record.where):
            cases.append(replace(_case(record.values), where=record.where))
    return tuple(cases)


@checks_arguments
def attribute_each(
    model: Model,
    prompts: Text | Sequence[Case],
    outputs: int | str | Sequence[int] | Last = 5,
    removal: str | RemoveOne | Removal = "delete",
    metric: Metric | None = None,
    *,
    units: str | Spans = "token",
    inputs: str | Sequence[int] = "text",
    **options: Unpack[DropOptions],
) -> tuple[xr.DataArray, ...]:
    """`attribute` for each prompt: texts, chats, `Prompts` of any lengths, or cases of a file.

    A case's continuation overrides `outputs`; `units="span"` removes the spans of each case.
    `options`: as in `attribute`, but `out` is a folder that keeps each finished result as JSON, so
    that the same call continues where it stopped.

    Raises:
        ValueError: as `attribute`, naming the prompt; if a case lacks the spans or expected inputs
            that it names, before any prompt is attributed; if `out` has results of another call.
        HookError: as `attribute`.
    """
    check_options("attribute_each", options, DropOptions)
    out, progress = options.get("out"), options.get("progress")
    out = None if out is None else Path(out).absolute()
    removal = removal_of(model, removal)
    cases, each = _prompts(model, prompts, inputs)
    named = [dict(case.spans) if units == "span" else units for case in cases]
    store = None
    if out is not None:
        settings = [outputs, removal, metric, inputs, options.get("budget_bytes"), named]
        given = [(c.continuation, p.tokens, p.roles) for c, p in zip(cases, each, strict=True)]
        facts = {"prompts": digest(given), "settings": digest(settings)}
        store = _ResultFolder(Path(out), {**resumable_facts(model, out), **facts})
    sizes = [one.width**2 for one in each]
    found: list[xr.DataArray] = []
    for number, (case, one) in enumerate(zip(cases, each, strict=True)):
        if progress is not None:
            progress(sum(sizes[:number]), sum(sizes))
        asked = case.continuation if case.continuation is not None else outputs
        known = None if store is None else store.load(number)
        if known is None:
            with located(case.where):
                known = attribute(
                    model,
                    one,
                    asked,
                    removal,
                    metric,
                    units=named[number],
                    inputs=inputs,
                    budget_bytes=options.get("budget_bytes"),
                )
            if store is not None:
                store.save(number, known)
        found.append(known)
    if store is not None:
        store.finish(len(cases))
    if progress is not None:
        progress(sum(sizes), sum(sizes))
    return tuple(found)


@checks_arguments
def by_span(
    results: Sequence[xr.DataArray],
    spans: Sequence[Spans] | Prompts | None = None,
) -> xr.DataArray:
    """The scores of each prompt by name: dims (prompt, output, span), in the metric's unit.

    `spans`: for each prompt the spans by name, whose scores are summed; or `Prompts` with named
    positions. By default the names of the units, such as of spans that were removed together. NaN:
    a prompt lacks the name, or the output. For means and intervals over prompts:
    `stats.interval(by_span(...))`.

    Raises:
        ValueError: if there are no results, their metrics differ, or a span is not found.
    """
    if not results:
        raise ValueError("by_span: there are no results. Give those of attribute_each.")
    measures = {(scores.attrs.get("metric"), scores.attrs.get("unit")) for scores in results}
    if len(measures) > 1:
        raise ValueError(
            f"by_span: the results have different metrics, {sorted(measures)}. Give results of one."
        )
    if isinstance(spans, Prompts):
        spans = [
            {name: int(at[row]) for name, at in spans.names.items()} for row in range(len(spans))
        ]
    if spans is None:
        named = [_units_by_name(scores) for scores in results]
    elif len(spans) != len(results):
        raise ValueError(f"by_span: {len(spans)} spans for {len(results)} results. Give as many.")
    else:
        pairs = zip(results, spans, strict=True)
        named = [_units_in(scores, each, row) for row, (scores, each) in enumerate(pairs)]
    names = list(dict.fromkeys(name for each in named for name in each))
    n_outputs = max(scores.sizes["output"] for scores in results)
    values = np.full((len(results), n_outputs, len(names)), np.nan)
    for row, (scores, each) in enumerate(zip(results, named, strict=True)):
        for name, inputs in each.items():
            total = scores.values[:, inputs].sum(1)
            values[row, : len(total), names.index(name)] = total
    return xr.DataArray(
        values,
        dims=("prompt", "output", "span"),
        name="score",
        coords={"prompt": range(len(results)), "output": range(n_outputs), "span": names},
        attrs={
            name: results[0].attrs[name]
            for name in ("metric", "unit", "sign", "supports", "method", "removal")
            if name in results[0].attrs
        },
    )


def _check_named(case: Case, prompt: Prompts, inputs: str | Sequence[int]) -> None:
    """Check that the named and expected spans are among the attributed tokens."""
    allowed, texts = allowed_positions(prompt, inputs), prompt.token_text[0]
    named = {f"span {name!r}:": parse_spans(span) for name, span in case.spans.items()}
    for what, spans in {**named, "expect:": list(case.expect)}.items():
        for span in spans:
            find_or_raise(texts, allowed, span, what, "the tokens to attribute")


def _check_continuation(continuation: object) -> None:
    """Check that it is text, if there is one: a number would be taken for a count of tokens."""
    if not isinstance(continuation, str | None):
        raise ValueError(f"the continuation is {continuation!r}, not a text. Write it in quotes.")


def _case(line: JsonObject) -> Case:
    """The case that a parsed line describes, after checking it."""
    prompt = read_prompt(line, "prompt")
    spans, expect = line.get("spans", {}), line.get("expect", [])
    if not isinstance(spans, dict):
        raise ValueError('"spans" must be an object, from names to spans.')
    if not isinstance(expect, list):
        raise ValueError('"expect" must be a list of tokens, phrases or positions.')
    _check_continuation(line.get("continuation"))
    made = {name: _spans(span) for name, span in spans.items()}
    return Case(prompt, line.get("continuation"), made, tuple(_span(span) for span in expect))


def _spans(span: object) -> Span | list[Span]:
    """The spans under one name in JSON: one, or a list of them."""
    if isinstance(span, list) and not all(is_index(part) for part in span):
        return [_span(part) for part in span]
    return _span(span)


def _span(span: object) -> Span:
    if isinstance(span, list) and len(span) == 2 and all(is_index(part) for part in span):
        return (span[0], span[1])
    if isinstance(span, str) or is_index(span):
        return span
    raise ValueError(f"{span!r} is not a span: give a text, a position or [first, last].")


def _prompts(
    model: Model, prompts: Text | Sequence[Case], inputs: str | Sequence[int]
) -> tuple[list[Case], list[Prompts]]:
    """The cases, and the tokens of each; each row of texts or `Prompts` becomes a case."""
    given = (
        [one for one in prompts if isinstance(one, Case)]
        if isinstance(prompts, list | tuple)
        else []
    )
    if given:
        cases = [
            case if case.where else replace(case, where=f"prompt {row}")
            for row, case in enumerate(given)
        ]
        made = []
        for case in cases:
            with located(case.where):
                made.append(tokenize(model, cast(Text, case.prompt)))
                _check_named(case, made[-1], inputs)
        return cases, made
    every = tokenize(model, cast(Text, prompts))
    each = [
        Prompts.from_ids(
            [every.tokens[row, :n].tolist()],
            roles=[every.roles[row]],
            decode=every.decode,
            device=every.tokens.device,
        )
        for row, n in enumerate(every.lengths.tolist())
    ]
    named = [
        Case(
            None,
            spans={name: int(at[row]) for name, at in every.names.items()},
            where=f"prompt {row}",
        )
        for row in range(len(every))
    ]
    return named, each


def _units_by_name(scores: xr.DataArray) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    attributed = np.isfinite(scores.values).any(0)
    for number, name in enumerate(scores["input_name"].values.tolist()):
        if attributed[number]:
            found.setdefault(name, []).append(number)
    return found


def _units_in(scores: xr.DataArray, spans: Spans, row: int) -> dict[str, list[int]]:
    """The units of each span, each of which must lie in it whole."""
    texts, owner = scores.attrs["tokens"], scores.attrs["token_unit"]
    attributed = np.isfinite(scores.values).any(0)
    allowed = [pos for pos in range(len(texts)) if attributed[owner[pos]]]
    found = {}
    for name, given in spans.items():
        positions = {pos for span in parse_spans(given) for pos in find(texts, allowed, span)}
        units = sorted({owner[pos] for pos in positions})
        inside = [pos for pos in range(len(texts)) if owner[pos] in units]
        if not positions or set(inside) != positions:
            raise ValueError(
                f"by_span: prompt {row}: span {name!r}, {given!r}, is not attributed, or does not "
                f"consist of whole units. The units: {scores['input_token'].values.tolist()}."
            )
        found[str(name)] = units
    return found


class _ResultFolder:
    """A folder of finished results as JSON, without the seconds that they took."""

    def __init__(self, folder: Path, facts: Mapping[str, object]) -> None:
        self._parts = PartsFolder(folder, "attributions", facts)

    def load(self, number: int) -> xr.DataArray | None:
        """The result of a prompt if it was finished, else None."""
        content = self._parts.load(number, ".json")
        return None if content is None else cast(xr.DataArray, from_json(content.decode()))

    def save(self, number: int, result: xr.DataArray) -> None:
        """Write a result, whole or not at all."""
        attrs = {name: value for name, value in result.attrs.items() if name != "seconds"}
        text = to_json(result.drop_attrs(deep=False).assign_attrs(attrs))
        self._parts.save(number, ".json", text.encode())

    def finish(self, n_prompts: int) -> None:
        """Seal the folder."""
        self._parts.finish(n_prompts, {})
