"""Torch's modes; gradients in each of them: `tests/laws/test_modes.py`."""

import itertools
import signal
import sys

import pytest
import torch

from mechinterp import HookError
from mechinterp.core.modes import (
    gradients_off,
    gradients_on,
    leaves_modes,
    ordinary,
    takes_gradients,
)

OUTSIDE = {
    "none": lambda: torch.enable_grad(),
    "inference": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


def modes():
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
    )


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize(("context", "on"), [(gradients_on, True), (gradients_off, False)])
def test_the_callers_modes_are_left_and_are_back_afterwards(outside, context, on):
    with OUTSIDE[outside]():
        before = modes()
        with context():
            assert modes() == (on, False, False)
            with gradients_off(), gradients_on():
                assert modes() == (True, False, False)
            assert modes() == (on, False, False)
            assert not torch.ones(1).is_inference()
        assert modes() == before
        with pytest.raises(KeyError), context():
            raise KeyError
        assert modes() == before


def test_a_product_is_not_rounded_under_autocast():
    a = torch.linspace(0, 1, 9).reshape(3, 3)
    right = a @ a
    with torch.autocast("cpu", torch.bfloat16):
        assert (a @ a).dtype == torch.bfloat16
        with gradients_off():
            assert torch.equal(a @ a, right)
        assert (a @ a).dtype == torch.bfloat16


def test_an_exception_at_any_moment_leaves_no_mode():
    before = modes()
    for moment in itertools.count(1):
        passed = 0

        def interrupt(frame, event, argument, moment=moment):
            nonlocal passed
            if event in ("call", "c_return"):
                passed += 1
                if passed == moment:
                    sys.setprofile(None)
                    raise KeyboardInterrupt

        try:
            sys.setprofile(interrupt)
            with gradients_off():
                with gradients_on():
                    torch.is_grad_enabled()
                torch.is_grad_enabled()
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
        assert modes() == before
        if passed < moment:
            break
    assert moment > 8


def test_a_signal_at_a_function_that_leaves_the_modes():
    @leaves_modes
    def raises():
        assert modes() == (False, False, False)
        signal.raise_signal(signal.SIGINT)

    before, handler = modes(), signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            raises()
    finally:
        signal.signal(signal.SIGINT, handler)
    assert modes() == before


def test_what_has_no_gradient_is_refused_by_the_functions_name():
    with torch.inference_mode():
        weight = torch.ones(3)

    @takes_gradients
    def slope(factor):
        leaf = torch.ones(3, requires_grad=True)
        return torch.autograd.grad((leaf * factor).sum(), leaf)[0]

    with pytest.raises(HookError, match="slope: a tensor that was made inside"):
        slope(weight)
    with torch.no_grad():
        assert torch.equal(slope(ordinary(weight)), torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        slope(torch.ones(2))


def test_an_ordinary_tensor_stays_itself():
    tensor = torch.ones(2)
    assert ordinary(tensor) is tensor
