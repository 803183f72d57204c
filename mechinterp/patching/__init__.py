"""Activation patching, path patching, attribution patching."""
