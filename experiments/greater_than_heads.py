"""Claims of Hanna et al. 2023 about GPT-2 small, asked of SmolLM2-135M: a war ends after it begins.

"The war lasted from the year 1732 to the year 17" -> above 32. In GPT-2 a few heads at the end
attend to the start year's last two digits, YY, and the MLPs of the last layers compute what is
greater. SmolLM2 reads each digit as a token, so here only the tens digit is asked for (3 and above
are right), and YY is the position of that digit.

Found (of 0.96 [0.94, 0.97] probability, which the corruption lowers by 1.77 [1.57, 1.86]; with 95%
intervals over 16 prompts, too narrow with so few; the heads were found on other prompts):

- Holds: few heads. Noised at the end L20H8, L6H0, L18H6 and L23H0 change it by -0.31, -0.16, -0.15
  and -0.08 (all p .008, Holm over 270), no other by more than 0.011; together by -1.65 [-1.80,
  -1.39], four random heads by -0.002. The sum of each alone is less, as the metric saturates.
- Holds: they attend to YY, L20H8 .93 [.92, .94], L6H0 .79, L18H6 .78; L23H0 less, .31 [.23, .39].
  Hiding YY from them costs the four -0.83 [-1.17, -0.51]. As in GPT-2 one of them is an induction
  head, L18H6.
- Does not hold: that they are all in the middle (layers 5 to 9 of 12). L6H0 is at a fifth of the
  depth.
- Does not hold (no claim of theirs): that heads which attend to YY matter. L17H5 (.81) and L17H4
  (.72) do, and noised they change it by less than 0.01; with the link cut, -0.19 [-0.26, -0.13].
- Holds: late MLPs. Noised at the end MLPs 22, 23, 24 and 26 together change it by -1.12 [-1.38,
  -0.78], four random ones by -0.05, MLPs 0 to 19 by -0.07 [-0.12, -0.04]. L23 most: -0.33.
- Holds: the heads act through them. With MLPs 20 to 29 held the four heads change it by -0.22
  [-0.34, -0.15] in the place of -1.65.
- Holds: MLPs write it, directly by -0.11 (L23), -0.10 (L24), -0.09 (L26); the heads by -0.04 or
  less.

Source: arXiv 2305.00586, sections 3.1 and 3.2. About a minute on one core.

    .venv/bin/python experiments/greater_than_heads.py
"""

import random

import xarray as xr

from mechinterp import Site, knockout, load_model, patch, read, run, stats, sweep, task
from mechinterp.core.specs import Specs
from mechinterp.models import Model
from mechinterp.patching.activation import patch_heads, patch_outputs
from mechinterp.patching.paths import path_patching

N_PROMPTS, SEED = 16, 7
N_FLIPS = 1 << N_PROMPTS
"""All sign flips: with fewer no p value is small enough for Holm's correction over 270 heads."""
N_DRAWS = 10

HEADS = ((20, 8), (18, 6), (6, 0), (23, 0))
LOOK_ALIKES = ((17, 4), (17, 5))
MLPS = (22, 23, 24, 26)
LAST_THIRD = range(20, 30)


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
    made = task("greater-than", model, n=n_prompts, seed=SEED)
    clean, metric = made.pair.clean, made.metric
    found: dict[str, xr.Dataset] = {}

    # Every head, and every MLP, noised at the end.
    by_head = patch_heads(model, made.pair, metric, positions="end")
    base, corrupt = by_head["clean_score"], by_head["corrupt_score"]
    found["unchanged"] = stats.interval(base)
    found["noised, all of it"] = stats.difference(corrupt, base)
    flat = by_head.stack(site=("layer", "head")).transpose("site", "prompt")
    labels = [f"L{layer}H{head}" for layer, head in flat["site"].values]
    flat = flat.drop_vars(["site", "layer", "head"]).assign_coords(site=labels)
    found["head noised at the end"] = _change(flat, base)
    by_mlp = patch_outputs(model, made.pair, metric, "mlp_out", positions=["end"])
    found["MLP noised at the end"] = _change(by_mlp.isel(pos=0, drop=True), base)

    # Where the heads attend, and what is lost if that is hidden from them.
    seen = (*HEADS, *LOOK_ALIKES)
    patterns = [Site("pattern", layer, head, "end") for layer, head in seen]
    acts = run(model, clean, read(*patterns)).acts
    rows, at_year = range(n_prompts), clean.positions("YY")
    shares = [acts[site][rows, at_year].numpy() for site in patterns]
    named = {"site": [f"L{layer}H{head}" for layer, head in seen]}
    found["attention, end to YY"] = stats.interval(xr.DataArray(shares, named, ("site", "prompt")))
    links = {"the four heads": HEADS, "L17H4 and L17H5": LOOK_ALIKES}
    cut = sweep(
        model,
        clean,
        {"heads": list(links)},
        lambda heads: sum((knockout(*pair, "end", "YY") for pair in links[heads]), ()),
        metric,
    )
    found["knocked out, end to YY"] = _change(cut, base)

    # Together; the heads with the MLPs frozen; as many others, drawn at random.
    four = [Site("z", layer, head, "end") for layer, head in HEADS]
    groups = {
        "the four heads": four,
        "MLPs 22, 23, 24, 26": [Site("mlp_out", layer, pos="end") for layer in MLPS],
        "MLPs 20 to 29": [Site("mlp_out", layer, pos="end") for layer in LAST_THIRD],
        "MLPs 0 to 19": [Site("mlp_out", layer, pos="end") for layer in range(20)],
    }
    for draw in range(n_draws):
        chance = random.Random(draw)
        others = [(n, h) for n in range(5, 30) for h in range(9) if (n, h) not in HEADS]
        drawn = chance.sample(others, len(HEADS))
        groups[f"heads {draw}"] = [Site("z", layer, head, "end") for layer, head in drawn]
        layers = chance.sample([n for n in range(5, 30) if n not in MLPS], len(MLPS))
        groups[f"MLPs {draw}"] = [Site("mlp_out", layer, pos="end") for layer in layers]
    every = dict.fromkeys(site for group in groups.values() for site in group)
    noise = run(model, made.pair.corrupt, read(*every)).acts
    as_it_was = run(model, clean, read(*groups["MLPs 20 to 29"])).acts

    def noised(group: str) -> Specs:
        if group == "the four heads, MLPs 20 to 29 held":
            held = sum((patch(site, as_it_was) for site in groups["MLPs 20 to 29"]), ())
            return noised("the four heads") + held
        return sum((patch(site, noise) for site in groups[group]), ())

    over = {"group": [*list(groups)[:4], "the four heads, MLPs 20 to 29 held", *list(groups)[4:]]}
    together = sweep(model, clean, over, noised, metric)
    found["noised together"] = _change(together[:5], base)
    for kind in ("heads", "MLPs"):
        drawn = together.sel(group=[f"{kind} {draw}" for draw in range(n_draws)])
        found[f"random {kind}"] = stats.difference(drawn.mean("group"), base)
        group = "the four heads" if kind == "heads" else "MLPs 22, 23, 24, 26"
        chosen = together.sel(group=group, drop=True)
        found[f"{group} minus random {kind}"] = stats.difference(chosen, drawn.mean("group"))

    # Directly to the logits.
    senders = [*four, *groups["MLPs 20 to 29"]]
    told = path_patching(model, made.pair, metric, senders, Site("logits", pos="end"))
    found["directly to the logits"] = _change(told, base)

    for name, numbers in found.items():
        _show(name, numbers)
    verdicts = _verdicts(found)
    print()
    for claim, holds in verdicts.items():
        print(f"{'holds' if holds else 'DOES NOT HOLD':14} {claim}")
    return verdicts, found


