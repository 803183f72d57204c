"""Intervals and tests over prompts."""
