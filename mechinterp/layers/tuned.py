"""A tuned lens: for each layer an affine map from its residual stream to the last layer's.

>>> from mechinterp import load_model
>>> from mechinterp.layers import logit_lens, train_lens
>>> from mechinterp.toys import example_inputs, toy
>>> model = load_model("toy:trigger")
>>> texts = [" ".join(words) for words in example_inputs(toy("trigger"), 40)]
>>> lens = train_lens(model, texts[:30], steps=20)
>>> plain, tuned = (logit_lens(model, texts[30:], lens=one)["kl"] for one in (None, lens))
>>> bool(tuned.sel(layer=0).mean() < plain.sel(layer=0).mean())
True

The logit lens reads early layers in the basis of the last one. A translator that was trained to
predict the model's output shows how much of it a layer holds. It also learns what is usual: what it
predicts on a rare prompt may come from the training texts, not from the prompt.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from mechinterp import models
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.interrupts import holds_signals
from mechinterp.core.modes import gradients_off, takes_gradients
from mechinterp.core.prompts import Prompts
from mechinterp.core.specs import read
from mechinterp.engine.runner import run
from mechinterp.layers.stream import stream_sites
from mechinterp.models.model import Model
from mechinterp.models.tokenization import Text, tokenize
from mechinterp.storage.seals import check_seal, metadata_of, sealed_tensors
from mechinterp.storage.whole_files import read_whole, write_whole
from mechinterp.sweeps.options import Progress

_FORMAT, _WITHOUT_SEAL = "mechinterp tuned lens 2", "mechinterp tuned lens 1"


@dataclass(frozen=True, eq=False)
class TunedLens:
    """Translators of the residual streams after 0, 1 ... n_layers - 1 layers.

    A stream x becomes x + x @ weights[layer] + biases[layer]. `fingerprint`: the model's.
    """

    weights: Float[Tensor, "layer d_model d_model"]
    biases: Float[Tensor, "layer d_model"]
    fingerprint: str

    def __call__(
        self, layer: int, resid: Float[Tensor, "*row d_model"]
    ) -> Float[Tensor, "*row d_model"]:
        """The stream after `layer` layers, translated to the last one; that one is unchanged."""
        if layer == len(self.weights):
            return resid
        weights, bias = (x[layer].to(resid) for x in (self.weights, self.biases))
        return resid + resid @ weights + bias

    def check(self, model: Model) -> None:
        """Check that the lens was trained for this model.

        Raises:
            ValueError: if it was trained for another model.
        """
        if self.fingerprint != models.fingerprint(model):
            raise ValueError(
                f"the tuned lens was trained for a model with the fingerprint {self.fingerprint}, "
                f"not for this one ({models.fingerprint(model)}). Train one: train_lens."
            )


@checks_arguments
@takes_gradients
def train_lens(
    model: Model,
    prompts: Text,
    *,
    steps: int = 100,
    rate: float = 3e-3,
    batch: int = 256,
    shrink: float = 0.01,
    seed: int = 0,
    progress: Progress | None = None,
) -> TunedLens:
    """Train a lens: translators that make each layer predict the model's output, on these texts.

    They start from ridge regression to the last stream; `shrink` times the stream's mean square
    penalises any change. Then come `steps` of Adam on KL(model || layer), with `batch` positions
    each; `rate` is about the fraction of a stream by which one step may move it. The first position
    of each text is left out: its stream is often far longer than all others. Give more positions
    than d_model, and judge the lens on other texts: `logit_lens(..., lens=lens)["kl"]`.

    Raises:
        HookError: if the residual streams do not fit into memory.
        ValueError: if there are fewer than two positions, or an option is out of range.

    Source: Belrose et al. 2023, section 3, arXiv 2303.08112.
    """
    if steps < 0 or batch < 1 or shrink < 0 or rate <= 0:
        raise ValueError(
            f"steps={steps}, batch={batch}, shrink={shrink}, rate={rate}: none may be negative, "
            f"and a step moves something."
        )
    each = _training_streams(model, tokenize(model, prompts))
    goal, n_layers = each[-1], len(each) - 1
    draw = torch.Generator().manual_seed(seed)
    made = []
    for layer, resid in enumerate(each[:-1]):
        if progress is not None:
            progress(layer, n_layers)
        begun = _least_squares(resid, goal, shrink)
        made.append(_refine(model, resid, goal, begun, steps, rate, batch, draw))
    if progress is not None:
        progress(n_layers, n_layers)
    weights, biases = (torch.stack(part) for part in zip(*made, strict=True))
    return TunedLens(weights, biases, models.fingerprint(model))


def _training_streams(model: Model, given: Prompts) -> Float[Tensor, "layer position d_model"]:
    """The residual streams at all positions except the first of each text."""
    found, sites = [], stream_sites(model)
    for row, length in enumerate(given.lengths.tolist()):
        if length > 1:
            one = given.rows(torch.tensor([row]))
            acts = run(model, one, read(*sites), logits_at=()).acts
            found.append(torch.stack([acts[site][0, 1:length] for site in sites]))
    if not found or sum(x.shape[1] for x in found) < 2:
        raise ValueError("the texts have no two positions after their first. Give longer ones.")
    return torch.cat(found, 1)


Map = tuple[Float[Tensor, "d_model d_model"], Float[Tensor, " d_model"]]


def _least_squares(
    resid: Float[Tensor, "position d_model"], goal: Float[Tensor, "position d_model"], shrink: float
) -> Map:
    """The map with the least squared error, plus a penalty on changing the stream at all."""
    x, y = resid.double(), (goal - resid).double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = x - mean_x, y - mean_y
    price = shrink * len(x) * x.square().mean().clamp(min=1e-12)
    gram = x.T @ x + price * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weights = torch.linalg.solve(gram, x.T @ y)
    return weights.to(resid), (mean_y - mean_x @ weights).to(resid)


def _refine(
    model: Model,
    resid: Float[Tensor, "position d_model"],
    goal: Float[Tensor, "position d_model"],
    begun: Map,
    steps: int,
    rate: float,
    batch: int,
    draw: torch.Generator,
) -> Map:
    """The map after some steps of Adam on KL(model || translated layer)."""
    size = resid.square().mean().sqrt() * resid.shape[1] ** 0.5
    unit = goal.square().mean().sqrt()
    moved = [torch.zeros_like(part).requires_grad_() for part in begun]
    adam = torch.optim.Adam(moved, lr=rate)
    for _ in range(steps):
        rows = torch.randint(len(resid), (min(batch, len(resid)),), generator=draw)
        x = resid[rows.to(resid.device)]
        with gradients_off():
            wanted = _log_probs(model, goal[rows.to(goal.device)])
        there = x + x @ begun[0] + begun[1] + unit * (x / size @ moved[0] + moved[1])
        said = _log_probs(model, there)
        loss = (wanted.exp() * (wanted - said)).sum(-1).mean()
        moved[0].grad, moved[1].grad = torch.autograd.grad(loss, moved)
        adam.step()
    with gradients_off():
        return begun[0] + unit / size * moved[0], begun[1] + unit * moved[1]


def _log_probs(
    model: Model, resid: Float[Tensor, "position d_model"]
) -> Float[Tensor, "position vocab"]:
    normed = models.normalize(model, resid[:, None])
    return models.unembed(model, normed)[:, 0].log_softmax(-1)


@checks_arguments
def write_lens(lens: TunedLens, file: str | Path) -> Path:
    """Write the lens as safetensors: "weights" [layer, d_model, d_model] and "biases".

    The header has a seal, a hash of the file, so that a damaged one is refused.
    """
    header = {"format": _FORMAT, "fingerprint": lens.fingerprint}
    content = sealed_tensors({"weights": lens.weights, "biases": lens.biases}, header)
    write_whole(Path(file), content)
    return Path(file)


@checks_arguments
@holds_signals
def read_lens(file: str | Path) -> TunedLens:
    """The lens that `write_lens` wrote.

    Raises:
        ValueError: if the file is not a tuned lens, or is damaged.
    """
    try:
        content = read_whole(Path(file), 2)
        header = metadata_of(content)
        if header.get("format") not in (_FORMAT, _WITHOUT_SEAL) or "fingerprint" not in header:
            raise ValueError("it holds no tuned lens. write_lens(lens, file) makes one")
        check_seal(content, file, is_new=header["format"] == _FORMAT)
        tensors = load(content)
        weights, biases = tensors["weights"], tensors["biases"]
        if weights.shape != (*biases.shape, biases.shape[-1]) or weights.dtype != biases.dtype:
            raise ValueError(
                f"weights {list(weights.shape)} do not fit {list(biases.shape)} biases"
            )
        if not (weights.isfinite().all() and biases.isfinite().all()):
            raise ValueError("it holds numbers that are not finite. Train it again")
    except (SafetensorError, OSError, LookupError, ValueError) as error:
        raise ValueError(f"{file} cannot be read as a tuned lens: {error}.") from None
    return TunedLens(weights, biases, header["fingerprint"])
