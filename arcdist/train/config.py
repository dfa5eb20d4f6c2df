"""The whole configuration of a run: the parts' own, in one tree."""

import math
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from omegaconf import OmegaConf

from arcdist.backbones import BackboneConfig
from arcdist.backbones.registry import takes_any_size
from arcdist.checkpoint.manager import CheckpointConfig
from arcdist.checkpoint.schema import SCHEMA, about_schema
from arcdist.data.sources import DataConfig
from arcdist.errors import ConfigError
from arcdist.evaluate.sets import EvaluateConfig
from arcdist.heads import LossesConfig, PartialFCConfig
from arcdist.margins import CombinedConfig, MarginConfig
from arcdist.optim import OptimConfig
from arcdist.runtime.world import RuntimeConfig
from arcdist.train.profile import check_profiled_steps
from arcdist.train.step import StepConfig
from arcdist.train.teacher import TeacherConfig
from arcdist.train.trackers.config import LogConfig
from arcdist.train.void_steps import VoidStepsConfig


@dataclass
class LoopConfig(StepConfig):
    """How long a run trains, at what resolution, and how often it tells of it."""

    epochs: float = field(default=20.0, metadata={"help": "passes over the data"})
    steps: int = field(default=0, metadata={"help": "optimizer steps, instead of epochs where it is not 0"})
    image_sizes: list[int] = field(
        default_factory=list,
        metadata={"help": "sizes in pixels that a run goes through; empty: the data's size"},
    )
    image_sizes_until: list[float] = field(
        default_factory=list, metadata={"help": "shares of the run at which each of image_sizes ends, the last being 1"}
    )
    log_every: int = field(default=20, metadata={"help": "steps between two lines of the log"})
    profile: list[int] = field(
        default_factory=list,
        metadata={"help": "first and last step whose trace goes into folder/profile, such as [100,105]; empty: none"},
    )
    void: VoidStepsConfig = field(default_factory=VoidStepsConfig)

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        super().validate()
        self.void.validate()
        check_profiled_steps(self.profile)
        if not 0 < self.epochs < math.inf and self.steps <= 0:
            raise ConfigError(f"train.epochs: {self.epochs}: must be a number above 0 (or set train.steps)")
        if self.steps < 0:
            raise ConfigError(f"train.steps: {self.steps}: must be 0 (train.epochs counts) or more")
        if self.log_every < 1:
            raise ConfigError(f"train.log_every: {self.log_every}: must be at least 1")
        until = list(self.image_sizes_until)
        rises = all(0 < share <= 1 for share in until) and sorted(until) == until and until[-1:] in ([], [1])
        if len(self.image_sizes) != len(until) or not rises:
            raise ConfigError(
                f"train.image_sizes_until: {until}: must rise to 1, one share for each of train.image_sizes "
                f"({list(self.image_sizes)}); for instance [64, 112] until [0.6, 1]"
            )
        if not all(16 <= size <= 1024 for size in self.image_sizes):
            raise ConfigError(f"train.image_sizes: {list(self.image_sizes)}: must be in [16, 1024] each")

    def total_steps(self, images: int) -> int:
        """Return the optimizer steps of a run over a data set of ``images``."""
        return self.steps or max(1, int(self.epochs * images / self.global_batch_size))

    def image_size_changes(self, total_steps: int) -> dict[int, int]:
        """Return the size in pixels that images have from a step on, for each step at which it changes."""
        starts = [math.ceil(until * total_steps) for until in self.image_sizes_until[:-1]]
        return dict(zip(starts, self.image_sizes[1:]))

    def image_size_at(self, step: int, total_steps: int, full: int) -> int:
        """Return the height and width in pixels of a step's images; ``full`` where none are configured."""
        for size, until in zip(self.image_sizes, self.image_sizes_until):
            if step < until * total_steps:
                return size
        return full


@dataclass
class TrainConfig:
    """A run."""

    schema: int = field(default=SCHEMA, metadata={"help": "version of these keys; a run writes its own down"})
    name: str = field(default="run", metadata={"help": "what the run is called"})
    folder: str = field(default="runs/${name}", metadata={"help": "where everything that it writes goes"})
    json: str = field(default="", metadata={"help": "a second place for summary.json; also --json PATH"})
    seed: int = field(default=0, metadata={"help": "of the order, the augmentation, the weights and the draws"})
    init: str = field(
        default="",
        metadata={"help": "weights that the backbone of a new run begins with: a run's folder, .safetensors, .pt"},
    )
    resume: str = field(
        default="auto",
        metadata={
            "help": "auto (the newest checkpoint in folder) | never | the folder of a checkpoint or a run, or of "
            "one of arcface_torch"
        },
    )
    data: DataConfig = field(default_factory=DataConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    margin: MarginConfig = field(default_factory=CombinedConfig)
    head: PartialFCConfig = field(default_factory=PartialFCConfig)
    losses: LossesConfig = field(default_factory=LossesConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: LoopConfig = field(default_factory=LoopConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def validate(self) -> None:
        """Raise ConfigError for the first value that cannot be right, before any process group starts."""
        if fault := about_schema(self.schema):
            raise ConfigError(fault)
        if not self.name or not self.folder:
            raise ConfigError("name and folder: must not be empty; a run's name names its folder")
        if self.train.compile != "none" and self.backbone.checkpoint_activations:
            raise ConfigError(
                "train.compile: cannot be had with backbone.checkpoint_activations, whose second pass torch.compile "
                "does not know; leave one of them out"
            )
        for part in fields(self):
            value: Any = getattr(self, part.name)
            if is_dataclass(value):
                value.validate()
        for key in ("global_batch_size", "micro_batch_size"):
            if self.data.per_identity and getattr(self.train, key) % self.data.per_identity:
                raise ConfigError(
                    f"data.per_identity: {self.data.per_identity}: must divide train.{key} ({getattr(self.train, key)})"
                )
        if self.teacher.embeddings and self.data.loader.on_bad_record == "skip":
            raise ConfigError(
                "data.loader.on_bad_record: 'skip': would put an image in another's place whose embedding the teacher "
                "gave; take 'error', or leave teacher.embeddings out"
            )
        sizes = {self.data.image_size, *self.train.image_sizes}
        if sizes != {112} and not takes_any_size(self.backbone.name):
            raise ConfigError(
                f"train.image_sizes: {sorted(sizes)}: {self.backbone.name} takes images of 112 pixels only; "
                "backbone=small takes others"
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the configuration as plain values, references resolved."""
        plain = OmegaConf.to_container(OmegaConf.structured(self), resolve=True)
        assert isinstance(plain, dict)
        return {str(key): value for key, value in plain.items()}


def differences(before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return what two configurations say differently: by key, the old value and the new one.

    A key that there was not yet, and that is off now or has its default, says nothing new.
    """
    old, new, defaults = flat(before), flat(now), flat(TrainConfig().as_dict())
    differs = {key: (old.get(key), new.get(key)) for key in sorted(old | new) if old.get(key) != new.get(key)}
    return {key: pair for key, pair in differs.items() if key in old or (pair[1] and pair[1] != defaults.get(key))}


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of a configuration by their keys, as ``optim.lr``."""
    values: dict[str, Any] = {}
    for key, value in tree.items():
        values |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return values
