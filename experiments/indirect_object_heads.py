"""Claims of Wang et al. 2022 about GPT-2 small, asked of SmolLM2-135M: who finds the receiver.

"When Mary and John went to the store, John gave a drink to" -> Mary. In GPT-2, previous token,
duplicate token and induction heads mark that the subject (S) repeats; S-inhibition heads take that
to the end, into the queries of name movers, which attend to the indirect object (IO) and write it.

Corruption: three other names (the paper's p_ABC). Changes of the logit difference IO minus S, in
logits, with 95% intervals over 24 prompts. The heads below were found on other prompts (seed 0);
the screen by gradients, which chooses the 24 heads whose total effect is computed exactly, runs on
other prompts too (the full grid would take two minutes more).

Found (of a difference of 3.55 [2.83, 4.41]):

- Holds: few heads. By noising, 10 of the 24 heads change it by a tenth or more, L23H3 most, by
  -2.21 [-2.56, -1.86]. With the circuit at its mean it falls by 4.35 [3.93, 4.75], beyond 0, as the
  negative heads stay; with as many random heads at the same places it rises by 0.08 [0.01, 0.18].
- Holds: name movers. L23H0, L23H1, L23H2 attend to IO (.42 [.37, .49]) and write it: with their
  direct path noised IO changes by -1.23, -0.97 and -0.52. But they write S too, so that only L23H0
  has a clear effect on the difference, -0.69 [-0.90, -0.47].
- Does not hold: that name movers have the largest direct effect. It is L23H3's, -2.37 [-2.71,
  -2.10]. It attends to S2 (.60 [.56, .63]) and lowers S, by 2.42 [2.25, 2.69]; IO it leaves as it
  is, 0.05 [-0.23, 0.26]. The second, L29H1, attends to no name.
- Does not hold: that the model is worse with the name movers at the mean (theirs: little worse). It
  is not, by 0.40 [0.02, 0.84]: other heads make up for it, L24H4 in part at most. If they may not
  look at IO, but look elsewhere instead, it is, by -2.43 [-3.02, -1.89].
- Holds: negative name movers. L24H4 and L29H0 lower IO, by 1.02 and 0.95. L24H4 attends to IO (.61
  [.49, .72]); L29H0 does not (.02), so that it is none by attention.
- Holds: S-inhibition. L20H0 and L19H2 attend to S2 (.46 [.40, .52]) and act through the queries of
  layer 23, by -1.13 [-1.90, -0.65] and -0.68 [-0.84, -0.53]; no other head by more than 0.2.
- Holds: induction heads (S2 to S1+1; cut: -1.37 [-1.67, -1.11]) and a previous token head (L16H0,
  S1+1 to S1; cut: -1.08 [-1.41, -0.83]).
- Does not hold: that duplicate token heads count as much. L8H0, L8H1 and L14H3 attend from S2 to S1
  (.75 [.72, .78]), but with that cut the difference falls by 0.38 [0.06, 0.81] alone, p .13 by
  Holm; noised alone L8H0 lowers it by 0.29 [0.21, 0.38], p .005. On other prompts: by 0.0 to 0.4.

Source: arXiv 2211.00593, sections 3.1 to 3.4. About a minute and a half on one core.

    .venv/bin/python experiments/indirect_object_heads.py
"""

import random

import xarray as xr

from mechinterp import (
    Site,
    attribution_patching,
    centred_logit,
    knockout,
    load_model,
    read,
    run,
    stats,
    sweep,
    task,
    top_k,
)
from mechinterp.ablation.single import ablate_sites, base_score
from mechinterp.core.prompts import Prompts
from mechinterp.engine.replacements import mean_of
from mechinterp.models import Model
from mechinterp.patching.activation import patch_heads
from mechinterp.patching.paths import path_patching

N_PROMPTS, SEED, OTHER_SEED = 24, 7, 8
N_EXACT = 24
N_DRAWS = 10

NAME_MOVERS = (Site("z", 23, 0, "end"), Site("z", 23, 1, "end"), Site("z", 23, 2, "end"))
SUBJECT_SUPPRESSOR = Site("z", 23, 3, "end")
LAST_WRITER = Site("z", 29, 1, "end")
NEGATIVE = (Site("z", 24, 4, "end"), Site("z", 29, 0, "end"))
S_INHIBITION = (Site("z", 20, 0, "end"), Site("z", 19, 2, "end"))
INDUCTION = (Site("z", 17, 4, "S2"), Site("z", 18, 6, "S2"))
PREVIOUS = Site("z", 16, 0, "S1+1")
DUPLICATE = (Site("z", 8, 0, "S2"), Site("z", 8, 1, "S2"), Site("z", 14, 3, "S2"))
CIRCUIT = (*NAME_MOVERS, SUBJECT_SUPPRESSOR, LAST_WRITER, *S_INHIBITION, *INDUCTION, PREVIOUS)

