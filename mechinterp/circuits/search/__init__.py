"""Choosing edges."""
