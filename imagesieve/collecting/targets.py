"""What a run shall reach: a class, its queries and its folders; and how the run works."""

import dataclasses
from pathlib import Path

from imagesieve.class_folders import is_class_folder
from imagesieve.collecting.bing.queries import Query
from imagesieve.collecting.candidates import KEEP
from imagesieve.collecting.politeness import PolitenessSettings
from imagesieve.images import DEFAULT_LIMITS, Limits
from imagesieve.web.fetch import FetchSettings

TRAIN = "train"
VALIDATION = "validation"
SPLITS = (TRAIN, VALIDATION, "test")


@dataclasses.dataclass(frozen=True)
class Side:
    """One folder to fill: the class itself, or one side of its split.

    Attributes:
        folder: where the images go.
        limit: good images that it shall have, those of earlier runs included.
    """

    folder: Path
    limit: int


@dataclasses.dataclass(frozen=True)
class Target:
    """A class to fill.

    Attributes:
        name: the class, as it is shown.
        queries: searched in turn, so that each gives its share.
        train: the folder; the only one where there is no split.
        validation: filled from the same results; the content of an image chooses its side.
    """

    name: str
    queries: tuple[Query, ...]
    train: Side
    validation: Side | None = None

    @property
    def sides(self) -> tuple[Side, ...]:
        """The folders, that for training first."""
        return (self.train, self.validation) if self.validation else (self.train,)

    @property
    def limit(self) -> int:
        """Good images in all."""
        return sum(side.limit for side in self.sides)

    @property
    def validation_fraction(self) -> float:
        """The part of `limit` that is for validation, 0 to 1."""
        return self.validation.limit / self.limit if self.validation else 0.0


@dataclasses.dataclass(frozen=True)
class CollectSettings:
    """How a run works.

    Attributes:
        threads: downloads at the same time.
        min_side: pixels that both sides of an image must have.
        max_side: larger images are scaled down to it, in pixels; None keeps their size.
        file_format: one of `candidates.FILE_FORMATS`.
        keeps_near_duplicates: keep images that are nearly the same.
        retries_failed: try URLs again that failed for good in an earlier run.
        follows_robots: leave out what a host's robots.txt forbids.
        attempts: how often one image is requested while the failure may pass.
        fetch: what one download may cost.
        politeness: what one host has to bear.
        seconds: what the whole run may take, or None.
        quiet: show no progress.
    """

    threads: int = 32
    min_side: int = 64
    max_side: int | None = None
    file_format: str = KEEP
    keeps_near_duplicates: bool = False
    retries_failed: bool = False
    follows_robots: bool = True
    attempts: int = 3
    fetch: FetchSettings = dataclasses.field(default_factory=FetchSettings)
    politeness: PolitenessSettings = dataclasses.field(default_factory=PolitenessSettings)
    seconds: float | None = None
    quiet: bool = False

    @property
    def limits(self) -> Limits:
        """The caps that an image must keep to."""
        return dataclasses.replace(
            DEFAULT_LIMITS, min_side=self.min_side, max_bytes=self.fetch.max_bytes
        )


def split_target(
    name: str, queries: tuple[Query, ...], output: Path, limit: int, validation_fraction: float
) -> Target:
    """Return a target that fills `output/train/name` and `output/validation/name`.

    Args:
        limit: of both sides together, at least 2.
        validation_fraction: over 0 and under 1, of `limit`.
    """
    num_validation = min(limit - 1, max(1, round(limit * validation_fraction)))
    return Target(
        name,
        queries,
        train=Side(output / TRAIN / name, limit - num_validation),
        validation=Side(output / VALIDATION / name, num_validation),
    )


def split_of(folder: Path) -> str:
    """Return the split that a class folder belongs to, or "" outside a data set.

    A data set is recognised by its splits: `<data>/<split>/<class>`.
    """
    name = folder.absolute().parent.name
    return name if name in SPLITS else ""


def neighbours(folder: Path) -> list[Path]:
    """Return the other class folders of the data set that `folder` belongs to."""
    if not split_of(folder):
        return []
    data = folder.absolute().parent.parent
    classes = [path for name in SPLITS for path in sorted((data / name).glob("*"))]
    return [path for path in classes if is_class_folder(path) and path != folder.absolute()]
