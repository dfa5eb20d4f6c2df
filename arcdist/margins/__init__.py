"""Margins: from the cosine between an embedding and its own class's center to the target logit."""

from arcdist.margins.combined import Combined, CombinedConfig
from arcdist.margins.protocol import Margin

__all__ = ["Combined", "CombinedConfig", "Margin"]
