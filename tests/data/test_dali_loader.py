"""DALI gives the batches of the torch loader: the same rows, labels, flips and errors, and on a CPU the same pixels."""

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
import torch

from arcdist.data.augment import Augment, AugmentConfig
from arcdist.data.dali_loader import DaliLoader, has_dali
from arcdist.data.datasets import RecordDataset
from arcdist.data.decode import decode
from arcdist.data.mixed_order import MixedOrder
from arcdist.data.order import Order
from arcdist.data.recordio import RecordReader, RecordWriter
from arcdist.data.sources import DataConfig
from arcdist.data.torch_loader import Batch, Dataset, LoaderConfig, TorchLoader
from arcdist.errors import ConfigError, DataError

needs_dali = pytest.mark.skipif(not has_dali(), reason="nvidia-dali is not installed: pip install 'arcdist[dali]'")
without_dali = pytest.mark.skipif(has_dali(), reason="nvidia-dali is installed")

SIZE = 90
FLIPS = AugmentConfig()
MUCH = AugmentConfig(rotation_deg=10.0, brightness=0.3, crop=0.5, jpeg=0.5, occlusion=0.5)
ENCODINGS = [
    *("png_rgb", "png_gray", "png_rgba", "png_palette", "png_16bit_gray", "jpeg_gray", "jpeg_progressive", "jpeg_444"),
    *("jpeg_cmyk", "jpeg_exif_orientation6", "bmp_rgb", "webp_rgb"),
]


class Images:
    """Encoded images; the label is the sample."""

    def __init__(self, payloads: list[bytes]) -> None:
        self.payloads = payloads

    def read(self, sample: int) -> tuple[int, bytes]:
        return sample, self.payloads[sample]

    def name(self, sample: int) -> str:
        return f"image {sample}"


def jpegs() -> list[bytes]:
    """Return images of 24×16 pixels whose colors are stored at half the resolution."""
    coarse = np.random.default_rng(0).integers(0, 256, (SIZE, 6, 4, 3), dtype=np.uint8)
    return [simplejpeg.encode_jpeg(cv2.resize(image, (16, 24)), 95, "RGB", "420") for image in coarse]


def loader(
    kind: type[TorchLoader] = DaliLoader,
    rank: int = 0,
    world_size: int = 1,
    batch_size: int = 18,
    workers: int = 2,
    prefetch: int = 2,
    augment: AugmentConfig = FLIPS,
    dataset: "Dataset | None" = None,
    size_at: "Callable[[int], int] | None" = None,
) -> TorchLoader:
    """Return a loader of global batches of ``batch_size``."""
    parts = (dataset or Images(jpegs()), Order(SIZE, 1), Augment(augment, 1), batch_size, rank, world_size, (24, 16))
    return kind(*parts, LoaderConfig(workers, prefetch), size_at=size_at)


def assert_same(batches: list[Batch], others: list[Batch]) -> None:
    assert len(batches) == len(others)
    for batch, other in zip(batches, others):
        assert batch.labels.tolist() == other.labels.tolist()
        assert batch.images.stride() == other.images.stride()
        assert torch.equal(batch.images, other.images)


def damage(payload: bytes, how: str) -> bytes:
    """Return a JPEG that is damaged in one way."""
    if how == "cut":
        return payload[:-9]
    if how == "cut in the header":
        return payload[:100]
    if how == "no image":
        return b"not an image"
    if how == "zeros":
        return payload[:2] + bytes(len(payload) - 2)
    return payload[:-30] + bytes(20) + payload[-10:]  # in the coded pixels


@needs_dali
@pytest.mark.parametrize("augment", [FLIPS, MUCH], ids=["flips", "much"])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_batches_are_those_of_the_torch_loader_over_an_epochs_border(
    world_size: int, augment: AugmentConfig
) -> None:
    for rank in range(world_size):
        dali, plain = (loader(kind, rank, world_size, augment=augment) for kind in (DaliLoader, TorchLoader))
        assert_same(list(dali.batches(0, 7)), list(plain.batches(0, 7)))


@needs_dali
@pytest.mark.parametrize("augment", [FLIPS, MUCH], ids=["flips", "much"])
def test_a_resumed_run_has_the_same_batches(augment: AugmentConfig) -> None:
    whole = list(loader(augment=augment).batches(0, 9))
    assert_same(list(loader(augment=augment).batches(3, 9)), whole[3:])


@needs_dali
@pytest.mark.parametrize("augment", [FLIPS, MUCH], ids=["flips", "much"])
@pytest.mark.parametrize(("workers", "prefetch"), [(1, 0), (1, 1), (3, 50)])
def test_threads_and_prefetching_do_not_change_the_batches(workers: int, prefetch: int, augment: AugmentConfig) -> None:
    other = loader(workers=workers, prefetch=prefetch, augment=augment)
    assert_same(list(other.batches(0, 6)), list(loader(augment=augment).batches(0, 6)))


