r"""The door of commands to the terminal, for what is no view: results, errors, warnings, log lines.

Everything goes through it, since any of it may quote a name or a file that is not ours: hidden
characters come out as their codes. Views have a door of their own, `report.render.console`.

>>> from mechinterp.commands.terminal import say
>>> say("layer 3 of model \x1b[31mred")
layer 3 of model \x1b[31mred
"""

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

from mechinterp.core.printable import escape, printable

T = TypeVar("T")


def say(text: str) -> None:
    """Print a result, on stdout."""
    print(_shown(text, sys.stdout.encoding), flush=True)


def complain(text: str) -> None:
    """Print an error, a warning or what is being done, on stderr, under the program's name."""
    _on_stderr(f"mechinterp: {text}")


def send_messages_here() -> None:
    """Make warnings and log lines come out through this door."""
    lines = logging.StreamHandler()
    lines.setFormatter(PrintableFormatter("%(message)s"))
    logging.basicConfig(handlers=[lines], level=logging.WARNING)
    logging.getLogger("mechinterp").setLevel(logging.INFO)
    warnings.formatwarning = lambda said, *_, **__: printable(f"mechinterp: {said}") + "\n"


def parse(read: Callable[[], T]) -> T:
    """What a parser of the command line gives; its complaints quote arguments, so they pass here.

    Raises:
        SystemExit: as the parser.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return read()
    finally:
        if said.getvalue():
            _on_stderr(said.getvalue().rstrip("\n"))


@contextlib.contextmanager
def busy(what: str) -> Iterator[None]:
    """Say on stderr what takes a while: a spinner on a terminal, else one line."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    if not console.is_terminal:
        complain(f"{what} ...")
        yield
        return
    with console.status(Text(escape(what))):
        yield


class PrintableFormatter(logging.Formatter):
    """Log lines with nothing hidden in them."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _on_stderr(text: str) -> None:
    print(_shown(text, sys.stderr.encoding), file=sys.stderr, flush=True)


def _shown(text: str, encoding: str | None) -> str:
    """The text with nothing hidden in it, in the characters that the encoding of a stream has."""
    name = encoding or "utf-8"
    return printable(text).encode(name, "backslashreplace").decode(name)
