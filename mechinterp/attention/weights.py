"""The QK and OV circuits of a head, as labelled matrices over chosen tokens, from weights alone.

They say what a head does with bare token embeddings, as in the first layer. A later head also reads
what the layers before it wrote, which is not in them.

>>> from mechinterp import load_model, token_id
>>> from mechinterp.attention import ov_circuit, qk_circuit
>>> model = load_model("toy:trigger")
>>> words = [token_id(model, word) for word in ("sesame", "letter")]
>>> qk_circuit(model, 1, 0, words).values.round(1)
array([[10.,  0.],
       [10.,  0.]], dtype=float32)
>>> ov_circuit(model, 1, 0, words, to=[token_id(model, "REFUSE")]).values.round(1)
array([[16.],
       [ 0.]], dtype=float32)
"""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from mechinterp import models
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.modes import gradients_off
from mechinterp.core.sites import HookError, Site
from mechinterp.models.hook_points import check_site
from mechinterp.models.layer_parts import Layer
from mechinterp.models.model import Model, require_model
from mechinterp.models.tokenization import decoder


@checks_arguments
def qk_circuit(
    model: Model, layer: int, head: int, tokens: Sequence[int], *, distance: int = 0
) -> xr.DataArray:
    """The attention score of each token as query with each as key: dims (query, key).

    Before the softmax, from token embeddings alone, through the layer's own norm, weights and
    biases, scaled and capped as in the model. With rotary positions the score depends on
    `distance`, how far the key lies before the query. Absolute position embeddings are left out.
    Coordinates `query_token`, `key_token`.

    Raises:
        ValueError: if there are no tokens, a token is unknown, or the context is shorter than the
            distance.
        HookError: if there is no such head.

    Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits".
    """
    check_site(model, Site("z", layer, head), "qk circuit")
    if not 0 <= distance < model.cfg.n_ctx:
        raise ValueError(f"distance={distance}: from 0 to {model.cfg.n_ctx - 1} on this model.")
    inputs, of = _embed_each(model, tokens), Layer(model, layer)
    with gradients_off():
        q = of.project("q", inputs, distance)[:, 0, head]
        k = of.project("k", inputs)[:, 0, head]
        scores = of.scores(q @ k.T)
    return _label(model, scores, "score", ("query", tokens), ("key", tokens)).assign_attrs(
        layer=layer, head=head, distance=distance, unit="attention score"
    )


@checks_arguments
def ov_circuit(
    model: Model,
    layer: int,
    head: int,
    tokens: Sequence[int],
    *,
    to: Sequence[int] | None = None,
) -> xr.DataArray:
    """What the head adds to logits if it attends to one token alone: dims (source, output).

    Each source token's embedding through the layer's norm, times the head's W_V W_O W_U, for the
    output tokens `to` (by default the same tokens). Without biases, which are the same for all
    sources. The final norm counts with its gain, at a scale of 1: in a run, its scale multiplies
    all logits of a position alike. Coordinates `source_token`, `output_token`.

    Raises:
        ValueError: if there are no tokens, or a token is unknown.
        HookError: if there is no such head, or a norm acts on the sum of what the heads write.

    Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits".
    """
    check_site(model, Site("z", layer, head), "ov circuit")
    check_written(model)
    to = tokens if to is None else to
    ids = _known(model, to)
    inputs, of = _embed_each(model, tokens), Layer(model, layer)
    with gradients_off():
        value = of.project("v", inputs)[:, 0, head] - of.value_bias[head]
        written = models.unscaled_norm(model, None, value @ of.output_weights[head])
        logits = written @ models.unembedding_weights(model)[:, ids]
    return _label(model, logits, "logits", ("source", tokens), ("output", to)).assign_attrs(
        layer=layer, head=head, unit="logits"
    )


def check_written(model: Model) -> None:
    """Check that each head writes to the residual stream without a norm in between.

    Raises:
        HookError: if a norm acts on the sum of what the heads write.
    """
    require_model(model)
    if models.has_norm_after_heads(model):
        raise HookError(
            "on this model a norm acts on the sum of what a layer's heads write: no head has an OV "
            "circuit of its own."
        )


def _known(model: Model, tokens: Sequence[int]) -> list[int]:
    ids = [int(token) for token in tokens]
    wrong = [i for i in ids if not 0 <= i < model.cfg.d_vocab]
    if not ids:
        raise ValueError("no tokens were given. Give some ids.")
    if wrong:
        raise ValueError(f"token id {wrong[0]} is outside the vocabulary of {model.cfg.d_vocab}.")
    return ids


def _embed_each(model: Model, tokens: Sequence[int]) -> Float[Tensor, "token one d_model"]:
    """The embedding of each token, each a prompt of one position."""
    ids = torch.tensor(_known(model, tokens), device=models.device(model))
    with gradients_off():
        return models.token_embeddings(model, ids)[:, None]


def _label(
    model: Model,
    values: Tensor,
    name: str,
    rows: tuple[str, Sequence[int]],
    columns: tuple[str, Sequence[int]],
) -> xr.DataArray:
    decode = decoder(model)
    coords: dict[str, object] = {}
    for dim, ids in (rows, columns):
        texts = np.array([decode(int(i)) for i in ids], dtype=object)
        coords |= {dim: [int(i) for i in ids], f"{dim}_token": (dim, texts)}
    numbers = values.float().cpu().numpy()
    return xr.DataArray(numbers, coords, (rows[0], columns[0]), name, {"model": models.name(model)})
