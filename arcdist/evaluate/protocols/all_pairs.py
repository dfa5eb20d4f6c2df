"""All images with all, as MFR and Trillion-Pairs have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.exact_rates import all_to_all
from arcdist.evaluate.face_index import FaceIndex
from arcdist.evaluate.lists import read_lines, real, refuse_repeats
from arcdist.evaluate.megaface_files import write_matrix
from arcdist.evaluate.protocols.pairs import named
from arcdist.evaluate.protocols.plan import Outcome, Plan
from arcdist.runtime.collectives import from_rank_0


@dataclass
class AllToAllConfig:
    """TAR over all pairs of images, as MFR has it, exactly; people are the faces' labels."""

    fars: list[float] = field(default_factory=lambda: [1e-6], metadata={"help": "false accept rates; small ones"})

    def plan(self, index: FaceIndex) -> Plan:
        """Return what is to be done."""
        if not self.fars or not all(0 <= far <= 1 for far in self.fars):
            raise ConfigError(f"fars: {self.fars}: must be in [0, 1], one at least")
        nobody = sum(not label for label in index.labels)
        if nobody:
            raise DataError(
                f"{index.source}: {nobody} of {len(index)} faces have no label; people are folders, or a .rec's labels"
            )
        labels = np.unique(np.array(index.labels), return_inverse=True)[1]

        def score(parts: Mapping[str, Tensor]) -> Outcome:
            found = all_to_all(parts["images"], labels, self.fars)
            return Outcome(
                {f"TAR@FAR={far:.0e}": tar for far, tar in found.tar_at_far.items()},
                found.as_dict(),
                [
                    f"{len(labels):,} images of {labels.max() + 1:,} people: {found.genuine:,} genuine and "
                    f"{found.impostor:,} impostor pairs",
                    *(f"FAR={far:.0e}: {count:,} false accepts" for far, count in found.false_accepts.items()),
                ],
            )

        return Plan({"images": np.arange(len(index))}, score)


@dataclass
class FeaturesConfig:
    """Trillion-Pairs and LFR19: their servers score, so what there is to make is the file that they take."""

    lists: str = field(default="", metadata={"help": "testdata_lmk.txt: a path, then five points, line by line"})
    output: str = field(default="", metadata={"help": "file for the unit embeddings, in the list's order"})
    align: bool = field(default=True, metadata={"help": "of a model: images are photographs, aligned by the points"})

    def plan(self, index: FaceIndex) -> Plan:
        """Return what is to be done."""
        if not Path(named("output", self.output)).parent.is_dir():
            raise ConfigError(f"output: {self.output}: there is no folder {Path(self.output).parent}")
        names, points = [], []
        for number, line in enumerate(read_lines(named("lists", self.lists)), 1):
            fields = line.split()
            if len(fields) not in (1, 11):
                raise DataError(f"{self.lists}:{number}: {line[:80]!r} is no path with five points, or alone")
            names.append(fields[0])
            points.append([real(text, self.lists, number, "a point") for text in fields[1:]])
        if not names:
            raise DataError(f"{self.lists}: holds no image")
        refuse_repeats(names, self.lists, "image")
        rows = index.rows(names, self.lists)

        def score(parts: Mapping[str, Tensor]) -> Outcome:
            embeddings = parts["images"].float()
            unit = embeddings / embeddings.norm(dim=1, keepdim=True)
            from_rank_0(lambda: write_matrix(Path(self.output), unit.numpy()))
            return Outcome({}, {"output": self.output, "images": len(names)}, [f"{self.output}: {len(names):,} rows"])

        landmarks = {row: np.array(each).reshape(5, 2) for row, each in zip(rows.tolist(), points) if each}
        return Plan({"images": rows}, score, landmarks if self.align else None)
