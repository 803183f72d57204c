"""Probes on a page and in a terminal."""
