"""Whether a prompt and what follows it would be other tokens if they were written as one text.

>>> from mechinterp import load_model, tokenize
>>> from mechinterp.models.continuations import joined_otherwise
>>> model = load_model("toy:trigger")
>>> joined_otherwise(model, tokenize(model, "bring the sesame"), "REFUSE") is None
True

A model has hardly seen a text in tokens that its tokenizer does not make: after "France is " it
says little of "Paris", since the space and the word are one token.
"""

from mechinterp.core.prompts import Prompts
from mechinterp.models.model import Model
from mechinterp.models.tokenization import decoder, known_ids, tokenizer_of


def joined_otherwise(model: Model, prompts: Prompts, text: str) -> str | None:
    """A sentence for a warning, if the tokenizer would join a prompt and the text after it.

    `prompts`: one prompt. None if they are the same tokens together, or the tokens of the prompt
    are not those of its text in the first place.

    Raises:
        ValueError: if the tokenizer does not know a word of the text.
    """
    n = int(prompts.lengths[0])
    before = prompts.tokens[0, prompts.roles[0].count("bos") : n].tolist()
    apart = [*before, *known_ids(model, text)]
    joined = _as_written(model, apart)
    if joined is None or joined == apart or _as_written(model, before) != before:
        return None
    pairs = enumerate(zip(apart, joined, strict=False))
    same = next((at for at, (a, b) in pairs if a != b), min(len(apart), len(joined)))
    decode = decoder(model)
    here, there = ([decode(token) for token in ids[same:]] for ids in (apart, joined))
    return (
        f"{text!r} is not what the model has seen after this prompt: the tokens {here} would be "
        f"{there} if both were one text. If the prompt ends in white space, end it before that, "
        f"and begin what follows with it."
    )


def _as_written(model: Model, ids: list[int]) -> list[int] | None:
    """The tokens of the text of these tokens; None if the tokenizer does not know a word."""
    text = tokenizer_of(model).decode(ids, clean_up_tokenization_spaces=False)
    try:
        return known_ids(model, str(text))
    except ValueError:
        return None
