"""Protocols by name."""

from arcdist.evaluate.protocols import all_pairs, groups, ijb, pairs, searches, videos
from arcdist.evaluate.protocols.plan import ProtocolConfig

PROTOCOLS: dict[str, type[ProtocolConfig]] = {
    "lfw": pairs.PairsTxtConfig,
    "calfw": pairs.TwoLinesConfig,
    "cplfw": pairs.TwoLinesConfig,
    "sllfw": pairs.SimilarConfig,
    "agedb": pairs.AgesConfig,
    "cfp_ff": pairs.FrontalConfig,
    "cfp_fp": pairs.ProfileConfig,
    "labeled_pairs": pairs.LabeledConfig,
    "rfw": groups.GroupsConfig,
    "groups": groups.OwnGroupsConfig,
    "ytf": videos.YouTubeFacesConfig,
    "iqiyi": videos.ClipsConfig,
    "ijb_11": ijb.TemplatePairsConfig,
    "ijb_1n": ijb.TemplateSearchConfig,
    "megaface": searches.MegaFaceConfig,
    "tinyface": searches.TinyFaceConfig,
    "search": searches.SearchConfig,
    "all_to_all": all_pairs.AllToAllConfig,
    "trillion_pairs": all_pairs.FeaturesConfig,
}
