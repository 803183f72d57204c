"""Whether a function that a user gives can be called as we call it, asked before anything runs.

>>> from mechinterp.core.callables import call_error
>>> call_error(lambda layer: layer, head=3)
"<lambda>(layer) does not take that: missing a required argument: 'layer'"
>>> call_error(lambda layer: layer, layer=3)
''
"""

import inspect
from collections.abc import Callable


def call_error(fn: Callable[..., object], *given: object, **named: object) -> str:
    """Why a function cannot be called with these arguments; "" if it can, or is not known to."""
    try:
        inspect.signature(fn).bind(*given, **named)
    except TypeError as error:
        name = getattr(fn, "__name__", type(fn).__name__)
        return f"{name}{inspect.signature(fn)} does not take that: {error}"
    except ValueError:  # of a function without a signature
        return ""
    return ""
