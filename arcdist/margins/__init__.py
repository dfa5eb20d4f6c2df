"""Margins: from the cosine between an embedding and its own class's center to the row's loss."""

from arcdist.margins.adacos import AdaCos, AdaCosConfig
from arcdist.margins.adaptive import AdaFace, AdaFaceConfig, MagFace, MagFaceConfig
from arcdist.margins.circle import CircleLoss, CircleLossConfig
from arcdist.margins.combined import Combined, CombinedConfig
from arcdist.margins.config import MarginConfig
from arcdist.margins.elastic import ElasticFace, ElasticFaceConfig
from arcdist.margins.filtering import InterclassFilter
from arcdist.margins.mined import CurricularFace, CurricularFaceConfig, MVSoftmax, MVSoftmaxConfig
from arcdist.margins.protocol import Margin, Negative
from arcdist.margins.registry import MARGINS
from arcdist.margins.uniface import UniFace, UniFaceConfig
from arcdist.margins.unnormalized import ASoftmax, ASoftmaxConfig, Softmax, SoftmaxConfig

__all__ = [
    "MARGINS",
    "ASoftmax",
    "ASoftmaxConfig",
    "AdaCos",
    "AdaCosConfig",
    "AdaFace",
    "AdaFaceConfig",
    "CircleLoss",
    "CircleLossConfig",
    "Combined",
    "CombinedConfig",
    "CurricularFace",
    "CurricularFaceConfig",
    "ElasticFace",
    "ElasticFaceConfig",
    "InterclassFilter",
    "MVSoftmax",
    "MVSoftmaxConfig",
    "MagFace",
    "MagFaceConfig",
    "Margin",
    "MarginConfig",
    "Negative",
    "Softmax",
    "SoftmaxConfig",
    "UniFace",
    "UniFaceConfig",
]
