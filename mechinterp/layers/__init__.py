"""The residual stream layer by layer: what it says already, who wrote it, how it grows.

Of a stream, `layer` counts the layers that have run: 0 is the embedding, `n_layers` the last.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
