"""A teacher's embeddings of the training images, which a run draws its own towards (distillation).

They are made once, by ``arcdist embed TEACHER train.rec teacher.npy``, not at every visit to an image: a run costs what
it costs without a teacher, and the teacher may be anything that writes such a file. It has seen the image as it is in
the file, and its mirror image; the student sees what augmentation leaves of it.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from arcdist.data.datasets import RecordDataset
from arcdist.data.image_set import ImageSet
from arcdist.data.order import Order, rows_of_step
from arcdist.data.selection import Selection
from arcdist.errors import ConfigError
from arcdist.prepare.faces import read_embeddings
from arcdist.runtime.world import World

LOSSES = ("cosine", "mse")


@dataclass
class TeacherConfig:
    """Which embeddings a run draws its own towards, and how strongly."""

    embeddings: str = field(
        default="",
        metadata={"help": "a .npy of `arcdist embed TEACHER` of data.path, a row an image; empty: no teacher"},
    )
    weight: float = field(default=1.0, metadata={"help": "of its loss beside the head's"})
    loss: str = field(
        default="cosine", metadata={"help": "cosine (1 − cos of student's and teacher's embedding) | mse (of numbers)"}
    )

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        if self.loss not in LOSSES:
            raise ConfigError(f"teacher.loss: {self.loss!r}: must be one of {', '.join(LOSSES)}")
        if not 0 < self.weight < math.inf:
            raise ConfigError(f"teacher.weight: {self.weight}: must be above 0, and finite")

    def build(
        self, dataset: ImageSet | Selection, order: Order, embedding_dim: int, global_batch_size: int, world: World
    ) -> "Teacher | None":
        """Return the teacher of a run, or None where there is none.

        Errors: ConfigError for a set that is not one .rec, and for embeddings of another length than the student's;
            DataError for a file that is not of this set.
        """
        return Teacher(self, dataset, order, embedding_dim, global_batch_size, world) if self.embeddings else None


class Teacher:
    """The rows of a file of embeddings that belong to this rank's images; arguments as for ``TeacherConfig.build``."""

    def __init__(
        self,
        config: TeacherConfig,
        dataset: ImageSet | Selection,
        order: Order,
        embedding_dim: int,
        global_batch_size: int,
        world: World,
    ) -> None:
        self.weight, self.loss = config.weight, config.loss
        self._order, self._global_batch_size, self._world = order, global_batch_size, world
        self._rows_of = dataset.samples if isinstance(dataset, Selection) else None
        whole = dataset.whole if isinstance(dataset, Selection) else dataset
        if not isinstance(whole, RecordDataset):
            raise ConfigError(f"teacher.embeddings: are of the records of one .rec, and data.path is {whole.title}")
        self._embeddings = read_embeddings(Path(config.embeddings), whole)
        dim = self._embeddings.shape[1]
        if dim != embedding_dim:
            raise ConfigError(
                f"teacher.embeddings: {config.embeddings} holds {dim} numbers an image, the student makes "
                f"{embedding_dim}; set backbone.embedding_dim={dim}"
            )

    def targets(self, step: int) -> Tensor:
        """Return the teacher's embeddings of this rank's rows of a step (counted from 0), float32 ``[b, D]``."""
        rows = rows_of_step(step, self._global_batch_size, self._world.rank, self._world.size)
        samples = self._order.samples(rows.start, rows.stop)
        found = torch.from_numpy(self._embeddings[samples if self._rows_of is None else self._rows_of[samples]])
        return found.to(self._world.device, torch.float32)

    def part(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        """Return the weighted loss of some of this rank's rows, their mean: a scalar.

        The mean over the ranks is the loss, and DDP's mean of the gradients its gradient.

        Args:
            embeddings: the student's ``[b, D]``, not normalized.
            targets: the teacher's ``[b, D]``.
        """
        embeddings = embeddings.float()
        if self.loss == "mse":
            return self.weight * F.mse_loss(embeddings, targets)
        return self.weight * (1 - F.cosine_similarity(embeddings, targets)).mean()
