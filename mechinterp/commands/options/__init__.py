"""What each command takes; imports no torch."""
