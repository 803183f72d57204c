"""Redundant inputs: what single removals miss, and pairs of removals find.

Of two trigger words, either of them enough, neither matters alone: remove one, and the other still
works. Here the candidates are also removed in pairs, and in larger groups:

>>> import warnings
>>> from mechinterp import attribute_pairs, load_model
>>> with warnings.catch_warnings(record=True) as said:
...     warnings.simplefilter("always")
...     model, prompt = load_model("toy:trigger"), "the sesame and some sesame"
...     found = attribute_pairs(model, prompt, outputs=1).isel(output=0)
>>> [[round(abs(x)) for x in found[name].values[1:]] for name in ("single", "score")]
[[0, 0, 0, 0, 0], [0, 4, 0, 0, 4]]
>>> str(said[-1].message)[:75]
"redundancy: 'sesame' and 'sesame' stand in for each other: together they lo"

Signs: the interaction of two inputs is the sum of their single effects minus their joint effect.
Negative: together they do more (redundancy). Positive: they do less than the sum, since they need
each other (synergy). The score is the single effect plus half of what the unit's closest substitute
hides, so two inputs of which either is enough get half each, as Shapley values do. Synergy is not
subtracted: the last word of a prompt needs nearly all others, and would end below 0.
"""

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np
import xarray as xr
from jaxtyping import Float

from mechinterp.attribution.methods.groups import Group, hidden_groups
from mechinterp.attribution.methods.hitting_sets import Members, pivotal_shares
from mechinterp.attribution.methods.single_removal import RedundancyWarning, single_removals
from mechinterp.attribution.question.definition import Question, ask, can_remove, drops
from mechinterp.attribution.question.outputs import Last
from mechinterp.attribution.question.removals import Removal, RemoveOne, removal_of
from mechinterp.attribution.question.units import Spans
from mechinterp.attribution.scores import label_scores
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.cautions import caution
from mechinterp.core.metrics import Metric
from mechinterp.core.signs import no_support
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text
from mechinterp.stats.additivity import additivity_residual
from mechinterp.sweeps.options import PassOptions, check_options

SCORE_NOTE = (
    "The score is what removing the input takes (single), and half of what its closest stand-in "
    "hides (interaction)."
)
INTERACTION_SIGN = (
    "Sum of the two alone, less both together. Negative: each stands in for the other "
    "(redundancy). Positive: they need each other (synergy)."
)


@checks_arguments
def attribute_pairs(
    model: Model,
    prompt: Text,
    outputs: int | str | Sequence[int] | Last = 5,
    removal: str | RemoveOne | Removal = "delete",
    metric: Metric | None = None,
    *,
    units: str | Spans = "token",
    inputs: str | Sequence[int] = "text",
    candidates: int | Sequence[int] = 8,
    **options: Unpack[PassOptions],
) -> xr.Dataset:
    """As `attribute`, but removes pairs and groups of candidates too.

    `candidates`: the number of inputs to try in pairs, or their numbers. `options`: `budget_bytes`
    and `progress`.

    Variables, in the metric's unit: `score` (output, input), from single and pair removals;
    `single`, as from `attribute`; `alone` (output, input), what the input restores where everything
    else attributed is removed; `interaction` (output, first, second), NaN on the diagonal.
    `attrs["groups"]`: groups of any size that do more than twice the sum of their parts, and at
    least a fifth of what removing everything does. Their `members` are units, or sets of units,
    each of which is enough. `attrs["group_sets"]`: how many sets were removed in search of them, at
    most 160; `attrs["groups_complete"]`: whether that was enough. Distances such as `kl` have none.

    Warns: `RedundancyWarning`, for the first output with such a group.

    Raises:
        ValueError: as `attribute`; if there are fewer than 2 candidates, or one is not attributed.
        HookError: as `attribute`.

    Source: pair interactions as in Shapley interaction indices, Grabisch and Roubens 1999; the
    score is our own, compared with others in docs/benchmarks.md.
    """
    check_options("attribute_pairs", options, PassOptions)
    removal = removal_of(model, removal)
    question = ask(model, prompt, outputs, metric, units=units, inputs=inputs)
    return pair_removals(question, removal, candidates=candidates, **options)


