"""Head scores on repeated random tokens: previous token, duplicate token, induction.

>>> from mechinterp import load_model
>>> from mechinterp.attention import head_scores
>>> from mechinterp.stats.intervals import interval
>>> scores = head_scores(load_model("toy:induction"), length=12, n=2, seeds=(0, 1))
>>> scores.dims, scores.sizes["prompt"]
(('score', 'layer', 'head', 'prompt'), 4)
>>> found = interval(scores.sel(score="induction", layer=1))
>>> found["mean"].values.round(2), found["low"].values.round(2)
(array([0.05, 0.05, 1.  ]), array([0.05, 0.05, 1.  ]))

The scores say where a head looks. For what it does, cut its links or ablate it on these prompts.
"""

import random
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mechinterp import models
from mechinterp.core.arguments import checks_arguments
from mechinterp.core.metrics import Metric, columns
from mechinterp.core.prompts import Prompts
from mechinterp.core.sites import Site
from mechinterp.core.specs import At, Edit, Specs, edit
from mechinterp.engine.runner import run
from mechinterp.models.model import Model, require_model
from mechinterp.models.tokenization import check_length, decoder, ordinary_tokens, start_token

SCORES = ("previous token", "duplicate token", "induction")


@checks_arguments
def repeated_blocks(
    model: Model, n: int = 8, seed: int = 0, *, length: int | None = None
) -> Prompts:
    """`n` prompts: a start token, then a block of different random tokens, twice.

    No token is special. `length` of the block: by default 50, or less if the context or the
    vocabulary is small. Positions "first" and "second" are where the two blocks begin.

    Raises:
        ValueError: if the vocabulary has too few tokens, or two blocks do not fit into the context.
    """
    tokens, start = ordinary_tokens(model), start_token(model)
    most = min(len(tokens), (model.cfg.n_ctx - len(start)) // 2)
    length = min(50, most) if length is None else length
    if not 2 <= length <= most:
        raise ValueError(
            f"length={length}: on this model a block of different tokens, twice, has 2 to {most}."
        )
    draw = random.Random(seed)
    blocks = [draw.sample(tokens, length) for _ in range(n)]
    made = Prompts.from_ids(
        [[*start, *block, *block] for block in blocks],
        decode=decoder(model),
        roles=[["bos"] * len(start) + ["text"] * (2 * length)] * n,
        device=models.device(model),
    )
    return check_length(model, made.named(first=len(start), second=len(start) + length))


@checks_arguments
def head_scores(
    model: Model, *, length: int | None = None, n: int = 8, seeds: Sequence[int] = (0, 1, 2)
) -> xr.DataArray:
    """Mean attention of each head on repeated random tokens: dims (score, layer, head, prompt).

    In start + r + r, where r is a block of S tokens: "previous token" is the attention from p to
    p - 1, over all tokens except the first of r; "duplicate token", from p in the second block to
    p - S, where the same token stood; "induction", from p to p - S + 1, the token after that. From
    0 to 1. `n` prompts for each of `seeds`, named in the coordinate `seed` (prompt). For intervals
    over prompts: `stats.interval`; over seeds: `.groupby("seed").mean()` first.

    Raises:
        ValueError: as `repeated_blocks`.

    Source: Olsson et al. 2022, "Per-token losses and head activation scores", arXiv 2209.11895;
    the duplicate token score, Wang et al. 2022, appendix, arXiv 2211.00593.
    """
    require_model(model)
    if n < 1 or not len(seeds):
        raise ValueError(f"head_scores: n={n}, seeds={seeds!r}: ask for at least one prompt.")
    cfg = model.cfg
    made = np.zeros((len(SCORES), cfg.n_layers, cfg.n_heads, n * len(seeds)))
    for number, seed in enumerate(seeds):
        prompts = repeated_blocks(model, n, seed, length=length)
        begin, second = (int(prompts.positions(name)[0]) for name in ("first", "second"))
        after = torch.arange(second, prompts.width)
        every, size = torch.arange(begin + 1, prompts.width), second - begin
        pairs = ((every, every - 1), (after, after - size), (after, after - size + 1))
        here = made[..., number * n : (number + 1) * n]
        specs: Specs = ()
        for layer in range(cfg.n_layers):
            specs += edit(Site("pattern", layer), _note_means(here[:, layer], pairs), name="score")
        run(model, prompts, specs)
    return xr.DataArray(
        made,
        {
            "score": list(SCORES),
            "layer": range(cfg.n_layers),
            "head": range(cfg.n_heads),
            "prompt": range(n * len(seeds)),
            "seed": ("prompt", np.repeat(seeds, n)),
        },
        ("score", "layer", "head", "prompt"),
        "head score",
        {"unit": "share", "length": size, "model": models.name(model)},
    )


@checks_arguments
def second_block_log_prob(prompts: Prompts) -> Metric:
    """The metric of these prompts: mean log-probability of the second block, in nats per token.

    Without its first token, which nothing predicts. A model without induction cannot guess them.
    """
    second = int(prompts.positions("second")[0])
    answers = prompts.tokens[:, second + 1 :]

    def score(logits: Tensor) -> Tensor:
        columns(answers, len(logits), logits.shape[-1], "second block")
        logs = logits.double().log_softmax(-1)
        return logs.gather(-1, answers.to(logs.device)[..., None])[..., 0].mean(-1)

    at = tuple(range(second, prompts.width - 1))
    return Metric("log_prob of the second block", "nats a token", at, score)


def _note_means(into: np.ndarray, pairs: Sequence[tuple[Tensor, Tensor]]) -> Edit:
    """An edit that changes nothing and notes mean weights, so that no pattern is kept."""

    def note(pattern: Tensor, at: At) -> Tensor:
        for place, (queries, keys) in enumerate(pairs):
            means = pattern[..., queries, keys].double().mean(-1)
            into[place] = means.T.cpu().numpy()
        return pattern

    return note
