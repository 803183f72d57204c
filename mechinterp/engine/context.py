"""Specs on a model while other code runs it: the context `hooked`.

>>> from mechinterp import Site, hooked, load_model, zero
>>> model = load_model("toy:induction")
>>> with hooked(model, zero(Site("z", 1, head=2))) as same_model:
...     logits = same_model("a b a")

The specs hold while the model generates, too. An example is steering by a difference of means:

>>> from mechinterp import add, read, run
>>> site, end = Site("resid_post", 1), Site("resid_post", 1, pos="end")
>>> texts = (["a e c a", "d e c d"], ["a b c a", "d b c d"])
>>> e, b = (run(model, each, read(end)).acts[end].mean(0) for each in texts)
>>> greedy = {"max_new_tokens": 3, "do_sample": False, "stop_at_eos": False, "verbose": False}
>>> model.generate("a b c a", **greedy)
'a b c a b c a'
>>> with hooked(model, add(site, e - b, 2.0)):
...     model.generate("a b c a", **greedy)
'a b c a e e e'
"""

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Generic, TypedDict, TypeVar, no_type_check

from jaxtyping import Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mechinterp.core.interrupts import interruptible
from mechinterp.core.sites import HookError, Site
from mechinterp.core.specs import Specs
from mechinterp.core.turns import OwnHook, this_thread
from mechinterp.engine.arms import check_specs, prepare_arm
from mechinterp.engine.base_run import CacheEntry
from mechinterp.engine.growing_prompts import GrowingPrompts
from mechinterp.engine.hooks import Hooks
from mechinterp.engine.partial_arm import PartialArm
from mechinterp.engine.sequences import Sequences, n_cached
from mechinterp.models.model import Model, require_model
from mechinterp.models.tokenization import Text, tokenize

_BEFORE_LAYERS = ("hook_tokens", "hook_embed", "hook_pos_embed")

M = TypeVar("M", bound=Model)


class _CallArguments(TypedDict, total=False):
    """The keyword arguments of a call of the model that say which positions it sees."""

    past_kv_cache: list[CacheEntry] | None


class _LayerArguments(TypedDict, total=False):
    """The keyword arguments of a layer that say which positions it sees."""

    past_kv_cache_entry: CacheEntry | None
    attention_mask: Tensor | None


