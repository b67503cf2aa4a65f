"""The demo, from nothing to a running service.

    python demo/run.py --port 8133

Draws sample images, checks them, trains InceptionV3 on them, and serves the model. A second run
finds images and model where the first left them, in demo/out/.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))  # run as a script, only demo/ is on the path

from draw_images import draw_data_folder  # noqa: E402

from imagesieve import console, logs  # noqa: E402
from imagesieve.errors import ClassifierError, ModelNotFoundError, WeightsError  # noqa: E402
from imagesieve.learning.options import FEEDBACK  # noqa: E402
from imagesieve.model import versions  # noqa: E402
from imagesieve.serving.server import listen  # noqa: E402

BACKBONE = "InceptionV3"
TRAIN_IMAGES, VALIDATION_IMAGES = 250, 50  # of each class
WORK = Path("demo", "out")
DATA, MODELS = WORK / "data", WORK / "modelFile"


def main(arguments: Sequence[str]) -> NoReturn:
    """Run the demo until the service is stopped."""
    parser = console.argument_parser("Run the demo.", "  python demo/run.py --port 8133")
    parser.add_argument("--port", type=int, default=8133, help="of the service (8133)")
    options = parser.parse_args(arguments)
    os.chdir(PROJECT)
    listen("127.0.0.1", options.port).close()  # a port that is taken must show before the training
    logs.start_logging("demo")
    print(f"\n== 1. Sample images in {DATA}/", flush=True)
    draw_data_folder(DATA, num_train=TRAIN_IMAGES, num_validation=VALIDATION_IMAGES, seed=0)
    print("\n== 2. Check", flush=True)
    train("--check-only")
    print(f"\n== 3. Train {BACKBONE}", flush=True)
    train_unless_done()
    print("\n== 4. Serve", flush=True)
    serve(options.port)


def train_unless_done() -> None:
    """Train on the sample images, or find the model that an earlier run made of them."""
    if version := find_trained():
        accuracy = version.manifest.metrics["accuracy"]
        print(f"{version.path} is there already: validation accuracy {100 * accuracy:.1f} %.")
        print(f"(Delete {WORK}/ to start anew.)")
    else:
        train("--model-dir", MODELS, "--backbone", BACKBONE, "--weights", choose_weights())


def find_trained() -> versions.ModelVersion | None:
    """Return the current model if it was trained on these images, or further since then."""
    from imagesieve.learning.data.dataset import read_dataset

    try:
        version = versions.load(MODELS)
    except ModelNotFoundError:
        return None
    is_same = version.manifest.data["fingerprint"] == read_dataset(DATA).digest()
    return version if is_same or version.manifest.parent else None


def choose_weights() -> str:
    """Return `imagenet` if the weights can be downloaded; else say so and return `random`."""
    from imagesieve.learning.networks import backbones, weights

    try:
        with logs.native_messages_in_log():
            import keras  # noqa: F401 (now, while its greetings go to the log)
        weights.find_weights(backbones.find(BACKBONE), "imagenet")
    except WeightsError as error:
        print(f"{error}\nThe demo goes on with --weights random.", flush=True)
        return "random"
    return "imagenet"


def serve(port: int) -> NoReturn:
    """Become the service; two lines to try come first."""
    for name in ("menu", "not-menu"):
        image = min((DATA / "validation" / name).glob("*.jpg"))
        print(f"Try: curl --data-binary @{image} http://127.0.0.1:{port}/v1/predict")
    print(f"The page: http://127.0.0.1:{port}/   (Ctrl-C ends the demo)", flush=True)
    # Corrections lie with the data, where a retraining of the demo's model finds them.
    options = ["main.py", "--model", MODELS, "--port", port, "--feedback", DATA / FEEDBACK]
    os.execv(sys.executable, [sys.executable, *map(str, options)])  # noqa: S606 (Ctrl-C reaches it)


def train(*arguments: str | Path) -> None:
    """Run the training script on the sample images; raise ClassifierError if it fails."""
    script = "trainMyDataWithKerasModel.py"
    command = [sys.executable, script, "--data", str(DATA), *map(str, arguments)]
    if subprocess.run(command, check=False).returncode:  # noqa: S603 (our own script)
        raise ClassifierError(f"{script} failed, so the demo ends here.")


if __name__ == "__main__":
    console.run_script(main, sys.argv[1:])
