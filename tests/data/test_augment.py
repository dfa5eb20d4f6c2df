"""What is done to an image depends on seed and position alone, and is what the words say."""

import cv2
import numpy as np
import pytest
import simplejpeg

from arcdist.data.augment import Augment, AugmentConfig
from arcdist.errors import ConfigError

CHANCES = ("gray", "blur", "resize", "occlusion", "crop", "jpeg")
EVERYTHING = {
    **{"flip": 0.5, "rotation_deg": 15.0, "shift_px": 4.0, "zoom": 0.1, "brightness": 0.3, "contrast": 0.3},
    **{"saturation": 0.4, "hue_deg": 10.0, "gray": 0.1, "blur": 0.3, "resize": 0.3, "occlusion": 0.5},
    **{"crop": 0.3, "jpeg": 0.3},
}
STEPS = [{key: 1.0 if key in CHANCES else value} for key, value in EVERYTHING.items()]


def only(**values: float) -> AugmentConfig:
    """Return a config with nothing on but this."""
    return AugmentConfig(**{"flip": 0.0, **values})


def noise(height: int = 40, width: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def blob(x: float, y: float, side: int = 40, sigma: float = 3.0) -> np.ndarray:
    """Return a white spot on black around a point."""
    rows, columns = np.mgrid[:side, :side]
    spot = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return np.repeat(spot.round().astype(np.uint8)[..., None], 3, axis=2)


def inner(image: np.ndarray) -> np.ndarray:
    """Return the image without an eighth at each side."""
    margin = len(image) // 8
    return image[margin:-margin, margin:-margin]


def center_of_mass(image: np.ndarray) -> tuple[float, float]:
    """Return the mean x and y of the light."""
    light = image.sum(axis=2, dtype=np.float64)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    return float((light * columns).sum() / light.sum()), float((light * rows).sum() / light.sum())


def parameters(**values: object) -> np.void:
    """Return a draw in which nothing happens but this."""
    drawn = Augment(only(), 0).draw(np.arange(1))
    for key, value in values.items():
        drawn[key] = value
    return drawn[0]


def test_a_draw_is_a_function_of_its_position() -> None:
    augment = Augment(AugmentConfig(**EVERYTHING), 3)
    together = augment.draw(np.arange(100))
    for positions in (np.arange(37, 60), np.array([99]), np.arange(100)[::-7]):
        assert (augment.draw(positions) == together[positions]).all()


def test_draws_of_seeds_and_positions_differ() -> None:
    first, other = (Augment(AugmentConfig(**EVERYTHING), seed).draw(np.arange(100))["rotation_rad"] for seed in (3, 4))
    assert len({*first, *other}) == 200


def test_what_is_drawn_for_one_purpose_tells_nothing_of_another() -> None:
    drawn = Augment(AugmentConfig(**EVERYTHING), 3).draw(np.arange(4000))
    columns = [drawn["rotation_rad"], drawn["zoom"], *drawn["shift_px"].T, drawn["flip"], drawn["occlusion"][:, 2] > 0]
    correlation = np.corrcoef(np.array(columns, np.float64)) - np.eye(6)
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)


def test_draws_fill_their_ranges() -> None:
    drawn = Augment(AugmentConfig(**EVERYTHING), 3).draw(np.arange(4000))
    for values, least, most in [
        (np.rad2deg(drawn["rotation_rad"]), -15, 15),
        (drawn["zoom"], 0.9, 1.1),
        (drawn["shift_px"], -4, 4),
        (drawn["blur_sigma_px"], 0, 1.5),
        (drawn["resize"], 0.25, 1),
        (drawn["occlusion"][:, 2] * drawn["occlusion"][:, 3], 0, 0.2),
    ]:
        assert least <= values.min() < least + 0.02 * (most - least)
        assert most - 0.02 * (most - least) < values.max() <= most + 1e-12
    assert abs(drawn["flip"].mean() - 0.5) < 0.04


def test_with_everything_off_the_image_is_as_it_was() -> None:
    augment = Augment(only(), 1)
    for drawn in augment.draw(np.arange(5)):
        np.testing.assert_array_equal(augment.apply(noise(), drawn), noise())


