"""Benchmarks' lists, made small to their description, with their authors' file names; and whose face each image is."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.io

from arcdist.evaluate.rfw import GROUPS

People = dict[str, object]
IJB_PEOPLE = 12


def lfw(folder: Path, name: str = "pairs.txt") -> People:
    """Ten people, two images each, a pair of either kind a fold."""
    pairs = [f"P{n}\t1\t2\nP{n}\t1\tP{(n + 1) % 10}\t2\n" for n in range(10)]
    (folder / name).write_text("10\t1\n" + "".join(pairs))
    return {f"P{n}/P{n}_{i:04d}.jpg": n for n in range(10) for i in (1, 2)}


def two_lines(folder: Path, name: str, folds: bool) -> People:
    """Genuine pairs first, then impostor pairs; a token of genuine ones says the fold, or is 1."""
    genuine = [f"P{n}_0001.jpg {n + 1 if folds else 1}\nP{n}_0002.jpg {n + 1 if folds else 1}\n" for n in range(10)]
    impostor = [f"P{n}_0001.jpg 0\nP{(n + 1) % 10}_0002.jpg 0\n" for n in range(10)]
    (folder / name).write_text("".join(genuine + impostor))
    return {f"P{n}_{i:04d}.jpg": n for n in range(10) for i in (1, 2)}


def sllfw(folder: Path) -> People:
    """A pair of either kind a fold, two lines each."""
    lines = [f"P{n}/P{n}_0001.jpg\nP{n}/P{n}_0002.jpg\nP{n}/P{n}_0001.jpg\nP{m}/P{m}_0002.jpg\n" for n, m in _ring()]
    (folder / "pair_SLLFW.txt").write_text("".join(lines))
    return {f"P{n}/P{n}_{i:04d}.jpg": n for n in range(10) for i in (1, 2)}


def agedb(folder: Path, change: Callable[[list], None] = lambda splits: None) -> People:
    """Ten cells of a structure: 2 × 2 faces, which are structures of a stem and an age, and two labels, 1 and -1.

    Args:
        change: of what is written, each split a dict of a list of pairs of stems, and a list of labels.
    """
    stems = [[f"{n}_Name{n}_{age}_{age}_m" for age in (20, 50)] for n in range(10)]
    splits = [{"pairs": [stems[n], [stems[n][0], stems[m][1]]], "labels": [1, -1]} for n, m in _ring()]
    change(splits)
    cells = np.empty((len(splits), 1), object)
    for cell, split in zip(cells, splits):
        faces = np.empty((2, len(split["pairs"])), object)
        for place, stem in np.ndenumerate(np.array(split["pairs"]).T):
            faces[place] = {"file_name": str(stem), "age": float(place[0])}
        cell[0] = {"pairs": faces, "labels": np.array([split["labels"]], np.int8)}
    scipy.io.savemat(folder / "04_FINAL_protocol_30_years.mat", {"splits": cells}, do_compression=True)
    return {f"{stem}.jpg": n for n in range(10) for stem in stems[n]}


def _ring() -> list[tuple[int, int]]:
    """Return ten people, and who stands next to each."""
    return [(n, (n + 1) % 10) for n in range(10)]


def cfp(folder: Path) -> People:
    """The folder Protocol of 20 people, two frontal images and two profiles each, a pair of a kind in each fold."""
    folder = folder / "Protocol"
    folder.mkdir()
    people: People = {}
    for side, of in (("F", "frontal"), ("P", "profile")):
        names = {f"{p:03d}/{of}/{i + 1:02d}.jpg": p for p in range(1, 21) for i in range(2)}
        lines = [f"{n} ../Data/Images/{name}\n" for n, name in enumerate(names, 1)]
        (folder / f"Pair_list_{side}.txt").write_text("".join(lines))
        people |= names
    for kind in ("FF", "FP"):
        for fold in range(10):
            split = folder / "Split" / kind / f"{fold + 1:02d}"
            split.mkdir(parents=True)
            (split / "same.txt").write_text(f"{4 * fold + 1},{4 * fold + 2}\n")
            (split / "diff.txt").write_text(f"{4 * fold + 1},{4 * fold + 3}\n")
    return people


def labeled(folder: Path) -> People:
    """Insightface's pairs_label.txt."""
    lines = [f"{n}/a.jpg {n}/b.jpg 1\n{n}/a.jpg {(n + 1) % 10}/b.jpg 0\n" for n in range(10)]
    (folder / "pairs_label.txt").write_text("".join(lines))
    return {f"{n}/{image}.jpg": n for n in range(10) for image in "ab"}


