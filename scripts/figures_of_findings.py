"""Which figure of docs/findings.md is which number of which experiment.

`FIGURES[experiment](found)` gives, for what `main()` of the experiment found, phrases of the page
with `#` for each figure, and the numbers that belong there, in order. The figures themselves stand
on the page alone. A number is a dataset with `mean`, `low` and `high`, a plain number, or `most(x)`
where the page gives a bound.
"""

from collections.abc import Mapping
from typing import Any

import xarray as xr
from page_figures import Phrases, Source, at_end, cells, minus, most, without


def indirect_object_heads(f: Mapping[str, Any]) -> Phrases:
    """Figures of the section on indirect objects."""
    movers, negative = at_end("L23H0", "L23H1", "L23H2"), at_end("L24H4", "L29H0")
    inhibition = at_end("L20H0", "L19H2")
    (suppressor,) = at_end("L23H3")
    alone = ("L23H3", "L16H0", "L20H0", "L17H4", "L29H1", "L19H2")
    looks, cut, total = f["attention"], f["knocked out"], f["total"]
    mean_ablated, queries, direct = f["mean-ablated"], f["to the queries"], f["direct"]
    direct_io = f["direct on IO"]
    return {
        "IO minus S, # logits": [f["base"]],
        "circuit of 10 heads at the mean #": cells(mean_ablated, "circuit"),
        "as many random heads #": cells(f["random heads"], "random heads, as many"),
        "noised alone L23H3 #, L16H0 #, L20H0 #, L17H4 #, L29H1 #, L19H2 #": cells(total, *alone),
        "L23H2: attention #; their direct path noised, IO #, #, #": [
            *cells(looks, "name movers, end to IO"),
            *cells(direct_io, *movers),
        ],
        "L23H3 has, #: it attends to S2 (#) and lowers S by #, IO #; L23H0 #": [
            *cells(direct, suppressor),
            *cells(looks, "L23H3, end to S2"),
            *cells(f["direct on S"], suppressor),
            *cells(direct_io, suppressor),
            *cells(direct, movers[0]),
        ],
        "at the mean #: others make up for them; cut from IO #": [
            *cells(mean_ablated, "name movers"),
            *cells(cut, "name movers, end to IO"),
        ],
        "direct path noised, IO: L24H4 #, L29H0 #": cells(direct_io, *negative),
        "they attend to IO | L24H4 #; L29H0 #": cells(
            looks, "L24H4, end to IO", "L29H0, end to IO"
        ),
        "attend to S2 (#), through the queries of layer 23: #, #; of 81 heads no other by more "
        "than #; through L23H0's alone # and #": [
            *cells(looks, "S-inhibition, end to S2"),
            *cells(queries, *inhibition),
            most(without(queries, *inhibition)),
            *cells(f["to the queries of L23H0"], *inhibition),
        ],
        "L17H5, L18H6; cut #": cells(cut, "induction, S2 to S1+1"),
        "L16H0; cut #": cells(cut, "previous token, S1+1 to S1"),
        "attend there (#); cut #, p .13; L8H0 noised alone #": [
            *cells(looks, "duplicate, S2 to S1"),
            *cells(cut, "duplicate, S2 to S1"),
            *cells(total, "L8H0"),
        ],
    }


def greater_than_heads(f: Mapping[str, Any]) -> Phrases:
    """Figures of the section on greater-than."""
    four = ("L20H8", "L6H0", "L18H6", "L23H0")
    noised, looks = f["head noised at the end"], f["attention, end to YY"]
    together, direct = f["noised together"], f["directly to the logits"]
    heads = [label for label in direct["sender"].values if ".z@" in label]
    return {
        "minus P(wrong), #": [f["unchanged"]],
        "lowers the metric by #": [minus(f["noised, all of it"])],
        "noised L20H8 #, L6H0 #, L18H6 #, L23H0 # (": cells(noised, *four),
        "no other beyond #; together #, four random heads #": [
            most(without(noised, *four)),
            *cells(together, "the four heads"),
            f["random heads"],
        ],
        "L20H8 #, L6H0 #, L18H6 #; L23H0 #": cells(looks, *four),
        "MLPs 22, 23, 24, 26 #; 20 to 29 #; 0 to 19 #; four random MLPs #": [
            *cells(together, "MLPs 22, 23, 24, 26", "MLPs 20 to 29", "MLPs 0 to 19"),
            f["random MLPs"],
        ],
        "held the four heads #": cells(together, "the four heads, MLPs 20 to 29 held"),
        "direct: L23 #, L24 #, L26 #; heads # at most": [
            *cells(direct, *(f"L{layer}.mlp_out@end" for layer in (23, 24, 26))),
            most(direct["mean"].sel(sender=heads)),
        ],
        "L17H5 and L17H4 give YY # and # of their attention, and noised change less than # (cut "
        "together #)": [
            *cells(looks, "L17H5", "L17H4"),
            most(noised["mean"].sel(site=["L17H5", "L17H4"])),
            *cells(f["knocked out, end to YY"], "L17H4 and L17H5"),
        ],
    }


