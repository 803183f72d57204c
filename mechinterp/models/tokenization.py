"""From text to `Prompts`: start tokens, chat templates, and the text of single tokens.

>>> from mechinterp import load_model
>>> from mechinterp.models.tokenization import tokenize
>>> prompts = tokenize(load_model("toy:trigger"), "please bring the sesame")
>>> prompts.token_text[0]
('<bos>', 'please', 'bring', 'the', 'sesame')
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Int
from jinja2 import TemplateError
from torch import Tensor

from mechinterp.core.cautions import caution
from mechinterp.core.indices import indices, is_index
from mechinterp.core.interrupts import holds_signals
from mechinterp.core.prompts import Prompts
from mechinterp.models.chats import Messages, PlainMessages, plain_messages
from mechinterp.models.facts import device
from mechinterp.models.model import Model, Tokenizer, require_model

NO_CHARACTER = "\ufffd"
"""How bytes are shown that are not a character by themselves."""

Ids = Int[Tensor, "..."] | Sequence[int] | Sequence[Sequence[int]]
Text = str | Sequence[str] | Messages | Sequence[Messages] | Ids | Prompts
"""What a prompt may be: text, texts, a chat, chats, token ids, or `Prompts`."""


def tokenize(model: Model, prompt: Text) -> Prompts:
    """Prompts as the model reads them: with its start token, and chats in its own template.

    Text gets the start token that the model expects, unless it begins with it already. A chat (a
    list of messages with "role" and "content") is rendered by the template, up to the opening of
    the assistant's turn; a content in parts of text is these texts joined. Nothing is truncated.

    Warns: if the tokenizer does not know a word, or drops characters for which it has no token.

    Raises:
        ValueError: if a prompt is empty or too long, or needs a tokenizer or a chat template that
            the model does not have.
    """
    require_model(model)
    if isinstance(prompt, Prompts):
        return check_length(model, prompt)
    if (given := _given_ids(prompt)) is not None:
        rows = [(row, _roles(model, row)) for row in given]
    else:
        several = _as_list(prompt)
        rows = [_encode(model, one, row) for row, one in enumerate(several)]
    prompts = Prompts.from_ids(
        [ids for ids, _ in rows],
        roles=[roles for _, roles in rows],
        decode=decoder(model),
        device=device(model),
    )
    return check_length(model, prompts)


def check_length(model: Model, prompts: Prompts) -> Prompts:
    """The same prompts, after a check that the model can run them.

    Raises:
        ValueError: if a prompt is longer than the context, holds an unknown token id, or differs in
            length from the others although the model is not causal.
    """
    if prompts.width > model.cfg.n_ctx:
        row = int(prompts.lengths.argmax())
        raise ValueError(
            f"prompt {row} has {prompts.width} tokens, more than the model's context of "
            f"{model.cfg.n_ctx}. Shorten it; nothing is cut off silently."
        )
    if int(prompts.tokens.min()) < 0 or int(prompts.tokens.max()) >= model.cfg.d_vocab:
        wrong = [i for i in prompts.tokens.flatten().tolist() if not 0 <= i < model.cfg.d_vocab]
        raise ValueError(f"token id {wrong[0]} is outside the vocabulary of {model.cfg.d_vocab}.")
    if model.cfg.attention_dir != "causal" and len(set(prompts.lengths.tolist())) > 1:
        raise ValueError("prompts of different lengths need a causal model; run them one by one.")
    return prompts


def decoder(model: Model) -> Callable[[int], str]:
    """The function from a token id to its text, with its leading space."""
    return str if model.tokenizer is None else Decoder(model.tokenizer)


class Decoder:
    """The text of tokens: one by one, or of a row of them `together`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}

    def __call__(self, token_id: int) -> str:
        """The text of one token id, with its leading space."""
        if token_id not in self._known:
            text = self._decode([token_id])
            piece = str(self._tokenizer.convert_ids_to_tokens(token_id))
            spaced = piece.startswith("▁") and text[:1] != " "
            self._known[token_id] = f" {text}" if spaced else text
        return self._known[token_id]

    def together(self, ids: Sequence[int]) -> tuple[str, ...]:
        """The text of each token of a row; joined, they are the text of the row.

        A character whose bytes are spread over several tokens counts as text of the first of them.
        """
        texts = [self(i) for i in ids]
        begin = 0
        while begin < len(ids):
            end = begin + 1
            while end < len(ids) and self._is_cut(ids[begin:end]) and NO_CHARACTER in texts[end]:
                end += 1
            if end > begin + 1 and not self._is_cut(ids[begin:end]):
                texts[begin:end] = self._shared(ids[begin:end])
                begin = end
            else:
                begin += 1
        return tuple(texts)

    def _is_cut(self, ids: Sequence[int]) -> bool:
        return NO_CHARACTER in (self(ids[0]) if len(ids) == 1 else self._decode(ids))

    def _shared(self, ids: Sequence[int]) -> list[str]:
        """The text divided among the tokens, each character to the token in which it begins."""
        whole, ends = self._decode(ids), []
        for n in range(1, len(ids) + 1):
            text = self._decode(ids[:n])
            done = text.rstrip(NO_CHARACTER)
            ends.append(len(done) + (text != done))
        return [whole[a:b] for a, b in zip([0, *ends], ends, strict=False)]

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def tokens_are_words(model: Model) -> bool:
    """True if every token is a word, so that token texts do not hold the spaces between them."""
    require_model(model)
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    return backend is not None and type(backend.model).__name__ == "WordLevel"


