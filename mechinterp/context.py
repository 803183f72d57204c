"""Specs on a model for code that is not ours: `hooked`, a context in which they hold.

>>> from mechinterp import Site, hooked, load_model, zero
>>> model = load_model("toy:induction")
>>> with hooked(model, zero(Site("z", 1, head=2))) as same_model:
...     logits = same_model("a b a")
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, no_type_check

import torch
from jaxtyping import Int
from torch import Tensor

from mechinterp import models
from mechinterp.arms import check_specs, planned
from mechinterp.interrupts import interruptible
from mechinterp.passes import Hooks
from mechinterp.prompts import Prompts
from mechinterp.sites import HookError
from mechinterp.specs import Specs
from mechinterp.tokenization import Text, decoder, tokenize


class hooked:  # noqa: N801 - used as a context manager, like contextlib's
    """Specs on the model while the context lasts, for whatever runs it.

    Every forward pass inside sees them. Input tokens cannot be edited here (`run` does), and
    named positions need `prompts`: then only these may run inside.

    Raises:
        HookError: if a spec cannot run, or, at the end, if one never did.
    """

    def __init__(self, model: Any, specs: Specs, prompts: Text | None = None) -> None:
        self._model = model
        self._prompts = None if prompts is None else tokenize(model, prompts)
        check_specs(specs)
        for spec in specs:
            if spec.site.act == "tokens":
                raise HookError(f"{spec.name}: a context cannot edit the input. Use run(...).")
            if self._prompts is None and isinstance(spec.site.pos, str):
                raise HookError(
                    f"{spec.name}: position {spec.site.pos!r} means nothing without prompts. "
                    f"Give them: hooked(model, specs, prompts)."
                )
        unknown = torch.zeros(1, model.cfg.n_ctx, dtype=torch.long, device=models.device(model))
        self._arm = planned(model, self._prompts or tokenize(model, unknown), specs)
        self._positions = [s for s in specs if s.site.pos is not None or "knockout" in s.name]
        self._interrupts = interruptible()
        self._hooks = Hooks(model, [self._arm], interruptible())
        self._handles: list[Any] = []
        self._tokens = unknown

    def __enter__(self) -> Any:
        self._interrupts.__enter__()
        try:
            first = self._model.blocks[0].register_forward_pre_hook(
                self._begin_layers, with_kwargs=True
            )
            self._handles.append(first)
            embed = self._model.embed.register_forward_pre_hook(self._begin_pass)
            self._handles.append(embed)
            self._hooks.add()
            self._interrupts.open_until(hooked.__exit__.__code__)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self._model

    @no_type_check  # a wrapper around it would have other code, where Ctrl-C could come first
    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._interrupts.close()
        self._hooks.remove()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._interrupts.__exit__()
        if kind is None:
            self._hooks.check_all_fired()

    def _begin_pass(self, module: Any, args: tuple[Tensor]) -> None:
        self._arm.reads = {}
        if self._prompts is None:
            self._see(args[0])
        elif not torch.equal(args[0], self._prompts.tokens):
            raise HookError(
                f"hooked(model, specs, prompts): the model was run on other tokens, "
                f"{list(args[0].shape)}, than these prompts, {list(self._prompts.tokens.shape)}."
            )

    def _begin_layers(self, module: Any, args: tuple[Tensor], kwargs: Mapping[str, Any]) -> None:
        before, width = self._tokens, args[0].shape[1]
        self._tokens = self._arm.prompts.tokens
        if self._prompts is None and width > self._arm.prompts.width:
            # generate(..., use_past_kv_cache=False) embeds the new token alone, then runs all.
            self._tokens = torch.cat([before, self._tokens], 1)
            self._see(self._tokens)
        cache = kwargs.get("past_kv_cache_entry")
        if cache is not None and cache.past_keys.shape[1] and self._positions:
            raise HookError(
                f"{self._positions[0].name}: with a key-value cache a step sees its own token "
                f"alone, not positions of the sequence. generate(..., use_past_kv_cache=False)."
            )
        if width != self._arm.prompts.width:
            raise HookError(
                f"hooked(model, specs): the model was run on {width} embeddings of tokens that "
                f"are not known. Give it the tokens."
            )

    def _see(self, tokens: Int[Tensor, "row pos"]) -> None:
        self._arm.prompts = Prompts.from_ids(
            tokens.tolist(), decode=decoder(self._model), device=tokens.device
        )
