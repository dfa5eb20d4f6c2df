"""The five points of a face to which all images are aligned: insightface's template of 112 × 112 pixels."""

import numpy as np

TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Left eye, right eye, nose, left and right mouth corner (as seen in the image), float64 ``[5, 2]``, x and y in pixels
(insightface ``utils/face_align.py``, ``arcface_dst``)."""
TEMPLATE_SIZE_PX = 112
