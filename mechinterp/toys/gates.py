"""Compiled detectors with several heads: AND, OR, and two ways in which a head replaces another.

In `both` and `either` two heads look for two words. In `redundant` two heads look for the same
word, and the neurons that read them saturate. In `backup` the second head works only if the first
found nothing.

    backup().truth.redundant
"""

import itertools
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from mechinterp.toys.blank import Config, attention_only, with_mlps, zeros
from mechinterp.toys.compiled import (
    BOS,
    COMPLY,
    MARGIN,
    PLAIN,
    REFUSE,
    REST,
    SHARPNESS,
    WORDS,
    attention_to,
    set_answers,
    set_word_head,
)
from mechinterp.toys.definition import Edge, Toy, Truth

TWO_WORDS: Final = (("copper", "lantern", *PLAIN),) * 12
ONE_WORD: Final = (("sesame", *PLAIN),) * 12


def both() -> Toy:
    """One layer with an MLP that refuses iff "copper" and "lantern" both occur."""
    neuron = 3
    config, weights, attention = _two_words(
        {"n_heads": 4, "d_head": 2, "n_ctx": 19, "d_mlp": 5},
        heads={1: "copper", 2: "lantern"},
        neurons={neuron: (1, 1, 1)},
    )
    truth = Truth(
        claim=(
            "At every position predicts REFUSE if the words copper and lantern both stand there or "
            "earlier, else COMPLY. L0H1 attends to copper, L0H2 to lantern, else to <bos>; each "
            "writes 1 for its word; neuron 3 is relu(sum - 1) and writes the refusal direction. "
            "Exact: unless both occur the logits do not depend on the prompt; order never matters; "
            "deleting the only copper or the only lantern flips the answer. Deleting any other "
            "word moves a logit by less than .002."
        ),
        edges=(
            Edge("embed", "L0H1.k"),
            Edge("embed", "L0H1.v"),
            Edge("embed", "L0H2.k"),
            Edge("embed", "L0H2.v"),
            Edge("L0H1", "L0.mlp"),
            Edge("L0H2", "L0.mlp"),
            Edge("L0.mlp", "logits"),
        ),
        heads={
            "first_word": ((0, 1),),
            "second_word": ((0, 2),),
            "unused": ((0, 0), (0, 3)),
        },
        neurons={"and": ((0, neuron),), "unused": ((0, 0), (0, 1), (0, 2), (0, 4))},
        triggers=("copper", "lantern"),
        answers=(REFUSE, COMPLY),
        figures={
            "accuracy": 1.0,
            "trigger_attention_at_least": attention,
            "refuse_margin_logits_at_least": MARGIN * (4 * attention - 3),
            "comply_margin_logits": MARGIN,
        },
    )
    return Toy("and", config, weights, WORDS, BOS, truth, TWO_WORDS)


def either() -> Toy:
    """One layer with an MLP that refuses iff "copper" or "lantern" occurs: one is enough."""
    found, surplus = 2, 5
    config, weights, attention = _two_words(
        {"n_heads": 5, "d_head": 3, "n_ctx": 23, "d_mlp": 7},
        heads={0: "copper", 3: "lantern"},
        neurons={found: (1, 0, 1), surplus: (1, 1, -1)},
    )
    truth = Truth(
        claim=(
            "At every position predicts REFUSE if the word copper or the word lantern stands there "
            "or earlier, else COMPLY. L0H0 attends to copper, L0H3 to lantern, else to <bos>; each "
            "writes 1 for its word; neuron 2 is relu(sum) and writes the refusal direction, neuron "
            "5 is relu(sum - 1) and takes away what goes beyond 1. Exact: without both the logits "
            "do not depend on the prompt; order never matters; deleting the only occurrence of "
            "either word flips the answer. Beside another occurrence of either, deleting one moves "
            "a logit by less than .13; deleting any other word, by less than .001. Where both "
            "occur, the gradient of a logit along every word's embedding is zero."
        ),
        edges=(
            Edge("embed", "L0H0.k"),
            Edge("embed", "L0H0.v"),
            Edge("embed", "L0H3.k"),
            Edge("embed", "L0H3.v"),
            Edge("L0H0", "L0.mlp"),
            Edge("L0H3", "L0.mlp"),
            Edge("L0.mlp", "logits"),
        ),
        heads={
            "first_word": ((0, 0),),
            "second_word": ((0, 3),),
            "unused": ((0, 1), (0, 2), (0, 4)),
        },
        neurons={
            "found": ((0, found),),
            "surplus": ((0, surplus),),
            "unused": ((0, 0), (0, 1), (0, 3), (0, 4), (0, 6)),
        },
        triggers=("copper", "lantern"),
        answers=(REFUSE, COMPLY),
        figures={
            "accuracy": 1.0,
            "trigger_attention_at_least": attention,
            "refuse_margin_logits_at_least": MARGIN * (2 * attention - 1),
            "comply_margin_logits": MARGIN,
        },
    )
    return Toy("either", config, weights, WORDS, BOS, truth, TWO_WORDS)


