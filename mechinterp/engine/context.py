"""Specs on a model for code that is not ours: `hooked`, a context in which they hold.

>>> from mechinterp import Site, hooked, load_model, zero
>>> model = load_model("toy:induction")
>>> with hooked(model, zero(Site("z", 1, head=2))) as same_model:
...     logits = same_model("a b a")

It holds while the model generates, too. Steering by a difference of means, for example:

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

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, no_type_check

import torch
from jaxtyping import Int
from torch import Tensor

from mechinterp import models
from mechinterp.core.activations import Activations
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import HookError
from mechinterp.core.specs import HookSpec, Specs
from mechinterp.engine.arms import Arm, check_specs, planned
from mechinterp.engine.interrupts import interruptible
from mechinterp.engine.passes import Hooks
from mechinterp.engine.sequences import Sequences, n_cached
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text, decoder, tokenize

_BEFORE_LAYERS = ("hook_tokens", "hook_embed", "hook_pos_embed")


class hooked:  # noqa: N801 - used as a context manager, like contextlib's
    """Specs on the model while the context lasts, for whatever runs it.

    Every forward pass inside sees them. Input tokens cannot be edited here (`run` does), and
    named positions need `prompts`: then whatever runs inside has to begin with these.

    Positions are those of the whole sequence, also where the model generates, with a key-value
    cache or without: a spec at position 9 acts when the sequence gets there, one without a
    position at every position, "end" and other names at those of the prompts as given. Under a
    cache an edit sees the new positions alone, and `at.prompts` the whole sequence so far; what it
    did before stays in the cache. So the text is the same with and without one, unless an edit
    makes a position depend on later ones, as `zero` at "attn_scores" does.

    `model.generate` of TransformerLens 3.9 counts positions wrongly where it has a cache and the
    model learned position embeddings but no tokenizer. Inside this context it counts right; so
    compare with `hooked(model, ())`, not with the bare model.

    Raises:
        HookError: if a spec cannot run, or, at the end, if one never did, or if it cannot be known
            which positions a pass sees: padding on the left, a cache filled elsewhere.
    """

    def __init__(self, model: Model, specs: Specs, prompts: Text | None = None) -> None:
        self._model = model
        self._prompts = None if prompts is None else tokenize(model, prompts)
        check_specs(specs)
        for spec in specs:
            if spec.site.act == "tokens":
                raise HookError(f"{spec.name}: a context cannot edit the input. Use run(...).")
            for pos in (spec.site.pos, spec.needs):
                if self._prompts is None and isinstance(pos, str):
                    raise HookError(
                        f"{spec.name}: position {pos!r} means nothing without prompts. "
                        f"Give them: hooked(model, specs, prompts)."
                    )
        self._decode = decoder(model)
        arm = planned(model, self._longest(), specs)
        self._arm = _Part(**vars(arm))
        self._early = [spec for spec in specs if spec.site.hook in _BEFORE_LAYERS]
        self._interrupts = interruptible()
        self._hooks = Hooks(model, [self._arm], interruptible())
        self._handles: list[Any] = []
        self._sequences = Sequences()
        self._number: int | None = None
        self._embedded: Tensor | None = None
        self._called_with: Any = None
        self._next_layer = 0
        self._earlier: dict[Any, Tensor] = {}

    @no_type_check  # in a wrapper Ctrl-C could come between it and the body
    def __enter__(self) -> Any:
        self._interrupts.__enter__()
        try:
            model, add = self._model, self._handles.append
            add(model.register_forward_pre_hook(self._begin_call, with_kwargs=True))
            add(model.embed.register_forward_pre_hook(self._begin_pass))
            if hasattr(model, "pos_embed"):
                add(model.pos_embed.register_forward_pre_hook(self._count_right))
            for layer, block in enumerate(model.blocks):
                begin = partial(self._begin_layer, layer)
                add(block.register_forward_pre_hook(begin, with_kwargs=True))
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
            self._check_all_reached()
            self._hooks.check_all_fired()

    # What the model's modules tell, in the order in which they do

    def _begin_call(self, module: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        cache = kwargs.get("past_kv_cache")  # generate calls forward, and does not come here
        self._called_with = None if cache is None else cache[0]

    def _begin_pass(self, module: Any, args: tuple[Tensor]) -> None:
        self._embedded = args[0].clone()
        self._earlier, self._arm.reads = self._arm.reads, {}
        if self._early:
            entry = self._called_with
            tokens = self._sequences.whole(args[0], args[0].shape[1], entry)
            if self._prompts is not None and len(tokens) != len(self._prompts):
                self._check_prompts(tokens, entry)
            self._see(tokens, n_cached(entry))

    def _count_right(self, module: Any, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """The positions of the new token, where `generate` asks for those of all, from it on."""
        tokens, first, mask = (*args, 0, None)[:3]
        new = 0 if self._embedded is None else self._embedded.shape[1]
        if mask is None and first and tokens.shape[1] == first + new:
            return tokens[:, first:], first, mask
        return None

    def _begin_layer(
        self, layer: int, module: Any, args: tuple[Tensor], kwargs: Mapping[str, Any]
    ) -> None:
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
        first = n_cached(entry)
        _check_no_padding(kwargs.get("attention_mask"), entry)
        tokens = self._sequences.whole(embedded, args[0].shape[1], entry)
        self._check_prompts(tokens, entry)
        arm = self._arm
        if self._early and (arm.first, arm.prompts.tokens.shape) != (first, tokens.shape):
            raise HookError(
                f"{self._early[0].name}: generate embeds tokens apart from the layers, where it "
                f'is not known which positions they have. Use Site("resid_pre", 0) instead.'
            )
        self._see(tokens, first)
        number = self._sequences.note(tokens, entry)
        if first and number == self._number:
            # Of positions that this pass does not see again.
            for spec in arm.specs:
                if spec.site in self._earlier and spec.site.pos is not None and not arm.sees(spec):
                    arm.reads[spec.site] = self._earlier[spec.site]
        self._number = number

    # What it means

    def _see(self, tokens: Int[Tensor, "row pos"], first: int) -> None:
        self._arm.prompts, self._arm.first = self._grown(tokens), first

    def _grown(self, tokens: Int[Tensor, "row pos"]) -> Prompts:
        """The sequence so far; names mean the positions of the prompts as given."""
        given, width = self._prompts, tokens.shape[1]
        if given is None:
            lengths = torch.full((len(tokens),), width, device=tokens.device)
            roles = (("text",) * width,) * len(tokens)
            return Prompts(tokens, lengths, roles, decode=self._decode)
        if tokens.shape == given.tokens.shape:
            return given
        return replace(
            given,
            tokens=tokens,
            lengths=torch.full_like(given.lengths, width),
            roles=tuple((*row, *["output"] * width)[:width] for row in given.roles),
            names={**given.names, "end": given.positions("end")},
        )

    def _longest(self) -> Prompts:
        """Prompts that fill the model's context, where that can be: specs may lie anywhere."""
        given, n_ctx, device = self._prompts, self._model.cfg.n_ctx, models.device(self._model)
        if given is None:
            return self._grown(torch.zeros(1, n_ctx, dtype=torch.long, device=device))
        if not _can_go_on(given):
            return given
        rest = given.tokens.new_zeros(len(given), n_ctx - given.width)
        return self._grown(torch.cat([given.tokens, rest], 1))

    def _check_prompts(self, tokens: Int[Tensor, "row pos"], entry: Any) -> None:
        if self._prompts is None:
            return
        given = self._prompts.tokens
        width, n = given.shape[1], min(tokens.shape[1], given.shape[1])
        same = torch.equal(tokens[:, :n], given[:, :n].to(tokens.device))
        if not same or (n < width and entry is None):
            raise HookError(
                f"hooked(model, specs, prompts): the model was run on other tokens, "
                f"{list(tokens.shape)}, than these prompts, {list(given.shape)}."
            )
        if tokens.shape[1] > width and not _can_go_on(self._prompts):
            raise HookError(
                "hooked(model, specs, prompts): prompts of different lengths, or with deleted "
                "tokens, cannot be gone on with. Generate from prompts of one length, or from "
                "one after the other."
            )

    def _check_all_reached(self) -> None:
        """Nothing, if every sequence was long enough for every spec.

        Raises:
            HookError: naming one that was not.
        """
        given, lengths = self._prompts, self._sequences.lengths
        for spec in self._arm.specs:
            for pos in (spec.site.pos, spec.needs):
                if pos is None or not lengths:
                    continue
                if given is None or (isinstance(pos, int) and _can_go_on(given)):
                    needed = int(pos)
                else:
                    needed = int(given.positions(pos).max())
                if needed >= min(lengths):
                    raise HookError(
                        f"{spec.name} never ran: position {pos!r} was not reached, a sequence "
                        f"ended at position {min(lengths) - 1}. What is generated last is not run."
                    )


