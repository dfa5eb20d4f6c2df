"""The lists of IJB-B and IJB-C: NIST's CSV files, and insightface's texts that were made of them.

Seen in the original: the gallery CSVs. The three texts are read as insightface's ``ijb_11.py`` reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from arcdist.errors import DataError
from arcdist.evaluate.lists import integer, read_fields, read_integers, read_lines, real, refuse_repeats

Ints = npt.NDArray[np.int64]

_NIST_COLUMNS = ("TEMPLATE_ID", "SUBJECT_ID", "FILENAME", "SIGHTING_ID")
_POINTS = "x1 y1 x2 y2 x3 y3 x4 y4 x5 y5"


@dataclass(frozen=True, eq=False)
class Faces:
    """The N faces of insightface's release, crop by crop."""

    images: list[str]
    template: Ints
    medium: Ints
    landmarks: npt.NDArray[np.float64]
    """``[N, 5, 2]``: eyes, nose, corners of the mouth, in pixels of the crop."""
    detector_score: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TemplatePairs:
    """P pairs of templates, by id; ``same`` is bool, true where both are of one person."""

    first: Ints
    second: Ints
    same: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class NistFaces:
    """The rows of one of NIST's CSV files: a face each."""

    template: Ints
    subject: Ints
    images: list[str]
    sighting: Ints
    """The medium: a still or a video."""


@dataclass(frozen=True, eq=False)
class People:
    """T templates, rising by id, and whose they are."""

    template: Ints
    subject: Ints


def read_faces(tid_mid: str | Path, landmarks: str | Path) -> Faces:
    """Return the faces of ``ijbc_face_tid_mid.txt`` (``1.jpg 1 69544``) and ``ijbc_name_5pts_score.txt``.

    The two are joined line by line, as insightface does. Raises DataError where their names differ, their lengths
    differ, a crop is listed twice or a field is no number.
    """
    images, template, medium = [], [], []
    for number, fields in read_fields(tid_mid, "image template medium"):
        images.append(fields[0])
        template.append(integer(fields[1], tid_mid, number, "template"))
        medium.append(integer(fields[2], tid_mid, number, "medium"))
    refuse_repeats(images, tid_mid, "image")
    numbers = np.empty((len(images), 11))
    count = 0
    for count, (number, fields) in enumerate(read_fields(landmarks, f"image {_POINTS} score"), 1):
        expected = images[count - 1] if count <= len(images) else "no more image"
        if fields[0] != expected:
            raise DataError(f"{landmarks}:{number}: is of {fields[0]}, but {tid_mid} has {expected} there")
        numbers[count - 1] = [real(text, landmarks, number, "a landmark or the score") for text in fields[1:]]
    if count != len(images):
        raise DataError(f"{landmarks}: {count} faces, but {tid_mid} has {len(images)}; are both of one set, and whole?")
    return Faces(images, np.array(template), np.array(medium), numbers[:, :10].reshape(-1, 5, 2), numbers[:, 10])


def read_template_pairs(path: str | Path) -> TemplatePairs:
    """Return the pairs of ``ijbc_template_pair_label.txt``: ``1 11065 1``, 15,658,489 lines.

    Raises DataError for a line that is not two ids and 0 or 1.
    """
    table = read_integers(path, "template template label")
    label = table[:, 2]
    wrong = np.flatnonzero((label != 0) & (label != 1))
    if len(wrong):
        raise DataError(f"{path}: entry {wrong[0] + 1}: label {label[wrong[0]]}: must be 1 (one person) or 0")
    return TemplatePairs(table[:, 0].copy(), table[:, 1].copy(), label == 1)


def read_matches(path: str | Path, *people: People) -> TemplatePairs:
    """Return the pairs of NIST's ``ijbc_11_G1_G2_matches.csv`` (two ids a line, no header), labeled by their people.

    Args:
        people: the galleries and the probes, which say whose each template is.

    Raises DataError for a template that none of them lists.
    """
    table = read_integers(path, "template template", separator=",")
    template = np.concatenate([part.template for part in people])
    subject = np.concatenate([part.subject for part in people])
    order = np.argsort(template, kind="stable")
    rows = np.searchsorted(template[order], table).clip(max=len(order) - 1)
    unknown = np.argwhere(template[order][rows] != table)
    if len(unknown):
        entry, side = unknown[0]
        raise DataError(
            f"{path}: entry {entry + 1}: template {table[entry, side]} is in no gallery and no list of probes"
        )
    subjects = subject[order][rows]
    return TemplatePairs(table[:, 0].copy(), table[:, 1].copy(), subjects[:, 0] == subjects[:, 1])


def read_nist_faces(path: str | Path) -> NistFaces:
    """Return the faces of a CSV file of NIST's, in the form of 8 columns or the full one of 34.

    Raises DataError for another header, a row of another width, an id that is no integer, the same row twice, and a
    template of two people.
    """
    lines = read_lines(path)
    header = [name.strip() for name in lines[0].split(",")] if lines else []
    if tuple(header[:4]) != _NIST_COLUMNS:
        raise DataError(f"{path}:1: begins with {','.join(header[:4])!r}; {','.join(_NIST_COLUMNS)} is needed")
    refuse_repeats(lines[1:], path, "the row", 2)
    template, subject, images, sighting = [], [], [], []
    subject_of: dict[int, int] = {}
    for number, fields in read_fields(path, " ".join(header), separator=",", first_line=2):
        ids = [integer(fields[column], path, number, header[column]) for column in (0, 1, 3)]
        if subject_of.setdefault(ids[0], ids[1]) != ids[1]:
            raise DataError(
                f"{path}:{number}: template {ids[0]} is of person {ids[1]}, and above of {subject_of[ids[0]]}"
            )
        template.append(ids[0])
        subject.append(ids[1])
        images.append(fields[2])
        sighting.append(ids[2])
    if not images:
        raise DataError(f"{path}: holds a header and no face")
    return NistFaces(np.array(template), np.array(subject), images, np.array(sighting))


def read_probes(path: str | Path) -> People:
    """Return the templates of ``ijbc_1N_probe_mixed.csv``, by id as insightface's scripts order them.

    Raises DataError as ``read_nist_faces`` does.
    """
    faces = read_nist_faces(path)
    template, first = np.unique(faces.template, return_index=True)
    return People(template, faces.subject[first])


def read_gallery(path: str | Path) -> People:
    """Return the templates of ``ijbc_1N_gallery_G1.csv``, by id.

    Raises DataError as ``read_nist_faces`` does, and for a person with two templates: in a gallery each has one.
    """
    people = read_probes(path)
    subject, count = np.unique(people.subject, return_counts=True)
    if (count > 1).any():
        who = subject[count > 1][0]
        theirs = people.template[people.subject == who].tolist()
        raise DataError(f"{path}: person {who} has {len(theirs)} templates, {theirs[:5]}; in a gallery each has one")
    return people
