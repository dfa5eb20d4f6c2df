"""The ArcFace paper's experiments, run again: its tables, cell by cell, and its two-dimensional toy."""