def token_id(model: Model, text: str) -> int:
    """The id of a text that is one token.

    Raises:
        ValueError: if it is several tokens, listing them, or an unknown word.
    """
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is no text: give the text of one token.")
    ids = known_ids(model, text)
    if len(ids) != 1:
        pieces = [decoder(model)(i) for i in ids]
        raise ValueError(
            f"{text!r} is {len(ids)} tokens {pieces}, not one. Mind the leading space."
        )
    return int(ids[0])


@holds_signals
def known_ids(model: Model, text: str) -> list[int]:
    """The token ids of a text, without a start token.

    Raises:
        ValueError: if the tokenizer does not know a word of it.
    """
    tokenizer, unknown_id = tokenizer_of(model), special_id(model, "unk")
    unknown = ValueError(f"the tokenizer does not know a word of {text!r}.")
    try:
        ids = [int(i) for i in tokenizer(text, add_special_tokens=False)["input_ids"]]
    except Exception as error:  # the library raises no narrower class
        raise unknown from error
    if unknown_id in ids and tokenizer.convert_ids_to_tokens(unknown_id) not in text:
        raise unknown
    return ids


def tokenizer_of(model: Model) -> Tokenizer:
    """The model's tokenizer.

    Raises:
        ValueError: if it has none.
    """
    require_model(model)
    if model.tokenizer is None:
        raise ValueError("this model has no tokenizer: give token ids, or load_model(tokenizer=).")
    return model.tokenizer


def special_id(model: Model, kind: Literal["bos", "unk", "eos"]) -> int | None:
    """The id of a special token; None if the tokenizer has no such token, or there is none."""
    found: int | None = getattr(model.tokenizer, f"{kind}_token_id", None)
    return found


def _given_ids(prompt: object) -> list[list[int]] | None:
    """The token ids, a list for each prompt, if that is what was given."""
    if isinstance(prompt, np.ndarray | Tensor):
        ids = prompt.reshape(1, -1) if prompt.ndim < 2 else prompt
        return [indices(row, f"prompt {n}", least=None) for n, row in enumerate(ids.tolist())]
    if not isinstance(prompt, Sequence) or isinstance(prompt, str) or not prompt:
        return None
    if not any(isinstance(one, str | Mapping) for one in prompt) and is_index(prompt[0]):
        return [indices(prompt, "prompt 0", least=None)]
    rows = [one.tolist() if isinstance(one, np.ndarray | Tensor) else one for one in prompt]
    if all(isinstance(row, Sequence) and row and is_index(row[0]) for row in rows):
        return [indices(row, f"prompt {n}", least=None) for n, row in enumerate(rows)]
    return None


def _as_list(prompt: object) -> Sequence[str | Messages]:
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, Sequence) and prompt:
        if all(isinstance(p, Mapping) for p in prompt):
            return [prompt]
        if all(isinstance(p, str | Sequence) for p in prompt):
            return prompt
    raise ValueError(
        f"{prompt!r} is not a prompt. Give a text, a list of texts, a chat "
        f'[{{"role": "user", "content": ...}}], token ids, or Prompts.'
    )


@holds_signals
def _encode(model: Model, one: str | Messages, row: int) -> tuple[list[int], list[str]]:
    if not one:
        raise ValueError(f"prompt {row} is empty. Give it at least one token.")
    if not isinstance(one, str):
        return _encode_chat(model, one, row)
    _check_whole(one, row)
    try:
        ids = list(tokenizer_of(model)(one, add_special_tokens=False)["input_ids"])
    except Exception as error:  # the library raises no narrower class
        raise ValueError(f"prompt {row}, {one!r}, does not tokenise: {error}") from error
    if not ids:
        raise ValueError(f"prompt {row} is empty. Give it at least one token.")
    _warn_of_unknown(model, one, ids, row)
    _warn_of_lost(tokenizer_of(model), one, ids, row)
    bos = _start_token(model)
    if bos is not None and ids[0] != bos:
        ids = [bos, *ids]
    return ids, _roles(model, ids)