def induction_heads(f: Mapping[str, Any]) -> Phrases:
    """Figures of the section on induction heads."""
    at_mean, writes = f["mean-ablated"], f["directly to the logits"]
    own = f["of these, the induction heads"]["mean"]
    keys = {layer: f[f"to the keys of {layer}"] for layer in ("L17", "L18")}
    values = {layer: f[f"to the values of {layer}"] for layer in ("L17", "L18")}
    idle = [keys[layer]["mean"].sel(sender=["L11H1.z", "L2H1.z", "L1H2.z"]) for layer in keys]
    return {
        "log-probability of the answer, # nats": [f["unchanged"]],
        "L18H6 #, L17H4 #, L17H5 #, L17H3 #": cells(
            f["induction score"], "L18H6", "L17H4", "L17H5", "L17H3"
        ),
        "L16H0 #, L11H1 # and others": cells(f["previous token score"], "L16H0", "L11H1"),
        "L16H0 to the keys of layer 18's #, of layer 17's #; to the values #, #": [
            *cells(keys["L18"], "L16H0.z"),
            *cells(keys["L17"], "L16H0.z"),
            *cells(values["L18"], "L16H0.z"),
            *cells(values["L17"], "L16H0.z"),
        ],
        "L1H2: # or less; L17H8 (score #) # to layer 18's": [
            most(xr.concat(idle, "layer")),
            *cells(f["previous token score"], "L17H8"),
            *cells(keys["L18"], "L17H8.z"),
        ],
        "the four at the mean #, L16H0 #, four random heads #": [
            *cells(at_mean, "induction", "L16H0"),
            f["four random heads"],
        ],
        "L18H6 #, L17H3 #, but L17H5 # and L17H4 #": cells(
            at_mean, "L18H6", "L17H3", "L17H5", "L17H4"
        ),
        "its direct path noised # to #; L29H1 #, L23H7 #, L23H2 #, L23H1 # do": [
            float(own.min()),
            float(own.max()),
            *cells(writes, *at_end("L29H1", "L23H7", "L23H2", "L23H1")),
        ],
    }


def indirect_object_circuit(f: Mapping[str, Any]) -> Phrases:
    """Figures of the section on the arrows of GPT-2's circuit."""

    def arrow(label: str, contrast: int = 0) -> list[Any]:
        """Edges, their sum, and the strongest."""
        n_edges, total, _, strongest = f["arrows"][label][contrast]
        return [n_edges, total, strongest]

    def alone(*names: str) -> list[Any]:
        """Edges, and what they do alone."""
        each = f["alone"].rename(faithfulness="mean")
        found = [each.sel(circuit=name) for name in names]
        return [int(found[0]["edges"]), *found]

    def look(link: str, layer: int, head: int) -> float:
        return float(f["attention"].sel(link=link)[layer, head].mean())

    effect = f["effect"]
    return {
        "makes # logits of IO minus S, three other names #": [f["whole"], f["whole, p_ABC"]],
        "| name movers → logits | # | # | L23H0 #": arrow("name mover -> logits"),
        "| negative name movers → logits | # | # | L24H4 #": arrow("negative name mover -> logits"),
        "→ name movers' queries | # | # | L20H0 → L23H0 #": arrow("S-inhibition -> name mover q"),
        "→ negative name movers' queries | # | # | L20H0 → L24H4 #": arrow(
            "S-inhibition -> negative name mover q"
        ),
        "induction → S-inhibition's keys, values | # | # | L17H4 → L20H0, values, #": arrow(
            "induction -> S-inhibition kv"
        ),
        "duplicate token → S-inhibition's keys, values | # | # | L14H3 → L19H2, values, #": arrow(
            "duplicate token -> S-inhibition kv"
        ),
        "(other names) | # | # | L16H0 → L17H4, keys, #": arrow(
            "previous token -> induction kv", 1
        ),
        "the paper's arrows | # | #": alone("paper's arrows"),
        "with L23H3 as a name mover | # | #": alone("and L23H3"),
        "the same without S-inhibition heads | # | #": alone("and L23H3, no S-inhibition"),
        "without induction heads | # | #": alone("and L23H3, no induction"),
        "without duplicate token heads | # | #": alone("and L23H3, no duplicate token"),
        "L23H3 and no other head | # | #": alone("L23H3, no other head"),
        "of the same layers, twice | # | #, #": alone(
            *(name for name in map(str, f["alone"]["circuit"].values) if "random" in name)
        ),
        "steps, # off) | # | #": [f["residual share"], *alone("200 edges")],
        "the same | # | #": alone("1000 edges"),
        "reads the name there from MLP 0 (#) and writes against it (#, ": [
            effect["m0->a23.h3<v>@S2"],
            effect["a23.h3->logits@end"],
        ],
        "L29H1 (#) has no role": [effect["a29.h1->logits@end"]],
        "L5H6 (S2 to S1, # and #) and L11H1 (S1+1 to S1, #)": [
            look("S2 to S1", 9, 2),
            look("S2 to S1", 5, 6),
            look("S1+1 to S1", 11, 1),
        ],
        "against IO without looking at it (#)": [look("end to IO", 29, 0)],
    }


