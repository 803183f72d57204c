"""Views of a result: one self-contained HTML page, or a table in the terminal.

A view shows what it is given and computes no attribution; it needs neither torch nor a model.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
