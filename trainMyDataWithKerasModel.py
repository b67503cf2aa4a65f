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
    from imagesieve.learning import cli
    from imagesieve.model import versions

    if options.cache_info or options.clear_cache:
        cli.report_cache(options)
        return 0
    cli.start("train", options)
    plan = cli.plan_training(options)
    dataset = cli.read_data(options)
    if options.check_only:
        cli.report_check(dataset, options)
        return 0
    with cli.open_store(plan) as store:
        trained = cli.train(plan, dataset, store)
        version = cli.save(plan, dataset, trained, store)
    versions.promote(version)
    cli.report(version, trained, options)
    return 0


def _parser() -> argparse.ArgumentParser:
    from imagesieve.learning import options
    from imagesieve.learning.networks.backbones import BACKBONES

    parser = argument_parser("Train a classifier on your class folders.", EXAMPLES)
    add = parser.add_argument
    models = Path("modelFile")
    add("--model-dir", type=Path, default=models, help="where versions go (modelFile)")
    add("--name", default="model", help="first part of the version's name (model)")
    about = f"one of {', '.join(BACKBONES)}; SmallCNN is trained from scratch (InceptionV3)"
    add("--backbone", default="InceptionV3", help=about)
    about = "imagenet (default; downloaded once), random, or a weights file of the backbone"
    add("--weights", default="imagenet", help=about)
    about = "side of the input (the backbone's own)"
    add("--image-size", type=int, metavar="PIXELS", help=about)
    heads = (options.LOGISTIC, options.DENSE)
    about = (
        "logistic: regression that needs neither rate nor epochs (default); dense: 512 units "
        "with dropout, as in the first generation"
    )
    add("--head", choices=heads, default=options.LOGISTIC, help=about)
    rate_help = "peak of a dense head's and of fine-tuning (0.001)"
    options.add_options(parser, epochs=20, learning_rate=1e-3, rate_help=rate_help)
    decisions.add_options(parser, "confident if there is a class neutral, else argmax")
    add("--check-only", action="store_true", help="look at the data, train nothing")
    about = "print what is stored for later trainings, and end"
    add("--cache-info", action="store_true", help=about)
    about = "remove what is stored for later trainings, and end"
    add("--clear-cache", action="store_true", help=about)
    return parser


if __name__ == "__main__":
    run_script(main, sys.argv[1:])