def induction_circuit(f: Mapping[str, Any]) -> Phrases:
    """Figures of the section on the toy whose circuit is known."""

    def edge(name: str, writer: str, reader: str) -> xr.Dataset:
        return f[name].sel(writer=writer, reader=reader, pos="all")

    each = f["alone"].rename(faithfulness="mean")
    left_out = each["mean"][1:].sortby(each["mean"][1:])
    kept = {n: [tau for tau, c in f["ACDC"].items() if c.n_edges == n] for n in (8, 6, 5)}
    return {
        "log-probability falls by # nats": [each.attrs["full"] - each.attrs["empty"]],
        "# down to #; the largest other #": [
            float(edge("exact", "a1.h0", "logits")["mean"]),
            edge("exact", "input", "a1.h0<k>"),
            edge("exact", "a0.h0", "a1.h0<v>"),
        ],
        "τ of #, # and #; at # two more, at # one less": [*kept[6], *kept[8], *kept[5]],
        "none can go | #; without the weakest #, any other # or less": [
            each.isel(circuit=0),
            each.sel(circuit=str(left_out["circuit"].values[-1])),
            most(left_out[:-1]),
        ],
        "queries carries #: both": [edge("second half kept", "input", "a1.h0<q>")],
        "rank AUC # (EAP #), although what leaves the embedding adds up to #": [
            f["rank AUC"]["EAP-IG"],
            f["rank AUC"]["EAP"],
            f["residual share"],
        ],
        "read the first head, # of #": [
            float(edge("in logits", "a0.h0", "a1.h0<v>")["mean"]),
            float(edge("in logits", "a1.h0", "logits")["mean"]),
        ],
    }


def harmful_direction(f: Mapping[str, Any]) -> Phrases:
    """Figures of the section on harmful requests."""

    def accuracy(probed: xr.Dataset, layer: int, of: str = "task") -> xr.Dataset:
        return probed.sel(of=of, measure="balanced_accuracy", layer=layer)

    def effects(how: str) -> list[Any]:
        """The direction's, then the least and the most of two kinds of random ones."""
        no_preference, as_they_vary = (f["used"].sel(how=how).isel(kind=kind) for kind in (0, 1))
        ends = [float(k[end]) for k in (no_preference, as_they_vary) for end in ("least", "most")]
        return [no_preference, *ends]

    probed = f["probed"]
    return {
        "layer 16 #; bag of tokens #, shuffled #, random weights #": [
            *(accuracy(probed, 16, of) for of in ("task", "bag of tokens")),
            *(accuracy(probed, 16, of) for of in ("shuffled", "random weights")),
        ],
        "also on topics left out | layer 16 #": [accuracy(f["other topics"], 16)],
        "highest # at": [accuracy(probed, 26)],
        "first words #; selectivity #": [
            accuracy(probed, 16, "control"),
            float(probed["selectivity"].sel(layer=16)),
        ],
        "log-odds #, of benign ones #": [f["refusal"]["harmful"], f["refusal"]["benign"]],
        "taken out of all layers #; random directions # to #, as activations vary # to #": effects(
            "ablate"
        ),
        "along it, more | #; random # to #, as activations vary # to #": effects("steer up"),
    }


