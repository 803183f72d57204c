"""Attention links on a page and in a terminal."""
