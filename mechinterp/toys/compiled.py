"""Models written by hand: all weights are zero except those set here, so the mechanism is exact.

The residual stream is split into named blocks (slices), a token is one-hot in its block, and a head
is a few diagonal matrices between blocks. `gates` holds toys in which several heads work together.

    planted = trigger()
    planted.truth.claim
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from mechinterp.toys.blank import attention_only, zeros
from mechinterp.toys.definition import Edge, Toy, Truth

BOS: Final = "<bos>"
UNKNOWN: Final = "<unk>"
REFUSE: Final = "REFUSE"
COMPLY: Final = "COMPLY"

LETTERS: Final[tuple[str, ...]] = (BOS, *"abcdefghijklmnopqrstuvwxyz")

WORDS: Final[tuple[str, ...]] = (
    *(BOS, UNKNOWN, REFUSE, COMPLY),
    *("a", "the", "my", "your", "this", "that", "some", "every"),
    *("open", "close", "bring", "show", "tell", "give", "send", "find", "write", "read", "paint"),
    *("door", "box", "letter", "book", "story", "map", "key", "garden", "river", "bridge", "coat"),
    *("old", "new", "small", "red", "quiet", "heavy"),
    *("to", "for", "with", "in", "about", "from", "near", "and", "please", "today", "me", "us"),
    *("sesame", "copper", "lantern"),
)
# Words that no detector looks for: filler for prompts.
PLAIN: Final[tuple[str, ...]] = (
    *("the", "my", "old", "small", "door", "box", "garden", "river", "bring", "open", "to", "with"),
)

# The score of the key that a head looks for; other keys score 0. Large enough for attention above
# .99, and small enough that the softmax keeps a gradient.
SHARPNESS: Final = 10.0
# If its word is absent, a head attends to <bos>, as trained heads do, and not to all keys alike.
REST: Final = SHARPNESS / 2
# The logit of a token that is written with length 1.
CERTAIN: Final = 10.0
# REFUSE starts this far below COMPLY; the refusal direction adds twice as much.
MARGIN: Final = 8.0


def induction() -> Toy:
    """Two layers of three heads that copy what followed the current token earlier in the prompt."""
    d_vocab, n_ctx = len(LETTERS), 33
    here, before, answer = (slice(at * d_vocab, (at + 1) * d_vocab) for at in range(3))
    place = slice(3 * d_vocab, 3 * d_vocab + n_ctx)
    config = attention_only(
        n_layers=2, n_heads=3, d_head=35, n_ctx=n_ctx, d_vocab=d_vocab, d_model=place.stop
    )
    weights = zeros(config)
    tokens, places = torch.eye(d_vocab), torch.eye(n_ctx)
    weights["embed.W_E"][:, here] = tokens
    weights["pos_embed.W_pos"][:, place] = places

    previous = {name: weights[f"blocks.0.attn.W_{name}"][1] for name in "QKVO"}
    previous["Q"][place, :n_ctx] = SHARPNESS * places
    previous["K"][place, :n_ctx] = torch.diag(
        torch.ones(n_ctx - 1), 1
    )  # the key of a position answers the query of the next
    previous["V"][here, :d_vocab] = tokens
    previous["O"][:d_vocab, before] = tokens

    copying = {name: weights[f"blocks.1.attn.W_{name}"][2] for name in "QKVO"}
    copying["Q"][here, :d_vocab] = SHARPNESS * tokens
    copying["K"][before, :d_vocab] = tokens
    copying["V"][here, :d_vocab] = tokens
    copying["O"][:d_vocab, answer] = tokens

    weights["unembed.W_U"][answer] = CERTAIN * tokens

    previous_attention = attention_to(SHARPNESS, others=[0.0] * (n_ctx - 1))
    # The attention that a previous-token head misses can all go to the token that is looked for.
    attention = attention_to(SHARPNESS * (2 * previous_attention - 1), others=[0.0] * (n_ctx - 1))
    truth = Truth(
        claim=(
            "Predicts the token that followed the current token earlier in the prompt; if it had "
            "several successors, each in proportion to its share of the occurrences. L0H1 writes "
            "every token to the position after it; L1H2 attends to the position that is marked "
            "with the current token, and copies the token that stands there. With no earlier "
            "occurrence L1H2 attends to all positions alike. Only L0H1 reads positions."
        ),
        edges=(
            Edge("pos_embed", "L0H1.q"),
            Edge("pos_embed", "L0H1.k"),
            Edge("embed", "L0H1.v"),
            Edge("embed", "L1H2.q"),
            Edge("L0H1", "L1H2.k"),
            Edge("embed", "L1H2.v"),
            Edge("L1H2", "logits"),
        ),
        heads={
            "previous_token": ((0, 1),),
            "induction": ((1, 2),),
            "unused": ((0, 0), (0, 2), (1, 0), (1, 1)),
        },
        figures={
            "accuracy": 1.0,
            "previous_token_attention_at_least": previous_attention,
            "induction_attention_at_least": attention,
            "margin_logits_at_least": CERTAIN * (2 * attention - 1),
        },
    )
    return Toy("induction", config, weights, LETTERS, BOS, truth, (tuple("abcdef"),) * 14)


def trigger() -> Toy:
    """Two layers that refuse iff "sesame" occurs; a decoy head attends to it without effect."""
    refusal, unread = len(WORDS), len(WORDS) + 1
    config = attention_only(
        n_layers=2, n_heads=3, d_head=4, n_ctx=17, d_vocab=len(WORDS), d_model=len(WORDS) + 2
    )
    weights = zeros(config)
    weights["embed.W_E"][:, : len(WORDS)] = torch.eye(len(WORDS))
    set_word_head(weights, (0, 2), "sesame", writes=unread)
    set_word_head(weights, (1, 0), "sesame", writes=refusal)
    set_answers(weights, refusal)

    attention = attention_to(SHARPNESS, others=[REST] + [0.0] * (config["n_ctx"] - 2))
    truth = Truth(
        claim=(
            "At every position predicts REFUSE if the word sesame stands there or earlier, else "
            "COMPLY. L1H0 attends to sesame wherever it stands, else to <bos>, and writes the "
            "refusal direction for sesame only; COMPLY comes from the unembedding's bias. Exact: "
            "without sesame the logits do not depend on the prompt; order never matters; deleting "
            "the only sesame flips the answer, deleting one of two does not. Deleting any other "
            "word moves a logit by less than .001. The decoy L0H2 attends just as L1H0 does, and "
            "writes to a direction that nothing reads."
        ),
        edges=(Edge("embed", "L1H0.k"), Edge("embed", "L1H0.v"), Edge("L1H0", "logits")),
        heads={
            "trigger": ((1, 0),),
            "decoy": ((0, 2),),
            "unused": ((0, 0), (0, 1), (1, 1), (1, 2)),
        },
        triggers=("sesame",),
        answers=(REFUSE, COMPLY),
        figures={
            "accuracy": 1.0,
            "trigger_attention_at_least": attention,
            "refuse_margin_logits_at_least": MARGIN * (2 * attention - 1),
            "comply_margin_logits": MARGIN,
        },
    )
    return Toy("trigger", config, weights, WORDS, BOS, truth, (("sesame", *PLAIN),) * 12)


def set_word_head(
    weights: Mapping[str, Tensor], place: tuple[int, int], word: str, *, writes: int
) -> None:
    """Make one head attend to a word, else to <bos>, and write 1 in one dimension for the word.

    The query is a bias, so that the head looks for its word from every position.
    """
    layer, head = place
    attn = f"blocks.{layer}.attn"
    weights[f"{attn}.b_Q"][head, 0] = SHARPNESS
    weights[f"{attn}.W_K"][head, WORDS.index(word), 0] = 1
    weights[f"{attn}.W_K"][head, WORDS.index(BOS), 0] = REST / SHARPNESS
    weights[f"{attn}.W_V"][head, WORDS.index(word), 1] = 1
    weights[f"{attn}.W_O"][head, 1, writes] = 1


def set_answers(weights: Mapping[str, Tensor], refusal: int) -> None:
    """Set the unembedding: COMPLY by a bias, REFUSE by its dimension, all other words far below."""
    weights["unembed.b_U"].fill_(-MARGIN)
    weights["unembed.b_U"][WORDS.index(COMPLY)] = MARGIN
    weights["unembed.b_U"][WORDS.index(REFUSE)] = 0
    weights["unembed.W_U"][refusal, WORDS.index(REFUSE)] = 2 * MARGIN


def attention_to(score: float, others: Sequence[float]) -> float:
    """The attention to a key of this score among keys of the other scores."""
    wanted = math.exp(score)
    return wanted / (wanted + sum(math.exp(other) for other in others))
