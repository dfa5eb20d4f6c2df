"""Whether a machine, or a group of them, is fit to train on, and what to do where it is not."""
