"""A misspelt option is an error of the function that was called, before anything runs."""

import pytest

import mechinterp as mi
from mechinterp.attribution import leave_one_out
from mechinterp.sweeps.options import SweepOptions, check_options


@pytest.mark.parametrize("called", ["sweep", "patch_heads", "ablate_heads", "leave_one_out"])
def test_a_typo_names_the_function_that_was_called(absolute_model, ragged, called):
    pair = mi.Pair(ragged, ragged)
    metric = mi.log_prob(1)
    calls = {
        "sweep": lambda: mi.sweep(
            absolute_model, ragged, {"layer": [0]}, lambda layer: (), metric, buget_bytes=1
        ),
        "patch_heads": lambda: mi.patching.patch_heads(absolute_model, pair, metric, buget_bytes=1),
        "ablate_heads": lambda: mi.ablation.ablate_heads(
            absolute_model, ragged, metric, "zero", buget_bytes=1
        ),
        "leave_one_out": lambda: leave_one_out(
            mi.ask(absolute_model, mi.Prompts.from_ids([[3, 1, 4]]), 1), buget_bytes=1
        ),
    }
    with pytest.raises(TypeError) as caught:
        calls[called]()
    assert str(caught.value) == (
        f"{called}() takes no option 'buget_bytes'. Did you mean 'budget_bytes'?"
    )


def test_nothing_near():
    with pytest.raises(TypeError, match=r"f\(\) takes no option 'zzz'. Options: budget_bytes, "):
        check_options("f", {"zzz": 1})
    check_options("f", dict.fromkeys(SweepOptions.__annotations__))
