"""Which input tokens drive each output token: remove one, measure how the output's score drops.

It is a sweep of removals: one forward pass a removed token serves all outputs, since the
continuation is fixed (the greedy one of the whole prompt, or yours) and every output is read at
the position before it.

    A[output, input] = score(output | whole prompt) - score(output | prompt without input)

Positive: the input token supports that output. A removal is a function from a position to specs,
and there is nothing here that a user could not have written.

>>> from mechinterp import attribute, load_model
>>> scores = attribute(load_model("toy:trigger"), "please bring the sesame", outputs=1)
>>> str(scores.input_token[scores.isel(output=0).argmax("input")].values)
'sesame'

Source: leave-one-out, or occlusion: Zeiler and Fergus 2014; Li et al. 2016, arXiv 1612.08220.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mechinterp import models
from mechinterp.metrics import Metric, log_prob, top_token
from mechinterp.passes import greedy
from mechinterp.prompts import Prompts
from mechinterp.runner import run
from mechinterp.sites import Site
from mechinterp.specs import Specs, delete_token, knockout, put, replace_token
from mechinterp.sweeps import Progress, sweep_each
from mechinterp.tokenization import Text, check_length, tokenize

Removal = Callable[[int], Specs]
"""Makes the specs that remove the token at a position."""

SIGN = "Positive: removing the input token lowers the score of the output, so it supports it."
SIGN_OF_DISTANCE = "How far removing the input token moves the whole prediction; no direction."


@dataclass(frozen=True)
class Last:
    """The last `n` positions of the prompt itself, each with the token that the model expects."""

    n: int


def last(n: int) -> Last:
    """Outputs for `attribute`: what the model predicts at the last `n` positions of the prompt."""
    return Last(n)


def attribute(
    model: Any,
    prompt: Text,
    outputs: int | str | Sequence[int] | Last = 5,
    removal: str | Removal = "delete",
    metric: Metric | None = None,
    *,
    inputs: str | Sequence[int] = "text",
    budget_bytes: int | None = None,
    progress: Progress | None = None,
) -> xr.DataArray:
    """The score of each input token for each output token, signed: dims `("output", "input")`.

    `prompt`: text, a chat, token ids or `Prompts`, of one prompt. `outputs`: how many greedy
    tokens (fewer if the model ends before), a continuation of yours as text or token ids, or
    `last(n)`. `removal`: a name of `REMOVALS`, or a function from a position to specs. `metric`:
    default `log_prob()`. `inputs`: "text", the tokens that the user wrote; "prompt", the start
    token and the chat template's too; "sequence", the text and the earlier outputs; or positions.

    NaN: not attributed. Exactly 0: an input that comes after the output. Coordinates: the tokens,
    their ids and roles, `output_score` (of the whole prompt), `bos_effect` (what removing the start
    token would do, as a control) and `flip` (the model would say another token). `attrs` hold
    the cost; naive is one full pass for each input token and output.

    Raises:
        ValueError: if there is not one prompt, nothing to remove, or the removal is unknown.
        HookError: if a removal cannot be done.
    """
    began = time.perf_counter()
    prompts = tokenize(model, prompt)
    if len(prompts) != 1:
        raise ValueError(f"attribute takes one prompt, not {len(prompts)}. Call it for each.")
    metric = metric or log_prob()
    if metric.bind is None:
        raise ValueError(f"metric {metric.name} cannot ask for an output token: it has no bind.")
    remove, removal_name = _removal(model, removal)
    _check_room(model, prompts, outputs)
    sequence, targets, rows, generated = _outputs(model, prompts, outputs)
    wanted = _inputs(sequence, inputs)
    control = [j for j in sequence.positions_of("bos") if j not in wanted]

    base = run(model, sequence, logits_at=rows)
    at_each = range(len(rows))
    bound = [metric.bind(targets[i : i + 1], rows[i], base.logits[:, i]) for i in at_each]
    tops = [top_token(at=row) for row in rows]
    whole = np.array([float(m(base)) for m in bound])
    swept = sweep_each(
        model,
        sequence,
        {"input": [*wanted, *control]},
        lambda input: remove(input),
        [*bound, *tops],
        budget_bytes=budget_bytes,
        progress=progress,
    )
    values = swept.values[..., 0].reshape(2, len(rows), -1)
    drop = (values[0] - whole[:, None]) * (1 if metric.distance else -1)
    future = np.array([*wanted, *control]) > np.array(rows)[:, None]
    drop = np.where(future, 0.0, drop + 0.0)
    best = np.array([float(t(base)) for t in tops])
    flips = (values[1] != best[:, None]) & ~future

    n_shown = max(prompts.width, max(wanted) + 1)
    scores = np.full((len(rows), n_shown), np.nan)
    flip = np.zeros(scores.shape, dtype=bool)
    scores[:, wanted] = drop[:, : len(wanted)]
    flip[:, wanted] = flips[:, : len(wanted)]
    text = sequence.token_text[0][:n_shown]
    naive = len(rows) * (len(wanted) + 1) * sequence.width * model.cfg.n_layers
    extra = (1 + generated) * sequence.width * model.cfg.n_layers
    return xr.DataArray(
        scores,
        dims=("output", "input"),
        name="score",
        coords={
            "output": list(at_each),
            "input": range(n_shown),
            "output_token": ("output", [sequence.decode(t) for t in targets.tolist()]),
            "input_token": ("input", list(text)),
            "output_token_id": ("output", targets.tolist()),
            "input_token_id": ("input", sequence.tokens[0, :n_shown].tolist()),
            "input_role": ("input", list(sequence.roles[0][:n_shown])),
            "output_position": ("output", rows),
            "output_score": ("output", whole),
            "bos_effect": (
                "output",
                drop[:, len(wanted)] if control else np.full(len(rows), np.nan),
            ),
            "flip": (("output", "input"), flip),
        },
        attrs=dict(swept.attrs)
        | {
            "metric": metric.name,
            "unit": metric.unit,
            "removal": removal_name,
            "sign": SIGN_OF_DISTANCE if metric.distance else SIGN,
            "prompt": "".join(text),
            "passes": swept.attrs["passes"] + 1 + generated,
            "token_layers": swept.attrs["token_layers"] + extra,
            "token_layers_naive": naive,
            "seconds": time.perf_counter() - began,
        },
    )


# Removals


def mean_embedding(model: Any) -> Removal:
    """Put the mean of all token embeddings in the place of the token's."""
    average = models.mean_embedding(model)
    return lambda pos: put(Site("embed", pos=pos), average)


