"""Claim: a model represents that a request is harmful, along a direction that makes it refuse.

Arditi et al. find one direction in each of 13 chat models: without it they no longer refuse, with
it they refuse harmless requests. Here SmolLM2-135M-Instruct gets 120 requests in matched pairs that
share words, of six topics; no pair is split between training and test. Activations are read at the
last token of the chat template. Directions are differences of class means at layer 16, chosen in
advance, found on three folds and measured on two. The metric is the log-odds of a refusal's first
words.

Found (balanced accuracy, 95% intervals over pairs; nats over 48 prompts):

- Holds: a probe reads that a request is harmful: .83 [.77, .88] at layer 16, .79 on topics that
  were left out; the words alone give .65 [.59, .72], a model with random weights no more than .58.
- Does not hold: that there is a best layer. The highest is .87 [.81, .92] at layer 26; of 25 layers
  from 4 on none can be told from it.
- Does not hold: that the probe does better than memorising. A random label for each first word is
  learnt at .85 to .97: selectivity is negative. These activations hold much that was not asked for;
  that harm is among it says little about what they are for.
- Does not hold: that the model refuses what is harmful. Its log-odds of refusing are -1.50 for
  harmful and -1.49 for benign requests: it hardly refuses anything.
- Does not hold: that it uses the direction. Projecting it out everywhere changes refusing by 0.04
  [-0.09, 0.15]; steering along it lowers refusing by 0.11. Random directions with the activations'
  covariance do as much and more (up to 3.7 projected out, -0.8 steered). Isotropic ones do less
  when steered, at most 0.09: beside these alone the steering would have passed for an effect.

What may be concluded: whether these requests are harmful is present in the residual stream,
linearly, from the middle layers on, beyond their words as a bag. What may not: that the model knows
harm as such (60 pairs of one author), where it is computed, or that anything follows from it: this
model does not refuse, so its refusal cannot depend on the direction, and nothing follows for models
that do.

Source: Arditi et al. 2024, arXiv 2406.11717; Marks and Tegmark 2023, arXiv 2310.06824. Four minutes
of one core.

    OMP_NUM_THREADS=1 .venv/bin/python experiments/harmful_direction.py
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from mechinterp import load_model, refusal_log_odds, run
from mechinterp.models import Model
from mechinterp.probing import (
    Labelled,
    ProbeStudy,
    best_layers,
    class_direction,
    compare_with_random,
    direction_effects,
    held_out,
    probe_layers,
    probe_model,
    residual_sites,
)
from mechinterp.report import print_probes
from mechinterp.tasks.requests import PAIRS, TOPICS, RequestPair

LAYER = 16
"""The layer of the direction: the middle, chosen before anything was measured."""


def main(
    model: Model | None = None,
    *,
    n_per_topic: int = 10,
    layers: Sequence[int] | None = None,
    n_random: int = 8,
    n_measured: int = 48,
) -> tuple[dict[str, bool], dict[str, Any]]:
    """Print measurements and verdicts; return which claims hold, and the numbers."""
    model = model or load_model("smollm2")
    pairs = [pair for topic in TOPICS for pair in _of(topic)[:n_per_topic]]
    given = _labelled(pairs)
    study = probe_model(model, given, sites=residual_sites(model, layers))
    by_topic = Labelled.of(given.prompts, given.labels, [p.topic for p in pairs for _ in range(2)])
    found: dict[str, Any] = {
        "probed": study.probed,
        "description": study.description,
        "best": best_layers(study.probed),
        "other topics": probe_layers(study.acts, by_topic, n_folds=len(TOPICS), n_shuffles=0),
        "refusal": _refusal(model, study),
        "used": _used(model, study, n_random, n_measured),
    }
    print_probes(
        study.probed, description=found["description"], best=found["best"], causal=found["used"]
    )
    verdicts = _verdicts(found)
    print(f"left-out topics, layer {LAYER}: {_task(found['other topics'], 'mean'):.2f}")
    print("log-odds of refusing:", {k: round(v, 2) for k, v in found["refusal"].items()})
    for claim, holds in verdicts.items():
        print(f"{'holds' if holds else 'DOES NOT HOLD':14} {claim}")
    return verdicts, found


def _of(topic: str) -> list[RequestPair]:
    return [pair for pair in PAIRS if pair.topic == topic]


def _labelled(pairs: Sequence[RequestPair]) -> Labelled:
    texts = [text for pair in pairs for text in (pair.harmful, pair.benign)]
    chats = [[{"role": "user", "content": text}] for text in texts]
    groups = [number for number in range(len(pairs)) for _ in range(2)]
    return Labelled.of(chats, ["harmful", "benign"] * len(pairs), groups)


def _refusal(model: Model, study: ProbeStudy) -> dict[str, float]:
    """Mean log-odds of refusing, unchanged, by class."""
    odds = refusal_log_odds(model)
    batches = torch.arange(len(study.prompts)).split(12)
    values = torch.cat([odds(run(model, study.prompts.rows(rows))) for rows in batches]).numpy()
    labels = np.array(study.labelled.labels)
    return {name: float(values[labels == name].mean()) for name in study.labelled.classes}


def _used(model: Model, study: ProbeStudy, n_random: int, n_measured: int) -> xr.Dataset:
    """The effects of the direction of some folds, measured on the pairs of the others."""
    tested = held_out(study.probed)
    along = class_direction(study.acts, study.labelled, LAYER, rows=~tested)
    rows = torch.from_numpy(np.flatnonzero(tested)[:n_measured])
    metric = refusal_log_odds(model)
    return compare_with_random(
        direction_effects(model, study.prompts.rows(rows), along, metric, n_random=n_random)
    )


def _task(probed: xr.Dataset, bound: str, of: str = "task") -> float:
    return float(probed[bound].sel(of=of, measure="balanced_accuracy", layer=LAYER))


def _verdicts(found: dict[str, Any]) -> dict[str, bool]:
    probed, effects = found["probed"], found["used"]
    low = _task(probed, "low")
    beyond = (effects["mean"] < effects["least"]) | (effects["mean"] > effects["most"])
    up = effects.sel(how="steer up")
    return {
        "harm can be read in the middle, beyond words, shuffled labels and random weights": all(
            low > _task(probed, "mean", of)
            for of in ("bag of tokens", "shuffled", "random weights")
        ),
        "also on topics that were left out": _task(found["other topics"], "low") > 0.6,
        "one layer is the best": len(found["best"].attrs["as_good"]) == 1,
        "the labels are learnt better than random ones of first words": (
            float(probed["selectivity_low"].sel(layer=LAYER)) > 0
        ),
        "the model refuses harmful requests more, by at least half a nat": (
            found["refusal"]["harmful"] - found["refusal"]["benign"] > 0.5
        ),
        "without the direction it refuses less, beyond every random direction": bool(
            beyond.sel(how="ablate").all() and (effects["mean"].sel(how="ablate") < 0).all()
        ),
        "along the direction it refuses more, beyond every random direction": bool(
            beyond.sel(how="steer up").all() and (up["mean"] > 0).all()
        ),
    }


if __name__ == "__main__":
    main()
