"""The modes of torch in which our numbers are computed, whatever modes the caller is in.

Under `torch.inference_mode` and `torch.no_grad` there are no gradients, and a missing gradient must
not count as zero. Under `torch.autocast` products are rounded to half precision. So a computation
of ours leaves these modes, and the caller's are back when it ends.

>>> import torch
>>> from mechinterp.core.modes import gradients_off, gradients_on
>>> with torch.inference_mode(), gradients_on():
...     torch.ones(2, requires_grad=True).exp().requires_grad
True
>>> with gradients_off():
...     torch.is_grad_enabled()
False

A signal's handler may raise between any two bytecodes, also at the first one of a context's end.
Torch's contexts end in Python, and would leave gradients off. Ours end in C, as one step.
"""

import functools
import io
from collections.abc import Callable
from typing import ParamSpec, TypeVar, no_type_check

import torch
from torch import Tensor

from mechinterp.core.sites import HookError

P = ParamSpec("P")
R = TypeVar("R")


class _Mode(io.IOBase):
    """A context whose end is C code alone: `IOBase.__exit__`, which calls `close`.

    `close` empties a list of torch's guards. A guard that goes restores the mode before it.
    """

    _with_gradients: bool

    def __init__(self) -> None:
        self._guards: list[object] = []
        self.close = self._guards.clear  # type: ignore[method-assign]

    @no_type_check  # in a wrapper an exception could come between it and the block
    def __enter__(self) -> "_Mode":
        try:
            self._guards.append(torch._C._InferenceMode(False))  # noqa: FBT003
            if torch._C._is_any_autocast_enabled():
                self._guards.append(torch._C._DisableAutocast())
                self._guards[1].__enter__()
            torch._C._set_grad_enabled(self._with_gradients)
        except BaseException:  # from a signal's handler
            self._guards.clear()
            raise
        return self


class gradients_off(_Mode):  # noqa: N801 - used as a context manager, like torch's
    """Compute values alone, in the precision of the tensors."""

    _with_gradients = False


class gradients_on(_Mode):  # noqa: N801 - used as a context manager, like torch's
    """Compute with gradients, in the precision of the tensors."""

    _with_gradients = True


def ordinary(tensor: Tensor) -> Tensor:
    """The tensor, or a copy if it was made in `torch.inference_mode`, for use with gradients."""
    if not tensor.is_inference():
        return tensor
    with gradients_off():
        return tensor.clone()


def takes_gradients(function: Callable[P, R]) -> Callable[P, R]:
    """The function in the mode `gradients_on`; every function that takes a gradient is one.

    It raises a `HookError` where a tensor comes from `torch.inference_mode`, such as the weights of
    a model that was made there: torch has no gradients of what is computed from it.
    """

    @functools.wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with gradients_on():
                return function(*args, **kwargs)
        except RuntimeError as error:
            if "nference tensor" not in str(error):
                raise
            raise HookError(
                f"{function.__name__}: a tensor that was made inside torch.inference_mode has no "
                f"gradients. If it is the model's weights, load the model outside, or use "
                f"copy.deepcopy(model), made outside; else give tensor.clone(), made outside."
            ) from error

    return inside


def leaves_modes(function: Callable[P, R]) -> Callable[P, R]:
    """The function in the mode `gradients_off`: what it returns may later be used for gradients."""

    @functools.wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        with gradients_off():
            return function(*args, **kwargs)

    return inside
