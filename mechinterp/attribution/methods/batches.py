"""Many prompts: `attribute_each`, files of them (JSON lines), and scores by position or span.

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

Prompts are attributed one after the other, each exactly as alone. Nothing is gained by running them
as one batch: the variants of one prompt fill the passes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from mechinterp.attribution.methods.single_removal import attribute
from mechinterp.attribution.question.outputs import Last
from mechinterp.attribution.question.removals import Removal, RemoveOne, removal_of
from mechinterp.attribution.question.units import (
    Span,
    Spans,
    allowed_positions,
    find,
    find_or_refuse,
    several,
)
from mechinterp.attribution.tables import from_json, to_json
from mechinterp.core.metrics import Metric
from mechinterp.core.prompts import Prompts
from mechinterp.models.facts import fingerprint, has_foreign_hooks
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text, tokenize
from mechinterp.storage.digest import digest
from mechinterp.storage.jsonl import filled_lines, located
from mechinterp.storage.run_folder import write_whole
from mechinterp.sweeps.options import Progress

KEYS = ("prompt", "continuation", "spans", "expect")


@dataclass(frozen=True)
class Case:
    """A prompt, text or chat, with the continuation to explain, named spans, expected inputs.

    `where`: how messages name it, such as by its line in a file.
    """

    prompt: Any
    continuation: str | None = None
    spans: Mapping[str, Any] = field(default_factory=dict)
    expect: tuple[Span, ...] = ()
    where: str = field(default="", compare=False)


def read_cases(file: str | Path) -> tuple[Case, ...]:
    """The prompts of a file, a JSON object a line.

    Keys: "prompt" (text, or a list of messages) and, if wanted, "continuation" (text), "spans"
    (name: a token or phrase, a position, [first, last], or a list of those in a list) and "expect"
    (a list of such).

    Raises:
        ValueError: naming the file and the line, if a line is no such object.
    """
    path = Path(file)
    cases = []
    for number, line in filled_lines(path):
        where = f"{path}, line {number}"
        try:
            found = json.loads(line, object_pairs_hook=_once)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{where} is not JSON: {error.msg}, column {error.colno}. Write one object a line, "
                f'such as {{"prompt": "..."}}.'
            ) from None
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        with located(where):
            cases.append(replace(_case(found), where=where))
    if not cases:
        raise ValueError(f"{path} holds no prompts: write one JSON object a line.")
    return tuple(cases)


def attribute_each(
    model: Model,
    prompts: Text | Sequence[Case],
    outputs: int | str | Sequence[int] | Last = 5,
    removal: str | RemoveOne | Removal = "delete",
    metric: Metric | None = None,
    *,
    units: str | Spans = "token",
    inputs: str | Sequence[int] = "text",
    out: str | Path | None = None,
    budget_bytes: int | None = None,
    progress: Progress | None = None,
) -> tuple[xr.DataArray, ...]:
    """`attribute` of each prompt: texts, chats, `Prompts` of any lengths, or cases of a file.

    A case's continuation goes before `outputs`; `units="span"` removes the spans of each case.
    `out`: a folder in which each finished result is kept as JSON; the same call goes on from there.

    Raises:
        ValueError: as `attribute`, naming the prompt; if what a case names or expects is not in it,
            before any is attributed; if `out` holds results of another call.
        HookError: as `attribute`.
    """
    how = removal_of(model, removal)
    cases, each = _prompts(model, prompts, inputs)
    store = None
    if out is not None:
        if has_foreign_hooks(model):
            raise ValueError(
                f"out={str(out)!r}: somebody else's hooks are on the model. Another run could not "
                f"tell whether it has the same. Remove them, or attribute without out."
            )
        settings = [outputs, how, metric, inputs, budget_bytes]
        store = _Store(Path(out), digest([fingerprint(model), *settings]))
    sizes = [one.width**2 for one in each]
    found: list[xr.DataArray] = []
    for number, (case, one) in enumerate(zip(cases, each, strict=True)):
        if progress is not None:
            progress(sum(sizes[:number]), sum(sizes))
        asked = case.continuation if case.continuation is not None else outputs
        chosen = dict(case.spans) if units == "span" else units
        key = digest([one.tokens, one.roles, case.continuation, chosen])
        known = None if store is None else store.load(number, key)
        if known is None:
            with located(case.where):
                known = attribute(
                    model,
                    one,
                    asked,
                    how,
                    metric,
                    units=chosen,
                    inputs=inputs,
                    budget_bytes=budget_bytes,
                )
            if store is not None:
                store.save(number, key, known)
        found.append(known)
    if progress is not None:
        progress(sum(sizes), sum(sizes))
    return tuple(found)


def by_span(
    results: Sequence[xr.DataArray],
    spans: Sequence[Spans] | Prompts | None = None,
) -> xr.DataArray:
    """The scores of each prompt by name: dims (prompt, output, span), in the metric's unit.

    `spans`: for each prompt what its names stand for, the scores in a span are added up; or
    `Prompts` with named positions. By default the names of the units, such as of spans that were
    removed together. NaN: a prompt lacks the name, or the output. Averages and intervals over
    prompts are then the library's job: `stats.interval(by_span(...))`.

    Raises:
        ValueError: if there are no results, their units of measure differ, or a span is not there.
    """
    if not results:
        raise ValueError("by_span: there are no results.")
    measures = {(scores.attrs.get("metric"), scores.attrs.get("unit")) for scores in results}
    if len(measures) > 1:
        raise ValueError(f"by_span: the results have different metrics, {sorted(measures)}.")
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


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, none of whose keys is there twice."""
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f'"{key}" is there twice. Put several spans of one name into a list.')
    return dict(pairs)


