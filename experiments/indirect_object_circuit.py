"""Does SmolLM2-135M find the receiver by the circuit of GPT-2 small? Head by head, arrow by arrow.

Wang et al. 2022 draw a circuit of seven roles. Here its arrows are drawn between the heads that
have these roles in SmolLM2 (found before, by patching heads of other prompts), in a graph whose
edges stand at IO, S1, S1+1, S2 and the end. The other prompts are, for the search, those in which
IO stands in the place of S2, and for arrows that read S1+1, where nothing changes then, three other
names (p_ABC). Metric: IO's logit minus S's. Circuits are judged on other prompts than found on.

Found (of 7.86 logits that S2 makes, 3.56 by p_ABC; 16 prompts, 95% intervals, rather too narrow
with so few; the strongest edge of an arrow, exactly):

- Transfers: name movers. L23H0, H1, H2 look from the end to IO (.56, .50, .26) and write to the
  logits: 1.15 [0.74, 1.49], 0.79, 0.60.
- Transfers: negative name movers, L24H4 -1.64 [-2.33, -1.00] and L29H0 -1.47; L29H0 does not look
  at IO (.02), and reads what L23H3 wrote at the end.
- Transfers: S-inhibition, L20H0 and L19H2 (end to S2 .59, .28) into the queries of name movers,
  2.76 in all, L20H0 to L23H0 0.79 [0.39, 1.33]. Into those of negative ones hardly, -0.08.
- Transfers: induction heads into S-inhibition, L17H4 to the values of L20H0 0.79 [0.54, 1.13], and
  previous token heads into induction heads, L16H0 to the keys of L17H4 0.63 [0.42, 0.97] of 3.56.
- Hardly: duplicate token heads. They look there (.65 to .91), and all their arrows make 0.28.
- Not asked: backup name movers, who work when others are knocked out.
- New: L23H3 looks at S2 (.58) and writes most, 4.31; it reads the name there from MLP 0 (2.31).
  L29H1, in no role, comes next (2.01).
- Alone, with all MLPs, the paper's arrows do .37 [.30, .44] of the whole; with L23H3 as one more
  name mover 1.01 [.92, 1.10], without S-inhibition then .54, without induction heads .59, without
  duplicate token heads .98; L23H3 and no other head .65 [.58, .72]; as many random heads none.
- A thousand edges by EAP-IG do .90 [.84, .97], two hundred .62.

What may be concluded: these arrows of one model hold between heads of another, and are not all of
it. What may not: that these are the only heads, that a role is all that a head does, or that edges
which are not here do nothing: MLPs are all in, and paths through them are in no arrow's number. The
roles were given, not found; some rules of the verdicts were set after numbers had been seen.

Source: arXiv 2211.00593, figure 2, sections 3.1 to 3.3. About five minutes on one core.

    .venv/bin/python experiments/indirect_object_circuit.py
"""

import random
from typing import Any

import xarray as xr

from mechinterp import Site, load_model, read, run, stats
from mechinterp.circuits import (
    PUBLISHED,
    Contrast,
    EdgeScores,
    Graph,
    best_first,
    circuit_of_roles,
    eap_ig,
    exact_edges,
    faithfulness,
    top_n,
)
from mechinterp.circuits.published import Arrow
from mechinterp.core.prompts import Prompts
from mechinterp.models import Model
from mechinterp.tasks.ioi import FINDINGS, indirect_objects

N_PROMPTS, SEED, OTHER_SEED = 16, 7, 8
N_EXACT, N_STRONG = 500, 50
SIZES = (200, 1000)
N_DRAWS = 2
PLACES = ("IO", "S1", "S1+1", "S2", "end")
SUPPRESSOR = "a23.h3"

DUPLICATE = ("a8.h0", "a8.h1", "a14.h3")
"""Heads that attend from S2 to S1, found on other prompts; no finding of the task names them."""

LOOKS = {
    "name mover": ("end", "IO"),
    "negative name mover": ("end", "IO"),
    "S-inhibition": ("end", "S2"),
    "duplicate token": ("S2", "S1"),
    "previous token": ("S1+1", "S1"),
    "induction": ("S2", "S1+1"),
}
"""Where the heads of a role look, in the paper; backup name movers have no pattern of their own."""