@needs_dali
def test_an_epoch_has_each_sample_once() -> None:
    labels = torch.cat([batch.labels for batch in loader().batches(5, 10)])
    assert labels.sort().values.tolist() == list(range(SIZE))


@needs_dali
def test_a_step_has_the_size_that_is_asked_for() -> None:
    def size_at(step: int) -> int:
        return 12 if step < 2 else 20

    dali, plain = (loader(kind, size_at=size_at) for kind in (DaliLoader, TorchLoader))
    assert_same(list(dali.batches(1, 4)), list(plain.batches(1, 4)))


@needs_dali
def test_a_size_that_grows_to_the_datas_own_goes_on_with_the_next_step() -> None:
    squares = Images([simplejpeg.encode_jpeg(decode(payload, "it")[:16]) for payload in jpegs()])
    parts = (squares, Order(SIZE, 1), Augment(FLIPS, 1), 18, 0, 1, (16, 16), LoaderConfig(2, 2))
    dali, plain = (kind(*parts, size_at=lambda step: 12 if step < 2 else 16) for kind in (DaliLoader, TorchLoader))
    assert_same(list(dali.batches(0, 5)), list(plain.batches(0, 5)))


@needs_dali
@pytest.mark.parametrize("augment", [FLIPS, MUCH], ids=["flips", "much"])
@pytest.mark.parametrize("how", ["cut", "cut in the header", "no image", "zeros", "pixels"])
def test_a_damaged_image_is_named_in_place_of_its_batch_as_by_the_torch_loader(
    how: str, augment: AugmentConfig
) -> None:
    position = 40  # in the third batch of 18
    payloads = jpegs()
    damaged = int(Order(SIZE, 1).samples(position, position + 1)[0])
    payloads[damaged] = damage(payloads[damaged], how)
    messages = []
    for kind in (DaliLoader, TorchLoader):
        batches = loader(kind, dataset=Images(payloads), augment=augment, prefetch=4).batches(0, 100)
        assert [len(next(batches).labels) for _ in range(2)] == [18, 18]
        with pytest.raises(DataError, match=f"image {damaged}: ") as error:
            next(batches)
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    assert threads() == []


@needs_dali
def test_an_image_that_is_cut_short_after_the_first_epoch_is_named_in_place_of_its_batch() -> None:
    class Rotting(Images):
        def read(self, sample: int) -> tuple[int, bytes]:
            label, payload = super().read(sample)
            self.payloads[sample] = damage(payload, "cut")
            return label, payload

    # One thread, so that no image is visited a second time before the first.
    batches = loader(dataset=Rotting(jpegs()), workers=1, prefetch=4).batches(0, 100)
    assert len([next(batches) for _ in range(5)]) == 5
    first = Order(SIZE, 1).samples(90, 108).tolist()
    with pytest.raises(DataError, match=r"image \d+: is damaged: Premature end of JPEG file") as error:
        next(batches)
    assert int(str(error.value).split()[1].rstrip(":")) in first
    assert threads() == []


@needs_dali
def test_an_image_that_first_comes_after_an_epoch_is_checked_too() -> None:
    order = MixedOrder([60, 30], [1, 0.1], 1)  # the second set's images come over ten epochs of 63
    payloads = jpegs()
    late = int(order.samples(6 * 63, 7 * 63).max())
    payloads[late] = damage(payloads[late], "pixels")  # which DALI would not tell
    parts = (Images(payloads), order, Augment(FLIPS, 1), 18, 0, 1, (24, 16), LoaderConfig(2, 2))
    with pytest.raises(DataError, match=f"image {late}: is damaged"):
        list(DaliLoader(*parts).batches(0, 25))


@needs_dali
def test_an_image_of_another_size_is_named() -> None:
    one = loader()
    one.image_size = (112, 112)
    with pytest.raises(DataError, match=r"image \d+: is 24×16 pixels, not 112×112"):
        next(one.batches(0, 1))


@needs_dali
def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.rec"
    with RecordWriter(path) as writer:
        for sample, payload in enumerate(jpegs()):
            writer.write(sample, sample, payload)
    offset = RecordReader(path).offset(50)
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(bytes(4))
    with pytest.raises(DataError, match=r"train\.rec: record 50 at byte .*: magic is 0x00000000"):
        list(loader(dataset=RecordDataset(path)).batches(0, 5))


@needs_dali
def test_leaving_early_stops_the_threads() -> None:
    before = native_threads()
    for _ in (batches := loader(prefetch=20).batches(0, 1000)):
        break
    assert threads()
    batches.close()
    assert threads() == []
    for _ in range(100):
        if native_threads() <= before:
            break
        time.sleep(0.02)
    assert native_threads() <= before


