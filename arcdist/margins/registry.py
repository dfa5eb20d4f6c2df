"""The margins by name."""

from arcdist.margins.adacos import AdaCosConfig
from arcdist.margins.adaptive import AdaFaceConfig, MagFaceConfig
from arcdist.margins.circle import CircleLossConfig
from arcdist.margins.combined import CombinedConfig
from arcdist.margins.config import MarginConfig
from arcdist.margins.elastic import ElasticFaceConfig
from arcdist.margins.mined import CurricularFaceConfig, MVSoftmaxConfig
from arcdist.margins.uniface import UniFaceConfig
from arcdist.margins.unnormalized import ASoftmaxConfig, SoftmaxConfig

MARGINS: dict[str, type[MarginConfig]] = {
    "softmax": SoftmaxConfig,
    "a_softmax": ASoftmaxConfig,
    "combined": CombinedConfig,
    "adaface": AdaFaceConfig,
    "magface": MagFaceConfig,
    "mv_softmax": MVSoftmaxConfig,
    "curricularface": CurricularFaceConfig,
    "circleloss": CircleLossConfig,
    "adacos": AdaCosConfig,
    "elasticface": ElasticFaceConfig,
    "uniface": UniFaceConfig,
}