def _change(result: xr.DataArray, base: xr.DataArray) -> xr.Dataset:
    """The mean change from the unchanged run, its interval, and p with Holm's correction."""
    change = stats.difference(result, base.broadcast_like(result), n_resamples=N_FLIPS)
    return change.assign(p=stats.correct_p_values(change["p"]))


def _show(name: str, numbers: xr.Dataset) -> None:
    """Print the largest cells of a result, with intervals and, if computed, p values."""
    print(f"\n{name}, {'share' if name.startswith('attention') else 'probability'}")
    cells = numbers if numbers["mean"].ndim else numbers.expand_dims("mean of the prompts")
    (dim,) = cells["mean"].dims
    for cell in abs(cells["mean"]).argsort().values[::-1][:8]:
        one = cells.isel({dim: cell})
        label = str(one[dim].values) if dim in one.coords else dim
        p = f"  p {float(one['p']):.4f}" if "p" in one else ""
        print(f"  {label:36} {one['mean']:6.3f} [{one['low']:6.3f}, {one['high']:6.3f}]{p}")


def _verdicts(found: dict[str, xr.Dataset]) -> dict[str, bool]:
    """Whether each claim holds: its interval lies on the right side of 0, or of a share."""

    def high(name: str, *cell: object) -> float:
        value = found[name]["high"]
        return float(value.sel({value.dims[0]: str(*cell)}) if cell else value)

    def low(name: str, *cell: object) -> float:
        value = found[name]["low"]
        return float(value.sel({value.dims[0]: str(*cell)}) if cell else value)

    whole = float(found["noised, all of it"]["mean"])  # negative
    by_head = found["head noised at the end"]
    largest = [str(x) for x in by_head["site"].values[by_head["mean"].values.argsort()[:4]]]
    depths = [int(label[1:].split("H")[0]) / 30 for label in largest]
    held = "the four heads, MLPs 20 to 29 held"
    writers = [f"L{layer}.mlp_out@end" for layer in (23, 24, 26)]
    return {
        "few heads at the end carry the start year: four, most of it together": (
            {f"L{layer}H{head}" for layer, head in HEADS} == {*largest}
            and all(float(by_head["p"].sel(site=label)) < 0.05 for label in largest)
            and high("noised together", "the four heads") < 0.6 * whole
            and low("random heads") > 0.05 * whole
        ),
        "they attend to YY: L20H8, L18H6 and L6H0": (
            all(low("attention, end to YY", head) > 0.5 for head in ("L20H8", "L18H6", "L6H0"))
        ),
        "all of them are in the middle layers (GPT-2: 5 to 9 of 12)": (
            all(5 / 12 <= depth < 10 / 12 for depth in depths)
        ),
        "(no claim of theirs) heads that attend to YY matter: L17H4 and L17H5 do too": (
            all(high("head noised at the end", head) < 0.03 * whole for head in ("L17H4", "L17H5"))
        ),
        "MLPs of the last third matter at the end, those before hardly": (
            high("noised together", "MLPs 20 to 29") < 0.3 * whole
            and float(found["noised together"]["mean"].sel(group="MLPs 0 to 19")) > 0.15 * whole
            and high("MLPs 22, 23, 24, 26 minus random MLPs") < 0.2 * whole
        ),
        "the heads act through these MLPs: with them held most of the effect is gone": (
            low("noised together", held) > 0.5 * high("noised together", "the four heads")
        ),
        "MLPs write it to the logits directly": (
            all(high("directly to the logits", writer) < 0 for writer in writers)
        ),
    }


if __name__ == "__main__":
    main()
