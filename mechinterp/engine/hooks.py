"""Hooks: the specs of some arms put on a model's hook points, and taken off again.

An edit is given the rows of its own arm alone, as a copy, so that it cannot tell whether it runs
with others.

>>> from mechinterp import Site, load_model, tokenize, zero
>>> from mechinterp.engine.arms import prepare_arm
>>> from mechinterp.engine.hooks import Hooks
>>> from mechinterp.core.interrupts import interruptible
>>> model = load_model("toy:trigger")
>>> arm = prepare_arm(model, tokenize(model, "bring the sesame"), zero(Site("z", 1)))
>>> with interruptible() as interrupts:
...     hooks = Hooks(model, [arm], interrupts)
...     hooks.add()
...     hooks.remove()
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mechinterp.core.interrupts import interruptible
from mechinterp.core.sites import HookError
from mechinterp.core.turns import OwnHook, set_running
from mechinterp.engine.arms import Arm
from mechinterp.models.model import Model

T = TypeVar("T")
Watch = Callable[[str, Tensor], None]
"""Called with the full name of a hook point, and the activation that passes it."""


class Hooks:
    """The hooks of some arms on a model: `add`, `remove`, and whether all of them ran.

    `owner`: whoever these hooks act for (`core.turns`); by default between `start` and `remove`.
    `in_inference`: edits run in `torch.inference_mode`, as the caller's own code does.
    """

    def __init__(
        self,
        model: Model,
        arms: Sequence[Arm],
        interrupts: interruptible,
        owner: object = None,
        *,
        in_inference: bool = False,
    ) -> None:
        self._model = model
        self._arms = arms
        self._interrupts = interrupts
        self.owner = owner or self
        self._in_inference = in_inference
        self._handles: list[RemovableHandle] = []

    def add(self, watch: Watch | None = None) -> None:
        """Put them on. `watch` is shown every activation of the model as the specs leave it."""
        on_point: dict[str, list[tuple[Arm, int]]] = {}
        for arm in self._arms:
            for number, spec in enumerate(arm.specs):
                if spec.site.act != "tokens":
                    on_point.setdefault(spec.site.hook, []).append((arm, number))
        for name in self._model.hook_dict if watch else on_point:
            hook = OwnHook(self._hook(name, on_point.get(name, []), watch), self.owner)
            self._handles.append(self._model.hook_dict[name].register_forward_hook(hook))

    def remove(self) -> None:
        """Take them off again; other hooks stay."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def check_all_fired(self) -> None:
        """Check that every spec ran.

        Raises:
            HookError: naming one that did not.
        """
        for arm in self._arms:
            for number, spec in enumerate(arm.specs):
                if number not in arm.fired:
                    raise HookError(
                        f"{spec.name} never ran: this model never passes {spec.site.hook}. "
                        f"describe(model) lists the sites that run."
                    )

    def _call(self, function: Callable[..., T], *args: object) -> T:
        """Call the user's code. What it runs itself does not see these hooks."""
        before = set_running(None)
        try:
            if not self._in_inference:
                return self._interrupts.call(function, *args)
            with torch.inference_mode():
                return self._interrupts.call(function, *args)
        finally:
            set_running(before)

    def _hook(
        self, name: str, here: Sequence[tuple[Arm, int]], watch: Watch | None
    ) -> Callable[..., Tensor | None]:
        """The forward hook of one hook point: `here` are the specs on it, as (arm, number)."""

        def hook(module: nn.Module, args: tuple[object, ...], value: Tensor) -> Tensor | None:
            # value: [row, ...], the rows of all arms. It may be a view of what the model keeps, so
            # the first edit clones it, and later ones write into the clone.
            self._interrupts.check()
            new: Tensor | None = None
            for arm, number in here:
                rows = (value if new is None else new)[arm.rows]
                made = arm.fire(number, rows, self._call)
                if made is not None:
                    new = value.clone() if new is None else new
                    rows = new[arm.rows]
                    rows[arm.index(arm.specs[number], rows)] = made
            if watch is not None:
                watch(name, value if new is None else new)
            return new

        return hook