LINKS = {
    "name movers, end to IO": [(23, 0, "end", "IO"), (23, 1, "end", "IO"), (23, 2, "end", "IO")],
    "L23H3, end to S2": [(23, 3, "end", "S2")],
    "S-inhibition, end to S2": [(20, 0, "end", "S2"), (19, 2, "end", "S2")],
    "induction, S2 to S1+1": [
        (17, 3, "S2", "S1+1"),
        (17, 4, "S2", "S1+1"),
        (17, 5, "S2", "S1+1"),
        (18, 6, "S2", "S1+1"),
    ],
    "previous token, S1+1 to S1": [(16, 0, "S1+1", "S1")],
    "duplicate, S2 to S1": [(8, 0, "S2", "S1"), (8, 1, "S2", "S1"), (14, 3, "S2", "S1")],
    "L24H4, end to IO": [(24, 4, "end", "IO")],
    "L29H0, end to IO": [(29, 0, "end", "IO")],
}


def main(
    model: Model | None = None,
    *,
    n_prompts: int = N_PROMPTS,
    n_exact: int = N_EXACT,
    n_draws: int = N_DRAWS,
) -> tuple[dict[str, bool], dict[str, xr.Dataset]]:
    """Print what was measured and the verdicts; return whether each claim holds, and the numbers.

    `model`: SmolLM2, if already loaded.
    """
    model = model or load_model("smollm2")
    made = task("ioi", model, n=n_prompts, seed=SEED)
    clean, metric = made.pair.clean, made.metric
    found: dict[str, xr.Dataset] = {}

    # The total effect of a head, by noising: a screen by gradients chooses which, exactly.
    other = task("ioi", model, n=n_prompts, seed=OTHER_SEED)
    layers, n_heads = range(model.cfg.n_layers), range(model.cfg.n_heads)
    source = run(model, other.pair.corrupt, read(*(Site("z", layer) for layer in layers))).acts
    grid = {"layer": layers, "head": n_heads}
    screen = attribution_patching(
        model,
        other.pair.clean,
        source,
        grid,
        lambda layer, head: Site("z", layer, head),
        other.metric,
    )
    total = patch_heads(model, made.pair, metric, only=top_k(screen, n_exact))
    total = total.stack(site=("layer", "head")).dropna("site").transpose("site", "prompt")
    labels = [f"L{layer}H{head}" for layer, head in total["site"].values]
    total = total.drop_vars(["site", "layer", "head"]).assign_coords(site=labels)
    base = total["clean_score"]
    found["base"] = stats.interval(base)
    found["total"] = _change(total, base)

    # What each head of the last layers writes directly, for IO, for S, and for IO against S.
    late = [Site("z", layer, head, "end") for layer in range(20, 30) for head in n_heads]
    logits = Site("logits", pos="end")
    named = [*NAME_MOVERS, SUBJECT_SUPPRESSOR, LAST_WRITER, *NEGATIVE]
    for name, measured, senders in (
        ("direct", metric, late),
        ("direct on IO", centred_logit(made.answers), named),
        ("direct on S", centred_logit(made.others), named),
    ):
        told = path_patching(model, made.pair, measured, senders, logits)
        found[name] = _change(told, told["clean_score"])

    # Paths from earlier heads to the queries of layer 23, where four of the writers are.
    early = [Site("z", layer, head, "end") for layer in range(14, 23) for head in n_heads]
    told = path_patching(model, made.pair, metric, early, Site("q", 23, pos="end"))
    found["to the queries"] = _change(told, base)
    for head in (0, 3):
        told = path_patching(model, made.pair, metric, S_INHIBITION, Site("q", 23, head, "end"))
        found[f"to the queries of L23H{head}"] = _change(told, base)

    # Where the named heads attend, and what is lost if that is hidden from them.
    found["attention"] = _attention(model, clean)
    cut = sweep(
        model,
        clean,
        {"link": list(LINKS)},
        lambda link: sum((knockout(*one) for one in LINKS[link]), ()),
        metric,
    )
    found["knocked out"] = _change(cut, base)

    # The circuit mean-ablated, each head at its positions, against other heads at the same ones.
    sets = {
        "name movers": NAME_MOVERS,
        "L24H4": NEGATIVE[:1],
        "name movers and L24H4": (*NAME_MOVERS, NEGATIVE[0]),
        "S-inhibition": S_INHIBITION,
        "duplicate": DUPLICATE,
        "circuit": CIRCUIT,
    } | {f"random {draw}": _random_heads(draw) for draw in range(n_draws)}
    how = mean_of(made.pair.corrupt, by_position=True)
    over = {"group": list(sets)}
    without = ablate_sites(model, clean, metric, how, over, lambda group: list(sets[group]), {})
    found["mean-ablated"] = _change(without[:-n_draws], base_score(without))
    drawn = without[-n_draws:].mean("group").expand_dims(group=["random heads, as many"])
    found["random heads"] = _change(drawn, base_score(without))
    by_circuit = without.sel(group="circuit", drop=True)
    found["circuit minus random heads"] = stats.difference(by_circuit, drawn[0].drop_vars("group"))
    negative = without.sel(group="L24H4", drop=True)
    both = without.sel(group="name movers and L24H4", drop=True)
    found["name movers, where L24H4 is ablated"] = stats.difference(both, negative)

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