def main(
    model: Model | None = None,
    *,
    n_prompts: int = N_PROMPTS,
    n_draws: int = N_DRAWS,
    n_exact: int = N_EXACT,
) -> tuple[dict[str, bool], dict[str, Any]]:
    """Print measurements and verdicts; return whether each claim holds, and the numbers.

    `model`: SmolLM2, if already loaded.
    """
    model = model or load_model("smollm2")
    graph = Graph.from_model(model, positions=PLACES)
    arrows = PUBLISHED["ioi"].arrows
    roles = _roles(model)
    drawn = circuit_of_roles(graph, roles, _between_heads(arrows))

    # All edges by gradients; the strongest, and those of the paper's arrows, exactly.
    made = indirect_objects(model, n_prompts, SEED, corruption="S2 to IO")
    swapped = Contrast.from_pair(model, made.pair, made.metric, graph)
    estimate = eap_ig(swapped, steps=None)
    effect = exact_edges(swapped, top_n(estimate, n_exact) | drawn)
    random_names = indirect_objects(model, n_prompts, SEED)
    three_names = Contrast.from_pair(model, random_names.pair, random_names.metric, graph)
    effect_of_names = exact_edges(three_names, drawn)
    found: dict[str, Any] = {
        "whole": float(swapped.base_scores.mean()) - _empty(swapped),
        "whole, p_ABC": float(three_names.base_scores.mean()) - _empty(three_names),
        "residual share": estimate.per_pair.attrs["residual_share"],
        "strongest": effect.strongest(N_STRONG),
        "effect": effect,
    }

    # Circuits on other prompts: of the strongest edges, and of the paper's arrows.
    other = indirect_objects(model, n_prompts, OTHER_SEED, corruption="S2 to IO")
    contrast = Contrast.from_pair(model, other.pair, other.metric, graph)
    circuits = {f"{n} edges": best_first(estimate, n) for n in SIZES}
    more = roles | {"name mover": (*roles["name mover"], SUPPRESSOR)}
    drawings = {"paper's arrows": roles, "and L23H3": more}
    drawings["L23H3, no other head"] = {"name mover": (SUPPRESSOR,), "MLP": roles["MLP"]}
    for role in ("S-inhibition", "induction", "duplicate token"):
        drawings[f"and L23H3, no {role}"] = {n: h for n, h in more.items() if n != role}
    for draw in range(n_draws):
        drawings[f"random {draw}"] = _shuffled(more, draw)
    circuits |= {
        name: circuit_of_roles(graph, drawing, arrows) for name, drawing in drawings.items()
    }
    found["alone"] = faithfulness(contrast, circuits)
    found["nodes"] = {size: circuits[f"{size} edges"].nodes for size in SIZES}

    # Where every head looks, and what the paper's arrows carry.
    found["attention"] = _attention(model, made.pair.clean)
    found["arrows"] = _carried(graph, roles, effect, effect_of_names)

    _show(roles, found)
    verdicts = _verdicts(roles, found)
    print()
    for claim, holds in verdicts.items():
        print(f"{'holds' if holds else 'DOES NOT HOLD':14} {claim}")
    return verdicts, found


def _roles(model: Model) -> dict[str, tuple[str, ...]]:
    """The heads of each role as they were found by patching heads; and all MLPs."""
    named = {f.role: f.sites for f in FINDINGS if f.model == "smollm2" and f.role in LOOKS}
    roles = {role: tuple(f"a{s.layer}.h{s.head}" for s in sites) for role, sites in named.items()}
    mlps = tuple(f"m{layer}" for layer in range(model.cfg.n_layers))
    return roles | {"duplicate token": DUPLICATE, "MLP": mlps}


def _shuffled(roles: dict[str, tuple[str, ...]], draw: int) -> dict[str, tuple[str, ...]]:
    """As many other heads of the same layers, or near them where a layer has not so many."""
    chance, taken = random.Random(draw), {node for nodes in roles.values() for node in nodes}
    made = {}
    for role, nodes in roles.items():
        made[role] = nodes if role == "MLP" else ()
        for node in nodes if role != "MLP" else ():
            layer = int(node[1:].split(".")[0])
            near = [f"a{n}.h{h}" for n in (layer, layer - 1) for h in range(9)]
            one = chance.choice([other for other in near if other not in taken])
            taken.add(one)
            made[role] += (one,)
    return made


