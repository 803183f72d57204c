"""The glossary's table of signs is that of results on toys whose mechanism is known.

Each row is run, for a score and for a distance: the value of the known part has the sign that the
row says, and `attrs["supports"]`, where a result has it, says the same.
"""

import warnings
from pathlib import Path

import numpy as np
import pytest

import mechinterp as mi
from mechinterp.attention import confirm, head_above, links_by_head, patterns
from mechinterp.attribution.question.outputs import last
from mechinterp.probing import Labelled, class_direction, direction_effects, gather

ROOT = Path(__file__).parents[1]
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()
CLEAN, CORRUPT = "please bring the sesame", "please bring the letter"
HEAD = {"layer": 1, "head": 0}  # what carries the behaviour of toy:trigger
EDGE, WRITER = "a1.h0->logits", "a1.h0"
GONE = 1e-6
"""Effects below this are none: the toys' are 5e-3 (of a saturated gradient) and more."""


def signs(n_cells):
    """The rows of the table of signs (5 cells) or of that of interactions (4 cells)."""
    lines = GLOSSARY.split("\n## Signs\n")[1].splitlines()
    cells = [
        [c.strip() for c in line.strip("| ").split(" | ")] for line in lines if line[:2] == "| "
    ]
    return [row for row in cells if len(row) == n_cells and row[0] != "result"]


@pytest.fixture(scope="module")
def model():
    return mi.load_model("toy:trigger")


@pytest.fixture(scope="module")
def pair(model):
    return mi.Pair(mi.tokenize(model, CLEAN), mi.tokenize(model, CORRUPT))


@pytest.fixture(scope="module")
def metrics(model, pair):
    """A score, the odds of refusing, and a distance, from the prediction of the clean run."""
    refuse, comply = (mi.token_id(model, word) for word in ("REFUSE", "COMPLY"))
    unchanged = mi.run(model, pair.clean).logits_of(("end",))[:, 0]
    return {"score": mi.logit_diff(refuse, comply), "distance": mi.kl(unchanged)}


def of_inputs(method, *options, **more):
    """The score of the trigger word by an attribution method."""

    def measured(model, pair, metric):
        asked = mi.kl() if metric.distance else metric
        question = mi.ask(model, CLEAN, last(1), metric=asked)
        found = method(question, *options, **more)
        scores = found["score"] if "score" in getattr(found, "data_vars", ()) else found
        return scores.isel(output=0).values[-1], found.attrs

    return measured


def patched(what, direction, shown):
    def measured(model, pair, metric):
        if what == "head":
            found = mi.patching.patch_heads(model, pair, metric, direction=direction).sel(**HEAD)
        else:
            path = [mi.Site("z", 1, 0)], mi.Site("logits")
            found = mi.patching.path_patching(model, pair, metric, *path, direction=direction)
        found = shown(found)
        return found.values.item(), found.attrs

    return measured


def estimated(method):
    def measured(model, pair, metric):
        wanted = mi.read(mi.Site("z", 1), mi.Site("embed"))
        source = mi.run(model, pair.corrupt, wanted).acts
        over, where = {"head": [0, 1]}, lambda head: mi.Site("z", 1, head)
        found = method(model, pair.clean, source, over, where, metric)
        return found.sel(head=0).values.item(), found.attrs

    return measured


def ablated(model, pair, metric):
    how = mi.engine.mean_of(pair.corrupt)
    found = mi.ablation.effect(mi.ablation.ablate_heads(model, pair.clean, metric, how))
    return found.sel(**HEAD).values.item(), found.attrs


def of_edge(name, direction="noise"):
    def measured(model, pair, metric):
        contrast = mi.circuits.Contrast.from_pair(model, pair, metric, direction=direction)
        found = getattr(mi.circuits, name)(contrast)
        return found[EDGE], found.per_pair.attrs

    return measured


def of_node(name):
    def measured(model, pair, metric):
        contrast = mi.circuits.Contrast.from_pair(model, pair, metric)
        found = getattr(mi.circuits, name)(contrast)
        return found.sel(writer=WRITER).values.item(), found.attrs

    return measured


def gate_run(metric):
    """The contrast of a toy with an MLP, by the score or the distance."""
    gate = mi.load_model("toy:and")
    texts = "bring the copper lantern", "bring the red lantern"
    both = mi.Pair(*(mi.tokenize(gate, text) for text in texts))
    refuse, comply = (mi.token_id(gate, word) for word in ("REFUSE", "COMPLY"))
    base = mi.run(gate, both.clean).logits_of(("end",))[:, 0]
    asked = mi.kl(base) if metric.distance else mi.logit_diff(refuse, comply)
    return gate, both, asked


