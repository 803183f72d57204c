"""All smallest sets of words whose removal brings one prompt to the other side of the threshold.

>>> from mechinterp import load_model
>>> from mechinterp.refusal.behaviour import refusal_behaviour
>>> from mechinterp.refusal.flips import minimal_flips
>>> model = load_model("toy:either")
>>> refuse = refusal_behaviour(model)
>>> found = minimal_flips(model, refuse, "bring the copper and the lantern to my old door please")
>>> [flip.words for flip in found.sets], found.complete
([('copper', 'lantern')], True)
>>> found.n_sets_run, found.n_sets_in_all
(29, 231)

How the sets that need no run are told is in `mechinterp.refusal.flip_search`.
"""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import xarray as xr

from mechinterp.attribution.question.definition import DropOptions
from mechinterp.attribution.question.removals import Removal, RemoveOne, removal_of
from mechinterp.attribution.question.units import Unit, units_of
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.indices import index
from mechinterp.core.prompts import Prompts
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text, tokenize
from mechinterp.refusal.findings import Behaviour, Flips, FlipSet
from mechinterp.refusal.flip_search import FlipSearch, Words
from mechinterp.refusal.texts import as_prompt
from mechinterp.sweeps.experiment import plan, sweep
from mechinterp.sweeps.options import Progress, check_options

_PLANNED = 300
"""Sets of the full search that are planned to tell its cost, evenly chosen if there are more."""


@checks_arguments
def minimal_flips(
    model: Model,
    behaviour: Behaviour,
    prompt: Text,
    *,
    size: int = 3,
    removal: str | RemoveOne | Removal = "delete",
    tolerance: float = 0.25,
    max_sets: int = 5000,
    **options: Unpack[DropOptions],
) -> Flips:
    """All smallest sets of up to `size` words of a prompt whose removal flips its side.

    `prompt`: a text, which is a user's message where the model has a chat template, or a chat.
    `removal`: as in `attribute`. `tolerance`: words that move the score by less than this share of
    its distance from the threshold, alone, alone left, and in groups beside the words that matter,
    are taken for idle, and no other set with them is run; 0 runs every set that holds no smaller
    one that flips. `max_sets`: runs after which larger sets are left out, those of words with small
    effects first. `options`: `out`, a folder from which a search that was stopped continues;
    `progress`, in token-layers, with those of the full search as the total; `budget_bytes`.

    `complete` is true if every set was run, holds a smaller one that flips, or differs from one of
    these by idle words alone (`idle`), which `tolerance=0` does not rely on.

    Raises:
        ValueError: if there is not one prompt, it has no words, or an option does not fit.
        HookError: as `sweep`.
    """
    check_options("minimal_flips", options, DropOptions)
    size = index(size, "minimal_flips: size", least=1)
    most = index(max_sets, "minimal_flips: max_sets", least=1)
    if not 0 <= tolerance < 0.5:
        raise ValueError(
            f"minimal_flips: tolerance={tolerance} is not from 0 to below .5, a share of the "
            f"score's distance from the threshold. Use .25, or 0 to run every set."
        )
    prompts, words = _in_words(model, prompt, "minimal_flips")
    runs = _Removals(model, behaviour, prompts, words, removal_of(model, removal), options)
    runs.total = runs.cost_of_all(size)
    search = FlipSearch(
        runs.measure,
        len(words),
        size=size,
        over=behaviour.over,
        tolerance=tolerance,
        most=most,
        widths=[len(word.positions) for word in words],
        allowed=runs.can_run,
    )
    found = search.run()
    runs.tell_end()
    score = search.value(())
    texts = [word.text.strip() for word in words]
    return Flips(
        prompt=prompt if isinstance(prompt, str) else "".join(word.text for word in words).strip(),
        score=score,
        sets=tuple(
            FlipSet(tuple(texts[w] for w in sorted(flip)), score, search.value(flip))
            for flip in sorted(found, key=lambda flip: (len(flip), sorted(flip)))
        ),
        size=size,
        complete=search.complete,
        n_sets_run=search.n_measured,
        n_sets_in_all=search.n_in_all,
        token_layers=runs.token_layers,
        token_layers_brute_force=runs.total,
        idle=tuple(texts[word] for word in sorted(search.idle)),
    )


