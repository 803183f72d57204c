"""What a model is, how it is loaded, its layers in parts, its tokens."""