def _can_go_on(prompts: Prompts) -> bool:
    """True if more tokens can follow, at the positions after those of the prompts as given."""
    return prompts.given is None and bool((prompts.lengths == prompts.width).all())


def _check_no_padding(mask: Tensor | None, entry: Any) -> None:
    """Nothing, if the positions of each row are those of its tokens.

    Raises:
        HookError: if the model takes a token before others, or a prompt's last, for padding.
    """
    if mask is None or bool(mask.all()):
        return
    shown = mask.bool()
    before_others = ~shown[:, :1].all() | (~shown[:, :-1] & shown[:, 1:]).any()
    if bool(before_others) or (entry is not None and n_cached(entry) == 0):
        row = int((~shown).any(1).nonzero()[0])
        raise HookError(
            f"hooked(model, specs): the attention mask hides tokens of prompt {row} as padding: on "
            f"its left, or since it ends in the pad token. Positions would not be those of the "
            f"prompt. Give prompts of one length, or one after the other."
        )


class _Part(Arm):
    """An arm whose pass sees part of a sequence: the positions from `first` to the last so far."""

    def sees(self, spec: HookSpec) -> bool:
        """True if the spec's position is one that the pass sees."""
        pos, length = spec.site.pos, (self.prompts.given or self.prompts).width
        if pos is None:
            needed = spec.needs
            if isinstance(needed, str):
                needed = int(self.prompts.positions(needed).max())
            return needed is None or needed < length
        if isinstance(pos, int) and pos >= length:
            return False
        at = self.prompts.positions(pos)
        first = 0 if spec.site.act == "rot_k" else self.first
        inside = (at >= first) & (at < self.prompts.width)
        if bool(inside.any()) and not bool(inside.all()):
            raise HookError(
                f"{spec.name}: position {pos!r} is in this pass for some prompts, and not for "
                f"others. Run the prompts in one pass."
            )
        return bool(inside.all())

    def fire(self, number: int, rows: Tensor, interrupts: interruptible) -> Tensor | None:
        """As an arm, if the pass sees the spec's position; else it is left for another pass."""
        return super().fire(number, rows, interrupts) if self.sees(self.specs[number]) else None

    @property
    def activations(self) -> Activations:
        """What was read in this pass, and, at a position, before."""
        return Activations(self.reads, self.prompts, self.first)
