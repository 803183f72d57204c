"""Token attribution: which input tokens drive which output tokens."""
