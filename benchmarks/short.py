"""All benchmarks of learning in a short form, on images that are drawn for it.

    python benchmarks/short.py
    python benchmarks/short.py --out results --backbone InceptionV3 --image-size 299

A check that everything runs, with a first idea of the ratios: the images are few and small and
the weights random, so accuracies mean nothing, and what is there once in a training (loading,
converting, the report) weighs more than it does with more images. Each benchmark's JSON lies in
the folder --out.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from imagesieve import console  # noqa: E402
from imagesieve.errors import ClassifierError  # noqa: E402

NUM_TRAIN, NUM_VALIDATION = 44, 12  # of each of two classes


def main(arguments: Sequence[str]) -> int:
    """Draw, train, and run one benchmark after another."""
    options = parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
        run_all(Path(scratch), options)
    print(f"\nAll in {time.perf_counter() - start:.0f} s; the figures lie in {options.out}/.")
    return console.EXIT_OK


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    head, _, rest = (__doc__ or "").partition("\n\n")
    examples, _, notes = rest.partition("\n\n")
    parser = console.argument_parser(f"{head}\n\n{notes}", examples)
    parser.add_argument("--out", type=Path, default=Path("demo/out/bench"), help="(%(default)s)")
    parser.add_argument("--backbone", default="MobileNetV2", help="(%(default)s)")
    parser.add_argument("--image-size", type=int, default=128, metavar="PIXELS", help="(128)")
    return parser.parse_args(arguments)


def run_all(scratch: Path, options: argparse.Namespace) -> None:
    """Run one after another; the images are drawn into `scratch`."""
    data = scratch / "data"
    drawn = ["--train", NUM_TRAIN, "--validation", NUM_VALIDATION]
    run(PROJECT / "demo" / "draw_images.py", data, *drawn)
    size = ["--image-size", options.image_size]
    network = ["--backbone", options.backbone, "--weights", "random", *size]
    learning = ["--data", data, *network]
    short = ["--first-generation-epochs", 2, "--fine-tune-epochs", 3]
    benchmark("training", options, *learning, *short)
    benchmark("extraction", options, *learning)
    benchmark("retraining", options, *learning)
    models = scratch / "modelFile"
    script = PROJECT / "trainMyDataWithKerasModel.py"
    run(script, *learning, "--model-dir", models, "--epochs", 5, "--quiet", folder=scratch)
    benchmark("engine", options, "--model", models, "--data", data)
    benchmark("generator", options, "--data", data, *size, "--runs", 2)
    benchmark("memory", options, *network, "--images", "200,400", "--epochs", 5)


def benchmark(name: str, options: argparse.Namespace, *arguments: object) -> None:
    """Run a benchmark, and keep its figures in a file of its name."""
    print(f"\n== {name}", flush=True)
    out = options.out.resolve() / f"{name}.json"
    quiet = ["--quiet"] if options.quiet else []
    run(PROJECT / "benchmarks" / f"{name}.py", *arguments, "--json", out, *quiet)


def run(script: Path, *arguments: object, folder: Path | None = None) -> None:
    """Run one of the project's scripts.

    Raises:
        ClassifierError: it failed; it has said why.
    """
    command = [sys.executable, str(script), *map(str, arguments)]
    if subprocess.run(command, cwd=folder, check=False).returncode:
        raise ClassifierError(f"{script.name} failed, so the benchmarks end here.")


if __name__ == "__main__":
    console.run_script(main, sys.argv[1:])
