"""A circuit alone, by size, without parts."""
