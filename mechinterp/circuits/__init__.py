"""Circuits: which edges between the parts of a model carry a behaviour.

A `Graph` of writers and readers, `EdgeScores` on its edges, a `Circuit` of some: three values.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
