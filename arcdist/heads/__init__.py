"""Heads: from the embeddings and labels of all ranks to the one loss, with the class centers sharded over the ranks."""

from arcdist.heads.auxiliary.config import LossesConfig
from arcdist.heads.config import PartialFCConfig
from arcdist.heads.partial_fc import PartialFC

__all__ = ["LossesConfig", "PartialFC", "PartialFCConfig"]