@checks_arguments
def pair_removals(
    question: Question,
    removal: str | RemoveOne | Removal = "delete",
    *,
    candidates: int | Sequence[int] = 8,
    **options: Unpack[PassOptions],
) -> xr.Dataset:
    """As `attribute_pairs`, for a question.

    Raises:
        ValueError: as `attribute_pairs`.
        HookError: as `attribute_pairs`.
    """
    check_options("pair_removals", options, PassOptions)
    began = time.perf_counter()
    removal = removal_of(question.model, removal)
    wanted = question.attributed
    _check_candidates(question, candidates)
    work = _CountedDrops(question, removal, options)
    single = single_removals(question, removal, **options)
    work.add(single.attrs)
    each = dict(zip(wanted, single.values[:, wanted].T, strict=True))
    alone, kept_alone = _alone(work)
    if isinstance(candidates, int):
        chosen = _screened(question, single.values[:, wanted], alone, candidates)
    else:
        chosen = sorted({int(number) for number in candidates})

    both = work.measure(list(itertools.combinations(chosen, 2)))
    interaction = {p: each[p[0]] + each[p[1]] - drop for p, drop in both.items()}
    hidden = {number: np.zeros(len(question.metrics)) for number in wanted}
    for pair, drop in both.items():
        beyond = -interaction[pair]
        # A joint rise counts as a joint fall does: inputs may suppress an output together.
        stood_in = np.where(np.sign(drop) * beyond >= np.abs(drop) / 2, beyond, 0)
        for number in pair:
            larger = np.abs(stood_in) > np.abs(hidden[number])
            hidden[number] = np.where(larger, stood_in, hidden[number])
    score = {number: each[number] + hidden[number] / 2 for number in wanted}
    found = hidden_groups(
        question,
        chosen,
        {**kept_alone, **{(number,): drop for number, drop in each.items()}, **both},
        alone,
        single["joint_effect"].values,
        work.measure,
        only_chosen=not isinstance(candidates, int),
    )
    for group in found.groups:
        units, i = group["units"], group["output"]
        # What a larger group hides beyond pairs is shared as its members make it.
        rest = group["joint"] - sum(score[number][i] for number in units)
        if len(units) > 2 and rest * group["joint"] > 0:
            for number, part in pivotal_shares([tuple(m) for m in group["members"]]).items():
                score[number][i] += rest * part
    values = np.stack([score[number] for number in wanted], 1)
    attrs = {
        **single.attrs,
        **work.cost,
        "method": "single and pair removals",
        **({} if question.metric.distance else {"sign": f"{single.attrs['sign']} {SCORE_NOTE}"}),
        "candidates": chosen,
        "groups": found.groups,
        "group_sets": found.n_sets,
        "groups_complete": found.is_complete,
        "interaction_sign": INTERACTION_SIGN,
        "seconds": time.perf_counter() - began,
    }
    result = _result(question, single, values, alone, interaction, chosen, attrs)
    _warn(question, found.groups)
    return result


class _CountedDrops:
    """Measures drops of sets, and adds up what they cost."""

    def __init__(self, question: Question, removal: Removal, options: PassOptions) -> None:
        self.question, self.removal, self.options = question, removal, options
        self.cost = {"arms": 0, "passes": 0, "token_layers": 0, "token_layers_naive": 0}

    def add(self, attrs: Mapping[str, Any]) -> None:
        """Add the cost of another result."""
        for name in self.cost:
            self.cost[name] += int(attrs.get(name, 0))

    def measure(self, sets: Sequence[Members]) -> dict[Members, Float[np.ndarray, " output"]]:
        """The drops of those sets that can be removed."""
        asked = [s for s in sets if can_remove(self.question, s, self.removal)]
        if not asked:
            return {}
        measured = drops(self.question, asked, self.removal, **self.options)
        self.add(measured.attrs)
        return dict(zip(asked, measured["drop"].values.T, strict=True))


def _check_candidates(question: Question, candidates: int | Sequence[int]) -> None:
    wanted = question.attributed
    if len(wanted) < 2:
        raise ValueError(
            f"pairs: only {question.units[wanted[0]].text!r} is attributed, and a pair needs two "
            f"units. Use single removals (attribute), or smaller units."
        )
    if isinstance(candidates, int):
        if candidates < 2:
            raise ValueError(f"candidates={candidates}: a pair needs two. Give 2 or more.")
        return
    for number in candidates:
        if number not in wanted:
            shown = ", ".join(f"{n}: {question.units[n].text!r}" for n in wanted)
            raise ValueError(f"candidate {number} is not attributed. Choose among: {shown}.")
    if len(set(candidates)) < 2:
        raise ValueError(f"candidates={list(candidates)}: a pair needs two. Give 2 or more.")


