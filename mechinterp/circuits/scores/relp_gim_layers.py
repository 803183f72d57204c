"""Layers that compute what the model does, with other rules for the backward pass.

>>> import torch
>>> from mechinterp import load_model
>>> from mechinterp.models.layer_parts import Layer
>>> from mechinterp.circuits.scores.relp_gim_layers import InteractionLayer
>>> model, resid = load_model("toy:trigger"), torch.randn(1, 9, 57)
>>> torch.equal(InteractionLayer(model, 1).run(resid).resid, Layer(model, 1).run(resid).resid)
True

Each rule returns the model's own value and replaces the gradient: most by a constant factor
(`_with_factor`), the softmax by that of a softer one (`_SoftenedSoftmax`).
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction

from mechinterp.core.modes import gradients_off
from mechinterp.core.sites import HookError
from mechinterp.models.layer_parts import Layer, Norm
from mechinterp.models.model import Model

_TEMPERATURE = 2.0
"""The temperature of the softmax whose gradient GIM takes."""


class BackwardRuleLayer(Layer):
    """A layer whose norms have a constant scale, and whose gated MLP halves its gradient."""

    def __init__(self, model: Model, layer: int) -> None:
        super().__init__(model, layer)
        self.ln1, self.ln2 = freeze_scale(self.ln1), freeze_scale(self.ln2)

    def mlp(self, resid: Float[Tensor, "row token d_model"]) -> Float[Tensor, "row token d_model"]:
        """What the MLP writes; each factor of a gated product gets half of the gradient."""
        return self.mlp_out(self.neurons(resid, _halved_product))


class RelevanceLayer(BackwardRuleLayer):
    """A layer with the backward rules of RelP."""

    def activation(self, inputs: Tensor) -> Tensor:
        """The activation function f, whose gradient is the constant f(x) / x; 0 at x = 0."""
        output = super().activation(inputs).detach()
        at = inputs.detach()
        return _with_factor(inputs, torch.where(at == 0, 0, output / at), output)


class InteractionLayer(BackwardRuleLayer):
    """A layer with the backward rules of GIM."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What each head takes from the values: `z`."""
        return super().attend(_scaled(q, 0.25), _scaled(k, 0.25), _scaled(v, 0.5))

    def pattern(self, dots: Float[Tensor, "*row query src"]) -> Float[Tensor, "*row query src"]:
        """The attention pattern of the products of queries and keys."""
        apply: Callable[[Tensor, Tensor], Tensor] = _SoftenedSoftmax.apply
        return apply(self.scores(dots), super().pattern(dots.detach()))


def _scaled(value: Tensor, factor: float) -> Tensor:
    """The value itself, with a part of its gradient."""
    return _with_factor(value, value.new_tensor(factor), value.detach())


def _halved_product(one: Tensor, other: Tensor) -> Tensor:
    """The product, with half of the gradient for each factor."""
    return _scaled(one * other, 0.5)


@runtime_checkable
class _NormWithEps(Protocol):
    eps: float


def freeze_scale(norm: Norm) -> Callable[[Tensor], Tensor]:
    """A norm whose scale is a constant in the backward pass.

    Raises:
        HookError: if the kind of norm is unknown.
    """
    if isinstance(norm, nn.Identity):
        return norm
    kind = type(norm).__name__
    if kind not in ("LayerNorm", "LayerNormPre", "RMSNorm", "RMSNormPre"):
        raise HookError(f"no backward rule is known for a norm of the kind {kind}.")

    def normalized(value: Tensor) -> Tensor:
        assert isinstance(norm, _NormWithEps)
        centred = value - value.mean(-1, keepdim=True) if kind.startswith("LayerNorm") else value
        with gradients_off():
            scale = (centred.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt()
            factor = getattr(norm, "w", torch.ones_like(scale)) / scale
            output = norm(value)
        return _with_factor(centred, factor, output)

    return normalized


def _with_factor(value: Tensor, factor: Tensor, output: Tensor) -> Tensor:
    """The output, as if it were the value times a constant factor."""
    apply: Callable[[Tensor, Tensor, Tensor], Tensor] = _ConstantFactor.apply
    return apply(value, factor, output)


class _ConstantFactor(torch.autograd.Function):
    """Returns the output; the gradient of the value is that of the output times the factor."""

    @staticmethod
    def forward(ctx: BackwardCFunction, value: Tensor, factor: Tensor, output: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return output.view_as(output)

    @staticmethod
    def backward(ctx: BackwardCFunction, gradient: Tensor) -> tuple[Tensor, None, None]:
        (factor,) = ctx.saved_tensors
        return gradient * factor, None, None


class _SoftenedSoftmax(torch.autograd.Function):
    """Returns the pattern; the gradient is that of the softmax at a higher temperature."""

    @staticmethod
    def forward(ctx: BackwardCFunction, scores: Tensor, pattern: Tensor) -> Tensor:
        # softmax(scores / T) is the pattern to the power 1 / T, normalized to sum to 1 again.
        softer = pattern ** (1 / _TEMPERATURE)
        ctx.save_for_backward(softer / softer.sum(-1, keepdim=True))
        return pattern.view_as(pattern)

    @staticmethod
    def backward(ctx: BackwardCFunction, gradient: Tensor) -> tuple[Tensor, None]:
        # The product of a gradient with the Jacobian of a softmax s: s * (g - sum(g * s)).
        (softer,) = ctx.saved_tensors
        return softer * (gradient - (gradient * softer).sum(-1, keepdim=True)), None
