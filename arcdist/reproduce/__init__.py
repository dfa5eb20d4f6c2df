"""The ArcFace paper's experiments, run again: its tables, cell by cell."""