def _between_heads(arrows: tuple[Arrow, ...]) -> tuple[Arrow, ...]:
    """The arrows of the figure: those from heads, to heads or the logits."""
    return tuple(a for a in arrows if a.writer in LOOKS and a.reader in (*LOOKS, "logits"))


def _empty(contrast: Contrast) -> float:
    """The metric of the other run."""
    return float(faithfulness(contrast, {}).attrs["empty"])


def _attention(model: Model, clean: Prompts) -> xr.DataArray:
    """The share that each head gives where a role looks: dims (link, layer, head, prompt)."""
    layers, rows = range(model.cfg.n_layers), range(len(clean))
    acts = run(model, clean, read(*(Site("pattern", layer) for layer in layers))).acts
    links = sorted(set(LOOKS.values()))
    shares = [
        [
            acts[Site("pattern", layer)][
                rows, :, clean.positions(query), clean.positions(key)
            ].T.numpy()
            for layer in layers
        ]
        for query, key in links
    ]
    named = {"link": [f"{query} to {key}" for query, key in links]}
    return xr.DataArray(shares, named, ("link", "layer", "head", "prompt"))


def _carried(
    graph: Graph, roles: dict[str, tuple[str, ...]], *effects: EdgeScores
) -> dict[str, list[tuple[int, float, str, xr.Dataset]]]:
    """For each arrow, in each contrast: edges, their sum, the strongest, and its interval."""
    carried = {}
    for arrow in _between_heads(PUBLISHED["ioi"].arrows):
        edges = circuit_of_roles(graph, roles, (arrow,)).names
        label = f"{arrow.writer} -> {arrow.reader}" + (f" {arrow.kinds}" if arrow.kinds else "")
        carried[label] = []
        for effect in effects if edges else ():
            largest = max(edges, key=lambda edge, of=effect: abs(of[edge]))
            total = sum(effect[edge] for edge in edges)
            carried[label].append((len(edges), total, largest, _one(effect, largest)))
    return carried


def _one(effect: EdgeScores, edge: str) -> xr.Dataset:
    writer, reader, pos = effect.graph.edge(edge)
    return stats.interval(effect.per_pair.isel(writer=writer, reader=reader, pos=pos), dim="pair")


def _show(roles: dict[str, tuple[str, ...]], found: dict[str, Any]) -> None:
    """Circuits; the strongest edges; heads by role beside those of GPT-2; the paper's arrows."""
    print(
        f"\nclean minus corrupt: S2 to IO {found['whole']:.2f}, p_ABC {found['whole, p_ABC']:.2f}"
    )
    print(f"EAP-IG misses {found['residual share']:.2%} of it")
    alone = found["alone"]
    for name in alone["circuit"].values:
        one = alone.sel(circuit=name)
        share, low, high = (float(one[key]) for key in ("faithfulness", "low", "high"))
        print(f"  {name:28} {int(one['edges']):6} edges {share:6.2f} [{low:5.2f}, {high:5.2f}]")
    print(
        f"\nthe strongest of {N_EXACT} edges and of the arrows', by exact effect, S2 to IO, logits"
    )
    for rank, (edge, effect) in enumerate(found["strongest"][:30], 1):
        print(f"  {rank:2} {edge:26} {effect:6.2f}")

    print("\nheads by role, GPT-2's and those here: attention [rank of 270], in the circuits?")
    for role, nodes in PUBLISHED["ioi"].roles.items():
        if role == "MLP":
            continue
        print(f"  {role}: GPT-2 {' '.join(node[1:].replace('h', '') for node in nodes)}")
        for node in roles.get(role, ()):
            share, rank = _look(found["attention"], role, node)
            inside = " ".join("in" if node in found["nodes"][n] else "--" for n in SIZES)
            print(f"      {node:8} {share:.2f} [{rank:3}]  {inside}")
        if role not in roles:
            print("      not asked: they do their work when name movers are knocked out")
    print("\nheads that look so, but are not named here")
    for role in LOOKS:
        print(f"  {role:20} {', '.join(_others(found, roles, role))}")

    print("\nthe paper's arrows: edges, their sum, and the strongest; logits")
    for label, carried in found["arrows"].items():
        for corruption, (n, total, edge, one) in zip(("S2 to IO", "p_ABC"), carried, strict=False):
            mean, low, high = (float(one[name]) for name in ("mean", "low", "high"))
            numbers = f"{n:3} {total:6.2f}  {edge:24} {mean:6.2f} [{low:5.2f}, {high:5.2f}]"
            print(f"  {label if corruption == 'S2 to IO' else '':40} {corruption:8} {numbers}")


