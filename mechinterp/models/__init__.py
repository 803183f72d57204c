"""Models: loading, tokens, sites, weights, and the steps of a forward pass.

The only package that imports TransformerLens. All others take a `Model` and ask here.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
