"""Claim: induction in two layers is six edges, and a search finds these and no other.

A head of the first layer writes each token to the position after it; the keys of a head of the
second read that, its queries the current token, its values the token that stands there. The toy
`induction-trained` learnt it, and its truth names the six edges of twelve. Two blocks of ten tokens
are compared, each repeated; every edge then carries a difference.

Found (log-probability of the answer, 64 prompts, 95% intervals; it falls by 13.4 nats):

- Holds, by exact effects: the six are the strongest, from 13.16 [12.56, 13.86] down to 1.99 [1.11,
  3.28] (what the keys read of the embedding); the largest of the other six is 0.008.
- Holds, by ACDC: it keeps exactly the six with thresholds from 0.1 to 1 nat. At 0.01 it keeps two
  more, needed in one or two prompts of 64; at 3 it loses the weakest.
- Holds: alone they do .9998 [.9997, .9998] of it, and none can be left out: without the weakest
  they do .90, without any other .41 or less.
- Does not hold, of prompts whose second half stays: then the queries read the same in both, and the
  edge into them carries nothing. A circuit is that of a contrast.
- Does not hold, by gradients: at the model's own run the answer is certain, and EAP is below 0.001
  throughout; EAP-IG takes its steps to where what leaves the embedding adds up to within 1%, and
  still has two of its six strongest wrong and the keys' edge at -0.16 (exactly: 9.09). To add up
  says something about the edges out of the embedding only.
- Does not hold, in logits against the other block's answer: that no other edge counts. The values
  read the first head too, by 3.87 [3.48, 4.25] of 26.7. Where the answer has all the probability,
  what is left of it is not seen.

Source: Olsson et al. 2022, arXiv 2209.11895, and Elhage et al. 2021 (the composition through keys),
transformer-circuits.pub. Some seconds on one core.

    .venv/bin/python experiments/induction_circuit.py
"""

from typing import Any

import torch
import xarray as xr

from mechinterp import Pair, Prompts, load_model, logit_diff, task
from mechinterp.circuits import (
    Circuit,
    Contrast,
    EdgeScores,
    acdc,
    best_first,
    eap,
    eap_ig,
    exact_edges,
    faithfulness,
    known_circuit,
    rank_auc,
)
from mechinterp.toys import toy

N_PROMPTS, SEED = 64, 7
TAUS = (0.01, 0.1, 0.3, 1.0, 3.0)
KINDS = ("second half kept", "in logits")
"""The other contrasts, by exact effects."""


def main() -> tuple[dict[str, bool], dict[str, Any]]:
    """Print measurements and verdicts; return which claims hold, and the numbers."""
    planted = toy("induction-trained")
    model = load_model(planted)
    made = task("induction", model, n=N_PROMPTS, seed=SEED)
    other_block = Pair(made.pair.clean, _repeated(made.pair.corrupt))
    against = logit_diff(made.answers, made.others)

    contrast = Contrast.from_pair(model, other_block, made.metric)
    known = known_circuit(contrast.graph, planted.truth)
    scores = exact_edges(contrast)
    by_gradient = {"EAP": eap(contrast), "EAP-IG": eap_ig(contrast, steps=None)}
    found: dict[str, Any] = {
        "exact": scores.interval(),
        "second half kept": exact_edges(
            Contrast.from_pair(model, made.pair, made.metric)
        ).interval(),
        "in logits": exact_edges(Contrast.from_pair(model, other_block, against)).interval(),
        "residual share": by_gradient["EAP-IG"].per_pair.attrs["residual_share"],
        "rank AUC": {"exact": rank_auc(scores, known)},
    }
    for name, estimate in by_gradient.items():
        found[name] = estimate
        found["rank AUC"][name] = rank_auc(estimate, known)
    found["ACDC"] = {tau: acdc(contrast, tau) for tau in TAUS}

    less = {
        f"without {edge}": known - Circuit.from_edges(known.graph, [edge]) for edge in known.names
    }
    found["alone"] = faithfulness(contrast, {"known": known} | less)

    _show(known, found)
    verdicts = _verdicts(known, scores, found)
    print()
    for claim, holds in verdicts.items():
        print(f"{'holds' if holds else 'DOES NOT HOLD':14} {claim}")
    return verdicts, found


