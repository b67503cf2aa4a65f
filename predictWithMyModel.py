"""Predict images with a trained model, from the command line or from another program.

    python predictWithMyModel.py image.jpg
    python predictWithMyModel.py folder/ --csv result.csv --sort-into sorted/
    find . -name '*.jpg' | python predictWithMyModel.py - --json

From Python:

    from predictWithMyModel import predictWithImageBase64, predictWithImagePath
    class_name, probability = predictWithImagePath("image.jpg")
    code, message, class_name, probability = predictWithImageBase64(text)
"""

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imagesieve import console, logs
from imagesieve.errors import ClassifierError
from imagesieve.model import ENGINES, PRECISIONS, decisions

if TYPE_CHECKING:
    from imagesieve.prediction.predictor import Predictor

EXAMPLES = """\
  python predictWithMyModel.py image.jpg other.png
  python predictWithMyModel.py folder/ --csv result.csv
  python predictWithMyModel.py folder/ --sort-into sorted/      copies into sorted/<class>/
  find . -name '*.jpg' | python predictWithMyModel.py - --json  one JSON object a line
  python predictWithMyModel.py folder/ --decision confident --min-confidence 0.9
"""

# Importing programs may run anywhere: their model lies beside this file.
MODEL_FOLDER = Path(__file__).resolve().parent / "modelFile"


def predictWithImagePath(path: str | Path) -> tuple[str, float]:
    """Predict an image file with the current model of `modelFile/` beside this script.

    Returns:
        the class name (under the model's decision policy) and the best class's probability, 0 to 1.

    Raises:
        ImageError: the image cannot be used.
        ModelError: there is no usable model.
    """
    predictor = _predictor()
    prediction = predictor.predict(predictor.decode(path))
    return prediction.decision, prediction.probability


def predictWithImageBase64(text: str) -> tuple[str, str, str, float]:
    """Predict a Base64 image, perhaps a `data:` URL, as the first generation did: never raise.

    Returns:
        code (`00` or `98`), message, class name and probability; `""` and 0.0 after a failure.
    """
    from imagesieve.serving.requests import decode_base64
    from imagesieve.serving.routes import legacy

    if not text:
        return legacy.FAILURE, legacy.MISSING_TEXT, "", 0.0
    try:
        predictor = _predictor()
        prediction = predictor.predict(predictor.decode(decode_base64(text)))
    except ClassifierError as error:
        return legacy.FAILURE, legacy.FAILURE_TEXT.format(error), "", 0.0
    label = legacy.legacy_decision(prediction, predictor.policy)
    return legacy.SUCCESS, legacy.SUCCESS_TEXT.format(label), label, prediction.probability


def main(arguments: Sequence[str]) -> int:
    """Predict every image, print the results, and fail only if no image could be used."""
    options = _parser().parse_args(arguments)
    policy = decisions.from_options(options)
    logs.start_logging("predict", quiet=options.quiet)
    from imagesieve.prediction import files
    from imagesieve.prediction.predictor import Predictor

    predictor = Predictor.load(
        options.model, engine=options.engine, precision=options.precision, policy=policy
    )
    counts = files.predict(predictor, options, sys.stdin)
    if not options.quiet:
        print(files.describe(counts), file=sys.stderr)
    return console.EXIT_OK if counts.keys() - {None} else console.EXIT_FAILED


def _parser() -> argparse.ArgumentParser:

    parser = console.argument_parser("Predict images with a trained model.", EXAMPLES)
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="files, folders, or - for a list on stdin")
    about = "a model version, or a folder of versions, whose current one is taken (modelFile)"
    add("--model", type=Path, default=Path("modelFile"), metavar="FOLDER", help=about)
    add("--engine", choices=ENGINES, default="auto", help="what runs the model (auto)")
    add("--precision", choices=PRECISIONS, default="auto", help="of its arithmetic (auto)")
    add("--json", action="store_true", help="print one JSON object a line")
    add("--csv", type=Path, metavar="FILE", help="also write the answers to a CSV file")
    add("--sort-into", type=Path, metavar="DIR", help="also copy each image to DIR/<decision>/")
    decisions.add_options(parser)
    return parser


@functools.cache
def _predictor() -> "Predictor":
    from imagesieve.prediction.predictor import Predictor

    return Predictor.load(MODEL_FOLDER)


if __name__ == "__main__":
    console.run_script(main, sys.argv[1:])
