"""The QK and OV circuits of a head as labelled matrices over chosen tokens, from its weights alone.

They say what a head would do with the bare embeddings of two tokens, as in the first layer: what
other layers have written by the time that a later head reads is not in them.

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
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from mechinterp import models
from mechinterp.core.sites import HookError, Site
from mechinterp.models.hook_points import check_site
from mechinterp.models.layer_parts import Layer
from mechinterp.models.model import Model
from mechinterp.models.tokenization import decoder


def qk_circuit(
    model: Model, layer: int, head: int, tokens: Sequence[int], *, distance: int = 0
) -> xr.DataArray:
    """The attention score of each token as query for each as key: dims query key.

    Before the softmax, of the embeddings alone, through the layer's own norm, weights and biases,
    scaled and capped as the model does. Under rotary positions the score depends on how far the key
    lies before the query: `distance`. What an absolute position embedding adds is left out.
    Coordinates `query_token`, `key_token`.

    Raises:
        ValueError: if there are no tokens, one is unknown, or the distance leaves the context.
        HookError: if there is no such head.

    Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits".
    """
    check_site(model, Site("z", layer, head), "qk circuit")
    if not 0 <= distance < model.cfg.n_ctx:
        raise ValueError(f"distance={distance}: from 0 to {model.cfg.n_ctx - 1} on this model.")
    inputs, of = _embedded(model, tokens), Layer(model, layer)
    with torch.no_grad():
        q = of.project("q", inputs, distance)[:, 0, head]
        k = of.project("k", inputs)[:, 0, head]
        scores = of.scores(q @ k.T)
    return _labelled(model, scores, "score", ("query", tokens), ("key", tokens)).assign_attrs(
        layer=layer, head=head, distance=distance, unit="attention score"
    )


def ov_circuit(
    model: Model,
    layer: int,
    head: int,
    tokens: Sequence[int],
    *,
    to: Sequence[int] | None = None,
) -> xr.DataArray:
    """What the head writes to logits where it attends to one token alone: dims source output.

    Each token's embedding through the layer's norm, times W_V W_O W_U of the head, in the logits
    of the tokens `to` (the same ones unless given); no biases, which are the same for all sources.
    The final norm counts as its gain, with a scale of 1: in a run every row is multiplied by one
    number, that of the position. Coordinates `source_token`, `output_token`.

    Raises:
        ValueError: if there are no tokens, or one is unknown.
        HookError: if there is no such head, or what heads write passes a norm of its own.

    Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits".
    """
    check_site(model, Site("z", layer, head), "ov circuit")
    check_written(model)
    to = tokens if to is None else to
    ids = _known(model, to)
    inputs, of = _embedded(model, tokens), Layer(model, layer)
    with torch.no_grad():
        value = of.project("v", inputs)[:, 0, head] - of.value_bias[head]
        written = models.unscaled_norm(model, None, value @ of.output_weights[head])
        logits = written @ models.unembedding_weights(model)[:, ids]
    return _labelled(model, logits, "logits", ("source", tokens), ("output", to)).assign_attrs(
        layer=layer, head=head, unit="logits"
    )


def check_written(model: Model) -> None:
    """Nothing, if what a head writes goes into the residual stream as it is.

    Raises:
        HookError: if it passes a norm with what the other heads write.
    """
    if models.heads_pass_a_norm(model):
        raise HookError(
            "what the heads of a layer write passes a norm together on this model: no head has an "
            "OV circuit of its own."
        )


def _known(model: Model, tokens: Sequence[int]) -> list[int]:
    ids = [int(token) for token in tokens]
    wrong = [i for i in ids if not 0 <= i < model.cfg.d_vocab]
    if not ids:
        raise ValueError("no tokens were given. Give some ids.")
    if wrong:
        raise ValueError(f"token id {wrong[0]} is outside the vocabulary of {model.cfg.d_vocab}.")
    return ids


def _embedded(model: Model, tokens: Sequence[int]) -> Float[Tensor, "token one d_model"]:
    """The embedding of each token, each a prompt of one position."""
    ids = torch.tensor(_known(model, tokens), device=models.device(model))
    with torch.no_grad():
        return models.token_embeddings(model, ids)[:, None]


def _labelled(
    model: Model,
    values: Tensor,
    name: str,
    rows: tuple[str, Sequence[int]],
    columns: tuple[str, Sequence[int]],
) -> xr.DataArray:
    decode = decoder(model)
    coords: dict[str, Any] = {}
    for dim, ids in (rows, columns):
        texts = np.array([decode(int(i)) for i in ids], dtype=object)
        coords |= {dim: [int(i) for i in ids], f"{dim}_token": (dim, texts)}
    numbers = values.float().cpu().numpy()
    return xr.DataArray(numbers, coords, (rows[0], columns[0]), name, {"model": models.name(model)})
