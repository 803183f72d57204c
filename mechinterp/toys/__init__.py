"""Small models with a known mechanism or behaviour: most compiled by hand, two trained.

Methods are tested on them: a search, an attribution or a probe must find what was planted.

    toy("induction").truth.edges
    random_circuit(seed=3).truth.edges      # one for every seed
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
