"""The logit lens: what the model would predict if it ended after a given layer.

>>> from mechinterp import load_model, token_id
>>> from mechinterp.layers import logit_lens
>>> model = load_model("toy:trigger")
>>> found = logit_lens(model, ["please bring the sesame"], token_id(model, "REFUSE"))
>>> found["rank"].isel(prompt=0).values.tolist()[-1], str(found["top_token"][-1, 0, 0].values)
(0, 'REFUSE')

The residual stream after each layer goes through the model's own final norm and unembedding; after
the last layer this is the model's output. Early layers need not write in the basis that the
unembedding reads, so the model may know what the lens does not show. A tuned lens (`train_lens`)
translates each layer first.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from mechinterp import models
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.metrics import Answers, Metric, columns
from mechinterp.core.modes import gradients_off
from mechinterp.core.sites import Pos
from mechinterp.engine.batch import PassOutput
from mechinterp.engine.scoring import arm_scores
from mechinterp.layers.stream import by_layer, streams
from mechinterp.layers.tuned import TunedLens
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text, decoder, tokenize

_CHUNK_BYTES = 1 << 26
"""The size of the logits that are held at a time, over all layers and prompts."""

Streams = Float[Tensor, "layer prompt d_model"]


@checks_arguments
def logit_lens(
    model: Model,
    prompts: Text,
    answers: Answers | None = None,
    *,
    at: Pos = "end",
    lens: TunedLens | None = None,
    top: int = 5,
) -> xr.Dataset:
    """The prediction of each layer at a position: dims (layer, prompt), (layer, prompt, place).

    For `answers` (one token id for all prompts, or one each; by default the model's own first
    choice): `log_prob` in nats, and `rank`, the number of tokens ahead of it, 0 if it leads. `kl`:
    KL(model || layer) in nats. `top_token`, `top_id`, `top_log_prob`: the `top` first choices.
    `lens`: a tuned lens that translates each layer first. The vocabulary is unembedded in parts, so
    that no layer's logits exist as a whole.

    Raises:
        HookError: if the residual streams do not fit into memory.
        ValueError: if an answer is outside the vocabulary, a prompt has no such position, or the
            lens belongs to another model.

    Source: nostalgebraist 2020, "interpreting GPT: the logit lens"; with a translator: Belrose et
    al. 2023, arXiv 2303.08112.
    """
    given = tokenize(model, prompts)
    normed = _normalize(model, streams(model, given, (at,))[:, :, 0], lens)
    n_vocab = model.cfg.d_vocab_out
    summary = _Summary.of(model, normed, n_vocab, top)
    own = answers is None
    ids = summary.top_ids[-1, :, 0] if answers is None else torch.as_tensor(answers).reshape(-1, 1)
    ids = columns(ids.reshape(-1, 1), len(given), n_vocab, "logit_lens")[:, 0].to(normed.device)
    answer = _of_tokens(model, normed, ids)
    ahead, kl = _ranks_and_divergences(model, normed, n_vocab, answer, summary.log_total)
    text = decoder(model)
    tops = summary.top_ids.cpu().numpy()
    flat = ("layer", "prompt")
    arrays = {
        "log_prob": (flat, (answer - summary.log_total).cpu().numpy(), {"unit": "nats"}),
        "rank": (flat, ahead.cpu().numpy(), {"unit": "tokens ahead"}),
        "kl": (flat, kl.cpu().numpy(), {"unit": "nats"}),
        "top_id": ((*flat, "place"), tops),
        "top_token": ((*flat, "place"), np.vectorize(text, otypes=[object])(tops).astype(str)),
        "top_log_prob": (
            (*flat, "place"),
            (summary.top_logits - summary.log_total[..., None]).cpu().numpy(),
            {"unit": "nats"},
        ),
    }
    names = [text(int(i)) for i in ids]
    coords = {**by_layer(model, given), "answer": ("prompt", names)}
    attrs = {
        "answers": "the model's own" if own else "given",
        "at": str(at),
        "lens": "logit lens" if lens is None else "tuned lens",
        "model": models.name(model),
        "weights": models.processing(model),
    }
    return xr.Dataset(arrays, coords, attrs)


@checks_arguments
def lens_metric(
    model: Model, prompts: Text, metric: Metric, *, lens: TunedLens | None = None
) -> xr.DataArray:
    """Any metric of each layer's prediction: dims (layer, prompt), in the metric's unit.

    Raises:
        HookError: as `logit_lens`.
        ValueError: as `logit_lens`, or if the metric's answers do not fit the prompts.
    """
    given = tokenize(model, prompts)
    each = streams(model, given, metric.at)
    values = np.stack(
        [
            arm_scores(metric, PassOutput(model, models.normalize(model, x)), metric.at, 1)[0]
            for x in _translate(model, each, lens)
        ]
    )
    attrs = {
        "unit": metric.unit,
        "lens": "logit lens" if lens is None else "tuned lens",
        "model": models.name(model),
        "weights": models.processing(model),
    }
    return xr.DataArray(
        values, by_layer(model, given), ("layer", "prompt"), name=metric.name, attrs=attrs
    )


def _translate(
    model: Model, each: Float[Tensor, "layer *rest d_model"], lens: TunedLens | None
) -> Iterator[Tensor]:
    if lens is not None:
        lens.check(model)
    for layer, x in enumerate(each):
        yield x if lens is None else lens(layer, x)


def _normalize(model: Model, each: Streams, lens: TunedLens | None) -> Streams:
    with gradients_off():
        normed = [models.normalize(model, x[:, None])[:, 0] for x in _translate(model, each, lens)]
    return torch.stack(normed)


def _parts(
    model: Model, normed: Streams, n_vocab: int
) -> Iterator[tuple[int, Float[Tensor, "layer prompt part"]]]:
    """Where each part of the vocabulary begins, and its logits for all layers and prompts."""
    n_rows = normed.shape[0] * normed.shape[1]
    size = max(1, _CHUNK_BYTES // (n_rows * normed.element_size()))
    with gradients_off():
        for begin in range(0, n_vocab, size):
            yield begin, models.unembed(model, normed, part=slice(begin, begin + size)).double()


@dataclass(frozen=True, eq=False)
class _Summary:
    """What is kept of the logits: the log of the sum of their exponentials, and the largest."""

    log_total: Float[Tensor, "layer prompt"]
    top_logits: Float[Tensor, "layer prompt place"]
    top_ids: Int[Tensor, "layer prompt place"]

    @classmethod
    def of(cls, model: Model, normed: Streams, n_vocab: int, top: int) -> "_Summary":
        total = torch.full(normed.shape[:2], -torch.inf, dtype=torch.float64, device=normed.device)
        best = total[..., None].expand(-1, -1, 0)
        ids = torch.zeros_like(best, dtype=torch.long)
        for begin, logits in _parts(model, normed, n_vocab):
            total = torch.logaddexp(total, logits.logsumexp(-1))
            here, at = logits.topk(min(top, logits.shape[-1]), dim=-1)
            best, ids = torch.cat([best, here], -1), torch.cat([ids, at + begin], -1)
            best, order = best.topk(min(top, best.shape[-1]), dim=-1)
            ids = ids.gather(-1, order)
        return cls(total, best, ids)


def _of_tokens(
    model: Model, normed: Streams, ids: Int[Tensor, " prompt"]
) -> Float[Tensor, "layer prompt"]:
    """The logit of one token for each prompt."""
    with gradients_off():
        found = models.unembed(model, normed.transpose(0, 1), ids[:, None])
    return found[..., 0].T.double()


def _ranks_and_divergences(
    model: Model,
    normed: Streams,
    n_vocab: int,
    answer: Float[Tensor, "layer prompt"],
    log_total: Float[Tensor, "layer prompt"],
) -> tuple[Int[Tensor, "layer prompt"], Float[Tensor, "layer prompt"]]:
    """How many tokens are ahead of the answer; KL(last layer || layer) in nats."""
    ahead = torch.zeros(answer.shape, dtype=torch.long, device=answer.device)
    kl = torch.zeros_like(answer)
    slack = 1e-6 * answer.abs().clamp(min=1)  # the answer's own logit was summed in another order
    for _, logits in _parts(model, normed, n_vocab):
        ahead += (logits > (answer + slack)[..., None]).sum(-1)
        logs = logits - log_total[..., None]
        kl += (logs[-1].exp() * (logs[-1] - logs)).sum(-1)
    return ahead, kl
