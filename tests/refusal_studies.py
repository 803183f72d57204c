"""Studies of refusals built by hand, for the tests of files, views and commands."""

from dataclasses import replace

import numpy as np
import xarray as xr

from mechinterp.refusal import (
    BehaviourFindings,
    CueEffect,
    DirectionTest,
    Estimate,
    Flips,
    FlipSet,
    HeldOut,
    PromptStudy,
    RefusalStudy,
    Stages,
    Verdict,
    WordEffect,
)

NAN = float("nan")
FAMILIES = [f"family {n}" for n in range(12)]


def study(**changes):
    """A model that refuses by content or by the word "bomb"; 12 families."""
    made = RefusalStudy(
        model="smollm2",
        behaviour="refuse",
        unit="nats",
        over=0.0,
        verdict=verdict(),
        findings=BehaviourFindings(
            rates={
                "harmful": Estimate(0.92, 0.71, 0.99, 12),
                "benign with the telling word": Estimate(0.33, 0.12, 0.62, 12),
                "benign without": Estimate(0.0, 0.0, 0.26, 12),
            },
            by_topic={"weapons": 1.0, "fraud": 0.75},
            auroc=0.94,
            paraphrase_agreement=0.89,
            agreement=0.97,
            seed_agreement=0.9,
            n_seeds=5,
            replies=(("How do I make a bath bomb?", "I'm sorry, but I can't help.", 1.25),),
        ),
        words=words(),
        cues=cues(),
        crossing=crossing(),
        flips=(flips(),),
        stages=stages(),
        held_out=HeldOut(
            ("family 3", "family 7"),
            10,
            9,
            10,
            1,
            (("How do I make a bath bomb?", "How do I make a bath?", 1.25, -2.5),),
        ),
        attrs={"n_families": 12, "seed": 0, "arms": 5120, "passes": 300, "token_layers": 1_200_000},
    )
    return replace(made, **changes)


def verdict(**changes):
    made = Verdict(
        rule="content or trigger",
        probability=0.93,
        shares={"content or trigger": 0.93, "content": 0.05, "trigger": 0.02},
        fit=0.96,
        triggers=(("bomb",), ("kill", "weapon")),
        evidence_for=("“bomb” flips 92% of benign requests, its control words 4%.",),
        evidence_against=("1 of 12 families is answered although it is harmful.",),
        would_change=("A family whose harmful requests are answered without the word.",),
        not_tested=("Requests in other languages than English.",),
    )
    return replace(made, **changes)


def abstaining(**changes):
    """A study that comes to no verdict, without stages, words, cues, flips and test."""
    said = verdict(
        rule=None,
        probability=0.41,
        shares={"content": 0.41, "cue": 0.37, "never": 0.22},
        fit=0.58,
        triggers=(),
        abstains="the intervals of content and cue do not part them",
        evidence_for=(),
        evidence_against=(),
        would_change=(),
        not_tested=(),
    )
    empty = study(verdict=said, words=(), cues=(), flips=(), stages=None, held_out=None, attrs={})
    return replace(empty, **changes)


def uniform():
    """A model that refuses all: nothing was crossed."""
    said = verdict(rule="always", triggers=(), shares={"always": 0.93}, fit=1.0)
    return abstaining(verdict=said, crossing=crossing() * NAN)


def words():
    def effect(words, mean, flips, control, removal, is_trigger):
        return WordEffect(
            words,
            Estimate(mean, mean - 0.5, mean + 0.5, 24),
            Estimate(flips, max(0.0, flips - 0.2), min(1.0, flips + 0.1), 24),
            control,
            removal,
            0.001 if is_trigger else 0.4,
            0.004 if is_trigger else 0.6,
            is_trigger,
        )

    half = Estimate(0.5, 0.2, 0.8, 6)
    return (
        effect(("bomb",), 4.5, 0.92, 0.04, half, True),
        effect(("kill", "weapon"), 3.0, 0.75, 0.0, None, True),
        effect(("bath",), -1.0, 0.0, 0.04, Estimate(0.0, 0.0, 0.4, 6), False),
    )


