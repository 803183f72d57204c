"""A circuit on a page and in a terminal."""
