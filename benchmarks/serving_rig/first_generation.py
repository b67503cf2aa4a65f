"""The service of the first generation, re-written for Keras 3.

    python first_generation.py MODEL.keras PORT CLASS...

Flask's own server with one thread; a form field with Base64; Pillow decodes and resizes the whole
image; `model.predict` for each request. Its JSON and its texts are those of then.

What differs: the model takes pixels from 0 to 255 as ours does, so nothing is divided; an answer
below 0.75 is `neutral` as it was meant, and not every answer below 1; no line is logged for each
request.
"""

import base64
import io
import json
import logging
import sys
from collections.abc import Sequence
from typing import Any

PATH = "/image/detection"
FIELD = "imageBase64String"

_UNSURE_BELOW = 0.75
_FALLBACK = "neutral"


def main(model_path: str, port: int, classes: Sequence[str]) -> None:
    """Load the model and serve it until the process is ended."""
    import flask
    import keras

    model = keras.saving.load_model(model_path, compile=False, safe_mode=True)
    app = flask.Flask(__name__)

    @app.get("/helloWorld")
    def hello() -> str:
        return "Hello World!"

    @app.post(PATH)
    def detect() -> str:
        text = flask.request.values.get(FIELD)
        return detected(model, classes, text)

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app.run("127.0.0.1", port, threaded=False)


def detected(model: Any, classes: Sequence[str], text: str | None) -> str:
    """Return the answer to a form field: Base64, perhaps behind `data:...,`, or None."""
    if not text:
        return json.dumps({"code": "98", "message": "缺少必要传入参数"})
    try:
        pixels = read(base64.b64decode(text.rpartition(",")[2]), *model.input_shape[1:3])
        probabilities = model.predict(pixels, verbose=0)[0]
    except Exception as error:  # so it was
        return json.dumps({"code": "98", "message": f"图片检测失败，原因是：{error}"})
    best = int(probabilities.argmax())
    probability = float(probabilities[best])
    name = classes[best] if probability >= _UNSURE_BELOW else _FALLBACK
    answer = {"code": "00", "message": f"图片检测成功，类别是：{name}"}
    return json.dumps({**answer, "predictedClass": name, "probability": str(probability)})


def read(encoded: bytes, height: int, width: int) -> Any:
    """Return (1, height, width, 3) float32, 0 to 255, as Keras's `load_img` would."""
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(encoded)) as image:
        resized = image.convert("RGB").resize((width, height), Image.Resampling.NEAREST)
    return np.asarray(resized, np.float32)[np.newaxis]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