def rfw(folder: Path) -> People:
    """Ten people a group."""
    people: People = {}
    for group in GROUPS:
        (folder / "txts" / group).mkdir(parents=True)
        lines = [f"m.0{n}a\t1\t2\n" for n in range(10)] + [f"m.0{n}a\t1\tm.0{(n + 1) % 10}a\t2\n" for n in range(10)]
        (folder / "txts" / group / f"{group}_pairs.txt").write_text("".join(lines))
        people |= {f"{group}/m.0{n}a/m.0{n}a_{i:04d}.jpg": (group, n) for n in range(10) for i in (1, 2)}
    return people


def groups(folder: Path) -> People:
    """Ten people of either group, a pair of either kind each, and one pair of two groups."""
    names = {f"{group}{n}/{image}.jpg": (group, n) for group in "xy" for n in range(10) for image in "ab"}
    lines = [f"{g}{n}/a.jpg {g}{n}/b.jpg 1\n{g}{n}/a.jpg {g}{m}/b.jpg 0\n" for g in "xy" for n, m in _ring()]
    (folder / "own_pairs.txt").write_text("".join(lines) + "x0/a.jpg y0/b.jpg 0\n")
    (folder / "groups.csv").write_text("image,group\n" + "".join(f"{name},{name[0]}\n" for name in names))
    return dict(names)


def ytf(folder: Path) -> People:
    """Ten people, two videos each of three frames."""
    pairs = [f"{n + 1}, 1, P{n}/0, P{n}/1, 1\n{n + 1}, 2, P{n}/0, P{(n + 1) % 10}/1, 0\n" for n in range(10)]
    header = "split number, pair number in split, first name, second name, is same:\n"
    (folder / "splits.txt").write_text(header + "".join(pairs))
    return {f"P{n}/{video}/{video}.{frame}.jpg": n for n in range(10) for video in (0, 1) for frame in range(3)}


def iqiyi(folder: Path) -> People:
    """Four people, and person 0 who is nobody, in 20 clips to learn and 30 to look in, three frames each."""
    known = {f"TRAIN_{n}": n % 5 for n in range(20)}
    others = {f"VAL_{n}": n % 5 for n in range(30)}
    (folder / "train.txt").write_text("".join(f"{clip}.mp4 {person}\n" for clip, person in known.items()))
    clips = [[f"{clip}.mp4" for clip, who in others.items() if who == person] for person in range(1, 5)]
    (folder / "val.txt").write_text("".join(f"{n} {' '.join(names)}\n" for n, names in enumerate(clips, 1)))
    return {f"{clip}/{frame}.jpg": person for clip, person in (known | others).items() for frame in range(3)}


