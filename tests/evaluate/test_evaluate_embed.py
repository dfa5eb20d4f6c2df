import cv2
import numpy as np
import pytest
import torch
from support import run_ranks
from torch import Tensor, nn

from arcdist.data.decode import decode
from arcdist.errors import DataError
from arcdist.evaluate.embed import embed

CPU = torch.device("cpu")
SIZE = 16


def small_net() -> nn.Sequential:
    """Return a net with dropout and BatchNorm, which differ between train and eval mode."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.PReLU(8), nn.Dropout(0.5), nn.Flatten(), nn.Linear(392, 5)
    )
    net(torch.randn(16, 3, SIZE, SIZE))  # moves the running statistics
    return net


def pictures(count: int, size: int = SIZE) -> list[bytes]:
    random = np.random.default_rng(0)
    return [cv2.imencode(".png", random.integers(0, 256, (size, size, 3), np.uint8))[1].tobytes() for _ in range(count)]


def embed_small(images: list[bytes], batch_size: int = 4, net: nn.Module | None = None, flip: bool = True) -> Tensor:
    return embed(net or small_net(), images, device=CPU, batch_size=batch_size, image_size=SIZE, flip=flip)


class Counting(nn.Module):
    """The net, counting the rows that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.rows = small_net(), 0

    def forward(self, images: Tensor) -> Tensor:
        self.rows += len(images)
        return self.net(images)


def test_flip_adds_the_embedding_of_the_mirrored_image_before_any_normalisation() -> None:
    images, net = pictures(3), small_net().eval()
    pixels = np.stack([decode(image, "image") for image in images])
    batch = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    expected = net(batch) + net(batch.flip(-1))
    torch.testing.assert_close(embed_small(images), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(embed_small(images, flip=False), net(batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
def test_batch_size_does_not_matter(batch_size: int) -> None:
    images = pictures(7)
    torch.testing.assert_close(embed_small(images, batch_size), embed_small(images, 2), rtol=1e-5, atol=1e-5)


def test_equal_images_are_embedded_once() -> None:
    first, second = pictures(2)
    net = Counting()
    result = embed_small([first, second, bytes(bytearray(first)), second, first], net=net, flip=False)
    assert net.rows == 2
    assert torch.equal(result, result[[0, 1, 0, 1, 0]])


def test_every_module_gets_its_mode_back() -> None:
    net = small_net().train()
    net[1].eval()  # a frozen BatchNorm
    embed_small(pictures(2), net=net)
    assert [module.training for module in net] == [True, False, True, True, True, True]


def test_modes_come_back_when_an_image_is_bad() -> None:
    net = small_net().train()
    with pytest.raises(DataError):
        embed_small([b"not an image"], net=net)
    assert net[3].training


def test_result_can_take_part_in_autograd() -> None:
    result = embed_small(pictures(2))
    weight = torch.ones(5, requires_grad=True)
    (result @ weight).sum().backward()
    assert weight.grad is not None


def test_narrow_precision_gives_float32_near_the_wide_one() -> None:
    images, wide = pictures(3), embed_small(pictures(3))
    narrow = embed(small_net(), images, device=CPU, batch_size=4, image_size=SIZE, precision="bf16")
    assert narrow.dtype == torch.float32
    assert 0 < (narrow - wide).norm() / wide.norm() < 0.05


def test_progress_counts_every_distinct_image() -> None:
    done: list[int] = []
    embed(small_net(), pictures(5) * 2, device=CPU, batch_size=2, image_size=SIZE, progress=done.append)
    assert done == [2, 2, 1]


def test_squares_of_another_size_are_resized_bicubic() -> None:
    (large,) = pictures(1, size=40)
    resized = cv2.resize(decode(large, "large"), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    exact = cv2.imencode(".png", resized[..., ::-1])[1].tobytes()
    assert torch.equal(embed_small([large]), embed_small([exact]))


def test_images_that_cannot_be_embedded_are_refused_by_number() -> None:
    good = pictures(1)[0]
    oblong = cv2.imencode(".png", np.zeros((20, 10, 3), np.uint8))[1].tobytes()
    with pytest.raises(DataError, match="pairs: image 1 is 10×20 px, not square"):
        embed(small_net(), [good, oblong], device=CPU, batch_size=4, image_size=SIZE, name="pairs")
    with pytest.raises(DataError, match="images: image 2"):
        embed_small([good, good, b"\xff\xd8 cut"])
    with pytest.raises(DataError, match="no images"):
        embed_small([])


@pytest.mark.parametrize(("world_size", "count"), [(2, 13), (3, 4)], ids=["uneven", "a rank without images"])
def test_embeddings_do_not_depend_on_world_size(world_size: int, count: int) -> None:
    images = pictures(count)
    images.append(images[0])
    (alone,) = run_ranks(embed_small, 1, images)  # a rank too, since rounding depends on the number of threads
    for result in run_ranks(embed_small, world_size, images):
        assert torch.equal(result, alone)
