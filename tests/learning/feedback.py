"""Corrections as a former release of the service left them: images, and a journal."""

import hashlib
import io
import json
from pathlib import Path

from painted import encode
from PIL import Image


class Feedback:
    """A folder of corrections, each recorded a second after the one before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = folder / ".feedback.jsonl"
        self._seconds = 0
        folder.mkdir(parents=True, exist_ok=True)

    def correct(self, sent: bytes, label: str, predicted: str | None = None) -> Path:
        """Store an image under its right class; return the file."""
        path = self.store(sent, label)
        self.note("correct", sent, label, predicted)
        return path

    def store(self, sent: bytes, label: str) -> Path:
        """Store an image that is not in the journal."""
        path = self.folder / label / f"{hashlib.sha256(sent).hexdigest()[:16]}.jpg"
        path.parent.mkdir(exist_ok=True)
        with Image.open(io.BytesIO(sent)) as image:
            image = image.convert("RGB")
            image.thumbnail((1024, 1024))
            path.write_bytes(encode(image, quality=95))
        return path

    def note(
        self, action: str, sent: bytes, label: str | None = None, predicted: str | None = None
    ) -> None:
        """Write a line of the journal; `label` is the class in force from then on."""
        self._seconds += 1
        sha256 = hashlib.sha256(sent).hexdigest()
        line = {
            "time": f"2026-11-01T12:00:{self._seconds:02}+00:00",
            "action": action,
            "sha256": sha256,
            "label": label,
            "stored": f"{label}/{sha256[:16]}.jpg" if label else None,
            "predicted": {"label": predicted, "probability": 0.6, "decision": predicted}
            if predicted
            else None,
            "model": None,
            "reason": "sent",
            "reviewer": None,
            "caller": None,
            "note": None,
        }
        with open(self.journal, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
