"""A small induction model that was trained, not compiled: its mechanism was measured.

The weights lie beside this file. `scripts/train_induction.py` makes them from a seed, and measures
the figures that are stored with them.

    induction_trained().truth.figures["accuracy"]
"""

import string
from pathlib import Path
from typing import Final

from mechinterp.toys.blank import Config
from mechinterp.toys.definition import Edge, Toy, Truth
from mechinterp.toys.stored import load_weights

BOS: Final = "<bos>"
VOCABULARY: Final[tuple[str, ...]] = (BOS, *string.ascii_letters, *string.digits)
WEIGHTS: Final[Path] = Path(__file__).with_name("induction-trained.safetensors")


def config() -> Config:
    """The configuration of the trained model."""
    return {
        "n_layers": 2,
        "d_model": 64,
        "n_ctx": 48,
        "d_head": 32,
        "n_heads": 1,
        "d_vocab": len(VOCABULARY),
        "attn_only": True,
        "normalization_type": "LN",
        "positional_embedding_type": "rotary",
    }


def induction_trained() -> Toy:
    """Two trained attention layers of one head each that do induction, with LayerNorm and rotary.

    The weights are stored in half precision and returned in float32; the figures were measured
    after this rounding.
    """
    weights, figures = load_weights(WEIGHTS)
    truth = Truth(
        claim=(
            "On a block of 6 to 20 distinct tokens that repeats, predicts the next token from the "
            "second repetition on: L0H0 writes each token to the position after it, L1H0 looks for "
            "the position so marked with the current token and copies the token that stands there. "
            "L0H0 gives the token before about half of its attention and much of the rest to its "
            "own; the embedding, read by the same keys, cancels the mark of its own."
        ),
        edges=(
            Edge("embed", "L0H0.v"),
            Edge("L0H0", "L1H0.k"),
            Edge("embed", "L1H0.k"),
            Edge("embed", "L1H0.q"),
            Edge("embed", "L1H0.v"),
            Edge("L1H0", "logits"),
        ),
        heads={"previous_token": ((0, 0),), "induction": ((1, 0),)},
        figures=figures,
    )
    return Toy("induction-trained", config(), weights, VOCABULARY, BOS, truth)