def _alone(
    work: _CountedDrops,
) -> tuple[Float[np.ndarray, "output attributed"], dict[Members, Float[np.ndarray, " output"]]]:
    """What each unit does where all the others are removed, and the drops that tell it.

    Of units each of which is enough, every one has the whole effect here. Deletions make this
    cheap, since little is left to run. Effects are relative to the removal of all units, or, where
    that is impossible, to the largest drop measured.
    """
    wanted = work.question.attributed
    others = [tuple(n for n in wanted if n != number) for number in wanted]
    drop = work.measure([*others, tuple(wanted)])
    alone = np.full((len(work.question.metrics), len(wanted)), np.nan)
    if drop:
        whole = drop.get(tuple(wanted))
        base = np.max(list(drop.values()), 0) if whole is None else whole
        for at, chosen in enumerate(others):
            if chosen in drop:
                alone[:, at] = base - drop[chosen]
    return alone, drop


def _screened(question: Question, single: np.ndarray, alone: np.ndarray, most: int) -> list[int]:
    """The candidates: alternately the largest effects alone and single, with repeats of their text.

    Effects are relative to the largest of each output.
    """
    wanted = question.attributed
    texts = [question.units[number].text.strip().lower() for number in wanted]
    rankings = []
    for effect in (np.nan_to_num(alone), single):
        relative = np.abs(effect) / np.maximum(np.abs(effect).max(1, keepdims=True), 1e-12)
        rankings.append(np.argsort(-relative.max(0), kind="stable"))
    chosen: dict[int, None] = {}
    for at in np.stack(rankings, 1).ravel().tolist():
        if len(chosen) >= most:
            break
        chosen[at] = None
        for other in range(len(wanted)):
            is_word = any(map(str.isalnum, texts[at]))
            if is_word and texts[other] == texts[at] and len(chosen) < most:
                chosen[other] = None
    return sorted(wanted[at] for at in chosen)


def _result(
    question: Question,
    single: xr.DataArray,
    values: np.ndarray,
    alone: np.ndarray,
    interaction: Mapping[Members, np.ndarray],
    chosen: Sequence[int],
    attrs: Mapping[str, object],
) -> xr.Dataset:
    square = np.full((len(question.metrics), len(chosen), len(chosen)), np.nan)
    for (first, second), value in interaction.items():
        i, j = chosen.index(first), chosen.index(second)
        square[:, i, j] = square[:, j, i] = value
    joint = single["joint_effect"].values
    coords = {"bos_effect": single["bos_effect"].values, "joint_effect": joint}
    whole = label_scores(
        question, values, attrs, **coords, residual=additivity_residual(values, joint)
    )
    texts = [question.units[number].text for number in chosen]
    return xr.Dataset(
        {
            "score": whole,
            "single": whole.copy(data=single.values).assign_attrs(sign=single.attrs["sign"]),
            "alone": label_scores(question, alone, {}, **coords),
            "interaction": xr.DataArray(
                square,
                dims=("output", "first", "second"),
                coords={
                    "first": list(chosen),
                    "second": list(chosen),
                    "first_token": ("first", texts),
                    "second_token": ("second", texts),
                },
                attrs=no_support(INTERACTION_SIGN),
            ),
        },
        attrs={**attrs} | {name: whole.attrs[name] for name in ("unit", "prompt", "metric")},
    )


def _warn(question: Question, groups: Sequence[Group]) -> None:
    if groups:
        group = groups[0]
        text = {n: repr(question.units[n].text.strip()) for n in group["units"]}
        members = [" with ".join(text[n] for n in member) for member in sorted(group["members"])]
        *before, final = members
        caution(
            f"redundancy: {', '.join(before)} and {final} stand in for each other: together they "
            f"{'lower' if group['joint'] > 0 else 'raise'} "
            f"{question.output_texts[group['output']]!r} by {abs(group['joint']):.2f} "
            f"{question.metric.unit}, one at a time by {abs(group['sum']):.2f} in all.",
            RedundancyWarning,
        )
