"""Whether attribution scores can be trusted."""
