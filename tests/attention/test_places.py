import numpy as np

from mechinterp.attention import patterns, where_heads_look


def test_they_are_those_of_a_loop(model, ragged):
    found = patterns(model, ragged)
    looks = where_heads_look(found)
    for row, length in enumerate((7, 4, 6)):
        for layer in range(3):
            for head in range(model.cfg.n_heads):
                a = found.values[row, layer, head]
                queries = range(1, length)
                slow = {
                    "to the first token": np.mean([a[q, 0] for q in queries]),
                    "to the token before": np.mean([a[q, q - 1] for q in queries]),
                    "to itself": np.mean([a[q, q] for q in queries]),
                    "largest elsewhere": max(a[q, k] for q in queries for k in range(1, q - 1)),
                }
                for name, value in slow.items():
                    here = float(looks[name].sel(prompt=row, layer=layer, head=head))
                    np.testing.assert_allclose(here, value, atol=1e-6)
