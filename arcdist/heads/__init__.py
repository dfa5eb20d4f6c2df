"""Heads: from the embeddings and labels of all ranks to the one loss, with the class centers sharded over the ranks."""

from arcdist.heads.partial_fc import PartialFC, PartialFCConfig

__all__ = ["PartialFC", "PartialFCConfig"]
