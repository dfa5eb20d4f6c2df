"""Augmentation of aligned faces on the CPU.

What is drawn for an image depends on the seed and on its position in the run, never on who draws it. `draw` works on
many positions at once, `apply` on one image; a step that is off costs nothing.

The color comes before the warp, so that the border that a warp lets in is black, as in an aligned crop. Blur, loss of
resolution and compression come before it too: a small face is first seen and stored, then aligned.
"""

import math
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import simplejpeg

from arcdist.errors import ConfigError
from arcdist.runtime.seeds import uniform

PARAMETERS = np.dtype(
    [
        ("rotation_rad", np.float64),
        ("zoom", np.float64),
        ("shift_px", np.float64, 2),  # to the right, down
        ("blur_sigma_px", np.float64),  # 0: none
        ("resize", np.float64),  # share of the side that is kept; 1: all
        ("jpeg_quality", np.int64),  # 0: not compressed again
        ("crop", np.float64, 4),  # top, left, height, width of what is kept, as shares of the image; height 0: all
        ("occlusion", np.float64, 4),  # top, left, height, width, as shares of the image; height 0: none
        ("occlusion_color", np.float64, 3),
        ("color", np.float32, (3, 4)),  # rgb' = color · [rgb, 1]
        ("flip", np.bool_),
    ],
    align=True,
)
"""What is drawn for one image; lengths are in pixels of the image as it is stored."""

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_YUV = np.array([_LUMA, 0.492 * (np.array([0, 0, 1]) - _LUMA), 0.877 * (np.array([1, 0, 0]) - _LUMA)])
_GRAY = np.tile(_LUMA, (3, 1))
_CHROMA = np.eye(3) - _GRAY
_CHROMA_TURNED = np.linalg.inv(_YUV) @ np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]]) @ _YUV  # by 90° in (U, V)
_MIDDLE = 127.5
_BEST_JPEG = 95


@dataclass
class AugmentConfig:
    """What is done to training images; 0 turns a step off."""

    flip: float = field(default=0.5, metadata={"help": "probability of a mirrored image"})
    rotation_deg: float = field(default=0.0, metadata={"help": "largest rotation, either way"})
    shift_px: float = field(default=0.0, metadata={"help": "largest shift along either axis, either way"})
    zoom: float = field(default=0.0, metadata={"help": "sizes are multiplied by 1 - zoom to 1 + zoom"})
    crop: float = field(default=0.0, metadata={"help": "probability that all but a rectangle turns black"})
    crop_area: float = field(default=0.2, metadata={"help": "smallest share of the image that it keeps"})
    color: float = field(
        default=1.0, metadata={"help": "probability that brightness, contrast, saturation and hue change at all"}
    )
    brightness: float = field(
        default=0.0, metadata={"help": "values are multiplied by 1 - brightness to 1 + brightness"}
    )
    contrast: float = field(default=0.0, metadata={"help": "the same of the distance to middle gray"})
    saturation: float = field(default=0.0, metadata={"help": "the same of the distance to the pixel's own gray"})
    hue_deg: float = field(default=0.0, metadata={"help": "largest turn of the hue, either way"})
    gray: float = field(default=0.0, metadata={"help": "probability of an image without color"})
    blur: float = field(default=0.0, metadata={"help": "probability of a Gaussian blur"})
    blur_sigma_px: float = field(default=1.5, metadata={"help": "largest sigma of the blur"})
    resize: float = field(
        default=0.0, metadata={"help": "probability of a lower resolution: sized down, then up again"}
    )
    resize_least: float = field(default=0.25, metadata={"help": "smallest share of the side that it keeps"})
    resize_most: float = field(default=1.0, metadata={"help": "largest share of the side that it keeps"})
    jpeg: float = field(default=0.0, metadata={"help": "probability of being compressed as a JPEG once more"})
    jpeg_quality: int = field(default=40, metadata={"help": "lowest quality of it; the highest is 95"})
    occlusion: float = field(default=0.0, metadata={"help": "probability of a rectangle of one color over the image"})
    occlusion_area: float = field(default=0.2, metadata={"help": "largest share of the image that it covers"})

    def validate(self) -> None:
        """Raise ConfigError where a value cannot be right."""
        for key in ("flip", "crop", "color", "gray", "blur", "resize", "jpeg", "occlusion"):
            self._check(key, 0 <= getattr(self, key) <= 1, "in [0, 1], a probability")
        for key in ("brightness", "contrast", "saturation"):
            self._check(key, 0 <= getattr(self, key) <= 1, "in [0, 1]")
        for key in ("rotation_deg", "hue_deg"):
            self._check(key, 0 <= getattr(self, key) <= 180, "in [0, 180]")
        for key in ("resize_least", "resize_most", "crop_area", "occlusion_area"):
            self._check(key, 0 < getattr(self, key) <= 1, "above 0, up to 1")
        self._check("resize_most", self.resize_most >= self.resize_least, f"at least resize_least, {self.resize_least}")
        self._check("jpeg_quality", 1 <= self.jpeg_quality <= _BEST_JPEG, f"in [1, {_BEST_JPEG}]")
        self._check("shift_px", 0 <= self.shift_px < math.inf, "0 or above")
        self._check("zoom", 0 <= self.zoom < 1, "in [0, 1)")
        self._check("blur_sigma_px", 0 < self.blur_sigma_px < math.inf, "above 0")

    def _check(self, key: str, right: bool, range_in_words: str) -> None:
        if not right:
            raise ConfigError(f"data.augment.{key}: {getattr(self, key)}: must be {range_in_words}")


