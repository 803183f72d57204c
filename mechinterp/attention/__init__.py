"""Attention that does not mislead: links with the heads that carry them, and what cutting does.

Patterns, the sink, links by several rules, head scores, QK and OV circuits.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
