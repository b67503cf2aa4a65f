"""Class folders for tests: images to add, and runs as `run` starts them."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from data_folders import draw_scene
from painted import encode
from PIL import Image

from imagesieve import images
from imagesieve.collecting.bing.queries import Query
from imagesieve.collecting.bing.result_page import SearchResult
from imagesieve.collecting.class_folder import (
    Candidate,
    ClassFolder,
    Destination,
    NotPlaced,
    validate,
)
from imagesieve.collecting.journal import DUPLICATE, KEPT, History, Journal
from imagesieve.collecting.targets import CollectSettings, Side, Target, split_target
from imagesieve.images import fingerprints

LIMITS = images.Limits(min_side=16)
MANY = 1_000_000


def photo(seed: int, width: int = 240) -> Image.Image:
    """Return an image of soft blots that no other seed gives, in the shape 4 to 3."""
    return draw_scene(seed, (width, width * 3 // 4))


def real(seed: int, width: int = 240, image_format: str = "JPEG", **options: int) -> Candidate:
    return validate(encode(photo(seed, width), image_format, **options), LIMITS)


def made_up(number: int) -> Candidate:
    """Return a candidate in no time: a file that is what the journal says is not decoded."""
    data = f"image {number}".encode()
    digest = hashlib.sha256(data).hexdigest()
    fingerprint = np.random.default_rng(number).bytes(fingerprints.NUM_BYTES - 1) + b"\xff"
    return Candidate(data, digest, "JPEG", 100, 80, fingerprint)


def one_folder(folder: Path, limit: int = MANY) -> Target:
    return Target("x", (Query("x"),), Side(folder, limit))


def split(output: Path, limit: int = MANY, fraction: float = 0.2, name: str = "x") -> Target:
    return split_target(name, (Query(name),), output, limit, fraction)


class Run:
    """A run as `collect` starts it, into which a test puts images by hand."""

    def __init__(self, target: Target, journals: dict[Path, Journal], **options: object) -> None:
        self.folder = folder = ClassFolder(target, **{"limits": LIMITS, **options})
        self.history = History(target, CollectSettings(), journals, folder.has, folder.has_anywhere)

    def note(self, candidate: Candidate) -> Destination | NotPlaced:
        """Place an image and write its line, but not its file."""
        placed = self.folder.place(candidate)
        result = SearchResult(f"http://h/{candidate.sha256}", query="x")
        fields = candidate.journal_fields()
        if isinstance(placed, NotPlaced):
            twin = placed.twin and placed.twin.sha256
            self.history.add(result, DUPLICATE, **fields, reason=placed.reason, same_as=twin)
            return placed
        fields |= {
            "path": placed.path.name,
            "replaces": placed.replaces and placed.replaces.path.name,
        }
        self.history.add(result, KEPT, folder=placed.path.parent, **fields)
        return placed

    def keep(self, candidate: Candidate) -> Destination | NotPlaced:
        """Place an image, and write it unless it is refused."""
        placed = self.note(candidate)
        if isinstance(placed, Destination):
            self.folder.write(candidate, placed, lambda: None)
        return placed


Start = Callable[..., Run]


def folder_of(decision: Destination | NotPlaced) -> Path:
    return decision.path.parent


def reason_of(decision: Destination | NotPlaced) -> str:
    return decision.reason


def images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def names_in(folder: Path) -> set[str]:
    return {path.name for path in images_in(folder)}
