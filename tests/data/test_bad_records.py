"""Bad records end a run or are skipped: the same by every loader, on any rank and after a restart."""

import logging

import pytest
import simplejpeg
import torch
from test_torch_loader import SIZE, Squares, assert_same

from arcdist.data.augment import Augment, AugmentConfig
from arcdist.data.bad_records import BadRecords
from arcdist.data.dali_loader import DaliLoader, has_dali
from arcdist.data.order import Order
from arcdist.data.torch_loader import Batch, LoaderConfig, TorchLoader
from arcdist.errors import ConfigError, DataError

BAD = (3, 41, 77)
LOADERS = [TorchLoader, *([DaliLoader] if has_dali() else [])]


class Damaged(Squares):
    """Squares of which three are cut short."""

    def __init__(self) -> None:
        super().__init__()
        for sample in BAD:
            self.payloads[sample] = self.payloads[sample][:-9]


def loader(
    kind: type[TorchLoader], rank: int = 0, world_size: int = 1, share: float = 0.05, workers: int = 2
) -> TorchLoader:
    parts = (Damaged(), Order(SIZE, 1), Augment(AugmentConfig(), 1), 18, rank, world_size, (24, 16))
    return kind(*parts, LoaderConfig(workers, on_bad_record="skip", bad_share=share))


@pytest.mark.parametrize("kind", LOADERS)
def test_another_image_with_its_own_label_takes_the_place_of_a_bad_one(kind: type[TorchLoader]) -> None:
    squares = Squares()
    one = loader(kind)
    batches = list(one.batches(0, 10))
    labels = torch.cat([batch.labels for batch in batches])
    samples = torch.from_numpy(Order(SIZE, 1).samples(0, 180))
    bad = torch.isin(samples, torch.tensor(BAD))
    assert bad.sum() == 2 * len(BAD)
    assert torch.equal(labels[~bad], samples[~bad])
    assert not torch.isin(labels, torch.tensor(BAD)).any()
    for batch in batches:
        for image, label in zip(batch.images, batch.labels.tolist()):
            color = simplejpeg.decode_jpeg(squares.payloads[label], "RGB")[0, 0]
            assert image[:, 0, 0].tolist() == color.tolist()
    assert len(one.bad_records) == len(BAD)


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("world_size", [2, 3])
def test_what_is_put_in_its_place_depends_on_neither_ranks_nor_loader_nor_restart(
    kind: type[TorchLoader], world_size: int
) -> None:
    whole = list(loader(TorchLoader).batches(0, 12))
    parts = zip(*(loader(kind, rank, world_size, workers=1).batches(4, 12) for rank in range(world_size)))
    joined = [Batch(torch.cat([p.images for p in part]), torch.cat([p.labels for p in part])) for part in parts]
    assert_same(joined, whole[4:])


@pytest.mark.parametrize("kind", LOADERS)
def test_more_bad_records_than_allowed_are_an_error(kind: type[TorchLoader]) -> None:
    with pytest.raises(DataError, match=r"square \d+: is damaged.*record number 2 of 90 .*bad_share allows 1"):
        list(loader(kind, share=0.0, workers=1).batches(0, 10))


@pytest.mark.parametrize(("size", "share"), [(1, 0.001), (5, 1.0)])
def test_a_set_of_bad_records_alone_is_an_error_and_not_a_search_without_end(size: int, share: float) -> None:
    policy, tried = BadRecords(skips=True, share=share, order=Order(size, 1)), []

    def take(sample: int) -> None:
        tried.append(sample)
        if len(tried) > 10_000:
            pytest.fail("it goes on and on")
        raise DataError(f"image {sample} is damaged")

    with pytest.raises(DataError, match=rf"record number {size} of {size} .*bad_share allows {size - 1}"):
        policy.replace(take, 0, 0)


def test_a_skipped_record_is_logged_once_with_its_name(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("arcdist")  # as a run of another test may have left it
    for name, value in {"handlers": [caplog.handler], "propagate": False, "disabled": False}.items():
        monkeypatch.setattr(logger, name, value)
    with caplog.at_level(logging.WARNING, "arcdist"):
        list(loader(TorchLoader).batches(0, 10))
    assert sorted(message.split("square ")[1].split(":")[0] for message in caplog.messages) == ["3", "41", "77"]


def test_a_policy_that_is_not_known_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.loader\.on_bad_record: 'ignore': must be one of error, skip"):
        LoaderConfig(on_bad_record="ignore").validate()
