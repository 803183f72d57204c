"""Toys by name: built anew at each call, and a wrong name is told so."""

import re

import pytest

from mechinterp.toys import TOYS, toy


def test_each_call_builds_anew():
    toy("trigger").weights["unembed.b_U"].fill_(0)
    assert toy("trigger").weights["unembed.b_U"].abs().max() > 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            "inductoin",
            'toy "inductoin": no toy has this name. Did you mean "induction"? '
            f"Toys: {', '.join(TOYS)}.",
        ),
        (
            "x",
            f'toy "x": no toy has this name. Toys: {", ".join(TOYS)}.',
        ),
    ],
)
def test_unknown_name(wrong: str, message: str):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        toy(wrong)
