"""Ranks of scores by size, and each score's share of all.

ranks_and_shares(np.array([0.5, -2.0]))
"""

import math

import numpy as np


def ranks_and_shares(scores: np.ndarray) -> tuple[tuple[int | None, ...], tuple[float, ...]]:
    """Ranks by |score| from 1, and |score| over the sum of all; what is not finite has neither."""
    size = np.where(np.isfinite(scores), np.abs(scores), -1.0)
    ranks: list[int | None] = [None] * len(scores)
    for rank, index in enumerate(np.argsort(-size, kind="stable"), start=1):
        if size[index] >= 0:
            ranks[int(index)] = rank
    mass = size[size > 0].sum()
    shares = [math.nan if s < 0 else float(s / mass) if mass > 0 else 0.0 for s in size]
    return tuple(ranks), tuple(shares)