class hooked(Generic[M]):  # noqa: N801 - used as a context manager, like contextlib's
    """Specs on the model while the context lasts, for any code that runs it.

    Every forward pass inside sees them. Input tokens cannot be edited here (`run` does that). Named
    positions need `prompts`; all that runs inside must then begin with these prompts.

    Positions are those of the whole sequence, also while the model generates, with a key-value
    cache or without. A spec at position 9 acts when the sequence reaches it, and a spec without a
    position acts at every position. "end" and other names mean the positions of the prompts as
    given. Under a cache an edit sees the new positions alone, and `at.prompts` the whole sequence
    so far; what it did earlier stays in the cache. The text is therefore the same with and without
    a cache, unless an edit makes a position depend on later ones, as `zero` at "attn_scores" does.

    The specs act in the thread that enters the context, on every pass there. In other threads the
    model runs as if they were not there, so that each thread may have contexts of its own. Contexts
    that overlap in one thread, as those of asyncio tasks can, act together; they may end in any
    order.

    `model.generate` of TransformerLens 3.9 counts positions wrongly with a cache if the model
    learned position embeddings and has no tokenizer. Inside this context it counts right, so
    compare with `hooked(model, ())`, not with the bare model.

    Raises:
        HookError: if a spec cannot run; at the end, if one never ran; if it is entered while it is
            on already; or if the positions of a pass cannot be known, as with padding on the left
            or a cache filled elsewhere.
    """

    def __init__(self, model: M, specs: Specs, prompts: Text | None = None) -> None:
        self._model = model
        require_model(model)
        given = None if prompts is None else tokenize(model, prompts)
        check_specs(specs)
        for spec in specs:
            if spec.site.act == "tokens":
                raise HookError(f"{spec.name}: a context cannot edit the input. Use run(...).")
            for pos in (spec.site.pos, spec.needs):
                if given is None and isinstance(pos, str):
                    raise HookError(
                        f"{spec.name}: position {pos!r} means nothing without prompts. "
                        f"Give them: hooked(model, specs, prompts)."
                    )
        self._prompts = GrowingPrompts(model, given)
        arm = prepare_arm(model, self._prompts.longest(), specs)
        self._arm = PartialArm(**vars(arm))
        self._early = [spec for spec in specs if spec.site.hook in _BEFORE_LAYERS]
        self._interrupts = interruptible()
        self._hooks = Hooks(model, [self._arm], interruptible())
        self._handles: list[RemovableHandle] = []
        self._sequences = Sequences()
        self._number: int | None = None
        self._embedded: Tensor | None = None
        self._called_with: CacheEntry | None = None
        self._next_layer = 0
        self._earlier: dict[Site, Tensor] = {}

    @no_type_check  # in a wrapper Ctrl-C could come between it and the body
    def __enter__(self) -> M:
        if self._handles:
            raise HookError(
                "hooked(model, specs): this context is on already. Make another one of the specs."
            )
        self._interrupts.__enter__()
        try:
            model, owner = self._model, this_thread()

            def add(module: nn.Module, hook: Callable[..., object], **options: bool) -> None:
                hook = OwnHook(hook, owner)
                self._handles.append(module.register_forward_pre_hook(hook, **options))

            add(model, self._begin_call, with_kwargs=True)
            add(model.embed, self._begin_pass)
            if hasattr(model, "pos_embed"):
                add(model.pos_embed, self._correct_positions)
            for layer, block in enumerate(model.blocks):
                add(block, partial(self._begin_layer, layer), with_kwargs=True)
            self._hooks.owner = owner
            self._hooks.add()
            self._interrupts.open_until(hooked.__exit__.__code__)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self._model

    @no_type_check  # a wrapper would have other code, where Ctrl-C could come first
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
            if self._arm.specs and not self._sequences.lengths and not self._arm.fired:
                raise HookError(
                    f"{self._arm.specs[0].name} never ran: the model was not run inside the "
                    f"context, by the thread that entered it."
                )
            self._prompts.check_all_reached(self._arm.specs, self._sequences.lengths)
            self._hooks.check_all_fired()

    # Pre-hooks of the model's modules, in the order in which a pass runs them

    def _begin_call(
        self, module: nn.Module, args: tuple[object, ...], kwargs: _CallArguments
    ) -> None:
        cache = kwargs.get("past_kv_cache")  # generate calls forward, and does not come here
        self._called_with = None if cache is None else cache[0]

    def _begin_pass(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._embedded = args[0].clone()
        self._earlier, self._arm.reads = self._arm.reads, {}
        if self._early:  # specs at the embedding have to know the positions before layer 0 does
            entry = self._called_with
            tokens = self._sequences.whole(args[0], args[0].shape[1], entry)
            self._prompts.check_number(tokens, entry)
            self._see(tokens, n_cached(entry))

    def _correct_positions(
        self, module: nn.Module, args: tuple[Tensor | int | None, ...]
    ) -> tuple[Tensor | int | None, ...] | None:
        """Give the position embedding the new tokens alone, where `generate` gives it all of them.

        `generate` then counts from the first new position on, and so skips positions.
        """
        tokens, first_pos, mask = (*args, 0, None)[:3]
        new = 0 if self._embedded is None else self._embedded.shape[1]
        if not (isinstance(tokens, Tensor) and isinstance(first_pos, int) and mask is None):
            return None
        if not first_pos or tokens.shape[1] != first_pos + new:
            return None
        return tokens[:, first_pos:], first_pos, mask

    def _begin_layer(
        self,
        layer: int,
        module: nn.Module,
        args: tuple[Tensor, ...],
        kwargs: _LayerArguments,
    ) -> None:
        """Find out, before layer 0, which positions of which sequence the pass sees."""
        if layer not in (0, self._next_layer):
            raise HookError(
                f"hooked(model, specs): the model was started at layer {layer}, from a residual "
                f"stream whose positions are not known. Start it from the tokens."
            )
        self._next_layer = layer + 1
        if layer > 0:
            return
        entry, embedded = kwargs.get("past_kv_cache_entry"), self._embedded
        self._embedded = self._called_with = None
        first_pos = n_cached(entry)
        _check_no_padding(kwargs.get("attention_mask"), entry)
        tokens = self._sequences.whole(embedded, args[0].shape[1], entry)
        self._prompts.check_begins(tokens, entry)
        arm = self._arm
        seen = (arm.batch_first_pos, arm.prompts.tokens.shape)
        if self._early and seen != (first_pos, tokens.shape):
            raise HookError(
                f"{self._early[0].name}: generate embeds tokens apart from the layers, so their "
                f'positions are not known there. Use Site("resid_pre", 0) instead.'
            )
        self._see(tokens, first_pos)
        number = self._sequences.note(tokens, entry)
        if first_pos and number == self._number:
            # Keep what earlier passes read at positions that this pass does not see again.
            for spec in arm.specs:
                if spec.site in self._earlier and spec.site.pos is not None and not arm.sees(spec):
                    arm.reads[spec.site] = self._earlier[spec.site]
        self._number = number

    def _see(self, tokens: Int[Tensor, "row pos"], first_pos: int) -> None:
        """From here on the arm's pass sees this sequence, from a position on."""
        self._arm.prompts, self._arm.batch_first_pos = self._prompts.grown(tokens), first_pos


def _check_no_padding(mask: Tensor | None, entry: CacheEntry | None) -> None:
    """Check that the position of each token in its row is its position in the prompt.

    Raises:
        HookError: if the mask hides a token before others, or the last one of a prompt.
    """
    if mask is None or bool(mask.all()):
        return
    shown = mask.bool()
    before_others = ~shown[:, :1].all() | (~shown[:, :-1] & shown[:, 1:]).any()
    if bool(before_others) or (entry is not None and n_cached(entry) == 0):
        row = int((~shown).any(1).nonzero()[0])
        raise HookError(
            f"hooked(model, specs): the attention mask hides tokens of prompt {row} as padding, "
            f"either on its left or since it ends in the pad token. Positions would not be those "
            f"of the prompt. Give prompts of one length, or one after the other."
        )
