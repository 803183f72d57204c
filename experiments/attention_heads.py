"""Do heads found by their attention do what they are named for? Do strong links matter? (SmolLM2)

Heads are found by their attention on a repeated block of 50 random tokens (24 prompts, 3 seeds) and
mean-ablated on other such prompts (12 of 25 tokens). Measured: the log-probability of the second
block that is lost, in nats a token, with 95% intervals over prompts.

- Holds: previous token heads, L16H0 .89 [.88, .90]; duplicate token heads, L14H3 .62 [.57, .68];
  induction heads, L18H6 .85 [.81, .88].
- Holds: without the four best induction heads the loss is 4.35 [3.78, 5.08], without the four best
  previous token heads 6.04 [5.50, 6.50] (L16H0 alone 4.52); without four random heads 0.09
  [0.02, 0.11], the worst of ten draws 0.47 [0.41, 0.54].
- Does not hold: that duplicate token heads are needed. Without the best four the loss is 0.61
  [0.30, 1.82], about that of the worst random draw; without L14H3 0.12 [0.04, 0.21].

Then links, on sentences of the indirect object task with the names at the same positions.

- Does not hold: that the links of the classic recipe (mean over all heads above 0.1) matter. Of 37
  links 10 are confirmed in the head that attends most, and 6 of these go to the first token.
- Does not hold: that a link that matters shows in that head. Of the ten strongest links of the last
  token, and of the classic ones, more are confirmed when cut in all heads.
- Holds: this is not an artefact of cutting. Of 42 random links of the same heads none is confirmed
  in its head; cut in all heads 8 are.

Source: Olsson et al. 2022, arXiv 2209.11895, for the scores; Geva et al. 2023, arXiv 2304.14767,
for the knock-outs. About a minute and a half on one core.

    .venv/bin/python experiments/attention_heads.py
"""

import random

import numpy as np
import xarray as xr

from mechinterp import Prompts, Site, load_model, logit_diff, stats, task
from mechinterp.ablation.single import ablate_sites, effect
from mechinterp.attention import (
    confirm,
    find_links,
    head_scores,
    in_every_head,
    in_its_head,
    mean_above,
    over_prompts,
    patterns,
    random_links,
    repeated_blocks,
    second_block_log_prob,
    sink_share,
    top_k,
)
from mechinterp.engine.replacements import mean_of
from mechinterp.models import Model

LENGTH, N_PROMPTS, SEED = 25, 12, 11
"""Seed of the prompts on which heads are ablated; other prompts found them."""
N_BEST, N_DRAWS = 4, 10
N_SENTENCES = 16
N_SCORED = 8
"""Prompts for each of three seeds, by which heads are found."""
THRESHOLD = 0.1


def main(
    model: Model | None = None,
    *,
    n_prompts: int = N_PROMPTS,
    n_draws: int = N_DRAWS,
    n_sentences: int = N_SENTENCES,
    n_scored: int = N_SCORED,
) -> tuple[dict[str, bool], dict[str, xr.Dataset]]:
    """Print what was measured and the verdicts; return whether each claim holds, and the numbers.

    `model`: SmolLM2, if already loaded.
    """
    model = model or load_model("smollm2")
    found: dict[str, xr.Dataset] = {}

    # Found on other prompts, by where they look.
    scores = head_scores(model, n=n_scored)
    best: dict[str, list[tuple[int, int]]] = {}
    for kind in map(str, scores["score"].values):
        found[f"{kind} score"] = by_head(stats.interval(scores.sel(score=kind)))
        order = found[f"{kind} score"]["mean"].values.argsort()[::-1][:N_BEST]
        best[kind] = [divmod(int(place), model.cfg.n_heads) for place in order]

    # Ablated on these: each block's second occurrence, against as many random heads.
    prompts = repeated_blocks(model, n_prompts, SEED, length=LENGTH)
    other = repeated_blocks(model, n_prompts, SEED + 1, length=2 * LENGTH).tokens[
        :, : prompts.width
    ]
    reference = Prompts.from_ids(other.tolist())
    metric = second_block_log_prob(prompts)
    every = [(n, h) for n in range(model.cfg.n_layers) for h in range(model.cfg.n_heads)]
    named = {place for several in best.values() for place in several}
    rest = [place for place in every if place not in named]
    groups = {f"{kind} heads": places for kind, places in best.items()}
    groups |= {f"best {kind} head": places[:1] for kind, places in best.items()}
    shown = list(groups)
    groups |= {f"random {i}": random.Random(i).sample(rest, N_BEST) for i in range(n_draws)}
    lost = -effect(
        ablate_sites(
            model,
            prompts,
            metric,
            mean_of(reference),
            {"group": list(groups)},
            lambda group: [Site("z", *place) for place in groups[group]],
            {},
        )
    )
    found["lost without"] = stats.interval(lost.sel(group=shown))
    found["lost without random heads"] = stats.interval(lost[-n_draws:].mean("group"))
    found["worst of the random draws"] = stats.interval(
        lost[-n_draws:].isel(group=int(lost[-n_draws:].mean("prompt").argmax("group")))
    )

    # Links of sentences in which the names stand at the same places: listed, cut, and as many
    # random ones of the same heads.
    ioi = task("ioi", model, n=n_sentences, seed=0)
    places = ioi.pair.clean.positions("IO")
    rows = (places == places.mode().values).nonzero()[:, 0]
    sentences = ioi.pair.clean.rows(rows)
    names = logit_diff(ioi.answers[rows], ioi.others[rows])
    every_prompt = patterns(model, sentences)
    found["sink share"] = stats.interval(sink_share(every_prompt).mean(["layer", "head"]))
    mean = over_prompts(every_prompt, sentences)
    rules = {
        "classic": find_links(mean, mean_above(0.1)),
        "top 10 of the last": find_links(mean.sel(pos=[sentences.width - 1]), top_k(10)),
    }
    print()
    for name, links in rules.items():
        for cut in (in_its_head, in_every_head):
            for who, some in (("listed", links), ("random", random_links(mean, links))):
                label = f"{name}, {who}, {cut.__name__}"
                found[label] = confirm(model, sentences, some, names, cut=cut, threshold=THRESHOLD)
                print(tally(label, found[label]))

    for name, numbers in found.items():
        if "effect" not in numbers:
            show(name, numbers)
    verdicts = judged(found)
    print()
    for claim, holds in verdicts.items():
        print(f"{'holds' if holds else 'DOES NOT HOLD':14} {claim}")
    return verdicts, found