class Augment:
    """Draws for positions in the run, and changes images as was drawn."""

    def __init__(self, config: AugmentConfig, seed: int) -> None:
        config.validate()
        self.config = config
        self.seed = seed
        self._colors = any((config.brightness, config.contrast, config.saturation, config.hue_deg, config.gray))
        self._warps = any((config.rotation_deg, config.shift_px, config.zoom))

    @property
    def only_flips(self) -> bool:
        """Whether images are at most mirrored."""
        return replace(self.config, flip=AugmentConfig.flip) == AugmentConfig()

    def draw(self, positions: np.ndarray) -> np.ndarray:
        """Return what is to be done to the images at these positions of the run, `PARAMETERS` ``[n]``.

        A pure function of the seed and each position.
        """
        config = self.config
        drawn: np.ndarray = np.zeros(len(positions), PARAMETERS)
        drawn["flip"] = self._happens("flip", config.flip, positions)
        drawn["rotation_rad"] = np.deg2rad(self._around("rotation", 0, config.rotation_deg, positions))
        drawn["zoom"] = self._around("zoom", 1, config.zoom, positions)
        for axis, name in enumerate(("x", "y")):
            drawn["shift_px"][:, axis] = self._around(f"shift_{name}", 0, config.shift_px, positions)
        if self._colors:
            drawn["color"] = self._draw_color(positions)
        blurred = self._happens("blur", config.blur, positions)
        if blurred.any():
            drawn["blur_sigma_px"] = blurred * self._between("blur_sigma", 0, config.blur_sigma_px, positions)
        resized = self._happens("resize", config.resize, positions)
        drawn["resize"] = 1
        if resized.any():
            kept = self._between("resize_share", config.resize_least, config.resize_most, positions)
            drawn["resize"] = np.where(resized, kept, 1)
        compressed = self._happens("jpeg", config.jpeg, positions)
        if compressed.any():
            quality = self._between("jpeg_quality", config.jpeg_quality, _BEST_JPEG + 1, positions)
            drawn["jpeg_quality"] = np.where(compressed, np.floor(quality), 0)
        cropped = self._happens("crop", config.crop, positions)
        if cropped.any():
            area = self._between("crop_area", config.crop_area, 1, positions)
            drawn["crop"] = cropped[:, None] * self._draw_rectangle("crop", area, math.log2(4 / 3), positions)
        occluded = self._happens("occlusion", config.occlusion, positions)
        if occluded.any():
            area = config.occlusion_area * self._between("occlusion_area", 0.1, 1, positions)
            drawn["occlusion"] = occluded[:, None] * self._draw_rectangle("occlusion", area, 1, positions)
            for channel in range(3):
                drawn["occlusion_color"][:, channel] = self._between(f"occlusion_{channel}", 0, 255, positions)
        return drawn

    def apply(self, image: np.ndarray, parameters: np.void, size: "int | None" = None) -> np.ndarray:
        """Return the image, RGB, uint8 ``[size, size, 3]``, changed as was drawn; its own size where none is given.

        A smaller size is made by the warp itself after a Gaussian against aliasing, or by averaging areas where
        nothing warps. The result may be the image itself or a view of it; the image is never written to.
        """
        own = image.shape[:2]
        height, width = own if size is None else (size, size)
        if self._colors:
            image = cv2.transform(image, parameters["color"])
        if parameters["crop"][2] > 0:
            image = _keep(image, parameters)
        if parameters["blur_sigma_px"] > 0:
            image = _gaussian(image, parameters["blur_sigma_px"], parameters["blur_sigma_px"])
        if parameters["resize"] < 1:
            image = _lose_resolution(image, parameters["resize"])
        if parameters["jpeg_quality"] > 0:
            encoded = simplejpeg.encode_jpeg(np.ascontiguousarray(image), int(parameters["jpeg_quality"]), "RGB", "420")
            image = simplejpeg.decode_jpeg(encoded, "RGB")
        if self._warps:
            image = _warp(image, parameters, height, width)
        else:
            if (height, width) != own:
                method = cv2.INTER_AREA if height * width < own[0] * own[1] else cv2.INTER_LINEAR
                image = cv2.resize(image, (width, height), interpolation=method)
            if parameters["flip"]:
                image = image[:, ::-1]
        if parameters["occlusion"][2] > 0:
            image = _occlude(image, parameters)
        return image

    def _draw_color(self, positions: np.ndarray) -> np.ndarray:
        """Return brightness, contrast, saturation and hue as one affine map of the colors, ``[n, 3, 4]``."""
        config = self.config
        brightness = self._around("brightness", 1, config.brightness, positions)
        contrast = self._around("contrast", 1, config.contrast, positions)
        saturation = self._around("saturation", 1, config.saturation, positions)
        turn_rad = np.deg2rad(self._around("hue", 0, config.hue_deg, positions))
        if config.color < 1:
            as_it_is = ~self._happens("color", config.color, positions)
            brightness[as_it_is], contrast[as_it_is], saturation[as_it_is], turn_rad[as_it_is] = 1, 1, 1, 0
        saturation = np.where(self._happens("gray", config.gray, positions), 0, saturation)
        chroma = _times(np.cos(turn_rad), _CHROMA) + _times(np.sin(turn_rad), _CHROMA_TURNED)
        matrix = _times(contrast * brightness, _GRAY + _times(saturation, chroma))
        offset = _times(_MIDDLE * (1 - contrast), np.ones((3, 1)))
        return np.concatenate([matrix, offset], axis=2)

    def _draw_rectangle(self, purpose: str, area: np.ndarray, octaves: float, positions: np.ndarray) -> np.ndarray:
        """Return top, left, height and width as shares of the image, ``[n, 4]``, up to 2^octaves as long as wide."""
        stretch = np.exp2(self._around(f"{purpose}_shape", 0, octaves / 2, positions))
        height = np.minimum(1, np.sqrt(area) * stretch)
        width = np.minimum(1, area / height)
        top = (1 - height) * self._between(f"{purpose}_top", 0, 1, positions)
        left = (1 - width) * self._between(f"{purpose}_left", 0, 1, positions)
        return np.stack([top, left, height, width], axis=1)

    def _happens(self, purpose: str, probability: float, positions: np.ndarray) -> np.ndarray:
        if probability == 0:
            return np.zeros(len(positions), np.bool_)
        return uniform(self.seed, f"augment.{purpose}", positions) < probability

    def _around(self, purpose: str, middle: float, reach: float, positions: np.ndarray) -> np.ndarray:
        if reach == 0:
            return np.full(len(positions), float(middle))
        return self._between(purpose, middle - reach, middle + reach, positions)

    def _between(self, purpose: str, least: float, most: float, positions: np.ndarray) -> np.ndarray:
        return least + (most - least) * uniform(self.seed, f"augment.{purpose}", positions)


