"""Search of large galleries: MegaFace, TinyFace, and galleries of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.face_index import FaceIndex, Ints
from arcdist.evaluate.identification import rank_rates, search_people, tpir_at_fpir
from arcdist.evaluate.lists import read_fields, refuse_repeats
from arcdist.evaluate.megaface import score_megaface
from arcdist.evaluate.megaface_files import noisy_images, read_image_list, read_noises
from arcdist.evaluate.protocols.pairs import named
from arcdist.evaluate.protocols.plan import Outcome, Plan
from arcdist.evaluate.tinyface import read_tinyface, score_tinyface

RANKS = (1, 5, 10)
FPIRS = (1e-3, 1e-2, 1e-1)


@dataclass
class MegaFaceConfig:
    """MegaFace challenge 1; images are the paths of the devkit's lists, each set in a folder of its own."""

    probes: str = field(default="", metadata={"help": "facescrub_features_list.json"})
    distractors: str = field(default="", metadata={"help": "megaface_features_list.json_1000000_1"})
    probe_folder: str = field(default="", metadata={"help": "where the probes lie within the folder that was embedded"})
    distractor_folder: str = field(default="", metadata={"help": "where the distractors lie"})
    probe_noises: str = field(default="", metadata={"help": "facescrub_noises.txt"})
    distractor_noises: str = field(default="", metadata={"help": "megaface_noises.txt"})
    cleaning: str = field(
        default="",
        metadata={"help": "none | drop | insightface | facex_zoo; empty: insightface where noises are given"},
    )

    def plan(self, index: FaceIndex) -> Plan:
        """Return what is to be done."""
        noises = bool(self.probe_noises or self.distractor_noises)
        cleaning = self.cleaning or ("insightface" if noises else "none")
        if cleaning not in ("none", "drop", "insightface", "facex_zoo"):
            raise ConfigError(f"cleaning: {cleaning!r}: must be none, drop, insightface or facex_zoo")
        if cleaning != "none" and not noises:
            raise ConfigError(f"cleaning: {cleaning} needs probe_noises and distractor_noises")
        probes, distractors = (read_image_list(named(key, getattr(self, key))) for key in ("probes", "distractors"))
        if probes.people is None:
            raise DataError(f"{self.probes}: has no list 'id' of the probes' people; is it the probes' list?")
        people = probes.people
        noisy_probes = noisy_images(probes.paths, _noises(self.probe_noises), "stem")
        noisy = noisy_images(distractors.paths, _noises(self.distractor_noises), "path")
        parts = {
            "probes": index.rows([_within(self.probe_folder, path) for path in probes.paths], self.probes),
            "distractors": index.rows(
                [_within(self.distractor_folder, path) for path in distractors.paths], self.distractors
            ),
        }

        def score(embeddings: Mapping[str, Tensor]) -> Outcome:
            found = score_megaface(
                *(embeddings["probes"], people, embeddings["distractors"]),
                noisy_probes=noisy_probes,
                noisy_distractors=noisy,
                cleaning=cleaning,
            )
            ranks = {f"rank-{k}": share for k, share in found.rank.items()}
            return Outcome(
                ranks | {f"TAR@FAR={far:g}": tar for far, tar in found.verification.tar_at_far.items()},
                found.as_dict(),
                [
                    f"{found.probes:,} probes of {found.people} people, {found.distractors:,} distractors",
                    f"cleaning: {cleaning}; {found.noisy_probes} probes and {found.noisy_distractors} distractors are "
                    "noise; figures of raw and of cleaned lists are not to be compared",
                ],
            )

        return Plan(parts, score)


@dataclass
class TinyFaceConfig:
    """TinyFace; images lie in ``Probe``, ``Gallery_Match`` and ``Gallery_Distractor``, within ``Testing_Set``."""

    lists: str = field(
        default="", metadata={"help": "folder with probe_img_ID_pairs.mat, gallery_match_img_ID_pairs.mat"}
    )

    def plan(self, index: FaceIndex) -> Plan:
        """Return what is to be done."""
        folder = Path(named("lists", self.lists))
        paths = [folder / f"{side}_img_ID_pairs.mat" for side in ("probe", "gallery_match")]
        (probes, probe_people), (gallery, gallery_people) = map(read_tinyface, paths)
        parts = {
            "probes": index.rows([f"Probe/{name}" for name in probes], paths[0]),
            "gallery": index.rows([f"Gallery_Match/{name}" for name in gallery], paths[1]),
            "distractors": index.under(["Gallery_Distractor"], folder)[0],
        }

        def score(embeddings: Mapping[str, Tensor]) -> Outcome:
            sides = (embeddings["gallery"], gallery_people, embeddings["distractors"])
            found = score_tinyface(embeddings["probes"], probe_people, *sides)
            return Outcome(
                {f"rank-{k}": share for k, share in found.rank.items()} | {"mAP": found.mean_average_precision},
                found.as_dict(),
                [f"{found.probes:,} probes; gallery: {found.gallery:,} mates and {found.distractors:,} distractors"],
            )

        return Plan(parts, score)


@dataclass
class SearchConfig:
    """A gallery of one's own: closed set, and open set where probes have no mate."""

    gallery: str = field(default="", metadata={"help": "list of the gallery: a name, a tab, a person, line by line"})
    probes: str = field(default="", metadata={"help": "list of the probes, in the same form"})

    def plan(self, index: FaceIndex) -> Plan:
        """Return what is to be done."""
        gallery, gallery_people = _named_people(named("gallery", self.gallery))
        probes, probe_people = _named_people(named("probes", self.probes))
        number = {person: row for row, person in enumerate(dict.fromkeys([*gallery_people, *probe_people]))}
        numbers: list[Ints] = [np.array([number[each] for each in side]) for side in (probe_people, gallery_people)]
        parts = {"gallery": index.rows(gallery, self.gallery), "probes": index.rows(probes, self.probes)}

        def score(embeddings: Mapping[str, Tensor]) -> Outcome:
            searches = search_people(embeddings["probes"], numbers[0], embeddings["gallery"], numbers[1])
            mated = int(searches.mated.sum())
            ranks = rank_rates(searches, RANKS)
            details: dict[str, object] = {"rank": {str(k): share for k, share in ranks.items()}, "mated": mated}
            figures = {f"rank-{k}": share for k, share in ranks.items()}
            if mated < len(probes):
                rates = tpir_at_fpir(searches, FPIRS)
                figures |= {f"TPIR@FPIR={fpir:g}": share for fpir, share in rates.tar_at_far.items()}
                details["open_set"] = rates.as_dict()
            people = len(set(gallery_people))
            return Outcome(
                figures,
                details | {"probes": len(probes), "gallery": len(gallery), "people": people},
                [
                    f"{len(probes):,} probes, {mated:,} of them with a mate",
                    f"{len(gallery):,} images of {people:,} people in the gallery",
                ],
            )

        return Plan(parts, score)


def _named_people(path: str) -> tuple[list[str], list[str]]:
    entries = [fields for _, fields in read_fields(path, "name person", separator="\t")]
    first = 2 if entries and entries[0] == ["name", "label"] else 1
    names, people = ([fields[column] for fields in entries[first - 1 :]] for column in (0, 1))
    if not names or not all(people):
        raise DataError(f"{path}: {len(names)} entries, {people.count('')} without a person; each needs one")
    refuse_repeats(names, path, "image", first)
    return names, people


def _noises(path: str) -> set[str]:
    return read_noises(path) if path else set()


def _within(folder: str, path: str) -> str:
    return f"{folder.strip('/')}/{path}" if folder.strip("/") else path
