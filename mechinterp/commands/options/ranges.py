"""The ranges of numbers on the command line, checked before a model loads or memory is taken.

>>> from mechinterp.commands.options.ranges import check_seed
>>> check_seed(-1)
Traceback (most recent call last):
    ...
ValueError: --seed -1: a seed is a whole number from 0 to 4294967295.
"""

import math

MOST_PROMPTS = 100_000
_MOST_SEED = (1 << 32) - 1


def check_seed(seed: int | None) -> None:
    """Check that every generator takes the seed.

    Raises:
        ValueError: if not.
    """
    if seed is not None and not 0 <= seed <= _MOST_SEED:
        raise ValueError(f"--seed {seed}: a seed is a whole number from 0 to {_MOST_SEED}.")


def check_count(name: str, n: int | None, *, most: int = MOST_PROMPTS) -> None:
    """Check that a number of things to make can be made.

    Raises:
        ValueError: if it is too large.
    """
    if n is not None and n > most:
        raise ValueError(f"--{name} {n}: ask for at most {most:,}.")


def check_finite(name: str, number: float | None) -> None:
    """Check that a number is one.

    Raises:
        ValueError: if it is NaN or infinite.
    """
    if number is not None and not math.isfinite(number):
        raise ValueError(f"--{name} {number}: give a finite number.")


def whole_number(text: str) -> int | None:
    """The whole number that a text is, of at most nine digits; None if it is none."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def chosen_layers(text: str) -> list[int]:
    """The numbers of a list such as "0,4-6".

    Raises:
        ValueError: if it is no such list, or names a layer that no model has.
    """
    found: dict[int, None] = {}
    for part in text.split(","):
        first, dash, last = part.partition("-")
        begin, end = whole_number(first), whole_number(last if dash else first)
        if begin is None or end is None or not begin <= end < 10_000:
            raise ValueError(
                f"--layers {text}: {part!r} is neither 4 nor 3-8. Write numbers and ranges, such "
                f"as 0,4-6."
            )
        found |= dict.fromkeys(range(begin, end + 1))
    return list(found)
