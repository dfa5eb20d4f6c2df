"""The log-sum-exp of a margin softmax over a block of classes: one meaning, several implementations."""

from arcdist.ops.margin_logsumexp.blockwise import margin_logsumexp

__all__ = ["margin_logsumexp"]
