"""A patching or ablation grid on a page and in a terminal."""
