"""Does a head copy? Two scores from the literature, computed from its OV circuit.

>>> from mechinterp import load_model
>>> from mechinterp.attention import copying_scores, logit_copying
>>> model = load_model("toy:induction")
>>> copying_scores(model).sel(layer=1, head=2).item()
1.0
>>> logit_copying(model, 1, 2), logit_copying(model, 0, 1)
(1.0, 0.0)
"""

import random

import numpy as np
import torch
import xarray as xr

from mechinterp import models
from mechinterp.attention.weights import check_written, ov_circuit
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.modes import gradients_off
from mechinterp.models.layer_parts import Layer
from mechinterp.models.model import Model
from mechinterp.models.tokenization import ordinary_tokens

_NOTHING = 1e-9


@checks_arguments
def copying_scores(model: Model) -> xr.DataArray:
    """The sum of the eigenvalues of W_E W_V W_O W_U over the sum of their sizes: (layer, head).

    From -1 to 1; at 1, every direction of tokens raises its own logits. 0 if the head writes
    nothing that is read. The matrix is vocabulary by vocabulary with rank at most d_head: its
    nonzero eigenvalues are those of W_O W_U W_E W_V, which is d_head by d_head. Norms count with
    their gains, at a scale of 1.

    Raises:
        HookError: if a norm acts on the sum of what the heads write.

    Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", section
    "Summarizing OV/QK matrices".
    """
    check_written(model)
    cfg = model.cfg
    scores = np.zeros((cfg.n_layers, cfg.n_heads))
    with gradients_off():
        every = models.token_embeddings(
            model, torch.arange(cfg.d_vocab, device=models.device(model))
        )
        through = models.unembedding_weights(model) @ every
        for layer in range(cfg.n_layers):
            of = Layer(model, layer)
            outward = models.unscaled_norm(model, None, of.output_weights).double()
            inward = models.unscaled_norm(model, layer, through).double()
            small = outward @ (inward @ of.value_weights.double())
            values = torch.linalg.eigvals(small)
            size = values.abs().sum(-1)
            share = values.sum(-1).real / size.clamp(min=_NOTHING)
            scores[layer] = torch.where(size > _NOTHING, share, 0.0).cpu().numpy()
    return xr.DataArray(
        scores,
        {"layer": range(cfg.n_layers), "head": range(cfg.n_heads)},
        ("layer", "head"),
        "copying",
        {"unit": "share", "model": models.name(model)},
    )


@checks_arguments
def logit_copying(
    model: Model, layer: int, head: int, *, n: int = 200, top: int = 5, seed: int = 0
) -> float:
    """The share of random tokens that the head itself puts among its `top` logits, from 0 to 1.

    The head attends to the token's embedding alone, and what it writes is unembedded.

    Raises:
        HookError: if there is no such head.
        ValueError: if no token is asked for.

    Source: the copy score of Wang et al. 2022, section 3.2, arXiv 2211.00593, but from the
    embedding, not from the residual stream after the first MLP.
    """
    if n < 1:
        raise ValueError(f"logit_copying: n={n}: ask for at least one token.")
    tokens = ordinary_tokens(model)
    drawn = random.Random(seed).sample(tokens, min(n, len(tokens)))
    logits = ov_circuit(model, layer, head, drawn, to=range(model.cfg.d_vocab)).values
    own = logits[np.arange(len(drawn)), drawn]
    # Ties count against the token: a row that is the same everywhere copies nothing.
    ahead = (logits >= own[:, None]).sum(1)
    return float((ahead <= top).mean())
