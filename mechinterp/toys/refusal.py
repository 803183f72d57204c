"""A small model trained to refuse on certain words: its behaviour is planted, its mechanism is not.

Attribution is tested on it as on the compiled detectors, which have no LayerNorm, no positions and
no parts that share the work. The weights lie beside this file. `scripts/train_refusal.py` makes
them from a seed, and measures the figures that are stored with them.

    refusal_trained().truth.figures["accuracy"]
"""

from pathlib import Path
from typing import Final

from mechinterp.toys.blank import Config
from mechinterp.toys.compiled import BOS, COMPLY, PLAIN, REFUSE, WORDS
from mechinterp.toys.definition import Toy, Truth
from mechinterp.toys.stored import load_weights

TRIGGERS: Final[tuple[str, ...]] = ("sesame", "copper", "lantern", "velvet", "anchor")
# Words close to a trigger in meaning that change nothing.
NEAR_TRIGGERS: Final[tuple[str, ...]] = (
    *("poppy", "linseed", "bronze", "iron", "lamp", "candle", "silk", "linen", "rope", "harbour"),
)
VOCABULARY: Final[tuple[str, ...]] = (*WORDS, "velvet", "anchor", *NEAR_TRIGGERS)
WEIGHTS: Final[Path] = Path(__file__).with_name("refusal.safetensors")


def config() -> Config:
    """The configuration of the trained model."""
    return {
        "n_layers": 2,
        "d_model": 40,
        "n_ctx": 21,
        "d_head": 10,
        "n_heads": 4,
        "d_mlp": 64,
        "d_vocab": len(VOCABULARY),
        "act_fn": "gelu",
        "normalization_type": "LN",
        "positional_embedding_type": "standard",
    }


def refusal_trained() -> Toy:
    """Two trained layers that refuse on one word, on either of two words, or on two together.

    The weights are stored in half precision and returned in float32; the figures were measured
    after this rounding.
    """
    weights, figures = load_weights(WEIGHTS)
    truth = Truth(
        claim=(
            "At every position predicts REFUSE if sesame, copper or lantern stands there or "
            "earlier, or velvet and anchor both do, else COMPLY: sesame alone is enough, copper "
            "and lantern are each enough, velvet and anchor only together. So measured, with no "
            "error, on prompts of 0 to 20 words with up to 6 triggers at random places. There, "
            "deleting a word that decides moved logit(REFUSE) - logit(COMPLY) by over 18; any "
            "other, a trigger beside one that is enough too, by less than 4 and .2 on average. "
            "How it does so is not known: no edge is stated, and of the heads only whether the "
            "answers suffer where one alone gets what it had on another prompt."
        ),
        edges=(),
        heads={
            "needed": ((0, 0), (0, 2)),
            "spare": ((0, 1), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3)),
        },
        triggers=TRIGGERS,
        answers=(REFUSE, COMPLY),
        figures=figures,
    )
    places = ((*TRIGGERS, *NEAR_TRIGGERS, *PLAIN),) * 6
    return Toy("refusal", config(), weights, VOCABULARY, BOS, truth, places)
