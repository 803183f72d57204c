"""What is asked: inputs, outputs, removals."""
