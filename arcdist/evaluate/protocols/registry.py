"""Protocols by name."""

from arcdist.evaluate.protocols import pairs
from arcdist.evaluate.protocols.plan import ProtocolConfig

PROTOCOLS: dict[str, type[ProtocolConfig]] = {
    "lfw": pairs.PairsTxtConfig,
    "calfw": pairs.TwoLinesConfig,
    "cplfw": pairs.TwoLinesConfig,
    "cfp_ff": pairs.FrontalConfig,
    "cfp_fp": pairs.ProfileConfig,
    "labeled_pairs": pairs.LabeledConfig,
}
