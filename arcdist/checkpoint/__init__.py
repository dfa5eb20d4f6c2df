"""Checkpoints: when and where a run is saved, what is in it, and the weights of other projects."""
