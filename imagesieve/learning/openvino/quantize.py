"""An OpenVINO model in single precision -> the same in int8, calibrated on training images.

Weights become int8 without looking at an image; for what flows between the layers, the range of
values has to be seen first, on images that are like those to come. Whether the result is any good
is measured by `precision_check`.
"""

import collections
import contextlib
import io
import itertools
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imagesieve.errors import EngineError
from imagesieve.learning.data.dataset import Sample
from imagesieve.model import engines

# 300 would cost three times as much, and bring the logits of MobileNetV2 from 0.27 to 0.24 of those
# in single precision (root mean square): no label changes.
NUM_CALIBRATION_IMAGES = 100


def calibration_samples(samples: Sequence[Sample]) -> list[Sample]:
    """Return training samples evenly over the classes, chosen by content alone."""
    by_class = collections.defaultdict(list)
    for sample in sorted(samples, key=lambda sample: sample.sha256):
        by_class[sample.class_index].append(sample)
    # The first of each class, then the second of each.
    turns = itertools.chain(*itertools.zip_longest(*by_class.values()))
    return [sample for sample in turns if sample][:NUM_CALIBRATION_IMAGES]


def quantise(xml: Path, images: Sequence[np.ndarray], target: Path) -> None:
    """Write the int8 form of an IR in single precision, `target` and its `.bin`.

    It is calibrated on images of the model's size, (height, width, 3), RGB, 0 to 255. An
    EngineError is raised if NNCF is not installed, or cannot quantise this network.
    """
    openvino = engines.import_openvino()  # before NNCF, which else loads the telemetry
    try:
        import nncf
    except ImportError as error:
        raise EngineError("NNCF is not installed: run `pip install nncf`.") from error
    # Its own handler writes to standard output; what goes wrong belongs into the log.
    logger = logging.getLogger("nncf")
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.WARNING)
    # NNCF draws its progress bars on standard output, which is for data.
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            quantised = nncf.quantize(
                openvino.Core().read_model(xml),
                nncf.Dataset(images, lambda image: image[np.newaxis].astype(np.float32)),
                subset_size=len(images),
            )
        except Exception as error:  # NNCF raises whatever OpenVINO and its own parts raise
            reason = f"{type(error).__name__}: {error}"
            raise EngineError(f"NNCF cannot quantise it: {reason}") from error
    openvino.save_model(quantised, target, compress_to_fp16=False)
