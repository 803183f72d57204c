"""Claims of Olsson et al. 2022 about induction heads, asked of SmolLM2-135M on random tokens.

"k r w q k r w" -> q. An induction head attends to the token after the earlier occurrence, and
copies it. An earlier previous token head writes each token to the position after it, and the
induction head's keys read that.

Found, in nats of the log-probability of the answer (-1.51 [-2.30, -1.04]; -14.33 if nothing is
repeated), with 95% intervals over 24 prompts; the heads were found on other prompts:

- Holds: induction heads exist: L18H6 .93 [.91, .94], L17H4 .90, L17H5 .82, L17H3 .76 of their
  attention.
- Holds: previous token heads exist: L16H0 .94 [.94, .95], L11H1 .84, and others.
- Holds: K-composition. The path from L16H0 to the keys of layer 18's induction head alone is
  worth -2.14 [-2.63, -1.68], of layer 17's -0.87 [-1.54, -0.45]; their values -0.05 and -0.11.
- Does not hold: that previous token heads do so in general. The paths from L11H1, L2H1 and L1H2 are
  worth 0.05 or less; that from L17H8 (score .43) to layer 18's keys -0.78 [-1.20, -0.49].
- Holds: induction heads do the task. Mean-ablating the four lowers it by 4.90 [3.66, 6.40], four
  random heads by nothing (0.01 [-0.02, 0.06]), L16H0 alone by 4.19 [3.04, 5.51].
- Does not hold: that each is needed. L17H4 and L17H5 alone raise it, by 0.35 [0.25, 0.52] and 0.20;
  L18H6 lowers it by 1.39, L17H3 by 0.73: what the four do together is three times the sum.
- Does not hold: that they copy, as in two layers. None of the four writes the answer to the logits:
  with its direct path noised the answer gains 0.05 to 0.09. Heads of layer 23 and L29H1 write it
  (-0.86 [-1.11, -0.63]), of which L23H0 to L23H2 are the name movers of the indirect object.

Source: arXiv 2209.11895, and Elhage et al. 2021 (the composition through keys),
transformer-circuits.pub. About a minute and a half on one core.

    .venv/bin/python experiments/induction_heads.py
"""

import random
from dataclasses import replace

import torch
import xarray as xr

from mechinterp import Site, knockout, load_model, read, run, stats, sweep, task
from mechinterp.ablation.single import ablate_sites
from mechinterp.engine.replacements import mean_of
from mechinterp.models import Model
from mechinterp.patching.paths import path_patching

N_PROMPTS, SEED = 24, 7
N_DRAWS = 12
N_SENDERS = 10

INDUCTION = ((18, 6), (17, 4), (17, 5), (17, 3))
PREVIOUS = ((16, 0), (11, 1), (2, 1), (1, 2))
DUPLICATE = ((14, 3), (2, 4), (9, 2))
MOVERS = ((23, 0), (23, 1), (23, 2), (23, 7), (29, 1))
KEYS = {"L17": Site("k", 17, 1, "induction"), "L18": Site("k", 18, 2, "induction")}
"""The keys of the induction heads: L17H3 to L17H5 share one, and L18H6 to L18H8."""


