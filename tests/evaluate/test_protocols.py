"""Each protocol from its lists: who tells people apart without fail scores full, and faults of lists are named."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import protocol_lists
import pytest
import torch

from arcdist.cli.main import main
from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.face_index import FaceIndex
from arcdist.evaluate.ijb import identify_templates, verify_templates
from arcdist.evaluate.ijb_lists import read_faces, read_gallery, read_probes, read_template_pairs
from arcdist.evaluate.megaface_files import read_matrix
from arcdist.evaluate.protocols import videos
from arcdist.evaluate.protocols.all_pairs import AllToAllConfig, FeaturesConfig
from arcdist.evaluate.protocols.groups import GroupsConfig, OwnGroupsConfig
from arcdist.evaluate.protocols.ijb import TemplatePairsConfig, TemplateSearchConfig
from arcdist.evaluate.protocols.pairs import LabeledConfig, TwoLinesConfig
from arcdist.evaluate.protocols.plan import Outcome, ProtocolConfig
from arcdist.evaluate.protocols.searches import MegaFaceConfig, SearchConfig, TinyFaceConfig
from arcdist.evaluate.protocols.videos import ClipsConfig, YouTubeFacesConfig
from arcdist.evaluate.rfw import GROUPS
from arcdist.evaluate.templates import pool_templates
from arcdist.evaluate.tinyface import read_tinyface
from arcdist.evaluate.ytf import read_splits


def scored(config: ProtocolConfig, people: dict[str, object], noise: float = 0.0) -> Outcome:
    """Return what a protocol finds where a face's embedding is its person's direction, and so much noise of length 1.

    The faces are at hand in another order than the lists', and with others that no list names.
    """
    random = np.random.default_rng(0)
    names = list(dict.fromkeys([*people, "nobody/0.jpg"]))
    names = [names[row] for row in random.permutation(len(names))]
    known = {person: row for row, person in enumerate(dict.fromkeys([*people.values(), "nobody"]))}
    directions = random.normal(size=(len(known), 64)) / 8
    rows = directions[[known[people.get(name, "nobody")] for name in names]]
    rows = torch.from_numpy(rows + noise * random.normal(size=rows.shape) / 8)
    index = FaceIndex(names, [str(people.get(name, "")) for name in names], "faces")
    plan = config.plan(index)
    outcome = plan.score({name: rows[torch.from_numpy(part)] for name, part in plan.parts.items()})
    json.dumps(outcome.details, allow_nan=False)
    return outcome


def test_youtube_faces_by_its_real_list(data_root: Path) -> None:
    path = str(data_root / "protocols/ytf/splits.txt")
    pairs = read_splits(path)
    videos = dict.fromkeys([*pairs.first, *pairs.second])
    people = {
        f"{video}/{video.replace('/', '.')}.{frame}.jpg": video.split("/")[0] for video in videos for frame in (1, 2)
    }
    outcome = scored(YouTubeFacesConfig(path), people)
    assert outcome.figures["accuracy"] == 1.0
    assert (outcome.details["pairs"], outcome.details["videos"], outcome.details["frames"]) == (5000, 3226, 6452)
    del people[next(name for name in people if name.startswith("Sadie_Frost/1/"))]
    assert scored(YouTubeFacesConfig(path), people).details["frames"] == 6451
    with pytest.raises(DataError, match=r"splits\.txt: faces has no face in Sadie_Frost/1; 1 of 3226 folders"):
        scored(YouTubeFacesConfig(path), {name: who for name, who in people.items() if "Sadie_Frost/1/" not in name})


def test_tinyface_by_its_real_lists(data_root: Path) -> None:
    lists = data_root / "protocols/tinyface"
    people: dict[str, object] = {f"Gallery_Distractor/{number}.jpg": f"other {number}" for number in range(50)}
    for folder, file in (("Probe", "probe"), ("Gallery_Match", "gallery_match")):
        names, ids = read_tinyface(lists / f"{file}_img_ID_pairs.mat")
        people |= {f"{folder}/{name}": person for name, person in zip(names, ids.tolist())}
    outcome = scored(TinyFaceConfig(str(lists)), people)
    assert outcome.figures["rank-1"] == outcome.figures["rank-50"] == 1.0
    assert (outcome.details["probes"], outcome.details["gallery"], outcome.details["distractors"]) == (3728, 4443, 50)


@pytest.fixture
def megaface(data_root: Path, tmp_path: Path) -> tuple[dict[str, str], dict[str, object]]:
    """Return the keys of the real noise lists and probes, with a hundred distractors, and whose face each is."""
    lists = data_root / "protocols/megaface"
    lines = (lists / "facescrub2template_name.txt").read_text().splitlines()
    probes = [re.split(r"[\s,]+", line)[0] for line in lines if line]
    noises = [line for line in (lists / "megaface_noises.txt").read_text().splitlines() if line[0] != "#"]
    distractors = list(dict.fromkeys(noises))[:40] + [f"1/2@N00/{number}_0.jpg" for number in range(60)]
    (tmp_path / "p.json").write_text(json.dumps({"path": probes, "id": [name.split("/")[0] for name in probes]}))
    (tmp_path / "d.json").write_text(json.dumps({"path": distractors}))
    people: dict[str, object] = {f"facescrub/{name}": name.split("/")[0] for name in probes}
    people |= {f"mega/{name}": name for name in distractors}
    files = {"probes": str(tmp_path / "p.json"), "distractors": str(tmp_path / "d.json")}
    noise = {
        f"{kind}_noises": str(lists / f"{of}_noises.txt")
        for kind, of in (("probe", "facescrub"), ("distractor", "megaface"))
    }
    return files | noise | {"probe_folder": "facescrub", "distractor_folder": "mega/"}, people


def test_megaface_by_its_real_probes_and_noise_lists(megaface: tuple[dict[str, str], dict[str, object]]) -> None:
    keys, people = megaface
    outcome = scored(MegaFaceConfig(**keys), people)
    assert outcome.figures == {"rank-1": 1.0, "rank-10": 1.0, "TAR@FAR=1e-06": 1.0}
    details = outcome.details
    assert (details["probes"], details["people"], details["noisy_probes"], details["noisy_distractors"]) == (
        3530,
        80,
        24,
        40,
    )
    assert details["cleaning"] == "insightface"
    raw = {key: value for key, value in keys.items() if "noises" not in key}
    assert scored(MegaFaceConfig(**raw), people).details["cleaning"] == "none"
    with pytest.raises(ConfigError, match="cleaning: drop needs probe_noises"):
        scored(MegaFaceConfig(**raw, cleaning="drop"), people)
    with pytest.raises(DataError, match="has no list 'id'"):
        scored(MegaFaceConfig(**raw | {"probes": keys["distractors"]}), people)


def test_a_distractor_that_shares_its_base_name_with_a_noisy_one_is_none(tmp_path: Path) -> None:
    people = protocol_lists.megaface(tmp_path)
    distractors, double = tmp_path / "megaface_features_list.json_1000000_1", "9/9@N00/7_0.jpg"
    paths = json.loads(distractors.read_text())["path"]
    distractors.write_text(json.dumps({"path": [*paths, double]}))
    lists = {"probes": "facescrub_features_list.json", "probe_noises": "facescrub_noises.txt"}
    lists |= {"distractors": distractors.name, "distractor_noises": "megaface_noises.txt"}
    config = MegaFaceConfig(
        **{key: str(tmp_path / name) for key, name in lists.items()},
        probe_folder="facescrub",
        distractor_folder="megaface",
    )
    details = scored(config, people | {f"megaface/{double}": double}).details
    assert (details["distractors"], details["noisy_distractors"], details["noisy_probes"]) == (len(paths) + 1, 1, 1)


def test_racial_faces_by_lists_made_to_their_description(tmp_path: Path) -> None:
    people = protocol_lists.rfw(tmp_path)
    outcome = scored(GroupsConfig(lists=f"{tmp_path}/txts"), people)
    assert outcome.figures == dict.fromkeys([*GROUPS, "average"], 1.0) | {"STD": 0.0}
    del people["Indian/m.03a/m.03a_0002.jpg"]
    missing = r"Indian_pairs\.txt: entry 4: faces has no Indian/m\.03a/m\.03a_0002\.jpg; 2 of 40 are missing"
    with pytest.raises(DataError, match=missing):
        scored(GroupsConfig(lists=f"{tmp_path}/txts"), people)


def test_clips_by_lists_made_to_their_description(tmp_path: Path) -> None:
    people = protocol_lists.iqiyi(tmp_path)
    config = ClipsConfig(str(tmp_path / "train.txt"), str(tmp_path / "val.txt"))
    outcome = scored(config, people)
    assert outcome.figures["MAP@100"] == pytest.approx(1.0)
    assert (outcome.details["people"], outcome.details["clips"]) == (4, 31)  # and the one clip that no list names
    index = FaceIndex([*people], [""] * len(people), "faces")
    with pytest.raises(ConfigError, match="normalizer: 'some': must be all or findable"):
        replace(config, normalizer="some").plan(index)
    (tmp_path / "val.txt").write_text("9 VAL_1.mp4\n")
    with pytest.raises(DataError, match=r"val\.txt: person 9 is in no clip of .*train\.txt"):
        scored(config, people)
    (tmp_path / "val.txt").write_text("1 TRAIN_1.mp4\n")
    with pytest.raises(DataError, match=r"val\.txt: TRAIN_1 is in .*train\.txt too"):
        scored(config, people)


def test_a_clip_is_the_mean_of_its_frames_at_length_1() -> None:
    frames = torch.tensor([[100.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    ids, clips = videos._pooled(frames, np.array([7, 7, 4]))
    assert ids.tolist() == [4, 7]
    torch.testing.assert_close(clips, torch.tensor([[0.0, 1.0], [0.5**0.5, 0.5**0.5]]))


@pytest.fixture
def ijb(tmp_path: Path) -> dict[str, object]:
    """Write small lists of IJB to ``meta``; return whose face each image is."""
    return protocol_lists.ijb(tmp_path)


@pytest.mark.parametrize("meaning", ["official", "ijb_evals", "concatenated"])
def test_ijb_by_lists_made_to_their_description(tmp_path: Path, ijb: dict[str, object], meaning: str) -> None:
    verified = scored(TemplatePairsConfig(f"{tmp_path}/meta"), ijb)
    assert set(verified.figures.values()) == {1.0}
    assert (verified.details["genuine"], verified.details["impostor"]) == (36, 36 * 11)
    found = scored(TemplateSearchConfig(f"{tmp_path}/meta", meaning=meaning), ijb)
    assert set(found.figures.values()) == {1.0}
    assert list(found.figures)[:3] == ["rank-1", "rank-5", "rank-10"]


def test_ijb_pools_by_the_switches_that_it_is_given(tmp_path: Path, ijb: dict[str, object]) -> None:
    faces = read_faces(tmp_path / "meta" / "ijbc_face_tid_mid.txt", tmp_path / "meta" / "ijbc_name_5pts_score.txt")
    embeddings = torch.from_numpy(np.random.default_rng(1).normal(size=(len(faces.images), 8)))
    config = TemplatePairsConfig(f"{tmp_path}/meta")
    plan = config.plan(FaceIndex(faces.images, [""] * len(faces.images), "faces"))
    found = plan.score({"images": embeddings}).details
    templates = pool_templates(embeddings, faces.template, faces.medium, detector_score=faces.detector_score)
    pairs = read_template_pairs(tmp_path / "meta" / "ijbc_template_pair_label.txt")
    assert found["thresholds"] == verify_templates(templates, pairs).as_dict()["thresholds"]
    assert plan.landmarks is not None
    assert np.array_equal(np.stack([plan.landmarks[row] for row in range(len(faces.images))]), faces.landmarks)
    plain = TemplatePairsConfig(f"{tmp_path}/meta", norm_weighting=False, detector_weighting=False, align=False)
    plan = plain.plan(FaceIndex(faces.images, [""] * len(faces.images), "faces"))
    assert plan.landmarks is None
    assert plan.score({"images": embeddings}).details["thresholds"] != found["thresholds"]
    galleries = [read_gallery(tmp_path / "meta" / f"ijbc_1N_gallery_G{number}.csv") for number in (1, 2)]
    searched = identify_templates(templates, galleries, read_probes(tmp_path / "meta" / "ijbc_1N_probe_mixed.csv"))
    plan = TemplateSearchConfig(f"{tmp_path}/meta").plan(FaceIndex(faces.images, [""] * len(faces.images), "faces"))
    assert plan.score({"images": embeddings}).details["rank"] == searched.as_dict()["rank"]


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("ijbc_face_tid_mid.txt", ("2.jpg 1 100", "2.jpg 1"), "tid_mid.txt:1: 2 fields in '2.jpg 1'; 3 are needed"),
        ("ijbc_face_tid_mid.txt", ("3.jpg 1 100", "2.jpg 1 100"), "tid_mid.txt:2: image 2.jpg is on line 1 already"),
        ("ijbc_name_5pts_score.txt", ("2.jpg ", "9.jpg "), "5pts_score.txt:1: is of 9.jpg, but"),
        ("ijbc_1N_gallery_G2.csv", ("7,7,", "7,8,"), "person 8 has 2 templates"),
        ("ijbc_1N_probe_mixed.csv", ("TEMPLATE_ID", "TEMPLATE"), "probe_mixed.csv:1: begins with"),
    ],
)
def test_bad_lists_of_ijb_are_refused(tmp_path, ijb, file: str, change: tuple[str, str], message: str) -> None:
    path = tmp_path / "meta" / file
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(DataError, match=re.escape(message)):
        scored(TemplateSearchConfig(f"{tmp_path}/meta"), ijb)


def test_a_folder_without_one_of_ijbs_lists_is_refused(tmp_path: Path, ijb: dict[str, object]) -> None:
    (tmp_path / "meta" / "ijbc_1N_gallery_G2.csv").unlink()
    with pytest.raises(DataError, match=r"of \*_1N_gallery_\*\.csv 2 must be there, not 1: ijbc_1N_gallery_G1\.csv"):
        scored(TemplateSearchConfig(f"{tmp_path}/meta"), ijb)
    (tmp_path / "meta" / "ijbc_template_pair_label.txt").write_text("1 999 1\n1 14 0\n")
    with pytest.raises(DataError, match="template pairs: 1 of 2 template ids are of no template that has images"):
        scored(TemplatePairsConfig(f"{tmp_path}/meta"), ijb)


def test_a_gallery_of_ones_own_is_searched_closed_and_open(tmp_path: Path) -> None:
    people = protocol_lists.search(tmp_path)
    config = SearchConfig(str(tmp_path / "gallery.tsv"), str(tmp_path / "probes.tsv"))
    outcome = scored(config, people)
    assert outcome.figures["rank-1"] == outcome.figures["TPIR@FPIR=0.1"] == 1.0
    assert (outcome.details["mated"], outcome.details["probes"], outcome.details["people"]) == (8, 20, 8)
    (tmp_path / "probes.tsv").write_text("p/0.jpg\t0\np/1.jpg\t1\n")
    assert scored(config, people).figures == {"rank-1": 1.0, "rank-5": 1.0, "rank-10": 1.0}
    (tmp_path / "probes.tsv").write_text("p/0.jpg\t0\np/0.jpg\t1\n")
    with pytest.raises(DataError, match=r"probes\.tsv:2: image p/0\.jpg is on line 1 already"):
        scored(config, people)


def test_all_images_with_all_are_people_by_their_labels() -> None:
    people: dict[str, object] = {f"{n}.jpg": f"person {n % 5}" for n in range(25)} | {"nobody/0.jpg": "nobody"}
    outcome = scored(AllToAllConfig([1e-2]), people)
    assert outcome.figures == {"TAR@FAR=1e-02": 1.0}
    assert (outcome.details["genuine"], outcome.details["impostor"]) == (50, 275)
    with pytest.raises(DataError, match="faces: 1 of 2 faces have no label"):
        scored(AllToAllConfig(), {"a.jpg": "a"})


def test_features_for_a_server_are_written_in_the_order_of_its_list(tmp_path: Path) -> None:
    protocol_lists.trillion_pairs(tmp_path)
    config = FeaturesConfig(str(tmp_path / "testdata_lmk.txt"), str(tmp_path / "f.bin"))
    embeddings = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    plan = config.plan(FaceIndex(["a/1.jpg", "b/2.jpg"], ["", ""], "faces"))
    plan.score({"images": embeddings[torch.from_numpy(plan.parts["images"])]})
    np.testing.assert_allclose(read_matrix(tmp_path / "f.bin"), [[0.0, 1.0], [0.6, 0.8]], rtol=1e-6)
    assert plan.landmarks is not None
    assert plan.landmarks[0].tolist() == [[1, 2], [3, 4], [5, 6], [7, 8], [9, 11]]
    unaligned = replace(config, align=False).plan(FaceIndex(["a/1.jpg", "b/2.jpg"], ["", ""], "faces"))
    assert unaligned.landmarks is None
    with pytest.raises(ConfigError, match=r"output: .*/none/f\.bin: there is no folder .*/none$"):
        replace(config, output=f"{tmp_path}/none/f.bin").plan(FaceIndex(["a/1.jpg", "b/2.jpg"], ["", ""], "faces"))


OWN = ("own_pairs.txt", "labeled", "groups.csv")


def own_groups(folder: Path, **changes: object) -> OwnGroupsConfig:
    pairs, form, groups = OWN
    known: dict = {"pairs": str(folder / pairs), "form": form, "groups": str(folder / groups)}
    return OwnGroupsConfig(**(known | changes))


def test_groups_of_a_file_and_of_a_folder_are_scored_apart(tmp_path: Path) -> None:
    people = protocol_lists.groups(tmp_path)
    outcome = scored(own_groups(tmp_path), people, noise=2.0)
    assert set(outcome.details["groups"]) == set(outcome.cosines) == {"x", "y"}
    assert [outcome.details["groups"][group]["pairs"] for group in "xy"] == [20, 20]
    assert outcome.notes[-1] == "1 of 41 pairs are of two groups, and not scored"
    shared = outcome.details["one_threshold"]
    impostor = np.concatenate([outcome.cosines[group][1] for group in "xy"])
    assert (impostor > shared["threshold"]).sum() == 0  # of 20, at a FAR of 0.01
    for group in "xy":
        assert shared["groups"][group]["false_rejects"] == np.mean(outcome.cosines[group][0] <= impostor.max())
    assert outcome.bars["false rejects at one\nthreshold, %"]["x"] == 100 * shared["groups"]["x"]["false_rejects"]
    (tmp_path / "own_pairs.txt").write_text(
        (tmp_path / "own_pairs.txt").read_text().replace("x", "x/").replace("y", "y/")
    )
    moved = {name[0] + "/" + name[1:]: who for name, who in people.items()}
    assert scored(own_groups(tmp_path, groups="", level=1), moved).figures == {"x": 1, "y": 1, "average": 1, "STD": 0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,group\nx0/a.jpg,x\nx0/a.jpg,y\n", r"groups.csv:3: image x0/a\.jpg is on line 2 already"),
        ("x0/a.jpg\n", r"groups.csv:1: 1 fields in 'x0/a.jpg'; 2 are needed: image group"),
        ("x0/a.jpg,\n", r"groups.csv:1: 'x0/a.jpg','': an image and its group are needed"),
        ("x0/a.jpg,x\n", r"groups.csv: has no group for x0/b\.jpg, which .*own_pairs.txt names"),
    ],
)
def test_a_bad_file_of_groups_is_refused(tmp_path: Path, text: str, message: str) -> None:
    people = protocol_lists.groups(tmp_path)
    (tmp_path / "groups.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        scored(own_groups(tmp_path), people)


def test_groups_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    people = protocol_lists.groups(tmp_path)
    with pytest.raises(ConfigError, match="one of them says which group"):
        scored(own_groups(tmp_path, level=1), people)
    with pytest.raises(DataError, match="lies in 1 folders"):
        scored(own_groups(tmp_path, groups="", level=2), people)
    with pytest.raises(ConfigError, match="form: 'csv': must be one of lfw, labeled"):
        scored(own_groups(tmp_path, form="csv"), people)
    with pytest.raises(ConfigError, match="far: 2: must be in"):
        scored(own_groups(tmp_path, far=2), people)
    lines = (tmp_path / "own_pairs.txt").read_text().splitlines(keepends=True)
    (tmp_path / "own_pairs.txt").write_text("".join(lines[:24]))
    with pytest.raises(DataError, match="group y: 2 genuine and 2 impostor pairs; at least 10"):
        scored(own_groups(tmp_path), people)
    (tmp_path / "own_pairs.txt").write_text("".join(lines[:20]))
    with pytest.raises(DataError, match="pairs within 1 groups"):
        scored(own_groups(tmp_path), people)


def test_pairs_and_groups_are_drawn(tmp_path: Path) -> None:
    people = protocol_lists.groups(tmp_path)
    rows = np.random.default_rng(0).normal(size=(len(people), 16)).astype(np.float32)
    np.save(tmp_path / "own.npy", rows)
    (tmp_path / "own.tsv").write_text("name\tlabel\n" + "".join(f"{name}\t\n" for name in people))
    asked = ["evaluate", f"{tmp_path}/own.npy", "protocol=groups", f"pairs={tmp_path}/own_pairs.txt", "form=labeled"]
    asked += [f"groups={tmp_path}/groups.csv", f"pictures={tmp_path}/p", "picture_format=svg"]
    assert main(asked) == 0
    assert {path.name for path in (tmp_path / "p").iterdir()} == {
        f"{n}.svg" for n in ("angles", "roc", "det", "groups")
    }


def test_pictures_of_what_is_not_drawn_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "own.npy", np.ones((1, 2), np.float32))
    (tmp_path / "own.tsv").write_text("name\tlabel\na\t\n")
    assert main(["evaluate", f"{tmp_path}/own.npy", "protocol=all_to_all", f"pictures={tmp_path}"]) == 2
    assert "pictures: nothing is drawn of all_to_all; it is of lfw, " in capsys.readouterr().err


def test_a_result_says_which_version_of_the_list_it_is_of(tmp_path: Path) -> None:
    people = protocol_lists.two_lines(tmp_path, "pairs_CALFW.txt", folds=True)
    path = tmp_path / "pairs_CALFW.txt"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    outcome = scored(TwoLinesConfig(pairs=str(path)), people)
    assert outcome.details["list_sha256"] == digest
    assert outcome.notes[-1] == f"pairs_CALFW.txt: SHA-256 {digest[:16]}…"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "0 pairs cannot be split into 10 folds"),
        (["a.jpg b.jpg 1"] * 9, "9 pairs cannot be split into 10 folds"),
        (["a.jpg b.jpg 1"] * 10, "10 of 10 pairs are genuine"),
    ],
)
def test_a_list_that_cannot_be_scored_is_refused_before_anything_is_embedded(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    (tmp_path / "pairs_label.txt").write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(DataError, match=rf"pairs_label\.txt: {message}"):
        LabeledConfig(pairs=f"{tmp_path}/pairs_label.txt").plan(FaceIndex(["a.jpg", "b.jpg"], ["", ""], "faces"))
    (tmp_path / "testdata_lmk.txt").write_text("")
    with pytest.raises(DataError, match=r"testdata_lmk\.txt: holds no image"):
        FeaturesConfig(f"{tmp_path}/testdata_lmk.txt", f"{tmp_path}/f.bin").plan(FaceIndex(["a.jpg"], [""], "faces"))
