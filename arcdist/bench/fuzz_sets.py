"""Data of strangers for the fuzz: sets, and what lies beside them."""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np

from arcdist.bench.fuzz_damage import damaged, hostile_pickle
from arcdist.data.datasets import RecordDataset
from arcdist.data.decode import decode
from arcdist.data.evalsets import read_bin, write_bin
from arcdist.data.identities import read_identities
from arcdist.data.recordio import RecordReader
from arcdist.data.selection import SelectConfig
from arcdist.data.synthetic import SyntheticConfig, encode
from arcdist.data.training_set import TrainingSetWriter
from arcdist.prepare.inspect import inspect
from arcdist.prepare.same_identities import read_same

_IDENTITIES, _IMAGES_EACH = 4, 3
_HOSTILE = 0.2  # share of the .bin


class Sets:
    """A small training set and a small verification set, and lists of both, of which one file is damaged at a time."""

    shares: ClassVar[dict[str, int]] = {
        **{".rec": 20, ".idx": 20, ".bin": 20},
        **{".property": 2, ".lst": 4, ".clean": 2, ".same": 2},
    }

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rendered = SyntheticConfig(identities=_IDENTITIES, images_per_identity=_IMAGES_EACH, image_size=32)
        images = [encode(rendered, label, number) for label in range(_IDENTITIES) for number in range(_IMAGES_EACH)]
        with TrainingSetWriter(folder / "set.rec", rendered.image_size) as writer:
            keys = [writer.write(position // _IMAGES_EACH, image) for position, image in enumerate(images)]
        self.truth = {image: {position // _IMAGES_EACH} for position, image in enumerate(images)}
        pairs = [images[position] for pair in range(_IDENTITIES) for position in (3 * pair, 3 * pair + pair % 2)]
        pairs += [image for label in range(_IDENTITIES) for image in (images[3 * label], images[(3 * label + 4) % 12])]
        same = [self.truth[first] == self.truth[second] for first, second in zip(pairs[::2], pairs[1::2])]
        write_bin(folder / "set.bin", pairs, same)
        named = [
            f"{key}\t{label // _IMAGES_EACH}\tperson{label // _IMAGES_EACH}/{key}.jpg\n"
            for label, key in enumerate(keys)
        ]
        (folder / "set.lst").write_text("".join(named))
        (folder / "set.clean").write_text("# key, cosine\n" + "".join(f"{key} 0.91\n" for key in keys[::2]))
        (folder / "set.same").write_text("# two labels\n0 2 0.81\n3 1 0.77\n")
        self.whole = {kind: (folder / f"set{kind}").read_bytes() for kind in self.shares}
        self.before = {kind: self._lists()[kind]() for kind in self._lists()}

    def damage(self, kind: str, rng: np.random.Generator, canary: Path) -> str:
        """Damage the file of a kind, the others being whole, and return how."""
        for other, whole in self.whole.items():
            (self.folder / f"set{other}").write_bytes(whole)
        data, how = damaged(self.whole[kind], rng)
        if kind == ".bin" and rng.random() < _HOSTILE:
            data, how = hostile_pickle(rng, canary)
        (self.folder / f"set{kind}").write_bytes(data)
        return how

    def read(self, kind: str) -> str:
        """Return what comes of reading it; an ArcdistError where it is refused."""
        if kind in self.before:
            return "read as before" if self._lists()[kind]() == self.before[kind] else "read as another list"
        path = self.folder / ("set.bin" if kind == ".bin" else "set.rec")
        if inspect(path, verify=True, workers=1)["faults"]:
            return "faults named"
        return self._read_bin(path) if kind == ".bin" else self._read_rec(path)

    def _lists(self) -> dict[str, Callable[[], list[object]]]:
        def of(kind: str) -> str:
            return str(self.folder / f"set{kind}")

        def kept() -> list[object]:
            with RecordDataset(of(".rec")) as dataset:
                return SelectConfig(clean_list=of(".clean")).keep(dataset, dataset.labels()).tolist()

        return {
            ".lst": lambda: list(read_identities(of(".lst"), _IDENTITIES)),
            ".clean": kept,
            ".same": lambda: read_same(of(".same"), _IDENTITIES).tolist(),
        }

    def _read_rec(self, path: Path) -> str:
        with RecordReader(path) as reader:
            images = [record for record in reader if record.payload]
        return self._compare([(record.payload, {int(record.first_label)}) for record in images], len(self.truth))

    def _read_bin(self, path: Path) -> str:
        pairs, truth = read_bin(path), self.truth
        for first, second, same in zip(pairs.images[::2], pairs.images[1::2], pairs.same):
            if first in truth and second in truth and (truth[first] == truth[second]) != same:
                return "other label"
        return self._compare([(image, truth.get(image, set())) for image in pairs.images], len(pairs.images))

    def _compare(self, found: list[tuple[bytes, set[int]]], expected: int) -> str:
        for image, labels in found:
            if image in self.truth and self.truth[image] != labels:
                return "other label"
        for image, _ in found:
            decode(image, "image")
        as_before = all(image in self.truth for image, _ in found) and len(found) == expected
        return "read as before" if as_before else "other images"
