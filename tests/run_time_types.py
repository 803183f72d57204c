"""Types are checked at run time through jaxtyping's pytest option; here it is told to be quick.

Its decorator binds the arguments and checks them twice, which is for sizes that several arrays
share. A function without arrays needs neither, and a function inside another is decorated at each
call of that one, for which code is compiled: together a third of the suite's time. So functions
without arrays are left to beartype, and those of them inside others to mypy; and a function is
decorated when it is first called.
"""

import functools
import inspect
import typing

import jaxtyping
from beartype import beartype
from jaxtyping import _decorator, config

OF_THE_LIBRARY = _decorator.jaxtyped


def checked(function=None, *, typechecker=None):
    """As `jaxtyping.jaxtyped`, with its checks of sizes only where there are arrays."""
    if function is None:
        return functools.partial(checked, typechecker=typechecker)
    if not inspect.isfunction(function):
        return OF_THE_LIBRARY(function, typechecker=checked_once)  # which comes back for a method
    if "<locals>" in function.__qualname__ and not has_arrays(function):
        return function
    with_checks = None

    @functools.wraps(function)
    def call(*args, **kwargs):
        nonlocal with_checks
        if config.jaxtyping_disable:
            return function(*args, **kwargs)
        if with_checks is None:
            with_checks = decorated(function)
        return with_checks(*args, **kwargs)

    # Digests look through wrappers of jaxtyping, and presses spare them: this is one.
    call.__code__ = call.__code__.replace(co_filename=_decorator.__file__)
    return call


def decorated(function):
    """With the checks of jaxtyping where there are arrays, else those of beartype."""
    if has_arrays(function):
        return OF_THE_LIBRARY(function, typechecker=checked_once)
    before = set(vars(function))
    with_checks = beartype(function)
    for note in set(vars(function)) - before:  # of beartype's, which a digest would see
        delattr(function, note)
    return with_checks


def checked_once(stand_in):
    """What checks the arguments, or, after the call, the result: not the arguments once more.

    The sizes that they had are kept in between.
    """
    result = stand_in.__annotations__.get("return", typing.Any)
    if result is not typing.Any:
        stand_in.__annotations__ = {"return": result}
    return beartype(stand_in)


HAVE_ARRAYS = {}


def has_arrays(function):
    """Whether a type of an argument or of the result is one of jaxtyping's, or not known here."""
    code = function.__code__
    if code not in HAVE_ARRAYS:
        try:
            HAVE_ARRAYS[code] = "jaxtyping." in repr(typing.get_type_hints(function))
        except NameError:  # of a class inside a function
            HAVE_ARRAYS[code] = True
    return HAVE_ARRAYS[code]


def install():
    """Before the package is imported."""
    jaxtyping.jaxtyped = _decorator.jaxtyped = checked
