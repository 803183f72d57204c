"""How arms run on a model: one pass of many, hooks on and off again."""
