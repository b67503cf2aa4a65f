"""Train a model version further, on the old images, the new ones, and what people corrected.

    python reTrainMyDataWithKerasModel.py
    python reTrainMyDataWithKerasModel.py --learning-rate 1e-3

Old and new model are measured on the same validation images; the new one goes into use only if it
is not worse.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from imagesieve.console import argument_parser, run_script

EXAMPLES = """\
  python reTrainMyDataWithKerasModel.py                        the current version, on data/
  python reTrainMyDataWithKerasModel.py --learning-rate 1e-3   new images unlike the old ones
  python reTrainMyDataWithKerasModel.py --model modelFile/model-20260101-120000
  python reTrainMyDataWithKerasModel.py --force-promote        use the new version whatever it does

Put the new images beside the old ones (data/train/<class>/), so that nothing is forgotten; only
the new ones go through the network. A new class folder becomes a new class. What people corrected
in the service (data/feedback/<class>/) is taken in by itself.
"""


def main(arguments: Sequence[str]) -> int:
    """Check, train further, compare, save, and use the new version if it is not worse."""
    options = _parser().parse_args(arguments)
    from imagesieve.learning import cli
    from imagesieve.model import versions

    cli.start("retrain", options)
    old = versions.load(options.model)
    plan = cli.plan_retraining(options, old)
    dataset = cli.read_data(options)
    with cli.open_store(plan) as store:
        trained = cli.train(plan, dataset, store)
        version = cli.save(plan, dataset, trained, store)
    promoted = cli.promote_if_not_worse(version, old, trained, force=options.force_promote)
    cli.report(version, trained, options, promoted=promoted)
    return 0


def _parser() -> argparse.ArgumentParser:
    from imagesieve.learning import options

    about = "Train a model version further, on the old images and the new ones."
    parser = argument_parser(about, EXAMPLES)
    add = parser.add_argument
    about = "a model folder (its current version) or one version (modelFile)"
    add("--model", type=Path, default=Path("modelFile"), help=about)
    about = "1e-4 (default) for images close to the old ones, 1e-3 for new and important ones"
    options.add_options(parser, epochs=10, learning_rate=1e-4, rate_help=about)
    add("--force-promote", action="store_true", help="use the new version even if it is worse")
    return parser


if __name__ == "__main__":
    run_script(main, sys.argv[1:])
