"""Train a classifier on your class folders.

    python trainMyDataWithKerasModel.py
    python trainMyDataWithKerasModel.py --data data --backbone MobileNetV2 --fine-tune-epochs 5
    python trainMyDataWithKerasModel.py --check-only

Reads data/train/<class>/… (and data/validation/<class>/…), writes a new version to modelFile/.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from imagesieve.console import argument_parser, run_script
from imagesieve.model import decisions

EXAMPLES = """\
  python trainMyDataWithKerasModel.py                          InceptionV3 on data/
  python trainMyDataWithKerasModel.py --check-only             look at data/, train nothing
  python trainMyDataWithKerasModel.py --backbone MobileNetV2   smaller and several times quicker
  python trainMyDataWithKerasModel.py --weights random         where ImageNet weights cannot be had
  python trainMyDataWithKerasModel.py --weights FILE.weights.h5
  python trainMyDataWithKerasModel.py --fine-tune-epochs 10    also train the top blocks
  python trainMyDataWithKerasModel.py --resume                 continue where it was interrupted
  python trainMyDataWithKerasModel.py --cache-info             what is stored for later trainings
"""


def main(arguments: Sequence[str]) -> int:
    """Check, train, measure, save, and make the new version the current one."""
    options = _parser().parse_args(arguments)
    from imagesieve.learning import script
    from imagesieve.model import versions

    if options.cache_info or options.clear_cache:
        script.report_cache(options)
        return 0
    script.start("train", options)
    plan = script.plan_training(options)
    dataset = script.read_data(options)
    if options.check_only:
        script.report_check(dataset, options)
        return 0
    with script.open_store(plan, options) as store:
        trained = script.train(plan, dataset, options, store)
        version = script.save(trained, dataset, plan, options, store)
    versions.promote(version)
    script.report(version, trained, options)
    return 0


def _parser() -> argparse.ArgumentParser:
    from imagesieve.learning import options

    parser = argument_parser("Train a classifier on your class folders.", EXAMPLES)
    parser.add_argument(
        "--model-dir", type=Path, default=Path("modelFile"), help="where versions go (modelFile)"
    )
    parser.add_argument("--name", default="model", help="first part of the version's name (model)")
    parser.add_argument(
        "--backbone",
        default="InceptionV3",
        help="InceptionV3 (default), Xception, ResNeXt50, DenseNet201, DenseNet169, ResNet50V2, "
        "DenseNet121, MobileNetV2, MobileNetV3Large, EfficientNetV2B0, ConvNeXtTiny, or SmallCNN, "
        "a small network trained from scratch",
    )
    parser.add_argument(
        "--weights",
        default="imagenet",
        help="imagenet (default; downloaded once), random, or a weights file of the backbone",
    )
    parser.add_argument(
        "--image-size", type=int, metavar="PIXELS", help="side of the input (the backbone's own)"
    )
    parser.add_argument(
        "--head",
        choices=(options.LOGISTIC, options.DENSE),
        default=options.LOGISTIC,
        help="logistic: regression that needs neither rate nor epochs (default); dense: 512 units "
        "with dropout, as in the first generation",
    )
    options.add_options(
        parser,
        epochs=20,
        learning_rate=1e-3,
        rate_help="peak of a dense head's and of fine-tuning (0.001)",
    )
    decisions.add_options(parser, "confident if there is a class neutral, else argmax")
    parser.add_argument("--check-only", action="store_true", help="look at the data, train nothing")
    parser.add_argument(
        "--cache-info",
        action="store_true",
        help="print what is stored for later trainings, and end",
    )
    parser.add_argument(
        "--clear-cache",
        action="store_true",
        help="remove what is stored for later trainings, and end",
    )
    return parser


if __name__ == "__main__":
    run_script(main, sys.argv[1:])
