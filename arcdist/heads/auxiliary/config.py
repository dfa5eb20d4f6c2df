"""Which losses a run adds up, and with what weights."""

import math
from dataclasses import dataclass, field, fields

import torch

from arcdist.errors import ConfigError
from arcdist.heads.auxiliary.centers import CenterLossConfig, IntraLossConfig
from arcdist.heads.auxiliary.pairs import ContrastiveLossConfig, MarginalLossConfig
from arcdist.heads.auxiliary.protocol import AuxiliaryConfig, AuxiliaryLoss
from arcdist.heads.auxiliary.range_loss import RangeLossConfig
from arcdist.heads.auxiliary.separation import HypersphericalEnergyConfig, InterLossConfig
from arcdist.heads.auxiliary.triplet import TripletLossConfig


@dataclass
class LossesConfig:
    """The loss of a run: the margin softmax, and whatever else has a weight."""

    softmax: float = field(default=1.0, metadata={"help": "weight of the margin softmax; 0: without it"})
    center: CenterLossConfig = field(default_factory=CenterLossConfig)
    intra: IntraLossConfig = field(default_factory=IntraLossConfig)
    inter: InterLossConfig = field(default_factory=InterLossConfig)
    contrastive: ContrastiveLossConfig = field(default_factory=ContrastiveLossConfig)
    triplet: TripletLossConfig = field(default_factory=TripletLossConfig)
    range: RangeLossConfig = field(default_factory=RangeLossConfig)
    marginal: MarginalLossConfig = field(default_factory=MarginalLossConfig)
    energy: HypersphericalEnergyConfig = field(default_factory=HypersphericalEnergyConfig)

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right, or nothing is left that a net could learn from."""
        if not (math.isfinite(self.softmax) and self.softmax >= 0):
            raise ConfigError(f"losses.softmax: {self.softmax}: must be a number from 0 on")
        for config in self._auxiliary():
            config.validate()
        learned_from = [config for config in self._auxiliary() if config.weight and config.touches_embeddings]
        if not self.softmax and not learned_from:
            raise ConfigError(
                "losses.softmax: 0.0: then another loss over embeddings needs a weight (losses.triplet.weight=1); "
                "losses.inter and losses.energy move centers only"
            )

    def build(
        self, embedding_dim: int, num_classes: int, device: torch.device
    ) -> dict[str, tuple[float, AuxiliaryLoss]]:
        """Return the auxiliary losses that have a weight, with it, by name; without ``softmax``."""
        self.validate()
        return {
            config.key.rpartition(".")[2]: (config.weight, config.build(embedding_dim, num_classes, device))
            for config in self._auxiliary()
            if config.weight
        }

    def _auxiliary(self) -> list[AuxiliaryConfig]:
        values = [getattr(self, part.name) for part in fields(self)]
        return [value for value in values if isinstance(value, AuxiliaryConfig)]
