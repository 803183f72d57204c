"""The check at the door: what each kind of annotation takes and refuses, and in which words."""

import ast
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

import mechinterp
from mechinterp import Metric, Pair, Prompts, Site, load_model, log_prob
from mechinterp.core.arguments import checks_arguments, fits, words_for
from mechinterp.models import Model
from mechinterp.sweeps import SweepOptions

PROMPTS = Prompts.from_ids([[1, 2]])
TAKEN = [
    (int, [1, -1, np.int64(2), torch.tensor(3)], [True, np.True_, 1.0, "1", None, [1]]),
    (float, [1, 1.5, math.inf, np.float32(2), torch.tensor(0.5)], [True, math.nan, "1", None]),
    (str, ["", "a"], [1, None, ["a"]]),
    (bool, [True, np.False_], [0, "yes", None]),
    (int | None, [None, 1], [True, "a"]),
    (Literal["a", "b"], ["a"], ["c", None, ["a"]]),
    (str | Path, ["a", Path("a")], [1, None]),
    (Sequence[int], [[1], (), range(2), np.arange(2), torch.arange(2)], [1, "1", [True], [1.0]]),
    (Iterable[int] | None, [None, iter([1]), {1}, np.arange(2)], [3, "3", ["3"], np.ones(2)]),
    (Sequence[str], [["a"], ()], ["a", [1], 3, np.arange(2)]),
    (Sequence[Site], [[Site("embed")]], [Site("embed"), torch.ones(2), ["embed"]]),
    (tuple[int, ...], [(1, 2), ()], [1, (1, "2")]),
    (Mapping[str, int], [{}, {"a": 1}], [[], "a"]),
    (Callable[[int], int], [len, lambda x: x], [3, "len", None]),
    (Float[Tensor, "a b"], [torch.ones(1, 2)], [[1.0], np.ones((1, 2))]),
    (xr.DataArray, [xr.DataArray([1])], [np.ones(1), None]),
    (Pair, [Pair(PROMPTS, PROMPTS)], [(PROMPTS, PROMPTS)]),
    (Metric | None, [None, log_prob(1)], ["log_prob", [log_prob(1)]]),
    (Model, [load_model("toy:trigger")], ["toy:trigger", torch.nn.Linear(1, 1), None]),
    (str | Sequence[str] | Prompts, [PROMPTS, 3], []),  # `tokenize` has words for each case
    (SweepOptions, [{}], [3]),
    (object, [None, 3], []),
]


@pytest.mark.parametrize(("hint", "right", "wrong"), TAKEN, ids=lambda x: str(x)[:30])
def test_what_an_annotation_takes(hint, right, wrong):
    assert [value for value in right if not fits(value, hint)] == []
    assert [value for value in wrong if fits(value, hint)] == []
    assert words_for(hint)


@checks_arguments
def asked(model: Model, *sites: Site, n: int = 1, seed: int = 0, level: float = 0.95) -> int:
    """An example."""
    return n


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": 3}, "asked: model is 3: give a model with hook points: load_model"),
        ({"n": True}, "asked: n is True: give a whole number."),
        ({"n": "two"}, "asked: n is 'two': give a whole number."),
        ({"seed": -1}, "asked: seed is -1: give a whole number, from 0 on."),
        ({"level": 95}, "asked: level is 95: give a number between 0 and 1."),
        ({"n": list(range(99))}, "asked: n is a list: give a whole number."),
    ],
)
def test_the_sentence(absolute_model, given, said):
    with pytest.raises(ValueError, match="asked") as caught:
        asked(**{"model": absolute_model, **given})
    assert str(caught.value).startswith(said)


def test_right_arguments_pass_and_the_function_is_as_before(absolute_model):
    assert asked(absolute_model, Site("embed"), Site("logits"), n=3, level=0.9) == 3
    with pytest.raises(ValueError, match="sites is 'embed'"):
        asked(absolute_model, "embed")
    with pytest.raises(TypeError, match="m"):
        asked(absolute_model, m=3)
    assert asked.__name__ == "asked"
    assert asked.__doc__ == "An example."


ROOMS = ("ablation", "attention", "attribution", "circuits", "layers", "patching", "probing")
ROOMS += ("report", "stats", "tasks", "toys")


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_function_of_an_analysis_has_the_check(room):
    package = Path(mechinterp.__file__).parent / room
    stub = (package / "__init__.pyi").read_text()
    for module, name in re.findall(r"^from \.(\S*) import (\w+) as", stub, re.MULTILINE):
        file = package.joinpath(*module.split(".")).with_suffix(".py")
        tree = ast.parse((file if file.exists() else package / "__init__.py").read_text())
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name == name:
                assert "checks_arguments" in map(ast.unparse, node.decorator_list), (
                    f"{file}: {name}"
                )