def resampled_token(model: Any, seed: int = 0) -> Removal:
    """Put a token in its place that is drawn from the vocabulary, special tokens left out."""
    special = set(getattr(model.tokenizer, "all_special_ids", None) or ())
    ordinary = [i for i in range(model.cfg.d_vocab) if i not in special]

    def draw(pos: int) -> Specs:
        generator = np.random.default_rng([seed, pos])
        return replace_token(pos, int(generator.choice(ordinary)))

    return draw


def attention_knockout(model: Any) -> Removal:
    """Cut the attention of every later token to it, in every layer; positions stay."""

    def cut(pos: int) -> Specs:
        specs: Specs = ()
        for layer in range(model.cfg.n_layers):
            specs += knockout(layer, None, None, pos)
        return specs

    return cut


def replacement_token(model: Any, token_id: int | None = None) -> Removal:
    """Put one token in its place: by default the tokenizer's unknown token, or its end token.

    Raises:
        ValueError: if none is given and the tokenizer has neither.
    """
    tokenizer = model.tokenizer
    candidates = [token_id, *(getattr(tokenizer, f"{k}_token_id", None) for k in ("unk", "eos"))]
    chosen = next((c for c in candidates if c is not None), None)
    if chosen is None:
        raise ValueError(
            "this tokenizer has no unknown or end token: choose one, "
            "removal=replacement_token(model, token_id)."
        )
    return lambda pos: replace_token(pos, chosen)


