"""The log-sum-exp of a margin softmax over a block of classes: one meaning, several implementations."""

from arcdist.ops.margin_logsumexp.blockwise import own_cosines
from arcdist.ops.margin_logsumexp.formula import IMPLEMENTATIONS, PRODUCTS, Formula, Negative, Tuning
from arcdist.ops.margin_logsumexp.function import CentersGradient, margin_logsumexp

__all__ = [
    "IMPLEMENTATIONS",
    "PRODUCTS",
    "CentersGradient",
    "Formula",
    "Negative",
    "Tuning",
    "margin_logsumexp",
    "own_cosines",
]
