"""The slow obvious way: an edge is cut by a hook on the input of its reader, one pass an edge."""

import copy

import numpy as np
import pytest
import torch

from mechinterp import Pair, Prompts, Site, edit, logit_diff, read, run

N_HEADS = {"absolute": 2, "grouped": 4, "parallel": 3, "attention_only": 3}
"""For a reference that runs once for each edge, of which there are as many as heads squared."""


@pytest.fixture(scope="session", params=N_HEADS)
def few_heads_model(request, tiny):
    """Each of the four architectures, with few heads."""
    return tiny(request.param, n_heads=N_HEADS[request.param])


@pytest.fixture(scope="session")
def pair():
    """Two pairs of seven tokens, which differ from position 2 on, in three positions together."""
    clean = Prompts.from_ids([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 9, 7]])
    corrupt = Prompts.from_ids([[3, 1, 9, 1, 5, 9, 2], [6, 5, 3, 7, 8, 2, 7]])
    return Pair(clean.named(S2=[2, 3]), corrupt.named(S2=[2, 3]))


@pytest.fixture(scope="session")
def metric():
    return logit_diff([7, 11], [20, 3])


@pytest.fixture(scope="session")
def naive():
    return NaiveEdges


class NaiveEdges:
    """Effects of edges by hooks, on a copy of the model with every gated hook point on."""

    def __init__(self, model, pair, metric, graph, *, direction="noise", instead=None):
        self.model = self._switched_on(model, graph)
        self.graph, self.metric = graph, metric
        self.base, other = (
            (pair.clean, pair.corrupt) if direction == "noise" else (pair.corrupt, pair.clean)
        )
        self.sign = 1 if direction == "noise" else -1
        here, there = self.written(self.base), self.written(other)
        self.instead = there
        if instead == "mean of the corrupt run":
            self.instead = [x.mean(0, keepdim=True).expand_as(x) for x in there]
        elif instead is not None:
            self.instead = instead(here)
        self.change = [b - a for a, b in zip(here, self.instead, strict=True)]
        self.base_scores = metric(run(self.model, self.base, logits_at=metric.at)).numpy()
        self.place = torch.from_numpy(graph.position_of(self.base))

    @staticmethod
    def _switched_on(model, graph):
        on = copy.deepcopy(model)
        for flag in ("use_split_qkv_input", "use_hook_mlp_in", "use_attn_result"):
            setattr(on.cfg, flag, True)
        if on.cfg.n_key_value_heads and graph.n_key_readers == on.cfg.n_heads:
            on.cfg.ungroup_grouped_query_attention = True
        return on

    def sites(self):
        """Each writer's own site."""
        found = []
        for node in self.graph.nodes:
            if node.layer is None:
                found.append(Site("embed"))
            elif node.head is None:
                found.append(Site("mlp_out", node.layer))
            else:
                found.append(Site("result", node.layer, node.head))
        return found

    def written(self, prompts):
        acts = run(self.model, prompts, read(*self.sites()), logits_at=()).acts
        return [acts[site] for site in self.sites()]

    def reader_site(self, reader):
        if reader.kind == "logits":
            return Site("resid_post", self.graph.n_layers - 1)
        if reader.kind == "mlp":
            return Site("mlp_in", reader.layer)
        return Site(f"{reader.kind}_input", reader.layer, reader.head)

    def scores_with(self, cut):
        """The metric with these edges cut, each of which carries what the other run wrote.

        `cut`: (writer, reader, pos) -> True; only where no cut edge is upstream of another.
        """
        sums = {}
        for writer, reader, pos in cut:
            change = self.change[writer] * (self.place == pos)[..., None]
            sums[reader] = sums.get(reader, 0) + change
        specs = ()
        for reader, change in sums.items():
            site = self.reader_site(self.graph.inputs[reader])
            specs += edit(site, lambda value, at, change=change: value + change)
        return self.metric(run(self.model, self.base, specs, logits_at=self.metric.at)).numpy()

    def scores_of(self, mask):
        """The metric with the edges of a mask alone, each reader's input made anew in the run."""
        sites, specs = self.sites(), ()
        specs += read(*sites)
        for number, reader in enumerate(self.graph.inputs):
            cut = [
                (writer, pos)
                for writer, pos in np.argwhere(
                    self.graph.edges[:, number] & ~mask[:, number]
                ).tolist()
            ]

            def made(value, at, cut=cut):
                for writer, pos in cut:
                    change = self.instead[writer] - at.acts[sites[writer]]
                    value = value + change * (self.place == pos)[..., None]
                return value

            specs += edit(self.reader_site(reader), made)
        return self.metric(run(self.model, self.base, specs, logits_at=self.metric.at)).numpy()

    def effects(self, share=1.0):
        """The effect of every edge by itself; or of some, drawn among all, and NaN elsewhere."""
        found = np.full((*self.graph.edges.shape, len(self.base)), np.nan)
        drawn = np.random.default_rng(0).random(self.graph.edges.shape) < share
        for edge in np.argwhere(self.graph.edges & drawn).tolist():
            found[tuple(edge)] = self.sign * (self.base_scores - self.scores_with([edge]))
        return found


@pytest.fixture(scope="session")
def precise(model):
    """The model in double precision, for equalities to 1e-6 and less."""
    made = copy.deepcopy(model)
    made.cfg.dtype = torch.float64
    made.double()
    for module in made.modules():
        if hasattr(module, "cfg"):
            module.cfg.dtype = torch.float64
    return made
