import numpy as np
from scipy.optimize import linprog

from mechinterp import ask, load_model
from mechinterp.attention import max_flow, patterns, rollout
from mechinterp.attribution.methods.attention import attention_rollout


def slow_rollout(values):
    """[layer, head, pos, src] -> the share of each position from each source, term by term."""
    n_layers, n_heads, n, _ = values.shape
    shares = [[float(i == j) for j in range(n)] for i in range(n)]
    for layer in range(n_layers):
        new = [[0.5 * shares[i][j] for j in range(n)] for i in range(n)]
        for i in range(n):
            for j in range(n):
                for k in range(n):
                    mean = sum(values[layer, h, i, k] for h in range(n_heads)) / n_heads
                    new[i][j] += 0.5 * mean * shares[k][j]
        shares = new
    return np.array(shares)


def test_rollout_is_the_slow_product(model, ragged):
    found = patterns(model, ragged)
    rolled = rollout(found)
    assert rolled.dims == ("prompt", "layer", "pos", "src")
    for row, length in enumerate((7, 4, 6)):
        values = found.values[row, :, :, :length, :length].astype(float)
        slow = slow_rollout(values)
        np.testing.assert_allclose(rolled.values[row, -1, :length, :length], slow, atol=1e-6)
        np.testing.assert_allclose(slow.sum(1), 1, atol=1e-5)
        first = slow_rollout(values[:1])
        np.testing.assert_allclose(rolled.values[row, 0, :length, :length], first, atol=1e-6)
    assert np.isnan(rolled.values[1, :, 5]).all()


def test_rollout_is_that_of_attribution():
    model, prompt = load_model("toy:trigger"), "please bring the sesame to me"
    scores = attention_rollout(ask(model, prompt, outputs=1)).isel(output=0)
    rolled = rollout(patterns(model, prompt)).isel(prompt=0, layer=-1, pos=-1)
    np.testing.assert_allclose(scores.values[1:], rolled.values[1:], atol=1e-6)


def slow_flow(values, query, source):
    """The maximum flow by linear programming: an amount on each edge, kept at each node between."""
    n_layers, _, n, _ = values.shape
    edges, capacities = [], []
    for layer in range(n_layers):
        mixed = 0.5 * values[layer].mean(0) + 0.5 * np.eye(n)
        for i, j in np.argwhere(mixed > 0).tolist():
            edges.append(((layer + 1, i), (layer, j)))
            capacities.append(mixed[i, j])
    top, bottom = (n_layers, query), (0, source)
    nodes = sorted({node for edge in edges for node in edge} - {top, bottom})
    kept = np.zeros((len(nodes), len(edges)))
    for at, (begin, end) in enumerate(edges):
        if begin in nodes:
            kept[nodes.index(begin), at] -= 1
        if end in nodes:
            kept[nodes.index(end), at] += 1
    gain = [-float(begin == top) for begin, _ in edges]
    done = linprog(gain, A_eq=kept, b_eq=np.zeros(len(nodes)), bounds=[(0, c) for c in capacities])
    return -done.fun


def test_flow_is_that_of_linear_programming(model, even):
    found = patterns(model, even).isel(prompt=0)
    for query in (2, 5):
        flows = max_flow(found, query)
        assert flows.dims == ("src",)
        for source in range(6):
            slow = slow_flow(found.values.astype(float), query, source)
            np.testing.assert_allclose(flows.values[source], slow, atol=1e-4)
    assert (max_flow(found, 2).values[3:] == 0).all()


def test_flow_of_several_prompts_is_refused(absolute_model, even, refuses):
    refuses(lambda: max_flow(patterns(absolute_model, even), 3), "isel(prompt=0)")