@pytest.mark.parametrize("step", STEPS, ids=lambda step: next(iter(step)))
def test_every_step_changes_images_and_never_its_input(step: dict[str, float]) -> None:
    augment, image = Augment(only(**step), 1), noise()
    changed = [augment.apply(image, drawn) for drawn in augment.draw(np.arange(8))]
    np.testing.assert_array_equal(image, noise())
    assert all(each.shape == image.shape and each.dtype == np.uint8 for each in changed)
    assert any((each != image).any() for each in changed)


def test_a_flip_is_a_mirror() -> None:
    augment = Augment(only(flip=1.0), 1)
    np.testing.assert_array_equal(augment.apply(noise(), augment.draw(np.arange(1))[0]), noise()[:, ::-1])


def test_a_flip_within_a_warp_is_a_mirror() -> None:
    warp = Augment(only(rotation_deg=1.0), 1)
    np.testing.assert_array_equal(warp.apply(noise(40, 30), parameters(flip=True)), noise(40, 30)[:, ::-1])


@pytest.mark.parametrize("size", [None, 30, 20, 80])
@pytest.mark.parametrize(
    ("drawn", "x", "y"),
    [
        ({"shift_px": (3.0, -2.0)}, 27.5, 13.5),
        ({"rotation_rad": np.pi / 2}, 23.5, 24.5),  # a quarter turn sends right to down
        ({"zoom": 0.5}, 22.0, 17.5),
        ({"flip": True, "shift_px": (3.0, -2.0)}, 17.5, 13.5),
    ],
    ids=["shift", "rotation", "zoom", "flip and shift"],
)
def test_a_point_goes_where_the_warp_says(drawn: dict, x: float, y: float, size: "int | None") -> None:
    image = Augment(only(shift_px=1.0), 1).apply(blob(24.5, 15.5), parameters(**drawn), size)
    share = 1 if size is None else size / 40
    np.testing.assert_allclose(center_of_mass(image), ((x + 0.5) * share - 0.5, (y + 0.5) * share - 0.5), atol=0.1)


@pytest.mark.parametrize("size", [20, 27, 40, 60])
@pytest.mark.parametrize("config", [only(), only(flip=1.0), AugmentConfig(**EVERYTHING)], ids=["off", "flip", "all"])
def test_an_image_has_the_size_that_is_asked_for(config: AugmentConfig, size: int) -> None:
    augment = Augment(config, 1)
    assert all(
        augment.apply(noise(40, 30), drawn, size).shape == (size, size, 3) for drawn in augment.draw(np.arange(8))
    )


@pytest.mark.parametrize("size", [20, 24, 32, 40])
def test_a_smaller_size_is_the_same_with_and_without_a_warp(size: int) -> None:
    image = blob(22.0, 18.0)
    without = Augment(only(), 1).apply(image, parameters(), size)
    within = Augment(only(shift_px=1.0), 1).apply(image, parameters(), size)
    np.testing.assert_allclose(within.astype(int), without.astype(int), atol=12)


@pytest.mark.parametrize("size", [200, 240, 280, 320])
def test_a_warp_to_a_smaller_size_has_most_of_the_aliasing_taken_away(size: int) -> None:
    image = noise(400, 400)  # so large that chance moves its deviation by less than 1%
    warp, turned = Augment(only(rotation_deg=10.0), 1), parameters(rotation_rad=0.1)
    filtered, unfiltered = (
        warp.apply(image, turned, side) for side in (size, 400)
    )  # sampling alone keeps the deviation
    averaged = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    excess, unfiltered_excess = (inner(each).std() - averaged.std() for each in (filtered, unfiltered))
    assert excess < 0.5 * unfiltered_excess


def test_black_stays_black_where_a_warp_lets_a_border_in() -> None:
    augment = Augment(only(shift_px=1.0, brightness=0.5, contrast=0.5), 1)
    drawn = augment.draw(np.arange(1))
    drawn["shift_px"] = 8
    image = augment.apply(np.full((40, 40, 3), 90, np.uint8), drawn[0])
    assert image[:7].max() == image[:, :7].max() == 0
    assert image[9:, 9:].min() > 0


def test_gray_has_the_luma_of_the_image() -> None:
    augment = Augment(only(gray=1.0), 1)
    image = augment.apply(noise(), augment.draw(np.arange(1))[0])
    luma = noise() @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(image, np.repeat(luma[..., None], 3, axis=2), atol=1)


