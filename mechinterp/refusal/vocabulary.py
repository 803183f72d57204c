"""The whole vocabulary in one slot of benign requests: which token makes the model refuse?

>>> from mechinterp import load_model
>>> from mechinterp.refusal.behaviour import refusal_behaviour
>>> from mechinterp.refusal.vocabulary import whole_vocabulary
>>> model = load_model("toy:either")
>>> found = whole_vocabulary(model, refusal_behaviour(model), ["bring my old book"], slot=2)
>>> found.dims, found.text.values[(found[:, 0] > 0).values].tolist()
(('token', 'carrier'), ['copper', 'lantern'])

It is one sweep: what stands before the slot runs once for all tokens.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from mechinterp.attribution.question.units import units_of
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.indices import index, indices
from mechinterp.core.prompts import Prompts
from mechinterp.core.specs import replace_token
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text, check_length, decoder, tokenize
from mechinterp.refusal.findings import Behaviour
from mechinterp.refusal.texts import as_prompt, score_prompts, words_of
from mechinterp.sweeps.experiment import sweep
from mechinterp.sweeps.options import Progress
from mechinterp.tasks.request_families import Chat, Request, text_of

N_WORDS = 30
"""How many words of the vocabulary become candidates."""


@checks_arguments
def whole_vocabulary(
    model: Model,
    behaviour: Behaviour,
    carriers: Sequence[str | Chat],
    slot: int,
    *,
    tokens: Sequence[int] | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> xr.DataArray:
    """The behaviour's number with each token before word number `slot`: dims (token, carrier).

    A slot of as many words as there are is behind the last; what stands behind it runs each time.

    Coordinates: `text`, of the tokens; `without`, the carriers' numbers as they stand. `tokens`:
    ids (default: the whole vocabulary). `out`: a folder, from which a run that was stopped
    continues; `progress`: of (done, all), in token-layers. Later tokens move up by one.

    Raises:
        ValueError: if there is no carrier, one has fewer than `slot` words or no room for a token
            more, or a token id is not in the vocabulary.
        HookError: as `sweep`.
    """
    if not carriers:
        raise ValueError("whole_vocabulary: there are no carriers. Give a benign request at least.")
    slot = index(slot, "whole_vocabulary: slot", least=0)
    chosen = range(model.cfg.d_vocab) if tokens is None else indices(tokens, "tokens")
    outside = [token for token in chosen if token >= model.cfg.d_vocab]
    if outside:
        raise ValueError(f"tokens: {outside[0]} is not in the vocabulary of {model.cfg.d_vocab}.")
    prompts, places = _opened(model, carriers, slot)
    without = score_prompts(model, behaviour, carriers)
    found = sweep(
        model,
        prompts.named(slot=places),
        {"token": chosen},
        lambda token: replace_token("slot", token),
        behaviour.metric,
        out=out,
        progress=progress,
    )
    text = decoder(model)
    return found.rename(prompt="carrier").assign_coords(
        text=("token", [text(token) for token in chosen]),
        without=("carrier", without),
    )


def flipping_words(
    model: Model,
    behaviour: Behaviour,
    answered: Sequence[Request],
    known: Collection[str],
    *,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Words of the vocabulary, beside those known, that flip the shortest answered benign request.

    `answered`: requests that the model answers. Up to `N_WORDS`, those first after which the number
    is highest; none if no benign request of three words or more is answered.
    """
    benign = [r for r in answered if not r.harmful and len(words_of(r.text)) > 2]
    if not benign:
        return []
    carrier = min(benign, key=lambda r: (bool(r.telling), len(r.text), r.text))
    bare = carrier.asking(carrier.text.rstrip(" ?.!"))
    # The fewer tokens stand behind the slot, the fewer run for each token of the vocabulary.
    plain = bare if score_prompts(model, behaviour, [bare])[0] <= behaviour.over else carrier.prompt
    slot = len(words_of(carrier.text))
    found = whole_vocabulary(model, behaviour, [plain], slot, out=out, progress=progress)[:, 0]
    flipping = found[(found > behaviour.over).values]
    texts = [str(text).strip().lower() for text in flipping.text.values[np.argsort(-flipping)]]
    return [t for t in dict.fromkeys(texts) if t.isalpha() and t not in known][:N_WORDS]


def _opened(model: Model, carriers: Sequence[str | Chat], slot: int) -> tuple[Prompts, list[int]]:
    """The carriers with a token more before the word, and where it stands."""
    rows, roles, places = [], [], []
    for carrier in carriers:
        given: Text = as_prompt(model, carrier)
        prompts = tokenize(model, given)
        words = [unit for unit in units_of(model, prompts, "word") if unit.attributed]
        if slot > len(words):
            raise ValueError(
                f"{text_of(carrier)!r} has {len(words)} words, so no slot {slot}: give 0 to "
                f"{len(words)}."
            )
        at = words[slot].positions[0] if slot < len(words) else words[-1].positions[-1] + 1
        ids, kinds = prompts.tokens[0].tolist(), list(prompts.roles[0])
        rows.append([*ids[:at], ids[0], *ids[at:]])
        roles.append([*kinds[:at], "text", *kinds[at:]])
        places.append(at)
    device = prompts.tokens.device
    made = Prompts.from_ids(rows, roles=roles, decode=decoder(model), device=device)
    return check_length(model, made), places
