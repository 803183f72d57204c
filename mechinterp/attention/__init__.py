"""Attention: where heads look, and whether cutting those links changes anything.

Patterns, the attention sink, links by several rules, head scores, QK and OV circuits.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