def ijb(folder: Path) -> People:
    """Two galleries of six people and three probes each, two images of one medium a template."""
    folder = folder / "meta"
    folder.mkdir()
    subject_of = {template: template % IJB_PEOPLE for template in range(1, 4 * IJB_PEOPLE + 1)}
    rows = [(2 * template + image, template, 100 * template) for template in subject_of for image in (0, 1)]
    points = np.random.default_rng(0).uniform(20, 90, (len(rows), 10)).round(3).tolist()
    (folder / "ijbc_face_tid_mid.txt").write_text("".join(f"{i}.jpg {t} {m}\n" for i, t, m in rows))
    lines = [f"{row[0]}.jpg {' '.join(map(str, p))} 0.{n % 9 + 1}\n" for n, (row, p) in enumerate(zip(rows, points))]
    (folder / "ijbc_name_5pts_score.txt").write_text("".join(lines))
    probes = [template for template in subject_of if template > IJB_PEOPLE]
    pairs = [(a, b, int(subject_of[a] == subject_of[b])) for a in range(1, IJB_PEOPLE + 1) for b in probes]
    (folder / "ijbc_template_pair_label.txt").write_text("".join(f"{a} {b} {same}\n" for a, b, same in pairs))
    header = "TEMPLATE_ID,SUBJECT_ID,FILENAME,SIGHTING_ID\n"
    for name, templates in {"gallery_G1": range(1, 7), "gallery_G2": range(7, 13), "probe_mixed": probes}.items():
        lines = [f"{t},{subject_of[t]},img/{i}.jpg,{m}\n" for i, t, m in rows if t in templates]
        (folder / f"ijbc_1N_{name}.csv").write_text(header + "".join(lines))
    return {f"{image}.jpg": subject_of[template] for image, template, _ in rows}


def megaface(folder: Path) -> People:
    """Six people's probes among 40 distractors, one of either noise."""
    probes = {f"P{n}/P{n}_{i}.jpg": n for n in range(6) for i in range(4)}
    distractors = [f"1/2@N00/{n}_0.jpg" for n in range(40)]
    content = {"path": list(probes), "id": [f"P{n}" for n in probes.values()]}
    (folder / "facescrub_features_list.json").write_text(json.dumps(content))
    (folder / "megaface_features_list.json_1000000_1").write_text(json.dumps({"path": distractors}))
    (folder / "facescrub_noises.txt").write_text("# noises\nP3_1.png\n")
    (folder / "megaface_noises.txt").write_text(f"# noises\n{distractors[7]}\n")
    people: People = {f"facescrub/{name}": n for name, n in probes.items()}
    return people | {f"megaface/{name}": name for name in distractors}


def search(folder: Path) -> People:
    """Eight people in the gallery, two images each, and 20 probes, twelve of them of strangers."""
    gallery = {f"g/{person} {image}.jpg": person for person in range(8) for image in range(2)}
    probes = {f"p/{person}.jpg": person for person in range(20)}
    for name, people in (("gallery", gallery), ("probes", probes)):
        lines = [f"{image}\t{person}\n" for image, person in people.items()]
        (folder / f"{name}.tsv").write_text("name\tlabel\n" + "".join(lines))
    return {**gallery, **probes}


def all_to_all(folder: Path) -> People:
    """Five people, five images each."""
    return {f"{n % 5}/{n}.jpg": n % 5 for n in range(25)}


def trillion_pairs(folder: Path) -> People:
    """Two photographs with their landmarks."""
    (folder / "testdata_lmk.txt").write_text("b/2.jpg 1 2 3 4 5 6 7 8 9 10\na/1.jpg 1 2 3 4 5 6 7 8 9 11\n")
    return {"a/1.jpg": "a", "b/2.jpg": "b"}


MAKERS: dict[str, Callable[[Path], People]] = {
    "lfw": lfw,
    "calfw": lambda folder: two_lines(folder, "pairs_CALFW.txt", folds=True),
    "cplfw": lambda folder: two_lines(folder, "pairs_CPLFW.txt", folds=False),
    "sllfw": sllfw,
    "agedb": agedb,
    "cfp_ff": cfp,
    "cfp_fp": cfp,
    "labeled_pairs": labeled,
    "rfw": rfw,
    "groups": groups,
    "ytf": ytf,
    "iqiyi": iqiyi,
    "ijb_11": ijb,
    "ijb_1n": ijb,
    "megaface": megaface,
    "search": search,
    "all_to_all": all_to_all,
    "trillion_pairs": trillion_pairs,
}