def attention_heads(f: Mapping[str, Any]) -> Phrases:
    """Figures of the section on heads found by where they look."""
    lost = f["lost without"]

    def confirmed(name: str) -> int:
        return int(f[name]["confirmed"].sum())

    def of_kind(kind: str, *heads: str) -> list[Any]:
        groups = cells(lost, f"{kind} heads", f"best {kind} head")
        return [*cells(f[f"{kind} score"], *heads), *groups]

    classic = f["classic, listed, in_its_head"]
    sinks = classic["confirmed"].values & (classic["kind"].values == "sink")
    return {
        "random heads: #, the worst of ten draws #": [
            f["lost without random heads"],
            f["worst of the random draws"],
        ],
        "L16H0 #, L11H1 #, L19H3 #, L2H1 #; without the four #, without L16H0 #": of_kind(
            "previous token", "L16H0", "L11H1", "L19H3", "L2H1"
        ),
        "L18H6 #, L17H3 #, L17H4 #, L17H5 #; without the four #, without L18H6 #": of_kind(
            "induction", "L18H6", "L17H3", "L17H4", "L17H5"
        ),
        "L14H3 #, L8H0 #, L15H6 #, L2H4 #; without the four #, without L14H3 #": of_kind(
            "duplicate token", "L14H3", "L8H0", "L15H6", "L2H4"
        ),
        "average above 0.1: # of # links confirmed in the head that gives most, # of them to the "
        "first token; random links of the same heads # of #": [
            confirmed("classic, listed, in_its_head"),
            classic.sizes["link"],
            int(sinks.sum()),
            confirmed("classic, random, in_its_head"),
            f["classic, random, in_its_head"].sizes["link"],
        ],
        "ten strongest # confirmed in that head, # cut in all heads (random links: # and #)": [
            confirmed(f"top 10 of the last, {who}, {cut}")
            for who in ("listed", "random")
            for cut in ("in_its_head", "in_every_head")
        ],
    }


def indirect_object_tokens(f: Mapping[str, Any]) -> Phrases:
    """Figures of the experiment's docstring."""
    return {"the top token in # of # prompts": [f["first"], f["prompts"]]}


SOURCES = {
    "indirect_object_heads": Source(
        "Indirect objects",
        indirect_object_heads,
        {"n_prompts": 4, "n_exact": 4, "n_draws": 2},
        (
            "the head that writes most for IO against S is a name mover: it writes IO",
            "the model is worse with the name movers at the mean",
            "both negative heads do so by attending to IO",
            "duplicate token heads attend from S2 to S1, and this link counts as much",
        ),
    ),
    "greater_than_heads": Source(
        "Greater-than",
        greater_than_heads,
        {"n_prompts": 4, "n_draws": 2},
        (
            "all of them are in the middle layers (GPT-2: 5 to 9 of 12)",
            "(no claim of theirs) heads that attend to YY matter: L17H4 and L17H5 do too",
        ),
    ),
    "induction_heads": Source(
        "Induction (",
        induction_heads,
        {"n_prompts": 4, "n_draws": 2},
        (
            "so do the other previous token heads before them, such as L11H1",
            "each induction head is needed: the loss rises without any one of them",
            "the induction heads copy: each writes the answer to the logits directly",
        ),
    ),
    "indirect_object_circuit": Source(
        "Circuits: the arrows",
        indirect_object_circuit,
        {"n_prompts": 4, "n_draws": 1},
        (
            "the strongest edge into the logits is a name mover's",
            "they act on those of negative name movers",
            "duplicate token heads do",
            "the paper's arrows between these heads, with all MLPs, do most of it",
            "it is less without duplicate token heads",
        ),
    ),
    "induction_circuit": Source(
        "Circuits: induction",
        induction_circuit,
        {},
        (
            "with the second half kept the six are found too",
            "EAP-IG finds exactly the six",
            "in logits, too, the others hardly count",
        ),
    ),
    "harmful_direction": Source(
        "Harmful requests",
        harmful_direction,
        {"n_per_topic": 6, "layers": (0, 16, 26), "n_random": 2, "n_measured": 6},
        (
            "one layer is the best",
            "the labels are learnt better than random ones of first words",
            "the model refuses harmful requests more, by at least half a nat",
            "without the direction it refuses less, beyond every random direction",
            "along the direction it refuses more, beyond every random direction",
        ),
    ),
    "attention_heads": Source(
        "Heads found by where they look",
        attention_heads,
        {"n_prompts": 4, "n_draws": 2, "n_sentences": 4, "n_scored": 2},
        (
            "so without the duplicate token heads",
            "most of what the classic recipe lists matters, in the head that gives most",
            "a link that matters in all heads matters in the head that gives most",
        ),
    ),
    "indirect_object_tokens": Source(None, indirect_object_tokens, {"n_prompts": 2}),
}
