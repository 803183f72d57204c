"""The effect of every edge, node or neuron."""