def of_neuron(model, pair, metric):
    found = mi.circuits.exact_neurons(mi.circuits.Contrast.from_pair(*gate_run(metric)))
    values = found.values.ravel()
    return values[np.abs(values).argmax()], found.attrs


def minimal(model, pair, metric):
    contrast = mi.circuits.Contrast.from_pair(model, pair, metric)
    planted = mi.circuits.known_circuit(contrast.graph, mi.toys.toy("trigger").truth)
    found = mi.circuits.minimality(contrast, planted)
    return found.sel(edge=EDGE).values.item(), found.attrs


def direct(by):
    def measured(model, pair, metric):
        if by == "neuron":
            gate, both, asked = gate_run(metric)
            found = mi.layers.direct_by_neuron(gate, both.clean, asked)
            values = found["from_neuron"].values.ravel()
            return values[np.abs(values).argmax()], found.attrs
        if by == "head":
            found = mi.layers.direct_by_head(model, pair.clean, metric)
            return found["from_head"].sel(**HEAD).values.item(), found.attrs
        found = mi.layers.direct_by_layer(model, pair.clean, metric)
        return found.sel(part="L1.attn").values.item(), found.attrs

    return measured


def by_lens(model, pair, metric):
    return mi.layers.lens_metric(model, pair.clean, metric).values[-1].item(), {}


def lens_log_prob(model, pair, metric):
    return -mi.layers.logit_lens(model, pair.clean)["log_prob"].values[-1].item(), {}


def confirmed(model, pair, metric):
    found = patterns(model, CLEAN).isel(prompt=0).sel(pos=[4])
    links = links_by_head(found, head_above(0.5))
    cut = confirm(model, CLEAN, links, metric)
    own = (cut["layer"] == 1) & (cut["head"] == 0)
    return cut["effect"].values[own.values].item(), cut.attrs


def by_direction(how):
    def measured(model, pair, metric):
        things = "sesame", "letter", "map", "book", "bread"
        labels = ["yes", *["no"] * 4]
        given = Labelled.of([f"please bring the {thing}" for thing in things], labels)
        acts = gather(model, mi.tokenize(model, given.prompts))
        along = class_direction(acts, given, layer=2)
        end = [mi.Site("resid_post", 1)]
        # Steering up adds to the runs that do not refuse: there it can be seen.
        prompts = pair.corrupt if how == "steer up" and not metric.distance else pair.clean
        at = {"ablate_at": end, "steer_at": end, "n_random": 1}
        found = direction_effects(model, prompts, along, metric, **at)
        return found.sel(how=how, direction="probe").values.item(), found.attrs

    return measured


EFFECT, SCALE = mi.patching.effect, mi.patching.normalized
METHODS = mi.attribution
CASES = {
    "`attribute`, `leave_one_out`": [of_inputs(METHODS.leave_one_out)],
    "`attribute_pairs`, `shapley`, `kernel_shap`": [
        of_inputs(METHODS.pair_removals),
        of_inputs(METHODS.shapley),
        of_inputs(METHODS.kernel_shap),
    ],
    "`integrated_gradients`": [of_inputs(METHODS.integrated_gradients)],
    "`gradient_x_input`": [of_inputs(METHODS.gradient_x_input)],
    "`direct_attribution`": [of_inputs(METHODS.direct_attribution)],
    "`value_weighted_attention`, `attention_rollout`": [
        of_inputs(METHODS.value_weighted_attention),
        of_inputs(METHODS.attention_rollout),
    ],
    "`patching.effect`, noise": [patched("head", "noise", EFFECT)],
    "`patching.effect`, denoise": [patched("head", "denoise", EFFECT)],
    "`patching.normalized`, noise": [patched("head", "noise", SCALE)],
    "`patching.normalized`, denoise": [patched("head", "denoise", SCALE)],
    "`path_patching`, noise": [patched("path", "noise", EFFECT)],
    "`path_patching`, denoise": [patched("path", "denoise", EFFECT)],
    "`attribution_patching`, `qk_fixed_patching`": [
        estimated(mi.attribution_patching),
        estimated(mi.qk_fixed_patching),
    ],
    "`integrated_patching`": [estimated(mi.integrated_patching)],
    "`atp_star`": [estimated(mi.atp_star)],
    "`ablation.effect`": [ablated],
    "`exact_edges`, noise": [of_edge("exact_edges")],
    "`exact_edges`, denoise": [of_edge("exact_edges", "denoise")],
    "`exact_nodes`, `exact_neurons`": [of_node("exact_nodes"), of_neuron],
    "`eap_ig`, `eap_ig_nodes`": [
        of_edge("eap_ig"),
        of_edge("eap_ig", "denoise"),
        of_node("eap_ig_nodes"),
    ],
    "`eap`, `eap_nodes`, `relp`, `gim`, noise": [
        of_edge("eap"),
        of_node("eap_nodes"),
        of_edge("relp"),
        of_edge("gim"),
    ],
    "`atp_star_edges`": [of_edge("atp_star_edges")],
    "`minimality`": [minimal],
    "`direct_by_layer`, `direct_by_head`, `direct_by_neuron`": [
        direct("layer"),
        direct("head"),
        direct("neuron"),
    ],
    "`lens_metric`, `logit_lens`": [by_lens, lens_log_prob],
    "`attention.confirm`": [confirmed],
    "`direction_effects`, ablate": [by_direction("ablate")],
    "`direction_effects`, steer up": [by_direction("steer up")],
    "`direction_effects`, steer down": [by_direction("steer down")],
}


