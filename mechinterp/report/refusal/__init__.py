"""Studies of refusals on a page and in a terminal."""