def by_head(scores: xr.Dataset) -> xr.Dataset:
    """Layers and heads as one axis, with the usual names."""
    stacked = scores.stack(place=("layer", "head"))
    names = [f"L{n}H{h}" for n, h in stacked["place"].values]
    return stacked.reset_index("place", drop=True).assign_coords(place=names)


def tally(name: str, checked: xr.Dataset) -> str:
    """Print how many links of each kind were confirmed."""
    yes = checked["confirmed"].values
    kinds, counts = np.unique(checked["kind"].values[yes].astype(str), return_counts=True)
    of = ", ".join(f"{n} {kind}" for kind, n in zip(kinds, counts, strict=True))
    together = float(checked["together"].mean())
    return f"{name:50} {yes.sum():3} of {len(yes):3} confirmed ({of}); together {together:+.2f}"


def show(name: str, numbers: xr.Dataset) -> None:
    """Print the largest cells of a result, with intervals."""
    print(f"\n{name}")
    cells = numbers if numbers["mean"].ndim else numbers.expand_dims("all")
    (dim,) = cells["mean"].dims
    for cell in abs(cells["mean"]).argsort().values[::-1][:7]:
        one = cells.isel({dim: cell})
        label = str(one[dim].values) if dim in one.coords else dim
        print(f"  {label:32} {one['mean']:6.3f} [{one['low']:6.3f}, {one['high']:6.3f}]")


def judged(found: dict[str, xr.Dataset]) -> dict[str, bool]:
    """Whether each claim holds: its interval lies on the right side of a bound."""
    lost, chance = found["lost without"], float(found["lost without random heads"]["high"])

    def low(name: str, place: str) -> float:
        return float(found[f"{name} score"]["low"].sel(place=place))

    def best(name: str) -> str:
        scores = found[f"{name} score"]["mean"]
        return str(scores["place"].values[int(scores.argmax("place"))])

    def n_confirmed(name: str, kind: str | None = None) -> int:
        checked = found[name]
        chosen = checked["confirmed"].values
        return int((chosen & (checked["kind"].values == kind)).sum() if kind else chosen.sum())

    classic = found["classic, listed, in_its_head"]
    drawn = [name for name in found if "random, in_its_head" in name]
    return {
        "the best previous token, duplicate token and induction heads are L16H0, L14H3, L18H6": (
            [best(kind) for kind in ("previous token", "duplicate token", "induction")]
            == ["L16H0", "L14H3", "L18H6"]
            and low("previous token", "L16H0") > 0.85
            and low("duplicate token", "L14H3") > 0.5
            and low("induction", "L18H6") > 0.75
        ),
        "without the induction heads the second block is lost, ten times as much as by chance": (
            float(lost["low"].sel(group="induction heads")) > 10 * chance
        ),
        "so without the previous token heads": (
            float(lost["low"].sel(group="previous token heads")) > 10 * chance
        ),
        "so without the duplicate token heads": (
            float(lost["low"].sel(group="duplicate token heads")) > 10 * chance
        ),
        "of random links of the same heads hardly one in twenty is confirmed": (
            all(n_confirmed(name) <= found[name].sizes["link"] / 20 for name in drawn)
        ),
        "most of what the classic recipe lists matters, in the head that gives most": (
            n_confirmed("classic, listed, in_its_head") > classic.sizes["link"] / 2
        ),
        "a link that matters in all heads matters in the head that gives most": (
            n_confirmed("classic, listed, in_every_head", "other")
            + n_confirmed("top 10 of the last, listed, in_every_head", "other")
            <= n_confirmed("classic, listed, in_its_head", "other")
            + n_confirmed("top 10 of the last, listed, in_its_head", "other")
        ),
    }


if __name__ == "__main__":
    main()