def _look(attention: xr.DataArray, role: str, node: str) -> tuple[float, int]:
    """What a head gives to where its role looks, on average, and its rank among all heads."""
    query, key = LOOKS[role]
    shares = attention.sel(link=f"{query} to {key}").mean("prompt").values
    layer, head = (int(part) for part in node[1:].split(".h"))
    return float(shares[layer, head]), int((shares > shares[layer, head]).sum()) + 1


def _others(found: dict[str, Any], roles: dict[str, tuple[str, ...]], role: str) -> list[str]:
    """The four that look most where a role does and are not in it; * in the larger circuit."""
    query, key = LOOKS[role]
    shares = found["attention"].sel(link=f"{query} to {key}").mean("prompt").values
    ranked = (-shares).argsort(axis=None)
    named = [f"a{at // shares.shape[1]}.h{at % shares.shape[1]}" for at in ranked.tolist()]
    best = [node for node in named if node not in roles[role]][:4]
    return [
        f"{node} {_look(found['attention'], role, node)[0]:.2f}"
        + "*" * (node in found["nodes"][SIZES[-1]])
        for node in best
    ]


def _verdicts(roles: dict[str, tuple[str, ...]], found: dict[str, Any]) -> dict[str, bool]:
    """Each claim and whether it holds: an edge is strong if among the strongest, and above 0."""
    strong = dict(found["strongest"])
    alone, arrows = found["alone"], found["arrows"]

    def carries(label: str, *, contrast: int = 0, sign: int = 1) -> bool:
        """Whether the strongest edge of an arrow is of this sign, and a fiftieth of the whole."""
        whole = found["whole" if contrast == 0 else "whole, p_ABC"]
        one = arrows[label][contrast][3]
        bound = float(one["low"]) if sign > 0 else -float(one["high"])
        return bound > 0 and abs(float(one["mean"])) > 0.02 * whole

    def share(circuit: str, bound: str = "faithfulness") -> float:
        return float(alone[bound].sel(circuit=circuit))

    drawn = [str(name) for name in alone["circuit"].values if str(name).startswith("random")]
    into_logits = [edge for edge in strong if "->logits" in edge and edge.startswith("a")]
    return {
        "name movers write to the logits": carries("name mover -> logits"),
        "the strongest edge into the logits is a name mover's": (
            into_logits[0].split("->")[0] in roles["name mover"]
        ),
        "negative name movers write against": carries("negative name mover -> logits", sign=-1),
        "S-inhibition heads act on the queries of name movers": carries(
            "S-inhibition -> name mover q"
        ),
        "they act on those of negative name movers": carries(
            "S-inhibition -> negative name mover q", sign=-1
        ),
        "induction heads act on the values and keys of S-inhibition heads": carries(
            "induction -> S-inhibition kv"
        ),
        "duplicate token heads do": carries("duplicate token -> S-inhibition kv"),
        "previous token heads act on the keys and values of induction heads": carries(
            "previous token -> induction kv", contrast=1
        ),
        "the paper's arrows between these heads, with all MLPs, do most of it": (
            share("paper's arrows", "low") > 0.5
        ),
        "they do, with L23H3 as a name mover": share("and L23H3", "low") > 0.8,
        "L23H3 and all MLPs do most of it without any other head": (
            share("L23H3, no other head", "low") > 0.5
        ),
        "it is less without S-inhibition, and without induction heads": all(
            share(f"and L23H3, no {role}", "high") < share("and L23H3", "low")
            for role in ("S-inhibition", "induction")
        ),
        "it is less without duplicate token heads": (
            share("and L23H3, no duplicate token", "high") < share("and L23H3", "low")
        ),
        "as many random heads of the same layers do none of it": all(
            share(name, "high") < 0.1 for name in drawn
        ),
        "a thousand edges found by gradients do most of it, on other prompts": (
            share("1000 edges", "low") > 0.8
        ),
    }


if __name__ == "__main__":
    main()