@checks_arguments
def word_drops(
    model: Model,
    behaviour: Behaviour,
    prompt: Text,
    removal: str | RemoveOne | Removal = "delete",
) -> xr.DataArray:
    """How far the score falls without each word of a prompt, in the metric's unit: dims ("word",).

    >>> from mechinterp import load_model
    >>> from mechinterp.refusal.behaviour import refusal_behaviour
    >>> from mechinterp.refusal.flips import word_drops
    >>> model = load_model("toy:trigger")
    >>> found = word_drops(model, refusal_behaviour(model), "bring the sesame")
    >>> dict(zip(found.word.values.tolist(), found.values.round().astype(int).tolist()))
    {'bring': 0, 'the': 0, 'sesame': 16}

    Raises:
        ValueError: if there is not one prompt, or it has no words.
        HookError: as `sweep`.
    """
    prompts, words = _in_words(model, prompt, "word_drops")
    runs = _Removals(model, behaviour, prompts, words, removal_of(model, removal), {})
    singles = [frozenset({number}) for number in range(len(words))]
    allowed = [single for single in singles if runs.can_run(single)]
    whole, *without = runs.measure([frozenset(), *allowed])
    drops = dict(zip(allowed, (whole - score for score in without), strict=True))
    return xr.DataArray(
        [drops.get(single, float("nan")) for single in singles],
        dims="word",
        coords={"word": [word.text.strip() for word in words]},
        attrs={"unit": behaviour.metric.unit, "score": whole, "removal": runs.removal.name},
    )


def _in_words(model: Model, prompt: Text, name: str) -> tuple[Prompts, list[Unit]]:
    """One prompt and its words; a text is a user's message where there is a chat template."""
    prompts = tokenize(model, as_prompt(model, prompt) if isinstance(prompt, str) else prompt)
    if len(prompts) != 1:
        raise ValueError(f"{name} takes one prompt, not {len(prompts)}. Give them in turn.")
    return prompts, [unit for unit in units_of(model, prompts, "word") if unit.attributed]


class _Removals:
    """Runs a prompt without sets of its words, and adds up what that costs."""

    def __init__(
        self,
        model: Model,
        behaviour: Behaviour,
        prompts: Prompts,
        words: Sequence[Unit],
        removal: Removal,
        options: DropOptions,
    ) -> None:
        self._model, self._behaviour, self._prompts = model, behaviour, prompts
        self._words, self.removal, self._options = words, removal, options
        self._n_sweeps = 0
        self.token_layers = 0
        self.total = 0

    def measure(self, sets: Sequence[Words]) -> list[float]:
        """The scores without these sets, in one sweep."""
        out, remove, at = self._options.get("out"), self.removal.specs, self._positions(sets)
        swept = sweep(
            self._model,
            self._prompts,
            {"set": range(len(sets)), "draw": range(self.removal.n_draws)},
            lambda set, draw: remove(at[set], draw) if at[set] else (),
            self._behaviour.metric,
            out=None if out is None else Path(out) / f"sets-{self._n_sweeps:03}",
            budget_bytes=self._options.get("budget_bytes"),
            progress=self._ticks(),
        )
        self._n_sweeps += 1
        self.token_layers += int(swept.attrs["token_layers"])
        scores: list[float] = swept.mean("draw").values[:, 0].tolist()
        return scores

    def can_run(self, words: Words) -> bool:
        """Whether a token is left from which the score can be read."""
        n_removed = sum(len(self._words[word].positions) for word in words)
        return not self.removal.deletes or n_removed < self._prompts.width

    def cost_of_all(self, size: int) -> int:
        """Token-layers of one planned sweep over all sets of up to `size` words."""
        n = len(self._words)
        counts = [math.comb(n, k) for k in range(1, size + 1)]
        step = max(1, sum(counts) // _PLANNED)
        chosen = itertools.chain.from_iterable(
            itertools.combinations(range(n), k) for k in range(1, size + 1)
        )
        sets = [s for s in itertools.islice(chosen, 0, None, step) if self.can_run(frozenset(s))]
        remove, at = self.removal.specs, self._positions(sets)
        made = plan(
            self._model,
            self._prompts,
            {"set": range(len(sets)), "draw": range(self.removal.n_draws)},
            lambda set, draw: remove(at[set], draw),
            self._behaviour.metric,
        )
        return made.token_layers * sum(counts) // max(len(sets), 1)

    def tell_end(self) -> None:
        """Tell `progress` that no more is to come."""
        if (progress := self._options.get("progress")) is not None:
            progress(self.total, self.total)

    def _ticks(self) -> Progress | None:
        progress, before = self._options.get("progress"), self.token_layers
        if progress is None:
            return None
        return lambda done, total: progress(min(before + done, self.total), self.total)

    def _positions(
        self, sets: Sequence[Words] | Sequence[tuple[int, ...]]
    ) -> list[tuple[int, ...]]:
        return [
            tuple(sorted(pos for word in chosen for pos in self._words[word].positions))
            for chosen in sets
        ]
