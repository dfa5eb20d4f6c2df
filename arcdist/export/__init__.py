"""Trained backbones in other forms, each compared with the one that it was made of, and what is told with them."""