def _attention(model: Model, clean: Prompts) -> xr.Dataset:
    """The attention of each named link, averaged over its heads."""
    sites = {
        Site("pattern", layer, head, query)
        for links in LINKS.values()
        for layer, head, query, _ in links
    }
    acts = run(model, clean, read(*sites)).acts
    rows = range(len(clean))
    shares = [
        sum(
            acts[Site("pattern", layer, head, query)][rows, clean.positions(key)]
            for layer, head, query, key in links
        ).numpy()
        / len(links)
        for links in LINKS.values()
    ]
    return stats.interval(xr.DataArray(shares, {"link": list(LINKS)}, ("link", "prompt")))


def _random_heads(draw: int) -> tuple[Site, ...]:
    """As many heads as in the circuit, at the same positions, none of those named here."""
    named = {(s.layer, s.head) for s in (*CIRCUIT, *NEGATIVE, *DUPLICATE)}
    others = [(n, head) for n in range(14, 30) for head in range(9) if (n, head) not in named]
    drawn = random.Random(draw).sample(others, len(CIRCUIT))
    return tuple(Site("z", *pair, site.pos) for pair, site in zip(drawn, CIRCUIT, strict=True))


def _show(name: str, numbers: xr.Dataset) -> None:
    """Print the largest cells of a result, with intervals and, if computed, p values."""
    print(f"\n{name}, logits" if name != "attention" else f"\n{name}, share")
    cells = numbers if numbers["mean"].ndim else numbers.expand_dims("mean of the prompts")
    (dim,) = cells["mean"].dims
    for cell in abs(cells["mean"]).argsort().values[::-1][:12]:
        one = cells.isel({dim: cell})
        label = str(one[dim].values) if dim in one.coords else dim
        p = f"  p {float(one['p']):.4f}" if "p" in one else ""
        print(f"  {label:30} {one['mean']:6.2f} [{one['low']:6.2f}, {one['high']:6.2f}]{p}")


def _verdicts(found: dict[str, xr.Dataset]) -> dict[str, bool]:
    """Whether each claim holds: its interval lies on the right side of 0, or of a share."""

    def high(name: str, *cell: object) -> float:
        value = found[name]["high"]
        return float(value.sel({value.dims[0]: str(*cell)}) if cell else value)

    def low(name: str, *cell: object) -> float:
        value = found[name]["low"]
        return float(value.sel({value.dims[0]: str(*cell)}) if cell else value)

    whole = float(found["base"]["mean"])
    n_large = int((abs(found["total"]["mean"]) > 0.1 * whole).sum())
    direct = found["direct"]["mean"]
    strongest = str(direct["sender"].values[int(direct.values.argmin())])
    n_told = int((found["to the queries"]["mean"] < -0.1 * whole).sum())
    return {
        "few heads: at most 12 of 270 have a tenth of the difference or more as total effect": (
            n_large <= 12
        ),
        "name movers (L23H0, L23H1, L23H2) attend to IO and write it directly": (
            low("attention", "name movers, end to IO") > 0.3
            and all(high("direct on IO", s) < 0 for s in NAME_MOVERS)
            and high("direct", NAME_MOVERS[0]) < 0
        ),
        "the head that writes most for IO against S is a name mover: it writes IO": (
            high("direct on IO", strongest) < -0.1 * whole
        ),
        "the model is worse with the name movers at the mean": (
            high("mean-ablated", "name movers") < 0
        ),
        "negative name movers: heads write directly against IO": (
            all(low("direct on IO", s) > 0 for s in NEGATIVE)
        ),
        "both negative heads do so by attending to IO": (
            low("attention", "L24H4, end to IO") > 0.3
            and low("attention", "L29H0, end to IO") > 0.3
        ),
        "S-inhibition: two heads attend to S2 and act through the queries of the writers": (
            low("attention", "S-inhibition, end to S2") > 0.3
            and all(high("to the queries", s) < -0.1 * whole for s in S_INHIBITION)
            and n_told == 2
        ),
        "induction heads attend from S2 to S1+1, and this link is needed": (
            low("attention", "induction, S2 to S1+1") > 0.2
            and high("knocked out", "induction, S2 to S1+1") < -0.05 * whole
        ),
        "a previous token head attends from S1+1 to S1, and this link is needed": (
            low("attention", "previous token, S1+1 to S1") > 0.3
            and high("knocked out", "previous token, S1+1 to S1") < -0.05 * whole
        ),
        "duplicate token heads attend from S2 to S1, and this link counts as much": (
            low("attention", "duplicate, S2 to S1") > 0.3
            and high("knocked out", "duplicate, S2 to S1")
            < 0.5 * high("knocked out", "induction, S2 to S1+1")
        ),
        "the circuit at the mean takes most of the difference, random heads nearly none": (
            high("mean-ablated", "circuit") < -0.5 * whole
            and low("random heads", "random heads, as many") > -0.1 * whole
            and float(found["circuit minus random heads"]["p"]) < 0.05
        ),
    }


if __name__ == "__main__":
    main()
