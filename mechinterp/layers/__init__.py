"""The residual stream layer by layer: what it says already, who wrote it, how it grows.

Of a stream, `layer` counts the layers that have run: 0 is the embedding, `n_layers` the last.
"""

from mechinterp.layers.depth import depths
from mechinterp.layers.direct import direct_by_head, direct_by_layer, direct_by_neuron
from mechinterp.layers.lens import lens_metric, logit_lens
from mechinterp.layers.stream import residual_stream
from mechinterp.layers.tuned import TunedLens, read_lens, train_lens, write_lens

__all__ = [
    "TunedLens",
    "depths",
    "direct_by_head",
    "direct_by_layer",
    "direct_by_neuron",
    "lens_metric",
    "logit_lens",
    "read_lens",
    "residual_stream",
    "train_lens",
    "write_lens",
]
