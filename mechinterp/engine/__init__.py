"""How arms run on a model: one pass of many, hooks on and off again."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
