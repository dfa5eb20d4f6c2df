"""A run: the parts assembled, one optimizer step, the loop."""
