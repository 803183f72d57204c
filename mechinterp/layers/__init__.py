"""The residual stream by layer: the logit lens, direct logit attribution, and norms.

For a residual stream, `layer` is the number of layers that have run: 0 is the embedding, `n_layers`
what the final norm reads.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
