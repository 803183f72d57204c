"""Small models with a known mechanism or a planted behaviour: some compiled by hand, two trained.

They are what a method is tried on: a search, an attribution or a probe must find what was planted.

    toy("induction").truth.edges
    random_circuit(seed=3).truth.edges      # as many as there are seeds
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
