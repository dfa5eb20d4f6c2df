import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from support import run_ranks
from torch import Tensor, nn

from arcdist.backbones import create_backbone
from arcdist.cli.main import main
from arcdist.data.datasets import RecordDataset
from arcdist.data.evalsets import read_bin, write_bin
from arcdist.data.image_lists import open_images
from arcdist.data.synthetic import SyntheticConfig, write_record
from arcdist.errors import ConfigError, DataError
from arcdist.evaluate.embed import embed
from arcdist.evaluate.embedding_files import EmbeddingSettings, write_embeddings

CPU = torch.device("cpu")
SIZE = 16
BATCH = 4


class Counting(nn.Module):
    """A net that counts the images that it is given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.PReLU(8), nn.Flatten(), nn.Linear(392, 5))
        self.images = 0

    def forward(self, images: Tensor) -> Tensor:
        self.images += len(images)
        return self.net(images)


def picture(seed: int, height: int = SIZE, width: int = SIZE) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def folder_of(root: Path, count: int) -> Path:
    """Return a folder with ``count`` images, in folders of three."""
    for image in range(count):
        path = root / f"person{image // 3}" / f"{image:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(image))
    return root


def write(source: Path, output: Path, flip: bool = False, resize: bool = False, net: Counting | None = None) -> int:
    """Write the file; return how many images the net was given on this rank."""
    settings = EmbeddingSettings(batch_size=BATCH, flip=flip, image_size=SIZE, resize=resize)
    net = net or Counting()
    write_embeddings(net, open_images(source), output, settings, device=CPU)
    return net.images


def index_of(output: Path) -> list[list[str]]:
    header, *lines = output.with_suffix(".tsv").read_text().splitlines()
    assert header == "name\tlabel"
    return [line.split("\t") for line in lines]


@pytest.mark.parametrize("count", [1, 13, 24])
def test_the_file_is_the_same_bit_for_bit_on_any_number_of_ranks(count: int, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "faces", count)
    files = []
    for world_size in (1, 2, 3):
        output = tmp_path / f"on{world_size}.npy"
        given = run_ranks(write, world_size, source, output, True)
        assert sum(given) == 2 * count  # each image and its mirror image, by one rank
        files.append((output.read_bytes(), output.with_suffix(".tsv").read_bytes()))
    assert files[0] == files[1] == files[2]


def _write_into(source: Path, small_disk: Path) -> None:
    """Write rows of 16 KiB: on a disk of 400 KiB there is room for the blocks, and none for the whole."""
    net = Counting()
    net.net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 4096))
    try:
        write(source, small_disk / "out.npy", net=net)
    except DataError as error:
        sys.exit(f"told: {error}")


_UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]


def _may_mount() -> bool:
    found = shutil.which("unshare") is not None
    return found and subprocess.run([*_UNSHARE, "true"], check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not _may_mount(), reason="this user may mount no disk here")
def test_a_disk_without_room_for_the_whole_file_is_told(tmp_path: Path) -> None:
    source, disk = folder_of(tmp_path / "faces", 13), tmp_path / "disk"
    disk.mkdir()
    code = "import sys, test_embedding_files as tests; tests._write_into(*map(tests.Path, sys.argv[1:]))"
    mount = f'mount -t tmpfs -o size=400k tmpfs {disk} && exec "$@"'
    folders = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = [*_UNSHARE, "sh", "-c", mount, "sh", sys.executable, "-c", code, str(source), str(disk)]
    ended = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": folders}, check=False, capture_output=True, text=True, timeout=100
    )
    assert ended.returncode == 1, ended.stderr
    assert "told: " in ended.stderr
    assert "out.npy: cannot be written: [Errno 28] No space left on device" in ended.stderr


def test_rows_are_the_unnormalised_embeddings_in_the_order_of_the_index(tmp_path: Path) -> None:
    source, output = folder_of(tmp_path / "faces", 7), tmp_path / "out" / "faces.npy"
    write(source, output, flip=True)
    index = index_of(output)
    assert index[2:4] == [["person0/002.png", "person0"], ["person1/003.png", "person1"]]
    payloads = [(source / name).read_bytes() for name, _ in index]
    expected = embed(Counting(), payloads, device=CPU, batch_size=7, image_size=SIZE)
    torch.testing.assert_close(torch.from_numpy(np.load(output)), expected, rtol=1e-5, atol=1e-5)
    assert [path.name for path in sorted(output.parent.iterdir())] == ["faces.npy", "faces.tsv"]


def test_a_stopped_run_goes_on_on_another_number_of_ranks(tmp_path: Path) -> None:
    source, output, whole = folder_of(tmp_path / "faces", 24), tmp_path / "faces.npy", tmp_path / "whole.npy"
    run_ranks(write, 1, source, whole)
    last = source / "person7" / "023.png"
    good, _ = last.read_bytes(), last.write_bytes(b"\xff\xd8 cut")
    with pytest.raises(DataError, match=r"person7/023\.png"):
        write(source, output)
    assert not output.exists()
    assert len(list(tmp_path.glob("faces.npy.partial/*.npy"))) == 5
    last.write_bytes(good)
    (tmp_path / "faces.npy.partial" / "0.1.aside").write_bytes(b"of a killed rank")
    assert sum(run_ranks(write, 2, source, output)) == BATCH
    assert output.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "faces.npy.partial").exists()


@pytest.mark.parametrize("changed", ["an image", "a setting", "the weights"])
def test_a_block_of_other_images_settings_or_weights_is_made_again(changed: str, tmp_path: Path) -> None:
    source, output = folder_of(tmp_path / "faces", 12), tmp_path / "faces.npy"
    last = source / "person3" / "011.png"
    last.write_bytes(b"\xff\xd8 cut")
    with pytest.raises(DataError):
        write(source, output)
    last.write_bytes(picture(11))
    net = Counting()
    if changed == "an image":
        (source / "person0" / "000.png").write_bytes(picture(99))
    elif changed == "the weights":
        net.net[3].bias.data += 1
    given = write(source, output, flip=changed == "a setting", net=net)
    assert given == {"an image": 8, "a setting": 24, "the weights": 12}[changed]
    fresh = tmp_path / "fresh.npy"
    write(source, fresh, flip=changed == "a setting", net=net)
    assert output.read_bytes() == fresh.read_bytes()


def test_images_that_cannot_be_embedded_are_refused_by_name(tmp_path: Path) -> None:
    large, oblong = tmp_path / "large.png", tmp_path / "oblong.png"
    large.write_bytes(picture(0, 40, 40))
    oblong.write_bytes(picture(0, 40, 20))
    with pytest.raises(DataError, match=r"large\.png: is 40×40 px, not 16×16: `arcdist align`"):
        write(large, tmp_path / "a.npy")
    assert write(large, tmp_path / "a.npy", resize=True) == 1
    with pytest.raises(DataError, match=r"oblong\.png is 20×40 px, not square"):
        write(oblong, tmp_path / "b.npy", resize=True)
    with pytest.raises(DataError, match="no such file"):
        write(tmp_path / "none", tmp_path / "b.npy")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no image"):
        write(tmp_path / "empty", tmp_path / "b.npy")
    (tmp_path / "empty" / "a\tb.png").write_bytes(picture(0))
    with pytest.raises(DataError, match="a tab or a line break"):
        write(tmp_path / "empty", tmp_path / "b.npy")
    with pytest.raises(ConfigError, match=r"must end in \.npy or \.safetensors"):
        write(large, tmp_path / "b.txt")


def test_the_verb_embeds_records_and_pairs_with_the_weights_of_a_file(tmp_path: Path) -> None:
    weights, record, pairs = tmp_path / "small.safetensors", tmp_path / "faces.rec", tmp_path / "faces.bin"
    torch.manual_seed(0)
    model = create_backbone("small", 16)
    save_file(model.state_dict(), weights, {"backbone": "small", "embedding_dim": "16"})
    write_record(SyntheticConfig(identities=3, images_per_identity=2), str(record))
    with RecordDataset(record) as dataset:
        images = [dataset.read(sample)[1] for sample in range(6)]
        expected_index = [[str(dataset.key(sample)), str(dataset.read(sample)[0])] for sample in range(6)]
    write_bin(pairs, images, [True, True, True])
    expected = embed(model, images, device=CPU, batch_size=6).numpy()

    assert main(["embed", str(weights), str(record), f"{tmp_path}/rec.npy", "batch_size=4", "runtime.device=cpu"]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "rec.npy"), expected, rtol=1e-4, atol=1e-4)
    assert index_of(tmp_path / "rec.npy") == expected_index

    assert main(["embed", str(weights), str(pairs), f"{tmp_path}/bin.safetensors", "runtime.device=cpu"]) == 0
    with safe_open(tmp_path / "bin.safetensors", "np") as file:
        np.testing.assert_allclose(file.get_tensor("embeddings"), expected, rtol=1e-4, atol=1e-4)
    assert index_of(tmp_path / "bin.safetensors") == [[str(image), ""] for image in range(len(read_bin(pairs).images))]