@needs_dali
@pytest.mark.parametrize("case", ENCODINGS)
def test_every_encoding_of_the_field_gives_the_same_pixels_and_cmyk_to_one_level(data_root: Path, case: str) -> None:
    path = data_root / "formats/d_encodings.rec"
    files = json.loads((data_root / "formats/expected.json").read_text())["files"]
    records = next(file["records"] for file in files if file["file"] == path.name)
    payload = RecordReader(path)[next(record["key"] for record in records if record.get("case") == case)].payload
    parts = (Images([payload]), Order(1, 0), Augment(FLIPS, 0), 4, 0, 1, decode(payload, case).shape[:2])
    dali, plain = (next(kind(*parts, LoaderConfig(1, 1)).batches(0, 1)) for kind in (DaliLoader, TorchLoader))
    levels = (dali.images.int() - plain.images.int()).abs().max()
    assert levels <= (1 if case == "jpeg_cmyk" else 0)


@needs_dali
@pytest.mark.parametrize(("name", "first_step"), [("cfp_small.rec", 3), ("lfw_train.rec", 233)])
def test_real_faces_are_those_of_the_torch_loader_over_an_epochs_border(
    data_root: Path, name: str, first_step: int
) -> None:
    dataset = RecordDataset(data_root / name)
    order = Order(len(dataset), 3)
    parts = (dataset, order, Augment(FLIPS, 3), 32, 0, 1, dataset.image_size, LoaderConfig(2, 2))
    dali, plain = (list(kind(*parts).batches(first_step, first_step + 7)) for kind in (DaliLoader, TorchLoader))
    assert_same(dali, plain)
    samples = order.samples(32 * first_step, 32 * (first_step + 7))
    assert first_step < len(dataset) // 32 < first_step + 6
    assert torch.cat([batch.labels for batch in dali]).tolist() == dataset.labels()[samples].tolist()


@pytest.mark.gpu
@needs_dali
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_decodes_to_the_same_pixels_but_for_rounding(data_root: Path) -> None:
    dataset = RecordDataset(data_root / "cfp_small.rec")
    parts = (dataset, Order(len(dataset), 3), Augment(FLIPS, 3), 32, 0, 1, dataset.image_size, LoaderConfig(2, 2))
    gpu = list(DaliLoader(*parts, device="cuda").batches(0, 10))
    assert {batch.images.device.type for batch in gpu} == {"cuda"}
    for batch, other in zip(gpu, TorchLoader(*parts).batches(0, 10)):
        assert batch.labels.tolist() == other.labels.tolist()
        levels = (batch.images.cpu().float() - other.images.float()).abs()
        assert levels.mean() < 1
        assert levels.max() <= 16
    assert_same(list(DaliLoader(*parts, device="cuda").batches(4, 10)), gpu[4:])


@pytest.mark.parametrize(("values", "flips"), [({}, True), ({"flip": 0.0}, True), ({"blur": 0.1}, False)])
def test_only_a_flip_is_left_to_dali(values: dict[str, float], flips: bool) -> None:
    assert Augment(AugmentConfig(**values), 0).only_flips == flips


@pytest.mark.parametrize("kind", ["auto", "torch", pytest.param("dali", marks=needs_dali)])
def test_a_run_on_a_cpu_takes_dali_where_it_is_asked_to(data_root: Path, kind: str) -> None:
    config = DataConfig(path=str(data_root / "cfp_small.rec"), loader=LoaderConfig(kind=kind))
    config.validate()
    dataset = config.open()
    built = config.build_loader(dataset, config.build_order(dataset, 0), 8, 0, 1, torch.device("cpu"))
    assert type(built) is (DaliLoader if kind == "dali" else TorchLoader)


@needs_dali
def test_a_run_on_a_gpu_takes_dali_unless_images_are_augmented_or_processes_asked_for(data_root: Path) -> None:
    config = DataConfig(path=str(data_root / "cfp_small.rec"))
    dataset = config.open()
    order = config.build_order(dataset, 0)
    for chosen, kind in (
        (config, DaliLoader),
        (replace(config, augment=AugmentConfig(blur=0.1)), TorchLoader),
        (replace(config, loader=LoaderConfig(workers_are="processes")), TorchLoader),
    ):
        built = chosen.build_loader(dataset, order, 8, 0, 1, torch.device("cuda"))
        assert type(built) is kind


@without_dali
def test_dali_that_is_asked_for_and_absent_is_said_with_the_extra_that_brings_it() -> None:
    config = DataConfig(path="train.rec", loader=LoaderConfig(kind="dali"))
    with pytest.raises(ConfigError, match=r"data\.loader\.kind: 'dali', .*pip install 'arcdist\[dali\]'"):
        config.validate()


def test_a_loader_that_is_not_known_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.loader\.kind: 'numpy': must be one of auto, torch, dali"):
        LoaderConfig(kind="numpy").validate()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("loader")]


def native_threads() -> int:
    return len(os.listdir("/proc/self/task"))