def main(
    model: Model | None = None,
    *,
    n_prompts: int = N_PROMPTS,
    n_draws: int = N_DRAWS,
) -> tuple[dict[str, bool], dict[str, xr.Dataset]]:
    """Print what was measured and the verdicts; return whether each claim holds, and the numbers.

    `model`: SmolLM2, if already loaded.
    """
    model = model or load_model("smollm2")
    made = task("induction", model, n=n_prompts, seed=SEED)
    clean, metric = made.pair.clean, made.metric
    base = xr.DataArray(metric(run(model, clean)).double().numpy(), dims="prompt")
    corrupt = xr.DataArray(metric(run(model, made.pair.corrupt)).double().numpy(), dims="prompt")
    found = {"unchanged": stats.interval(base), "no repeat": stats.interval(corrupt)}

    # The scores: attention of the second half to three positions, for all 270 heads.
    patterns = [Site("pattern", layer) for layer in range(model.cfg.n_layers)]
    acts = run(model, clean, read(*patterns)).acts
    attention = torch.stack([acts[site] for site in patterns])
    last, after = (int(clean.positions(pos)[0]) for pos in ("end", "induction"))
    length = last - (after - 1)
    queries = torch.arange(after + 1, last + 1)
    for name, keys in (
        ("induction score", queries - length + 1),
        ("previous token score", queries - 1),
        ("duplicate token score", queries - length),
    ):
        score = attention[..., queries, keys].mean(-1).transpose(1, 2).flatten(0, 1)
        labels = [f"L{n}H{h}" for n in range(model.cfg.n_layers) for h in range(model.cfg.n_heads)]
        found[name] = stats.interval(
            xr.DataArray(score.numpy(), {"head": labels}, ("head", "prompt"))
        )

    # The best four of each kind at the mean, against four others drawn at random.
    named = {*INDUCTION, *PREVIOUS, *DUPLICATE, *MOVERS}
    every = [(n, h) for n in range(model.cfg.n_layers) for h in range(model.cfg.n_heads)]
    others = [pair for pair in every if pair not in named]
    groups = {"induction": INDUCTION, "L16H0": PREVIOUS[:1], "other previous": PREVIOUS[1:]}
    groups |= {"duplicate": DUPLICATE}
    groups |= {f"L{n}H{h}": ((n, h),) for n, h in INDUCTION}
    shown = list(groups)
    groups |= {f"random {i}": random.Random(i).sample(others, 4) for i in range(n_draws)}
    without = ablate_sites(
        model,
        clean,
        metric,
        mean_of(made.pair.corrupt),
        {"group": list(groups)},
        lambda group: [Site("z", *pair) for pair in groups[group]],
        {},
    )
    found["mean-ablated"] = _change(without.sel(group=shown), base)
    drawn = without[-n_draws:].mean("group")
    found["four random heads"] = stats.difference(drawn, base.broadcast_like(drawn))
    by_induction = without.sel(group="induction", drop=True)
    found["induction minus random heads"] = stats.difference(by_induction, drawn)

    # Paths from previous token heads to the induction heads' keys and values, at the answer.
    score = found["previous token score"]["mean"].values
    ranked = [every[i] for i in (-score).argsort()]
    for name, keys in KEYS.items():
        before = [pair for pair in ranked if pair[0] < (keys.layer or 0)][:N_SENDERS]
        senders = [Site("z", *pair) for pair in before]
        for act, receiver in (("keys", keys), ("values", replace(keys, act="v"))):
            told = path_patching(model, made.pair, metric, senders, receiver)
            found[f"to the {act} of {name}"] = _change(told, told["clean_score"])

    # Links knocked out: of induction heads to the answer, of L16H0 to the token before it.
    links = {
        "induction heads, end to answer": [(*pair, "end", "induction") for pair in INDUCTION],
        "movers, end to answer": [(*pair, "end", "induction") for pair in MOVERS],
        "L16H0, answer to token before": [(16, 0, "induction", "first")],
        "L11H1, answer to token before": [(11, 1, "induction", "first")],
        "duplicate, end to first": [(*pair, "end", "first") for pair in DUPLICATE],
    }
    cut = sweep(
        model,
        clean,
        {"link": list(links)},
        lambda link: sum((knockout(*one) for one in links[link]), ()),
        metric,
    )
    found["knocked out"] = _change(cut, base)

    # Which heads write the answer directly.
    senders = [Site("z", *pair, "end") for pair in every if pair[0] >= 17]
    told = path_patching(model, made.pair, metric, senders, Site("logits", pos="end"))
    found["directly to the logits"] = _change(told, told["clean_score"])
    own = [f"L{layer}H{head}.z@end" for layer, head in INDUCTION]
    found["of these, the induction heads"] = found["directly to the logits"].sel(sender=own)

    for name, numbers in found.items():
        _show(name, numbers)
    verdicts = _verdicts(found)
    print()
    for claim, holds in verdicts.items():
        print(f"{'holds' if holds else 'DOES NOT HOLD':14} {claim}")
    return verdicts, found


def _change(result: xr.DataArray, base: xr.DataArray) -> xr.Dataset:
    """The mean change from the unchanged run, its interval, and p with Holm's correction."""
    change = stats.difference(result, base.broadcast_like(result))
    return change.assign(p=stats.correct_p_values(change["p"]))


def _show(name: str, numbers: xr.Dataset) -> None:
    """Print the largest cells of a result, with intervals and, if computed, p values."""
    print(f"\n{name}, {'share' if name.endswith('score') else 'nats'}")
    cells = numbers if numbers["mean"].ndim else numbers.expand_dims("mean of the prompts")
    (dim,) = cells["mean"].dims
    for cell in abs(cells["mean"]).argsort().values[::-1][:8]:
        one = cells.isel({dim: cell})
        label = str(one[dim].values) if dim in one.coords else dim
        p = f"  p {float(one['p']):.4f}" if "p" in one else ""
        print(f"  {label:32} {one['mean']:6.2f} [{one['low']:6.2f}, {one['high']:6.2f}]{p}")


def _verdicts(found: dict[str, xr.Dataset]) -> dict[str, bool]:
    """Whether each claim holds: its interval lies on the right side of 0, or of a share."""

    def high(name: str, *cell: object) -> float:
        value = found[name]["high"]
        return float(value.sel({value.dims[0]: str(*cell)}) if cell else value)

    def low(name: str, *cell: object) -> float:
        value = found[name]["low"]
        return float(value.sel({value.dims[0]: str(*cell)}) if cell else value)

    labels = [f"L{layer}H{head}" for layer, head in INDUCTION]
    keys = [f"to the keys of {name}" for name in KEYS]
    told = {name: found[name]["mean"].sel(sender="L16H0.z") for name in keys}
    values = {name: found[name.replace("keys", "values")]["mean"] for name in keys}
    direct = [high("directly to the logits", f"{label}.z@end") for label in labels]
    ablated_low = low("mean-ablated", "induction")
    return {
        "induction heads exist: four attend to the token after the earlier occurrence": (
            all(low("induction score", label) > 0.6 for label in labels)
        ),
        "previous token heads exist": (
            all(low("previous token score", label) > 0.6 for label in ("L16H0", "L11H1"))
        ),
        "a previous token head (L16H0) feeds the induction heads' keys, and not their values": (
            all(high(name, "L16H0.z") < -0.2 for name in keys)
            and all(abs(values[name].sel(sender="L16H0.z")) < abs(told[name]) / 3 for name in keys)
        ),
        "so do the other previous token heads before them, such as L11H1": (
            all(high(name, "L11H1.z") < -0.2 for name in keys)
        ),
        "without the induction heads the loss rises far more than without random heads": (
            high("induction minus random heads") < -2
            and ablated_low < 10 * low("four random heads")
        ),
        "each induction head is needed: the loss rises without any one of them": (
            all(high("mean-ablated", label) < 0 for label in labels)
        ),
        "the induction heads copy: each writes the answer to the logits directly": (
            all(value < -0.1 for value in direct)
        ),
    }


if __name__ == "__main__":
    main()
