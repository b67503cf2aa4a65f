"""Train a model version further, on the old pictures and the new ones.

    python reTrainMyDataWithKerasModel.py
    python reTrainMyDataWithKerasModel.py --learning-rate 1e-3

Old and new model judge the same validation pictures; the new one goes into use only if it is not
worse.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from classifier.console import argument_parser, run_script

EXAMPLES = """\
  python reTrainMyDataWithKerasModel.py                        the current version, on data/
  python reTrainMyDataWithKerasModel.py --learning-rate 1e-3   new pictures unlike the old ones
  python reTrainMyDataWithKerasModel.py --model modelFile/model-20260101-120000
  python reTrainMyDataWithKerasModel.py --force-promote        use the new version whatever it does

Put the new pictures beside the old ones (data/train/<class>/), so that nothing is forgotten. A new
class folder becomes a new class.
"""


def main(arguments: Sequence[str]) -> int:
    """Check, train further, compare, save, and use the new version if it is not worse."""
    options = _parser().parse_args(arguments)
    from classifier.learning import training_script as script

    script.start("retrain", options)
    old, plan = script.plan_retraining(options)
    dataset = script.read_data(options)
    trained = script.train_further(old, plan, dataset, options)
    version = script.save(trained, dataset, plan, options, parent=old)
    promoted = script.promote_if_not_worse(version, old, trained, options)
    script.report(version, trained, options, promoted=promoted)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(
        "Train a model version further, on the old pictures and the new ones.", EXAMPLES
    )
    parser.add_argument(
        "--model",
        type=Path,
        default=Path("modelFile"),
        help="a model folder (its current version) or one version (modelFile)",
    )
    parser.add_argument("--data", type=Path, default=Path("data"), help="data folder (data)")
    parser.add_argument(
        "--learning-rate",
        type=float,
        default=1e-4,
        help="1e-4 (default) for pictures close to the old ones, 1e-3 for new and important ones",
    )
    parser.add_argument("--epochs", type=int, default=10, help="at most; it stops by itself (10)")
    parser.add_argument(
        "--fine-tune-epochs",
        type=int,
        default=0,
        metavar="N",
        help="train the backbone's top blocks too, at most N epochs (0)",
    )
    parser.add_argument("--batch-size", type=int, default=32, help="pictures in a step (32)")
    parser.add_argument(
        "--views", type=int, default=2, help="1 shows pictures as they are, more adds variants (2)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything random (0)")
    parser.add_argument(
        "--force-promote", action="store_true", help="use the new version even if it is worse"
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    return parser


if __name__ == "__main__":
    run_script(main, sys.argv[1:])