def _check_whole(text: str, row: int) -> None:
    """Check that a text consists of characters: a byte that is not UTF-8 comes as half of one."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"prompt {row}, {text!r}: {text[error.start]!r}, at place {error.start}, is half a "
            f"character, or a byte that is not UTF-8. Give text in UTF-8."
        ) from None


def _warn_of_unknown(model: Model, text: str, ids: Sequence[int], row: int) -> None:
    """Warn of words that the model reads as its token for what it does not know."""
    unknown_id = special_id(model, "unk")
    if unknown_id is None or unknown_id not in ids:
        return
    tokenizer = tokenizer_of(model)
    if tokenizer.convert_ids_to_tokens(unknown_id) in text:
        return
    try:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        places = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        words = dict.fromkeys(text[begin:end] for i, (begin, end) in places if i == unknown_id)
    except NotImplementedError:  # a tokenizer in Python, which knows no places
        words = {text: None}
    named = ", ".join(repr(word) for word in words)
    caution(
        f"prompt {row}: the model does not know {named}: it reads "
        f"{tokenizer.convert_ids_to_tokens(unknown_id)} there.",
    )


def _warn_of_lost(tokenizer: Tokenizer, text: str, ids: Sequence[int], row: int) -> None:
    """Warn of characters that a byte-level tokenizer drops: some lack a token for rare bytes."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or type(backend.decoder).__name__ != "ByteLevel" or backend.normalizer:
        return
    read = tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
    if lost := "" if read == text else "".join(dict.fromkeys(c for c in text if c not in read)):
        caution(
            f"prompt {row}: the tokenizer has no token for {lost!r}: the model does not read it.",
        )


def _start_token(model: Model) -> int | None:
    """The token that the model expects first, if there is one."""
    return special_id(model, "bos") if model.cfg.default_prepend_bos else None


def _roles(model: Model, ids: Sequence[int]) -> list[str]:
    """ "bos" for a start token in the first place, "text" for all else."""
    starts = len(ids) > 0 and ids[0] == _start_token(model)
    return ["bos" if starts and pos == 0 else "text" for pos in range(len(ids))]


def _encode_chat(model: Model, messages: Messages, row: int) -> tuple[list[int], list[str]]:
    """Token ids and roles: "text" inside a message's content, "template" elsewhere."""
    tokenizer = tokenizer_of(model)
    if not tokenizer.chat_template:
        raise ValueError("this model has no chat template: give the prompt as text.")
    rendered, spans = _render_chat(tokenizer, plain_messages(messages))
    _check_whole(rendered, row)
    encoded = tokenizer(rendered, add_special_tokens=False, return_offsets_mapping=True)
    inside = [
        any(begin < stop and start < end for start, stop in spans)
        for begin, end in encoded["offset_mapping"]
    ]
    _warn_of_unknown(model, rendered, encoded["input_ids"], row)
    _warn_of_lost(tokenizer, rendered, encoded["input_ids"], row)
    return list(encoded["input_ids"]), ["text" if i else "template" for i in inside]


def _render_chat(
    tokenizer: Tokenizer, messages: PlainMessages
) -> tuple[str, list[tuple[int, int]]]:
    """The messages as the template renders them, and where the contents lie in that text.

    Found by rendering marks in place of the contents, since the template may contain the same word.
    A content without text keeps its place, since a template may leave out its message.
    """

    def render(contents: Sequence[str]) -> str:
        filled = [{**m, "content": c} for m, c in zip(messages, contents, strict=True)]
        try:
            return str(
                tokenizer.apply_chat_template(filled, tokenize=False, add_generation_prompt=True)
            )
        except (TemplateError, TypeError) as error:
            raise ValueError(f"the chat template does not take these messages: {error}.") from error

    contents = [str(m["content"]) for m in messages]
    rendered = render(contents)
    marks = [f"\ue000{n}\ue001" if c.strip() else c for n, c in enumerate(contents)]
    rest, cursor, spans = render(marks), 0, []
    shown_ones = [(c, mark) for c, mark in zip(contents, marks, strict=True) if c.strip()]
    for content, mark in shown_ones:
        before, _, rest = rest.partition(mark)
        begin = cursor + len(before)
        # Some templates strip the white space around a content.
        shown = content if rendered.startswith(before + content, cursor) else content.strip()
        if not rendered.startswith(before + shown, cursor):
            break
        cursor = begin + len(shown)
        spans.append((begin, cursor))
    if len(spans) < len(shown_ones) or rendered[cursor:] != rest:
        content = shown_ones[min(len(spans), len(shown_ones) - 1)][0]
        raise ValueError(
            f"the chat template does not show {content!r} as written, so its tokens cannot be "
            f"told from the template's. Render the chat yourself and give text."
        )
    return rendered, spans


def ordinary_tokens(model: Model) -> list[int]:
    """The ids of all tokens that are not special tokens."""
    require_model(model)
    tokenizer = model.tokenizer
    if tokenizer is None:
        return list(range(model.cfg.d_vocab))
    added = tokenizer.added_tokens_decoder.items()
    special = {*tokenizer.all_special_ids, *(i for i, token in added if token.special)}
    # The embedding may have more rows than the vocabulary: padding that no text reaches.
    return [i for i in range(min(model.cfg.d_vocab, len(tokenizer))) if i not in special]


def start_token(model: Model) -> list[int]:
    """The start token that `tokenize` would add, as a list of one id or none."""
    bos = _start_token(model)
    return [] if bos is None else [int(bos)]
