import numpy as np
import pytest
import torch

from arcdist.errors import DataError
from arcdist.evaluate import templates
from arcdist.evaluate.templates import pool_templates


def faces(count: int = 60, seed: int = 0) -> dict:
    random = np.random.default_rng(seed)
    return {
        "embeddings": torch.from_numpy(random.normal(size=(count, 5))),
        "template": random.choice([3, 17, 4, 900], count),
        "medium": random.choice([5, 2, 70001], count),  # the same ids in several templates
        "detector_score": random.random(count),
    }


def as_insightface_does(
    embeddings: torch.Tensor,
    template: np.ndarray,
    medium: np.ndarray,
    detector_score: np.ndarray | None,
    norm_weighting: bool,
) -> np.ndarray:
    """Return the templates by plain loops, after the description of ``ijb_11.py``."""
    images = embeddings.numpy()
    if not norm_weighting:
        images = images / np.linalg.norm(images, axis=1, keepdims=True)
    if detector_score is not None:
        images = images * detector_score[:, None]
    pooled = []
    for each in np.unique(template):
        ours = template == each
        media = [images[ours & (medium == one)].mean(axis=0) for one in np.unique(medium[ours])]
        pooled.append(np.sum(media, axis=0))
    return np.stack(pooled) / np.linalg.norm(pooled, axis=1, keepdims=True)


@pytest.mark.parametrize("norm_weighting", [False, True])
@pytest.mark.parametrize("detector_weighting", [False, True])
def test_pooling_is_that_of_plain_loops(
    monkeypatch: pytest.MonkeyPatch, norm_weighting: bool, detector_weighting: bool
) -> None:
    monkeypatch.setattr(templates, "_ROWS_AT_ONCE", 16)
    given = faces() | {"norm_weighting": norm_weighting}
    if not detector_weighting:
        given["detector_score"] = None
    found = pool_templates(**given)
    assert found.ids.tolist() == [3, 4, 17, 900]
    np.testing.assert_allclose(found.embeddings, as_insightface_does(**given), rtol=0, atol=1e-12)


def test_a_video_counts_as_much_as_a_still() -> None:
    still, video = [1.0, 0.0], [0.0, 1.0]
    found = pool_templates(torch.tensor([still, *[video] * 9]), [1] * 10, [1, *[2] * 9])
    torch.testing.assert_close(found.embeddings, torch.tensor([[0.5**0.5, 0.5**0.5]]))


def test_without_norm_weighting_long_embeddings_count_no_more() -> None:
    embeddings = torch.tensor([[100.0, 0.0], [0.0, 1.0]])
    found = pool_templates(embeddings, [1, 1], norm_weighting=False)
    torch.testing.assert_close(found.embeddings, torch.tensor([[0.5**0.5, 0.5**0.5]]))


def test_a_template_of_one_image_is_its_direction() -> None:
    embeddings = faces()["embeddings"]
    found = pool_templates(embeddings, np.arange(60))
    torch.testing.assert_close(found.embeddings, torch.nn.functional.normalize(embeddings), rtol=0, atol=1e-12)


def test_templates_are_found_by_their_ids() -> None:
    found = pool_templates(torch.eye(3), [20, 10, 30])
    assert torch.equal(found.of([30, 10, 30], "pairs"), torch.eye(3)[[2, 1, 2]])
    with pytest.raises(DataError, match="pairs: 2 of 3 template ids .* the first is 31, entry 2"):
        found.of([30, 31, 5], "pairs")


@pytest.mark.parametrize("row", [0, 17])
def test_an_embedding_that_is_no_number_is_refused_by_its_row(monkeypatch: pytest.MonkeyPatch, row: int) -> None:
    monkeypatch.setattr(templates, "_ROWS_AT_ONCE", 16)
    given = faces()
    given["embeddings"][row, 2] = torch.nan
    with pytest.raises(DataError, match=f"the first is row {row},"):
        pool_templates(**given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"template": [1, 2]}, "template: int64 of shape .* 60 embeddings need as many integers"),
        ({"medium": np.zeros(60)}, "medium: float64"),
        ({"detector_score": np.full(60, -0.5)}, "detector_score: row 0: -0.5"),
        ({"detector_score": np.zeros(60)}, "template 3: its images sum up to nothing"),
    ],
)
def test_lists_that_do_not_fit_are_refused(change: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        pool_templates(**faces() | change)
