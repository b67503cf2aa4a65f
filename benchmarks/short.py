"""All benchmarks of learning in a short form, on images that are drawn for it.

    python benchmarks/short.py
    python benchmarks/short.py --out results --backbone InceptionV3 --image-size 299

A check that everything runs, with a first idea of the ratios: the images are few and small and
the weights random, so accuracies mean nothing, and what is there once in a training (loading,
converting, the report) weighs more than it does with more images. Each benchmark's JSON file lies
in the folder --out.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rig import PROJECT, parser

from imagesieve import console
from imagesieve.errors import ClassifierError

NUM_TRAIN, NUM_VALIDATION = 44, 12  # of each of two classes


def main(arguments: Sequence[str]) -> int:
    """Draw, train, and run one benchmark after another."""
    options = parser(__doc__)
    options.add_argument("--out", type=Path, default=Path("demo/out/bench"), help="(%(default)s)")
    options.add_argument("--backbone", default="MobileNetV2", help="(%(default)s)")
    options.add_argument("--image-size", type=int, default=128, metavar="PIXELS", help="(128)")
    chosen = options.parse_args(arguments)
    chosen.out.mkdir(parents=True, exist_ok=True)
    size = ["--image-size", chosen.image_size]
    network = ["--backbone", chosen.backbone, "--weights", "random", *size]
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=chosen.scratch) as scratch:
        data, models = Path(scratch, "data"), Path(scratch, "modelFile")
        drawn = ["--train", NUM_TRAIN, "--validation", NUM_VALIDATION]
        run(PROJECT / "demo" / "draw_images.py", data, *drawn)
        learning = ["--data", data, *network]
        short = ["--first-generation-epochs", 2, "--fine-tune-epochs", 3]
        benchmarks = {
            "training": [*learning, *short],
            "extraction": learning,
            "retraining": learning,
            "engine": ["--model", models, "--data", data],
            "generator": ["--data", data, *size, "--runs", 2],
            "memory": [*network, "--images", "200,400", "--epochs", 5],
        }
        script = PROJECT / "trainMyDataWithKerasModel.py"
        training = ["--model-dir", models, "--epochs", 5, "--quiet"]
        run(script, *learning, *training, folder=Path(scratch))
        for name, how in benchmarks.items():
            print(f"\n== {name}", flush=True)
            out = ["--json", chosen.out.resolve() / f"{name}.json"]
            quiet = ["--quiet"] if chosen.quiet else []
            run(PROJECT / "benchmarks" / f"{name}.py", *how, *out, *quiet)
    print(f"\nAll in {time.perf_counter() - start:.0f} s; the figures lie in {chosen.out}/.")
    return console.EXIT_OK


def run(script: Path, *arguments: object, folder: Path | None = None) -> None:
    """Run one of the project's scripts."""
    command = [sys.executable, str(script), *map(str, arguments)]
    if subprocess.run(command, cwd=folder, check=False).returncode:
        raise ClassifierError(f"{script.name} failed, so the benchmarks end here.")


if __name__ == "__main__":
    console.run_script(main, sys.argv[1:])