def test_every_row_is_run():
    assert [row[0] for row in signs(5)] == list(CASES)


@pytest.mark.parametrize("kind", ["score", "distance"])
@pytest.mark.parametrize("row", signs(5), ids=lambda row: row[0])
def test_a_known_part_has_the_sign_of_its_row(row, kind, model, pair, metrics):
    said = row[3] if kind == "score" else row[4]
    for case in CASES[row[0]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if said == "refused":
                with pytest.raises(ValueError, match=r"metric|linear|distance|gradient"):
                    case(model, pair, metrics[kind])
                continue
            value, attrs = case(model, pair, metrics[kind])
        holds = {
            "positive": value > GONE,
            "negative": value < -GONE,
            "below 1": value < 1 - GONE,
            "above 0": value > GONE,
            "none": value >= -GONE,
            "gradient is 0": abs(value) < GONE,
            "of the logit": value > GONE and attrs.get("metric") == "centred_logit",
        }
        assert holds[said], f"{row[0]}, {kind}: {value}, where the table says {said}"
        if row[0].startswith("`direction_effects`"):  # three interventions, of two signs
            assert attrs["supports"] == "none", row[0]
        elif said in ("positive", "negative", "none"):
            assert attrs.get("supports", said) == said, row[0]
            if said != "none":
                assert attrs["supports"] == said, row[0]
                assert attrs["sign"].startswith(said.capitalize()), row[0]


REDUNDANT = ("either", "bring copper and the lantern", "bring garden and the letter", (0, 3))
NEEDED = ("and", "bring copper and the lantern", "bring garden and the letter", (1, 2))


def two_inputs(model, clean, corrupt, metric, heads):
    found = mi.attribute_pairs(model, clean, last(1), metric=metric, candidates=[2, 5])
    return found["interaction"].sel(first=2, second=5).values.item()


def two_ablations(model, clean, corrupt, metric, heads):
    how = mi.engine.mean_of(mi.tokenize(model, corrupt))
    sites = [mi.Site("z", 0, head) for head in heads]
    found = mi.ablation.interaction(mi.ablation.ablate_pairs(model, clean, metric, how, sites))
    return found.isel(first=0, second=1).values.item()


def two_edges(model, clean, corrupt, metric, heads):
    both = mi.Pair(mi.tokenize(model, clean), mi.tokenize(model, corrupt))
    contrast = mi.circuits.Contrast.from_pair(model, both, metric)
    mask = np.zeros(contrast.graph.edges.shape, dtype=bool)
    for head in heads:
        mask[contrast.graph.edge(f"a0.h{head}->m0")] = True
    edges = mi.circuits.Circuit(contrast.graph, mask)
    found = mi.circuits.redundancy(contrast, edges)["interaction"]
    return found.isel(edge=0, other=1).values.item()


INTERACTIONS = {
    "`attribute_pairs` `interaction`": two_inputs,
    "`ablation.interaction`": two_ablations,
    "`circuits.redundancy` `interaction`": two_edges,
}


@pytest.mark.parametrize("row", signs(4), ids=lambda row: row[0])
def test_an_interaction_has_the_sign_of_its_row(row):
    for said, (name, clean, corrupt, heads) in zip(row[2:], (REDUNDANT, NEEDED), strict=True):
        toy = mi.load_model(f"toy:{name}")
        metric = mi.logit_diff(*(mi.token_id(toy, word) for word in ("REFUSE", "COMPLY")))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = INTERACTIONS[row[0]](toy, clean, corrupt, metric, heads)
        assert (value > 1) if said == "positive" else (value < -1), (row[0], name, value)


def test_every_interaction_is_run():
    assert [row[0] for row in signs(4)] == list(INTERACTIONS)
