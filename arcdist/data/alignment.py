"""Five landmarks to the ArcFace template: the similarity transform, and the aligned face."""

import cv2
import numpy as np

from arcdist.data.template import TEMPLATE, TEMPLATE_SIZE_PX


def similarity(landmarks: np.ndarray, template: np.ndarray = TEMPLATE) -> np.ndarray:
    """Return the matrix ``[2, 3]``, float64, that takes the landmarks closest to the template.

    Rotation, one scale and translation with the least sum of squared distances, never a reflection; the matrix is the
    solution of Umeyama, "Least-squares estimation of transformation parameters between two point patterns" (1991),
    equations 40 to 42.

    Args:
        landmarks: ``[n, 2]``, x and y; not all at one place.
        template: ``[n, 2]``.
    """
    center, template_center = landmarks.mean(0), template.mean(0)
    source, target = landmarks - center, template - template_center
    u, singular, vt = np.linalg.svd(target.T @ source)
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = (u * sign) @ vt
    scaled = (singular @ sign) / np.square(source).sum() * rotation
    return np.column_stack([scaled, template_center - scaled @ center])


def align_face(image: np.ndarray, landmarks: np.ndarray, size: int = TEMPLATE_SIZE_PX) -> np.ndarray:
    """Return the face, uint8 ``[size, size, 3]``: bilinear, black beyond the border of the image.

    Args:
        image: uint8 ``[H, W, 3]``.
        landmarks: ``[5, 2]``, in the order of `TEMPLATE`, in pixels of the image.
        size: height and width; the template is scaled from 112.
    """
    matrix = similarity(landmarks, TEMPLATE * (size / TEMPLATE_SIZE_PX))
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=0)