def _check_named(case: Case, prompt: Prompts, inputs: str | Sequence[int]) -> None:
    """Nothing, if what is named and expected is among the tokens that are attributed."""
    allowed, texts = allowed_positions(prompt, inputs), prompt.token_text[0]
    named = {f"span {name!r}:": several(span) for name, span in case.spans.items()}
    for what, spans in {**named, "expect:": list(case.expect)}.items():
        for span in spans:
            find_or_refuse(texts, allowed, span, what, "the tokens to attribute")


def _case(line: Any) -> Case:
    if not isinstance(line, dict) or "prompt" not in line or not set(line) <= set(KEYS):
        raise ValueError(
            f'a line is an object with "prompt" and, if wanted, {", ".join(KEYS[1:])}.'
        )
    prompt, spans, expect = line["prompt"], line.get("spans", {}), line.get("expect", [])
    if not isinstance(prompt, str | list) or not isinstance(spans, dict):
        raise ValueError('"prompt" is text or a list of messages, "spans" an object.')
    if not isinstance(expect, list):
        raise ValueError('"expect" is a list of tokens, phrases or positions.')
    made = {name: _spans(span) for name, span in spans.items()}
    return Case(prompt, line.get("continuation"), made, tuple(_span(span) for span in expect))


def _spans(span: Any) -> Any:
    """What JSON says of a name: one span, or a list of them."""
    listed = isinstance(span, list) and not all(isinstance(part, int) for part in span)
    return [_span(part) for part in span] if listed else _span(span)


def _span(span: Any) -> Span:
    if isinstance(span, list) and len(span) == 2 and all(isinstance(part, int) for part in span):
        return (span[0], span[1])
    if isinstance(span, int | str):
        return span
    raise ValueError(f"{span!r} is no span: give a text, a position or [first, last].")


def _prompts(
    model: Model, prompts: Any, inputs: str | Sequence[int]
) -> tuple[list[Case], list[Prompts]]:
    if isinstance(prompts, Sequence) and prompts and isinstance(prompts[0], Case):
        cases = [
            case if case.where else replace(case, where=f"prompt {row}")
            for row, case in enumerate(prompts)
        ]
        made = []
        for case in cases:
            with located(case.where):
                made.append(tokenize(model, case.prompt))
                _check_named(case, made[-1], inputs)
        return cases, made
    every = tokenize(model, prompts)
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
    """The units that lie in each span; one that lies in part is an error."""
    texts, owner = scores.attrs["tokens"], scores.attrs["token_unit"]
    attributed = np.isfinite(scores.values).any(0)
    allowed = [pos for pos in range(len(texts)) if attributed[owner[pos]]]
    found = {}
    for name, given in spans.items():
        positions = {pos for span in several(given) for pos in find(texts, allowed, span)}
        units = sorted({owner[pos] for pos in positions})
        inside = [pos for pos in range(len(texts)) if owner[pos] in units]
        if not positions or set(inside) != positions:
            raise ValueError(
                f"by_span: prompt {row}: span {name!r}, {given!r}, is not among what is "
                f"attributed, or not made of whole units: {scores['input_token'].values.tolist()}."
            )
        found[str(name)] = units
    return found


class _Store:
    """A folder of results, each with the digest of what was asked."""

    def __init__(self, folder: Path, settings: str) -> None:
        self._folder, self._settings = folder, settings
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"out={str(folder)!r} is a file. Name a folder.")
        folder.mkdir(parents=True, exist_ok=True)

    def load(self, number: int, key: str) -> xr.DataArray | None:
        """The result of a prompt, if it was finished."""
        file = self._file(number)
        if not file.exists():
            return None
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))
            same = (kept["settings"], kept["key"]) == (self._settings, key)
            result = from_json(json.dumps(kept["result"])) if same else None
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is damaged: {error}. Remove it to have it anew.") from error
        if not isinstance(result, xr.DataArray):
            raise ValueError(
                f"{file} holds the result of another call: other prompts, model or settings. "
                f"Choose another folder."
            )
        return result

    def save(self, number: int, key: str, result: xr.DataArray) -> None:
        """Keep a result, whole or not at all."""
        kept = {"settings": self._settings, "key": key, "result": json.loads(to_json(result))}
        write_whole(self._file(number), json.dumps(kept).encode())

    def _file(self, number: int) -> Path:
        return self._folder / f"prompt-{number:05}.json"
