"""Many arms: the plan, the passes, finished parts on disk."""
