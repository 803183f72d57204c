"""Which words a task may use: those that are one token for the model, wherever they stand.

Clean and corrupt prompts are aligned, and all prompts of a task are as long as each other, because
every word that is exchanged is one token. Which words are, only the tokenizer can say.

>>> from mechinterp import load_model
>>> from mechinterp.tasks.words import one_token
>>> list(one_token(load_model("toy:trigger"), "example", "objects", ("book", "sesame", "drum"), 2))
['book', 'sesame']
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from mechinterp.core.pairs import Pair
from mechinterp.core.prompts import Prompts
from mechinterp.models.model import Model
from mechinterp.models.tokenization import decoder, tokenize

Pick = TypeVar("Pick", bound=Hashable)


def listed(words: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(words.split())


def one_token(
    model: Model, task: str, kind: str, words: Iterable[str], need: int
) -> dict[str, int]:
    """Those of the words that are one token inside a sentence, in order, with its id.

    Raises:
        ValueError: if fewer than `need` are, or the model has no tokenizer.
    """
    if model.tokenizer is None:
        raise ValueError(
            f"{task}: its prompts are text, and this model has no tokenizer. Load it with "
            f"load_model(..., tokenizer=), or use repeated_tokens, which needs none."
        )
    text, found, asked = decoder(model), dict[str, int](), 0
    for word in words:
        asked += 1
        ids = continuation(model, f" {word}")
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


def continuation(model: Model, text: str, left: str = "the") -> list[int] | None:
    """The ids of a text where it follows `left`; None if the tokenizer joins or refuses them.

    A text alone may tokenise differently: some tokenizers put a space of their own before it.
    """
    try:
        alone, both = (
            list(model.tokenizer(t, add_special_tokens=False)["input_ids"])
            for t in (left, left + text)
        )
    except Exception:  # an unknown word: the library raises no narrower class
        return None
    return both[len(alone) :] if both[: len(alone)] == alone else None


def tokenized(model: Model, task: str, texts: Sequence[str]) -> Prompts:
    """The prompts, as `tokenize` makes them.

    Raises:
        ValueError: if the tokenizer does not know a word, or the model's context is too short.
    """
    prompts = tokenize(model, list(texts))
    unknown = model.tokenizer.unk_token_id
    rows = zip(texts, prompts.tokens.tolist(), prompts.roles, strict=True)
    for text, ids, roles in rows:
        if any(i == unknown and role == "text" for i, role in zip(ids, roles, strict=False)):
            raise ValueError(
                f"{task}: this model's tokenizer does not know a word of {text!r}. "
                f"Use a model whose vocabulary has them all."
            )
    return prompts


def where(prompts: Prompts, ids: Iterable[int], occurrence: int = 0) -> list[int]:
    """The position, in each prompt, of an occurrence of that prompt's token id.

    Raises:
        ValueError: if a prompt does not have it so often.
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
    """The pair with these positions named in both."""
    return Pair(clean.named(**positions), corrupt.named(**positions))


def distinct(task: str, n: int, possible: int, pick: Callable[[], Pick]) -> list[Pick]:
    """`n` different picks, in the order in which they came up.

    `possible`: how many different ones `pick` can give.

    Raises:
        ValueError: if there are not so many, or none is asked for.
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
