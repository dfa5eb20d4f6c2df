"""Training of face-recognition embeddings with ArcFace and its relatives, at any scale."""

__version__ = "0.1.0"
