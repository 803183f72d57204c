"""Words for prompts: those that are a single token of the model's tokenizer.

Every word that tasks exchange is one token. So clean and corrupt prompts are aligned, and all
prompts of a task have the same length.

>>> from mechinterp import load_model
>>> from mechinterp.tasks.words import single_token_ids
>>> model, words = load_model("toy:trigger"), ("book", "sesame", "drum")
>>> list(single_token_ids(model, "example", "objects", words, 2))
['book', 'sesame']
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from mechinterp.core.interrupts import holds_signals
from mechinterp.core.pairs import Pair
from mechinterp.core.prompts import Prompts
from mechinterp.models.model import Model, require_model
from mechinterp.models.tokenization import decoder, special_id, tokenize, tokenizer_of

Pick = TypeVar("Pick", bound=Hashable)


def split_words(words: str) -> tuple[str, ...]:
    """The words of a text, split at white space."""
    return tuple(words.split())


def single_token_ids(
    model: Model, task: str, kind: str, words: Iterable[str], need: int
) -> dict[str, int]:
    """The words that are one token inside a sentence, in order, with their token ids.

    Raises:
        ValueError: if there are fewer than `need`, or the model has no tokenizer.
    """
    require_model(model)
    if model.tokenizer is None:
        raise ValueError(
            f"{task}: its prompts are text, and this model has no tokenizer. Load it with "
            f"load_model(..., tokenizer=), or use repeated_tokens, which needs none."
        )
    text, found, asked = decoder(model), dict[str, int](), 0
    for word in words:
        asked += 1
        ids = continuation_ids(model, f" {word}")
        # The text tells a word from the token that stands for every unknown word.
        if ids is not None and len(ids) == 1 and text(ids[0]).strip() == word:
            found[word] = ids[0]
    if len(found) < need:
        raise ValueError(
            f"{task}: of its {asked} {kind} only {len(found)} are single tokens of this model's "
            f"tokenizer, and {need} are needed. Use a model with a larger vocabulary, or write "
            f"prompts of your own: tokenize(model, texts), then named(...)."
        )
    return found


@holds_signals
def continuation_ids(model: Model, text: str, left: str = "the") -> list[int] | None:
    """The ids of a text after `left`; None if the tokenizer merges the two or refuses one.

    Alone, a text can be tokenised differently: some tokenizers prepend a space.
    """
    try:
        alone, both = (
            list(tokenizer_of(model)(t, add_special_tokens=False)["input_ids"])
            for t in (left, left + text)
        )
    except Exception:  # an unknown word: the library raises no narrower class
        return None
    return both[len(alone) :] if both[: len(alone)] == alone else None


def tokenize_known(model: Model, task: str, texts: Sequence[str]) -> Prompts:
    """The prompts as `tokenize` makes them, after a check that all words are known.

    Raises:
        ValueError: if the tokenizer does not know a word, or the model's context is too short.
    """
    prompts = tokenize(model, list(texts))
    unknown = special_id(model, "unk")
    rows = zip(texts, prompts.tokens.tolist(), prompts.roles, strict=True)
    for text, ids, roles in rows:
        if any(i == unknown and role == "text" for i, role in zip(ids, roles, strict=False)):
            raise ValueError(
                f"{task}: this model's tokenizer does not know a word of {text!r}. "
                f"Use a model whose vocabulary has them all."
            )
    return prompts


def positions_of(prompts: Prompts, ids: Iterable[int], occurrence: int = 0) -> list[int]:
    """The position in each prompt of an occurrence (0: the first) of that prompt's token id.

    Raises:
        ValueError: if a prompt has fewer occurrences.
    """
    rows = zip(prompts.tokens.tolist(), prompts.lengths.tolist(), ids, strict=True)
    positions = []
    for number, (row, length, wanted) in enumerate(rows):
        found = [pos for pos, token in enumerate(row[:length]) if token == wanted]
        if occurrence >= len(found):
            raise ValueError(
                f"prompt {number} has {prompts.decode(wanted)!r} as a token at {found}, not "
                f"{occurrence + 1} times: this model's tokenizer joins the word with what stands "
                f"beside it, {list(prompts.token_text[number])}. Use another model."
            )
        positions.append(found[occurrence])
    return positions


def named_pair(clean: Prompts, corrupt: Prompts, **positions: Sequence[int] | int) -> Pair:
    """The pair, with these positions named in both prompts."""
    return Pair(clean.named(**positions), corrupt.named(**positions))


def draw_distinct(task: str, n: int, possible: int, pick: Callable[[], Pick]) -> list[Pick]:
    """`n` different picks, in the order in which they were drawn.

    `possible`: how many different ones `pick` can give.

    Raises:
        ValueError: if `n` is less than 1, or more than `possible`.
    """
    if not 1 <= n <= possible:
        raise ValueError(
            f"{task}: n={n} prompts were asked for, and with this model's tokenizer there are "
            f"{possible} different ones. Ask for 1 to {possible}."
        )
    found: dict[Pick, None] = {}
    while len(found) < n:
        found.setdefault(pick())
    return list(found)
