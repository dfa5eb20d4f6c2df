"""Sets become one, or parts of one: each image byte for byte, each identity whole."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from arcdist.cli.main import main
from arcdist.data.datasets import RecordDataset
from arcdist.data.identities import read_identities
from arcdist.data.recordio import RecordWriter
from arcdist.data.selection import SelectConfig, Selection
from arcdist.data.synthetic import SyntheticConfig, write_record
from arcdist.errors import ConfigError, DataError
from arcdist.prepare.inspect import inspect
from arcdist.prepare.repack import RepackConfig, repack

Images = list[tuple[int, bytes]]


def images(dataset: "RecordDataset | Selection") -> Images:
    """Return every label and image, in order."""
    return [dataset.read(sample) for sample in range(len(dataset))]


def of(path: "Path | str") -> Images:
    """Return every label and image of a .rec."""
    with RecordDataset(path) as dataset:
        return images(dataset)


def listed(path: Path) -> list[list[str]]:
    """Return the fields of every line of the label list beside a .rec."""
    return [line.split("\t") for line in path.with_suffix(".lst").read_text().splitlines()]


def write(path: Path, labels: list[int], first: int = 0) -> Path:
    """Write a set of bare records that has no header, whose images are small and all different."""
    with RecordWriter(path) as writer:
        for key, label in enumerate(labels):
            writer.write(key + 5, label, f"image {first + key}".encode())
    path.with_suffix(".property").write_text(f"{max(labels) + 1},112,112\n")
    return path


def test_merged_sets_hold_the_images_of_each_with_identities_of_their_own(data_root: Path, tmp_path: Path) -> None:
    sources = [data_root / "cfp_small.rec", write(tmp_path / "other.rec", [0, 0, 1, 3])]
    output = tmp_path / "out" / "both.rec"
    report = repack(RepackConfig(images=",".join(map(str, sources)), output=str(output), progress=False))
    assert (report.images, report.identities, report.left_out) == (228, 19, 0)
    first, second = map(of, sources)
    assert of(output) == first + [({0: 16, 1: 17, 3: 18}[label], image) for label, image in second]
    assert output.with_suffix(".property").read_text() == "19,112,112\n"
    lines = listed(output)
    assert lines[:224] == listed(data_root / "cfp_small.rec")
    assert lines[224:] == [
        ["225", "16", "other.rec/5"], ["226", "16", "other.rec/6"], ["227", "17", "other.rec/7"],
        ["228", "18", "other.rec/8"],
    ]  # fmt: skip
    assert {path.name for path in output.parent.iterdir()} == {
        "both.rec", "both.idx", "both.lst", "both.property", "property"
    }  # fmt: skip


def test_the_set_that_is_written_contradicts_nothing(data_root: Path, tmp_path: Path) -> None:
    source, output = data_root / "cfp_small.rec", tmp_path / "all.rec"
    repack(RepackConfig(images=str(source), output=str(output), progress=False))
    assert inspect(output, verify=True)["faults"] == []
    assert of(output) == of(source)


@pytest.mark.parametrize(
    "select", [{"min_images": 15}, {"classes": [3, 9]}, {"held_out": 0.4}, {"held_out": 0.4, "side": "held_out"}]
)
def test_what_is_taken_is_what_a_run_would_select(data_root: Path, tmp_path: Path, select: dict) -> None:
    source, output = data_root / "lfw_train.rec", tmp_path / "part.rec"
    report = repack(RepackConfig(images=str(source), output=str(output), progress=False, **select))
    with RecordDataset(source) as whole:
        assert of(output) == images(Selection(whole, SelectConfig(**select)))
        assert report.images + report.left_out == len(whole)


def test_the_two_sides_of_a_split_share_no_identity_and_lose_no_image(tmp_path: Path) -> None:
    source = write(tmp_path / "all.rec", [label for label in range(40) for _ in range(label % 3 + 1)])
    sides = {}
    for side in ("train", "held_out"):
        output = tmp_path / f"{side}.rec"
        repack(RepackConfig(images=str(source), output=str(output), held_out=0.3, side=side, progress=False))
        sides[side] = {name for _, _, name in listed(output)}
    assert min(map(len, sides.values())) > 10
    assert not sides["train"] & sides["held_out"]
    whole = {f"all.rec/{key}": label for key, label in zip(range(5, 999), (label for label, _ in of(source)))}
    assert sides["train"] | sides["held_out"] == set(whole)
    assert not {whole[name] for name in sides["train"]} & {whole[name] for name in sides["held_out"]}


def test_a_clean_list_leaves_out_what_it_does_not_name(tmp_path: Path) -> None:
    source, clean = write(tmp_path / "all.rec", [0, 0, 1, 2, 2]), tmp_path / "clean.txt"
    clean.write_text("# key\n5 0.9\n8 0.8 # good\n9 0.7\n")
    repack(RepackConfig(images=str(source), output=str(tmp_path / "out.rec"), clean_list=str(clean), progress=False))
    assert of(tmp_path / "out.rec") == [(0, b"image 0"), (1, b"image 3"), (1, b"image 4")]


def test_identities_that_are_one_person_become_one(tmp_path: Path) -> None:
    source, same = write(tmp_path / "all.rec", [0, 1, 2, 3, 4, 1]), tmp_path / "same.txt"
    same.write_text("# two labels\n4 2 0.81\n2 0\n")
    repack(RepackConfig(images=str(source), output=str(tmp_path / "out.rec"), same=str(same), progress=False))
    assert of(tmp_path / "out.rec") == [
        (0, b"image 0"), (0, b"image 2"), (0, b"image 4"), (1, b"image 1"), (1, b"image 5"), (2, b"image 3")
    ]  # fmt: skip


def test_identities_that_become_one_are_named_as_one(tmp_path: Path) -> None:
    source, same, out = write(tmp_path / "all.rec", [0, 1, 1, 2]), tmp_path / "same.txt", tmp_path / "out.rec"
    source.with_suffix(".lst").write_text("7\t1\tbob/3.jpg\n5\t0\tann/1.jpg\n8\t2\tanna/1.jpg\n6\t1\tbob/2.jpg\n")
    same.write_text("2 0\n")
    repack(RepackConfig(images=str(source), output=str(out), same=str(same), progress=False))
    assert [name for _, _, name in listed(out)] == ["ann/1.jpg", "ann/anna_1.jpg", "bob/2.jpg", "bob/3.jpg"]
    assert read_identities(out.with_suffix(".lst"), 2) == ["ann", "bob"]


def test_an_option_with_a_value_may_stand_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = [str(write(tmp_path / f"{name}.rec", [0, 0, 1])) for name in "ab"]
    out, option = str(tmp_path / "out.rec"), ["--min-images", "2"]
    for words in ([*option, *two, out], [*two, *option, out], [*two, out, *option]):
        assert main(["pack", "--progress", *words]) == 0
        assert "4 images of 2 identities; 2 images of" in capsys.readouterr().out


def test_a_label_list_with_an_empty_line_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "all.rec", [0, 1])
    source.with_suffix(".lst").write_text("5\t0\tann/1.jpg\n\n6\t1\tbob/2.jpg\n")
    with pytest.raises(DataError, match=r"all\.lst: 1 of its lines are empty"):
        repack(RepackConfig(images=str(source), output=str(tmp_path / "out.rec"), progress=False))


def test_a_person_of_two_labels_is_counted_as_one_and_on_one_side_of_a_split(tmp_path: Path) -> None:
    source, same, out = write(tmp_path / "all.rec", list(range(40))), tmp_path / "same.txt", tmp_path / "out.rec"
    same.write_text("".join(f"{label} {label + 20}\n" for label in range(20)))
    sides = []
    for side in ("train", "held_out"):
        choice = {"held_out": 0.5, "side": side, "min_images": 2}
        repack(RepackConfig(images=str(source), output=str(out), same=str(same), progress=False, **choice))
        sides.append({int(image.split()[1]) % 20 for _, image in of(out)})
        assert len(of(out)) == 2 * len(sides[-1])
    assert sides[0] | sides[1] == set(range(20))
    assert not sides[0] & sides[1]


def test_a_shuffled_set_comes_out_by_identity_in_its_order_within_each(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 7, 60).tolist()
    source = write(tmp_path / "all.rec", labels)
    repack(RepackConfig(images=str(source), output=str(tmp_path / "out.rec"), progress=False))
    expected = defaultdict(list)
    for key, label in enumerate(labels):
        expected[label].append(f"image {key}".encode())
    assert of(tmp_path / "out.rec") == [(label, image) for label in range(7) for image in expected[label]]


def test_sets_of_different_sizes_do_not_become_one(data_root: Path, tmp_path: Path) -> None:
    write_record(SyntheticConfig(identities=2, images_per_identity=1, image_size=32), tmp_path / "small.rec", 1)
    both = f"{tmp_path / 'small.rec'},{data_root / 'cfp_small.rec'}"
    with pytest.raises(DataError, match=r"different sizes \(small.rec 32×32, cfp_small.rec 112×112\)"):
        repack(RepackConfig(images=both, output=str(tmp_path / "out.rec"), progress=False))


def test_a_damaged_record_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    source = write(tmp_path / "all.rec", [0, 1, 2])
    source.with_suffix(".property").write_text("2,112,112\n")
    with pytest.raises(DataError, match="record 7: label is 2, which is no class of 0..1"):
        repack(RepackConfig(images=str(source), output=str(tmp_path / "out" / "out.rec"), progress=False))
    assert not list((tmp_path / "out").iterdir())


def test_a_property_that_cannot_be_replaced_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    source, output = write(tmp_path / "all.rec", [0, 1]), tmp_path / "o" / "o.rec"
    output.with_suffix(".property").mkdir(parents=True)
    with pytest.raises(DataError, match="o.rec: cannot be written"):
        repack(RepackConfig(images=str(source), output=str(output), progress=False))
    assert [path.name for path in output.parent.iterdir()] == ["o.property"]


def test_where_nothing_is_left_nothing_is_written(tmp_path: Path) -> None:
    source = write(tmp_path / "all.rec", [0, 1])
    with pytest.raises(DataError, match="nothing is left of 2 images"):
        repack(RepackConfig(images=str(source), output=str(tmp_path / "o" / "o.rec"), min_images=3, progress=False))
    assert not list((tmp_path / "o").iterdir())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"output": "x.bin"}, "^output: 'x.bin': must end in .rec"),
        ({"output": "a.rec"}, "^output: a.rec: is read, too"),
        ({"images": "a.rec,./a.rec"}, "^images: 'a.rec,./a.rec': has a set twice"),
        ({"images": "a.rec,b.rec", "classes": [0, 4]}, "^classes: labels and keys are those of one set"),
        ({"clean_list": ["x", "y"]}, "^clean_list: .'x', 'y'.: must be one file"),
        ({"min_images": -1}, "^min_images: -1: "),
        ({"images": "a.rec,folder"}, "^images: 'a.rec,folder': must be .rec files"),
    ],
)
def test_a_value_that_cannot_be_right_is_named(change: dict, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        repack(RepackConfig(**{"images": "a.rec", "output": "out.rec", **change}))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("0 9\n", "9: is no label of 0..1"),
        ("0\n", "no list of two labels"),
        ("0\n1\n", "no list of two labels"),
        (f"0 {2**64}\n", "no list of two labels"),
    ],
)
def test_a_list_of_identities_that_names_none_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    source, same = write(tmp_path / "all.rec", [0, 1]), tmp_path / "same.txt"
    same.write_text(text)
    with pytest.raises(DataError, match=complaint):
        repack(RepackConfig(images=str(source), output=str(tmp_path / "o.rec"), same=str(same), progress=False))


def test_pack_takes_sets_where_it_takes_folders(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = [str(data_root / "cfp_small.rec"), str(data_root / "formats/b_header_last.rec")]
    for sources in (two, [",".join(two)]):
        assert main(["pack", *sources, str(tmp_path / "out.rec"), "min_images=5", "progress=false"]) == 0
        assert "224 images of 16 identities; 13 images of" in capsys.readouterr().out