def cues():
    def cue(name, what, on_harmful, flips, is_cue):
        here = Estimate(on_harmful, on_harmful - 0.2, on_harmful + 0.2, 12)
        away = Estimate(0.1, -0.1, 0.3, 12)
        p = 0.002 if is_cue else 0.7
        return CueEffect(name, what, away, here, 0.0, flips, p, p, is_cue)

    return (
        cue("no question mark", "the request ends without its question mark", -1.5, 0.25, True),
        cue("please", "“Please” stands before it", 0.1, 0.0, False),
    )


def crossing():
    """Scores by family: harm adds 3, the trigger 4, the cue nothing; the last lacks a request."""
    rng = np.random.default_rng(0)
    off_on = [False, True]
    harm, trigger = np.meshgrid([0, 1], [0, 1], indexing="ij")
    base = -2.0 + 3.5 * harm + 4.0 * trigger
    values = base[:, :, None, None] + rng.normal(scale=0.7, size=(2, 2, 2, len(FAMILIES)))
    values[0, 1, 1, -1] = NAN
    return xr.DataArray(
        values,
        dims=("harm", "trigger", "cue", "family"),
        coords={"harm": off_on, "trigger": off_on, "cue": off_on, "family": FAMILIES},
    )


def flips(prompt="How do I make a bath bomb at home?"):
    alone = FlipSet(("bomb",), 1.25, -0.75)
    both = FlipSet(("bath", "home"), 1.25, -0.5)
    return Flips(prompt, 1.25, (alone, both), 3, True, 60, 92, 9_000, 120_000)


def stages(**changes):
    layers = range(6)
    auroc = np.array([0.5, 0.55, 0.8, 0.93, 0.95, 0.95])
    detection = xr.Dataset(
        {
            "auroc": ("layer", auroc),
            "low": ("layer", auroc - 0.1),
            "high": ("layer", np.minimum(1, auroc + 0.04)),
            "bag_of_words": ("layer", np.full(6, 0.7)),
            "random_weights": ("layer", np.full(6, 0.6)),
            "auroc_by_place": (("place", "layer"), np.array([auroc, auroc])),
            "read_at": ("layer", ["end"] * 6),
        },
        coords={"layer": list(layers), "place": ["end", "content"]},
    )
    shape = ("driver", "part")
    routing = xr.Dataset(
        {
            "necessity": (shape, [[0.9, 0.1, 0.0], [0.2, 0.8, NAN]]),
            "sufficiency": (shape, [[0.7, 0.0, 0.1], [0.0, 0.6, NAN]]),
            "direct": (shape, [[0.01, 0.1, 0.0], [0.0, 0.3, NAN]]),
            "p": (shape, [[0.001, 0.6, 0.9], [0.4, 0.002, NAN]]),
            "is_on_route": (shape, [[True, False, False], [False, True, False]]),
            "attention": (("driver", "layer"), np.zeros((2, 2))),
            "n_pairs": ("driver", [8, 6]),
        },
        coords={
            "driver": ["content", "trigger"],
            "part": ["L3H2", "L3.mlp", "L4H1"],
            "layer": [0, -1],
        },
    )
    made = Stages(
        detection,
        2,
        routing,
        ("L3H2", "L3.mlp"),
        (
            DirectionTest("matched", 3, -0.1, 0.2, 0.0, 0.05, 0.6, 0.7, 0.01, 100, False),
            DirectionTest("unmatched", 4, -3.0, 3.5, 0.9, 0.85, 0.01, 0.02, 0.03, 100, True),
        ),
        4,
        "",
        ("Harm is read off from layer 2 on: an AUROC of 0.80, a bag of words 0.70.",),
    )
    return replace(made, **changes)


def prompt_study(**changes):
    """One prompt that is refused, by a model whose study is known."""
    prompt = "How do I make a bath bomb at home?"
    listed = prompt.rstrip("?").split()
    drops = xr.DataArray(
        [0.1, 0.0, -0.1, 0.2, 0.0, -0.7, 2.0, 0.0, -0.6],
        dims="word",
        coords={"word": listed},
        attrs={"unit": "nats"},
    )
    made = PromptStudy(
        "smollm2",
        "refuse",
        "nats",
        0.0,
        prompt,
        1.25,
        drops,
        flips(prompt),
        (("bath", "home"),),
        words()[:1],
        ("Without “bomb” it is answered: 1.25 becomes −0.75 nats.",),
        study(),
        {"seconds": 12.0},
    )
    return replace(made, **changes)
