"""Layers that compute what the model does, and go backward by rules of their own.

>>> import torch
>>> from mechinterp import load_model
>>> from mechinterp.models.layer_parts import Layer
>>> from mechinterp.circuits.scores.relp_gim_layers import InteractionLayer
>>> model, resid = load_model("toy:trigger"), torch.randn(1, 9, 57)
>>> torch.equal(InteractionLayer(model, 1).run(resid).resid, Layer(model, 1).run(resid).resid)
True
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mechinterp.core.sites import HookError
from mechinterp.models.layer_parts import Layer
from mechinterp.models.model import Model

_TEMPERATURE = 2.0


class RuledLayer(Layer):
    """A layer whose norms have a constant scale, and whose MLP goes backward by rules."""

    def __init__(self, model: Model, layer: int) -> None:
        super().__init__(model, layer)
        self.ln1, self.ln2 = with_constant_scale(self.ln1), with_constant_scale(self.ln2)

    def mlp(self, resid: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
        """What the MLP writes; of a gated product each factor has half."""
        return self.mlp_out(self.neurons(resid, _halved_product))


class RelevanceLayer(RuledLayer):
    """A layer that goes backward as RelP does."""

    def activation(self, inputs: Tensor) -> Tensor:
        """The activation function, as its input times a constant."""
        return _by_rule(_AsFactor, inputs, super().activation(inputs))


class InteractionLayer(RuledLayer):
    """A layer that goes backward as GIM does."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What each head takes from the values: `z`."""
        return super().attend(_scaled(q, 0.25), _scaled(k, 0.25), _scaled(v, 0.5))

    def pattern(self, dots: Float[Tensor, "*row pos src"]) -> Float[Tensor, "*row pos src"]:
        """The attention of products of queries and keys."""
        return _by_rule(_Tempered, self.scores(dots), super().pattern(dots.detach()))


def _by_rule(rule: Any, *given: Any) -> Tensor:
    made: Tensor = rule.apply(*given)
    return made


def _scaled(value: Tensor, factor: float) -> Tensor:
    return _by_rule(_Scaled, value, factor)


def _halved_product(one: Tensor, other: Tensor) -> Tensor:
    return _scaled(one * other, 0.5)


def with_constant_scale(norm: Any) -> Callable[[Tensor], Tensor]:
    """A norm that goes backward as if its scale were a constant.

    Raises:
        HookError: if it is of no kind that is known.
    """
    if isinstance(norm, nn.Identity):
        return norm
    if type(norm).__name__ not in ("LayerNorm", "LayerNormPre", "RMSNorm", "RMSNormPre"):
        raise HookError(f"a norm of the kind {type(norm).__name__} has no rule to go backward by.")
    return lambda value: _by_rule(_FrozenNorm, value, norm)


class _Scaled(torch.autograd.Function):
    """The value itself; of the gradient a part."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        return slope * ctx.factor, None


class _AsFactor(torch.autograd.Function):
    """What was made of the value, as if it were the value times a constant; of 0, nothing."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, made: Tensor) -> Tensor:
        ctx.save_for_backward(torch.where(value == 0, 0, made / value))
        return made.view_as(made)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        return slope * ctx.saved_tensors[0], None


class _Tempered(torch.autograd.Function):
    """The pattern of the scores; the gradient is that of the softmax at a higher temperature."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, pattern: Tensor) -> Tensor:
        # softmax(scores / T) is the pattern to the power 1 / T, made to sum to 1 again
        softer = pattern ** (1 / _TEMPERATURE)
        ctx.save_for_backward(softer / softer.sum(-1, keepdim=True))
        return pattern.view_as(pattern)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        softer = ctx.saved_tensors[0]
        return softer * (slope - (slope * softer).sum(-1, keepdim=True)), None


class _FrozenNorm(torch.autograd.Function):
    """A norm; the gradient takes its scale for a constant."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, norm: Any) -> Tensor:
        ctx.is_centred = type(norm).__name__.startswith("LayerNorm")
        centred = value - value.mean(-1, keepdim=True) if ctx.is_centred else value
        scale = (centred.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt()
        ctx.save_for_backward(getattr(norm, "w", torch.ones_like(scale)) / scale)
        made: Tensor = norm(value)
        return made

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        slope = slope * ctx.saved_tensors[0]
        return slope - slope.mean(-1, keepdim=True) if ctx.is_centred else slope, None