def _repeated(corrupt: Prompts) -> Prompts:
    """The block of the first half, repeated as in the clean prompts: its last token left out."""
    length = (corrupt.width + 1) // 2  # with the start token: 1 + n + n - 1
    start, block = corrupt.tokens[:, :1], corrupt.tokens[:, 1 : length + 1]
    ids = torch.cat([start, block, block[:, :-1]], 1).tolist()
    names = {name: at.tolist() for name, at in corrupt.names.items()}
    return Prompts.from_ids(ids).named(**names)


def _show(known: Circuit, found: dict[str, Any]) -> None:
    """All twelve edges by every method; then what ACDC kept, and what circuits do alone."""
    print("  edge              exact, nats             half kept  in logits      EAP   EAP-IG")
    for edge in Circuit.full(known.graph).names:
        one = {name: _cell(found[name], known, edge) for name in ("exact", *KINDS)}
        mean, low, high = (float(one["exact"][bound]) for bound in ("mean", "low", "high"))
        others = "".join(f"{float(one[name]['mean']):11.3f}" for name in KINDS)
        gradients = "".join(f"{found[name][edge]:9.3f}" for name in ("EAP", "EAP-IG"))
        mark = "*" if edge in known else " "
        print(f"{mark} {edge:16} {mean:6.3f} [{low:6.3f}, {high:6.3f}]{others}{gradients}")
    print("* known. Rank AUC:", {name: round(auc, 3) for name, auc in found["rank AUC"].items()})
    print(f"EAP-IG misses {found['residual share']:.2%} of the difference")
    for tau, kept in found["ACDC"].items():
        more, fewer = ", ".join((kept - known).names), ", ".join((known - kept).names)
        print(f"ACDC, tau {tau:5}: {kept.n_edges} edges; more: {more or '-'}; less: {fewer or '-'}")
    alone = found["alone"]
    for circuit in alone["circuit"].values:
        one = alone.sel(circuit=circuit)
        share, low, high = (float(one[name]) for name in ("faithfulness", "low", "high"))
        print(f"{circuit:24} does {share:.4f} [{low:.4f}, {high:.4f}] of it alone")


def _cell(numbers: xr.Dataset, known: Circuit, edge: str) -> xr.Dataset:
    writer, reader, _ = known.graph.edge(edge)
    return numbers.isel(writer=writer, reader=reader, pos=0)


def _verdicts(known: Circuit, scores: EdgeScores, found: dict[str, Any]) -> dict[str, bool]:
    """Each claim and whether it holds."""
    others = (Circuit.full(known.graph) - known).names

    def apart(name: str) -> bool:
        """Whether every known edge is above all the others, intervals apart."""
        least = min(float(_cell(found[name], known, edge)["low"]) for edge in known.names)
        return least > max(float(_cell(found[name], known, edge)["high"]) for edge in others)

    def negligible(name: str) -> bool:
        """Whether each of the other edges is below a twentieth of what there is to carry."""
        most = max(float(_cell(found[name], known, edge)["high"]) for edge in others)
        return most < 0.05 * float(_cell(found[name], known, "a1.h0->logits")["mean"])

    alone = found["alone"]
    left_out = alone.isel(circuit=slice(1, None))
    return {
        "by exact effects the six known edges are above all the others, which hardly count": (
            apart("exact") and negligible("exact")
        ),
        "best first by exact effects finds exactly the six": best_first(scores, 6) == known,
        "ACDC keeps exactly the six, with thresholds from 0.1 to 1 nat": (
            all(kept == known for tau, kept in found["ACDC"].items() if 0.1 <= tau <= 1)
        ),
        "the six alone do what the model does": float(alone["low"][0]) > 0.98,
        "none of the six can be left out": (
            bool((left_out["high"] < float(alone["low"][0])).all())
        ),
        "with the second half kept the six are found too": apart("second half kept"),
        "EAP-IG finds exactly the six": best_first(found["EAP-IG"], 6) == known,
        "in logits, too, the others hardly count": negligible("in logits"),
    }


if __name__ == "__main__":
    main()