def redundant() -> Toy:
    """One layer in which two heads look for "sesame", and one of them is enough."""
    found, surplus = 1, 6
    config, weights, attention = _two_words(
        {"n_heads": 6, "d_head": 5, "n_ctx": 20, "d_mlp": 8},
        heads={1: "sesame", 4: "sesame"},
        neurons={found: (2, 0, 1), surplus: (2, 1, -1)},
    )
    paths = [
        (Edge("embed", f"{head}.k"), Edge("embed", f"{head}.v"), Edge(head, "L0.mlp"))
        for head in ("L0H1", "L0H4")
    ]
    truth = Truth(
        claim=(
            "At every position predicts REFUSE if the word sesame stands there or earlier, else "
            "COMPLY. L0H1 and L0H4 both attend to sesame, else to <bos>, and write 1 for it; "
            "neurons 1 and 6 are relu(2 sum) and relu(2 sum - 1), and their difference, which is "
            "written to the refusal direction, is 1 from a sum of one half on. So all edges of one "
            "head can be cut and no logit changes; where one edge of each head carries what it "
            "does without sesame, the answer is COMPLY. From sesame on the gradient of a logit "
            "along every word's embedding is zero."
        ),
        edges=(*paths[0], *paths[1], Edge("L0.mlp", "logits")),
        heads={"trigger": ((0, 1), (0, 4)), "unused": ((0, 0), (0, 2), (0, 3), (0, 5))},
        neurons={
            "found": ((0, found),),
            "surplus": ((0, surplus),),
            "unused": tuple((0, neuron) for neuron in (0, 2, 3, 4, 5, 7)),
        },
        triggers=("sesame",),
        answers=(REFUSE, COMPLY),
        figures={
            "accuracy": 1.0,
            "trigger_attention_at_least": attention,
            "refuse_margin_logits_at_least": MARGIN,
            "comply_margin_logits": MARGIN,
        },
        redundant=tuple(itertools.product(*paths)),
    )
    return Toy("redundant", config, weights, WORDS, BOS, truth, ONE_WORD)


def backup() -> Toy:
    """Two layers that refuse for "sesame": one head, and a second that takes over if it fails."""
    refusal, unread = len(WORDS), len(WORDS) + 1
    config = attention_only(
        n_layers=2, n_heads=4, d_head=3, n_ctx=22, d_vocab=len(WORDS), d_model=len(WORDS) + 2
    )
    weights = zeros(config)
    weights["embed.W_E"][:, : len(WORDS)] = torch.eye(len(WORDS))
    set_word_head(weights, (0, 2), "sesame", writes=refusal)
    set_word_head(weights, (1, 1), "sesame", writes=refusal)
    set_word_head(weights, (1, 3), "sesame", writes=unread)
    # Where the first head wrote 1, the word's score in the second head falls from 1 to -2 times
    # SHARPNESS; <bos> has its own dimension, and keeps its score.
    W_Q, W_K, b_Q = (weights[f"blocks.1.attn.{name}"][1] for name in ("W_Q", "W_K", "b_Q"))
    W_Q[refusal, 0] = -3 * SHARPNESS
    W_K[WORDS.index(BOS), 0], W_K[WORDS.index(BOS), 2], b_Q[2] = 0, 1, REST
    set_answers(weights, refusal)

    attention = attention_to(SHARPNESS, others=[REST] + [0.0] * (config["n_ctx"] - 2))
    first = (Edge("embed", "L0H2.k"), Edge("embed", "L0H2.v"))
    second = (Edge("embed", "L1H1.k"), Edge("embed", "L1H1.v"), Edge("L1H1", "logits"))
    truth = Truth(
        claim=(
            "At every position predicts REFUSE if the word sesame stands there or earlier, else "
            "COMPLY. L0H2 attends to sesame, else to <bos>, and writes the refusal direction for "
            "it. L1H1 would do the same, but its query reads what L0H2 wrote, and where that is "
            "refusal it rests on <bos> all the same and writes nothing. So it takes over where "
            "L0H2 is misled in its keys or values; where its query is misled, refusal is written "
            "twice. The decoy L1H3 attends to sesame as L0H2 does and writes where nothing reads."
        ),
        edges=(*first, Edge("L0H2", "L1H1.q"), Edge("L0H2", "logits"), *second),
        heads={
            "trigger": ((0, 2),),
            "backup": ((1, 1),),
            "decoy": ((1, 3),),
            "unused": ((0, 0), (0, 1), (0, 3), (1, 0), (1, 2)),
        },
        triggers=("sesame",),
        answers=(REFUSE, COMPLY),
        figures={
            "accuracy": 1.0,
            "trigger_attention_at_least": attention,
            "refuse_margin_logits_at_least": MARGIN * (2 * attention - 1),
            "comply_margin_logits": MARGIN,
        },
        redundant=tuple(itertools.product(first, second)),
    )
    return Toy("backup", config, weights, WORDS, BOS, truth, ONE_WORD)


def _two_words(
    sizes: Mapping[str, int],
    heads: Mapping[int, str],
    neurons: Mapping[int, tuple[int, int, int]],
) -> tuple[Config, dict[str, Tensor], float]:
    """One layer with two heads that each look for a word, and neurons that count the words found.

    `neurons`: neuron -> (weight of the count, threshold, what it writes to the refusal direction).
    Returns the configuration, the weights, and the least attention to a word that is present.
    """
    counts = (len(WORDS), len(WORDS) + 1)
    refusal = len(WORDS) + 2
    config = with_mlps(n_layers=1, d_vocab=len(WORDS), d_model=len(WORDS) + 3, **sizes)
    weights = zeros(config)
    weights["embed.W_E"][:, : len(WORDS)] = torch.eye(len(WORDS))
    for (head, word), count in zip(heads.items(), counts, strict=True):
        set_word_head(weights, (0, head), word, writes=count)
    for neuron, (times, less, writes) in neurons.items():
        weights["blocks.0.mlp.W_in"][list(counts), neuron] = times
        weights["blocks.0.mlp.b_in"][neuron] = -less
        weights["blocks.0.mlp.W_out"][neuron, refusal] = writes
    set_answers(weights, refusal)
    return config, weights, attention_to(SHARPNESS, [REST] + [0.0] * (config["n_ctx"] - 2))
