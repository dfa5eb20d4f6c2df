import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from arcdist.errors import DataError
from arcdist.evaluate.verification import verify
from arcdist.evaluate.ytf import VideoPairs, read_splits, verify_videos


def test_the_real_list_holds_5000_pairs(data_root: Path, tmp_path: Path) -> None:
    folder = data_root / "protocols" / "ytf"
    pairs = read_splits(folder / "splits.txt")
    assert (len(pairs.same), pairs.same.sum()) == (5000, 2500)
    assert len({*pairs.first, *pairs.second}) == 3226
    assert len({name.split("/")[0] for name in (*pairs.first, *pairs.second)}) == 1447
    assert pairs.same.reshape(10, 2, 250).all(2).tolist() == [[True, False]] * 10

    variant = tmp_path / "splits.txt"  # CRLF, without the header
    variant.write_bytes(gzip.decompress((folder / "splits_crlf_noheader.txt.gz").read_bytes()))
    other = read_splits(variant)
    assert (other.first, other.second, other.same.tolist()) == (pairs.first, pairs.second, pairs.same.tolist())


def lines(splits: int = 10) -> list[str]:
    return [
        line
        for split in range(1, splits + 1)
        for line in (f"{split}, 1, A_{split}/0, A_{split}/1, 1", f"{split}, 2, A_{split}/0, B/2, 0")
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({3: "2, 2, A/0, B/2"}, "splits.txt:4: '2, 2, A/0, B/2'; "),
        ({3: "2, 2, A/0, B/2, 2"}, "splits.txt:4: "),
        ({3: "2, 2, A, B/2, 0"}, "splits.txt:4: "),
        ({3: "2, 2, A/0, B/2, 1"}, "splits.txt:4: A/0 and B/2 are marked 1, against their names"),
        ({3: "x, 2, A/0, B/2, 0"}, "splits.txt:4: split number is 'x'"),
        ({3: "3, 2, A/0, B/2, 0"}, "20 pairs, not 10 splits of one length"),
    ],
)
def test_bad_lists_are_refused_by_line(tmp_path: Path, change: dict[int, str], message: str) -> None:
    content = lines()
    for row, line in change.items():
        content[row] = line
    (tmp_path / "splits.txt").write_text("\n".join(content))
    with pytest.raises(DataError, match=message):
        read_splits(tmp_path / "splits.txt")


def test_a_list_without_pairs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "splits.txt").write_text("split number, pair number in split, first name, second name, is same:\n")
    with pytest.raises(DataError, match="0 pairs"):
        read_splits(tmp_path / "splits.txt")


def videos() -> tuple[torch.Tensor, list[str], VideoPairs]:
    random = np.random.default_rng(0)
    names = [f"P{person}/{number}" for person in range(20) for number in range(2)]
    frame_video = [names[each] for each in random.permutation(np.repeat(np.arange(40), 3))]
    centers = random.normal(size=(20, 6))
    frames = [centers[int(name[1:].split("/")[0])] + random.normal(size=6) for name in frame_video]
    first, second = random.choice(names, 60).tolist(), random.choice(names, 60).tolist()
    second[::2] = [name[:-1] + str(1 - int(name[-1])) for name in first[::2]]
    same = np.array([one.split("/")[0] == other.split("/")[0] for one, other in zip(first, second)])
    return torch.from_numpy(np.array(frames)), frame_video, VideoPairs(first, second, same)


def test_videos_are_the_mean_of_their_unit_frames() -> None:
    frames, frame_video, pairs = videos()
    unit = torch.nn.functional.normalize(frames).numpy()
    mean = {name: unit[np.array(frame_video) == name].mean(0) for name in set(frame_video)}
    embeddings = np.array([mean[name] for pair in zip(pairs.first, pairs.second) for name in pair])
    found, expected = verify_videos(frames, frame_video, pairs), verify(embeddings, pairs.same, grid="exact")
    assert found.accuracy == expected.accuracy
    assert found.auc == expected.auc
    np.testing.assert_allclose(found.thresholds, expected.thresholds, rtol=0, atol=1e-12)


def test_a_video_without_frames_is_refused() -> None:
    frames, frame_video, pairs = videos()
    pairs.second[4] = "Nobody/0"
    with pytest.raises(DataError, match="1 videos of the list have no frames; the first is Nobody/0"):
        verify_videos(frames, frame_video, pairs)
