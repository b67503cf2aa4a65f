"""Explains images for the service, in a process of its own: so only this one loads TensorFlow.

    python -m imagesieve.explaining.worker <path of a model version>

Requests come on standard input and answers leave on standard output, one for each request. Both are
messages: four bytes of length, big-endian, then one line of JSON, then raw bytes.

    request  {"digest": of the version, "class_index": number, "size": [width, height] of the PNG}
             and the pixels, (height, width, 3) uint8, RGB, of the model's size
    answer   {"status": "ok"} and a PNG,
             or {"status": "unavailable" | "failed", "detail": text} and nothing else: such a model
             cannot be explained at all, or it went wrong this time

The process ends when standard input does, at once and whatever it is doing: it must not outlive the
service.
"""

import contextlib
import functools
import io
import json
import os
import queue
import struct
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from imagesieve.errors import ClassifierError, ModelDamagedError, UsageError
from imagesieve.model import versions

if TYPE_CHECKING:
    from imagesieve.explaining.grad_cam import GradCam

_NICENESS = 5
_OOM_SCORE = "500"  # of 1000, where memory runs out
_LENGTH = struct.Struct(">I")


def main(arguments: list[str]) -> None:
    """Answer requests until standard input ends."""
    (path,) = map(Path, arguments)
    answers = _take_standard_output()
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, requests), daemon=True).start()
    _step_back()
    while True:
        answer = _answer(path, requests.get())
        answers.write(_LENGTH.pack(len(answer)) + answer)
        answers.flush()


def _step_back() -> None:
    """Let predictions go first, and let the system end this process before it ends the service."""
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    with contextlib.suppress(OSError):  # another system than Linux
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)


def _take_standard_output() -> BinaryIO:
    """Return standard output; what libraries print from now on goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def _read(source: BinaryIO, requests: "queue.SimpleQueue[bytes]") -> None:
    """Queue requests; end the process with the last one, even in the middle of TensorFlow."""
    while len(head := source.read(_LENGTH.size)) == _LENGTH.size:
        (length,) = _LENGTH.unpack(head)
        message = source.read(length)
        if len(message) < length:
            break
        requests.put(message)
    os._exit(0)


def _answer(path: Path, request: bytes) -> bytes:
    try:
        return _message({"status": "ok"}, _explain(path, request))
    except UsageError as error:
        return _message({"status": "unavailable", "detail": str(error)})
    except Exception as error:  # Keras raises whatever its layers raise; the next request may work
        traceback.print_exc()
        detail = str(error) if isinstance(error, ClassifierError) else repr(error)
        return _message({"status": "failed", "detail": detail})


def _message(value: dict[str, str], data: bytes = b"") -> bytes:
    return json.dumps(value).encode() + b"\n" + data


def _explain(path: Path, request: bytes) -> bytes:
    line, _, raw = request.partition(b"\n")
    asked: dict[str, Any] = json.loads(line)
    version, network = _open(path, asked["digest"])
    pixels = np.frombuffer(raw, np.uint8).reshape(*version.manifest.image_size, 3)

    from imagesieve.explaining import grad_cam

    width, height = asked["size"]
    heat = network.heat_map(pixels, asked["class_index"])
    buffer = io.BytesIO()
    grad_cam.overlay(pixels, heat, (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


@functools.cache
def _open(path: Path, digest: str) -> "tuple[versions.ModelVersion, GradCam]":
    """Load a version; TensorFlow, which takes seconds, comes after every check."""
    version = versions.load(path)
    if version.digest != digest:
        raise ModelDamagedError(
            f"The model version {path} is not the one that is served: it was replaced meanwhile."
        )

    from imagesieve.explaining import grad_cam

    return version, grad_cam.load(version)


if __name__ == "__main__":
    main(sys.argv[1:])