def test_a_hue_turn_moves_red_towards_yellow_or_magenta_and_keeps_luma_and_gray() -> None:
    augment = Augment(only(hue_deg=40.0), 1)
    red_and_gray = np.array([[[140, 90, 90], [77, 77, 77]]], np.uint8)
    for drawn in augment.draw(np.arange(8)):
        red, gray = augment.apply(red_and_gray, drawn)[0].astype(int)
        assert (red[1] > red[2]) == (drawn["color"][1, 0] > drawn["color"][2, 0])
        assert abs(red @ [0.299, 0.587, 0.114] - red_and_gray[0, 0] @ [0.299, 0.587, 0.114]) < 1
        assert gray.tolist() == [77, 77, 77]
        assert red[0] > max(red[1:])


def test_brightness_multiplies_and_contrast_stretches_from_middle_gray() -> None:
    image = np.full((4, 4, 3), 60, np.uint8)
    for config, low, high in [(only(brightness=0.5), 30, 90), (only(contrast=0.5), 60 - 34, 60 + 34)]:
        augment = Augment(config, 1)
        values = [augment.apply(image, drawn).mean() for drawn in augment.draw(np.arange(300))]
        assert [round(min(values)), round(max(values))] == pytest.approx([low, high], abs=1)


@pytest.mark.parametrize("step", [{"blur": 1.0}, {"resize": 1.0}], ids=["blur", "resize"])
def test_lost_detail_keeps_the_mean(step: dict[str, float]) -> None:
    augment = Augment(only(**step), 1)
    for drawn in augment.draw(np.arange(8)):
        image = augment.apply(noise(), drawn)
        assert abs(image.mean() - noise().mean()) < 3
        assert image.std() <= noise().std()


def test_an_occlusion_is_one_rectangle_of_one_color() -> None:
    augment = Augment(only(occlusion=1.0, occlusion_area=0.3), 1)
    image = noise()
    for drawn in augment.draw(np.arange(8)):
        rows, columns = np.nonzero((augment.apply(image, drawn) != image).any(axis=2))
        covered = augment.apply(image, drawn)[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert len(np.unique(covered.reshape(-1, 3), axis=0)) == 1
        assert 0.01 < len(rows) / 1600 < 0.33


def test_a_crop_keeps_a_rectangle_where_it_is_and_blackens_the_rest() -> None:
    augment = Augment(only(crop=1.0, crop_area=0.3), 1)
    image = noise() // 2 + 100
    for drawn in augment.draw(np.arange(8)):
        cropped = augment.apply(image, drawn)
        rows, columns = np.nonzero(cropped.any(axis=2))
        kept = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
        np.testing.assert_array_equal(cropped[kept], image[kept])
        assert len(rows) == cropped[kept].shape[0] * cropped[kept].shape[1]
        assert 0.27 < len(rows) / 1600 <= 1


def test_compression_is_that_of_a_jpeg_of_the_drawn_quality() -> None:
    augment = Augment(only(jpeg=0.5, jpeg_quality=20), 1)
    drawn = augment.draw(np.arange(1000))
    qualities = drawn["jpeg_quality"]
    assert {*qualities} == {0, *range(20, 96)}
    assert abs((qualities > 0).mean() - 0.5) < 0.08
    low = drawn[qualities > 0][0]
    again = simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(noise(), int(low["jpeg_quality"]), "RGB", "420"), "RGB")
    np.testing.assert_array_equal(augment.apply(noise(), low), again)


def test_colors_change_in_the_share_of_images_that_is_asked_for() -> None:
    augment = Augment(only(color=0.2, brightness=0.5, contrast=0.5, saturation=0.5, hue_deg=20.0), 1)
    drawn = augment.draw(np.arange(1000))
    same = np.abs(drawn["color"] - np.eye(3, 4)).max(axis=(1, 2)) < 1e-6
    assert abs(same.mean() - 0.8) < 0.06
    np.testing.assert_array_equal(augment.apply(noise(), drawn[same][0]), noise())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("flip", 1.5),
        ("jpeg_quality", 96),
        ("resize_most", 0.1),
        ("rotation_deg", -1.0),
        ("zoom", 1.0),
        ("brightness", float("nan")),
        ("resize_least", 0.0),
    ],
)
def test_a_value_that_cannot_be_right_is_named(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"^data.augment.{key}: {value}: must be "):
        Augment(AugmentConfig(**{key: value}), 1)