REMOVALS: dict[str, Callable[[Any], Removal]] = {
    "delete": lambda model: delete_token,
    "mean": mean_embedding,
    "resample": resampled_token,
    "knockout": attention_knockout,
    "replace": replacement_token,
}
"""Name -> what makes the removal for a model."""


def _removal(model: Any, removal: str | Removal) -> tuple[Removal, str]:
    if callable(removal):
        return removal, getattr(removal, "__name__", "custom")
    if removal not in REMOVALS:
        raise ValueError(
            f"removal {removal!r} is unknown: {', '.join(REMOVALS)}, or a function of a position."
        )
    return REMOVALS[removal](model), removal


# Outputs and inputs


def _check_room(model: Any, prompts: Prompts, outputs: Any) -> None:
    """Errors about the outputs and the model, before a token is generated."""
    if model.cfg.attention_dir != "causal":
        raise ValueError("attribute needs a causal model: only there has an output its inputs.")
    n = outputs.n if isinstance(outputs, Last) else outputs
    if isinstance(n, int) and n < 1:
        raise ValueError(f"outputs={outputs!r}: ask for at least one.")
    if isinstance(outputs, Last) and outputs.n > prompts.width:
        raise ValueError(f"the prompt has {prompts.width} positions, fewer than last({outputs.n}).")
    if isinstance(outputs, int) and prompts.width + outputs - 1 > model.cfg.n_ctx:
        raise ValueError(
            f"{prompts.width} prompt tokens and {outputs} outputs exceed the context of "
            f"{model.cfg.n_ctx}. Ask for fewer outputs."
        )


def _outputs(
    model: Any, prompts: Prompts, outputs: int | str | Sequence[int] | Last
) -> tuple[Prompts, Tensor, list[int], int]:
    """The sequence to run, the output tokens, the positions that predict them, passes made."""
    width = prompts.width
    if isinstance(outputs, Last):
        rows = list(range(width - outputs.n, width))
        return prompts, run(model, prompts, logits_at=rows).logits[0].argmax(-1), rows, 1
    if isinstance(outputs, int):
        targets, generated = greedy(model, prompts, outputs), 1
    else:
        targets, generated = _continuation(model, outputs), 0
    sequence = _extended(prompts, targets[:-1])
    check_length(model, sequence)
    rows = list(range(width - 1, width - 1 + len(targets)))
    return sequence, torch.tensor(targets, device=prompts.tokens.device), rows, generated


def _continuation(model: Any, outputs: str | Sequence[int]) -> list[int]:
    if isinstance(outputs, str):
        if model.tokenizer is None:
            raise ValueError("this model has no tokenizer: give the outputs as token ids.")
        outputs = model.tokenizer(outputs, add_special_tokens=False)["input_ids"]
    if not outputs:
        raise ValueError("outputs is empty: give at least one token.")
    return [int(i) for i in outputs]


def _extended(prompts: Prompts, made: Sequence[int]) -> Prompts:
    return Prompts.from_ids(
        [[*prompts.tokens[0].tolist(), *made]],
        roles=[[*prompts.roles[0], *["output"] * len(made)]],
        decode=prompts.decode,
        device=prompts.tokens.device,
    )


def _inputs(sequence: Prompts, inputs: str | Sequence[int]) -> list[int]:
    kinds = {
        "text": ("text",),
        "prompt": ("text", "bos", "template"),
        "sequence": ("text", "output"),
    }
    if isinstance(inputs, str):
        if inputs not in kinds:
            raise ValueError(f"inputs={inputs!r}: one of {', '.join(kinds)}, or positions.")
        chosen = sequence.positions_of(*kinds[inputs])
    else:
        chosen = sorted({int(j) for j in inputs})
        for j in chosen:
            sequence.positions(j)
    if not chosen:
        raise ValueError("there is no input token to remove. Choose others: inputs=...")
    return chosen
