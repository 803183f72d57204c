"""Ablation of components, one at a time and together."""
