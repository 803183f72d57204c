"""What mechinterp.layers gives; read by its `__init__`, by editors and by type checkers."""

from .depth import depths as depths
from .direct import direct_by_head as direct_by_head
from .direct import direct_by_layer as direct_by_layer
from .direct import direct_by_neuron as direct_by_neuron
from .lens import lens_metric as lens_metric
from .lens import logit_lens as logit_lens
from .stream import residual_stream as residual_stream
from .tuned import TunedLens as TunedLens
from .tuned import read_lens as read_lens
from .tuned import train_lens as train_lens
from .tuned import write_lens as write_lens
