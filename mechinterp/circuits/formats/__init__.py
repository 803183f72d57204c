"""Circuits and scores as files."""
