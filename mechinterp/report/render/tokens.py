r"""Tokens made printable: what a reader must see of a token, with nothing hidden in it.

Not a tokenizer, and no HTML or terminal markup: a page or a terminal adds its own. What could act
instead of being read comes out as its code (`core.printable`).

    show(" Mary") == "␣Mary"
    show("\x1b[31m") == r"\x1b[31m"
"""

from mechinterp.core.arguments import checks_arguments
from mechinterp.core.printable import escape

SPACE = "␣"


@checks_arguments
def show(token: str) -> str:
    """A token on one line: end spaces as `␣`, newline `↵`, tab `⇥`, hidden ones as codes.

    One without text, which holds the rest of a character begun before it, as "(rest)".
    """
    core = token.strip(" ")
    if not core:
        return SPACE * len(token) or "(rest)"
    before = len(token) - len(token.lstrip(" "))
    after = len(token) - len(token.rstrip(" "))
    return SPACE * before + escape(core) + SPACE * after


def shorten(shown: str, most: int = 48) -> str:
    """What is shown, its middle left out where it is longer than `most` characters."""
    if len(shown) <= most:
        return shown
    end = most // 3
    return f"{shown[: most - end - 3].rstrip()} … {shown[-end:].lstrip()}"


def flow(token: str) -> str:
    """A token as it stands in running text: spaces stay, a newline shows and breaks the line."""
    if not token.strip(" "):
        return show(token)
    return "↵\n".join(escape(line) for line in token.split("\n"))