def _times(factor: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return factor[:, None, None] * matrix


def _warp(image: np.ndarray, parameters: np.void, height: int, width: int) -> np.ndarray:
    """Return the image flipped, turned, zoomed, shifted and sized to height × width, all in one interpolation."""
    shrink_y, shrink_x = image.shape[0] / height, image.shape[1] / width
    if max(shrink_y, shrink_x) > 1:
        image = _gaussian(image, _antialiasing_sigma(shrink_x), _antialiasing_sigma(shrink_y))
    cos = float(parameters["zoom"]) * math.cos(parameters["rotation_rad"])
    sin = float(parameters["zoom"]) * math.sin(parameters["rotation_rad"])
    mirror = -1 if parameters["flip"] else 1
    # Of coordinates around either image's center, x to the right and y down; pixel 0 has its center at 0.
    matrix = np.array([[cos * mirror, -sin, 0.0], [sin * mirror, cos, 0.0]])
    matrix[:, 2] = parameters["shift_px"] - matrix[:, :2] @ [(image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2]
    matrix /= [[shrink_x], [shrink_y]]
    matrix[:, 2] += [(width - 1) / 2, (height - 1) / 2]
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)


def _antialiasing_sigma(shrink: float) -> float:
    """Return the sigma that widens an input pixel, of variance 1/12, to an output pixel, of variance shrink²/12."""
    return math.sqrt(max(shrink**2 - 1, 0) / 12)


def _gaussian(image: np.ndarray, sigma_x_px: float, sigma_y_px: float) -> np.ndarray:
    return cv2.sepFilter2D(image, -1, _gaussian_kernel(sigma_x_px), _gaussian_kernel(sigma_y_px))


def _gaussian_kernel(sigma_px: float) -> np.ndarray:
    """Return weights of variance sigma²: three below 0.5, where a sampled Gaussian would be narrower than it says."""
    variance = sigma_px**2
    if variance < 0.5:
        return np.array([variance / 2, 1 - variance, variance / 2], np.float32)
    return cv2.getGaussianKernel(2 * math.ceil(3 * sigma_px) + 1, sigma_px, cv2.CV_32F)


def _lose_resolution(image: np.ndarray, share: float) -> np.ndarray:
    """Return the image sized down to that share of its side and up again, without aliasing."""
    height, width = image.shape[:2]
    small = (max(1, round(width * share)), max(1, round(height * share)))
    sigma = _antialiasing_sigma(1 / share)
    image = cv2.resize(_gaussian(image, sigma, sigma), small, interpolation=cv2.INTER_LINEAR)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def _rectangle(shares: np.ndarray, image: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns of a rectangle that is given as top, left, height and width in shares."""
    height, width = image.shape[:2]
    top, left, tall, wide = (shares * [height, width, height, width]).round().astype(int)
    return slice(top, top + tall), slice(left, left + wide)


def _keep(image: np.ndarray, parameters: np.void) -> np.ndarray:
    kept = _rectangle(parameters["crop"], image)
    black = np.zeros_like(image)
    black[kept] = image[kept]
    return black


def _occlude(image: np.ndarray, parameters: np.void) -> np.ndarray:
    image = image.copy()
    image[_rectangle(parameters["occlusion"], image)] = parameters["occlusion_color"]
    return image
