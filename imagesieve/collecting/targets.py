"""What a run shall reach: a class, its queries and its folders; and how the run works."""

import dataclasses
from pathlib import Path

from imagesieve.class_folders import SPLITS, TRAIN, VALIDATION, is_class_folder, split_of
from imagesieve.collecting.bing.queries import Query
from imagesieve.images import DEFAULT_LIMITS, Limits
from imagesieve.web.fetch import FetchSettings

KEEP, JPEG = "keep", "jpg"  # file formats


@dataclasses.dataclass(frozen=True)
class Side:
    """One folder to fill: the class itself, or one side of its split."""

    folder: Path
    limit: int  # good images that it shall have, those of earlier runs included


@dataclasses.dataclass(frozen=True)
class Target:
    """A class to fill."""

    name: str  # as it is shown
    queries: tuple[Query, ...]  # searched in turn, so that each gives its share
    train: Side  # the only folder where there is no split
    validation: Side | None = None  # of the same results; an image's content chooses its side

    @property
    def sides(self) -> tuple[Side, ...]:
        """The folders, that for training first."""
        return (self.train, self.validation) if self.validation else (self.train,)

    @property
    def limit(self) -> int:
        return sum(side.limit for side in self.sides)

    @property
    def validation_fraction(self) -> float:
        return self.validation.limit / self.limit if self.validation else 0.0


@dataclasses.dataclass(frozen=True)
class CollectSettings:
    """How a run works."""

    threads: int = 32  # downloads at the same time
    min_side: int = 64  # pixels that both sides of an image must have
    max_side: int | None = None  # pixels; larger images are scaled down to it
    file_format: str = KEEP
    keeps_near_duplicates: bool = False
    retries_failed: bool = False  # also URLs that failed for good in an earlier run
    follows_robots: bool = True  # leaves out what a host's robots.txt forbids
    fetch: FetchSettings = dataclasses.field(default_factory=FetchSettings)
    max_connections: int = 2  # to one host
    seconds_between_requests: float = 0.1  # to one host
    seconds: float | None = None  # what the whole run may take
    quiet: bool = False  # no progress is shown

    @property
    def limits(self) -> Limits:
        return dataclasses.replace(
            DEFAULT_LIMITS, min_side=self.min_side, max_bytes=self.fetch.max_bytes
        )


def split_target(
    name: str, queries: tuple[Query, ...], output: Path, limit: int, validation_fraction: float
) -> Target:
    """Return a target that fills both sides; the limit, at least 2, is of both together."""
    num_validation = validation_share(limit, validation_fraction)
    train = Side(output / TRAIN / name, limit - num_validation)
    return Target(name, queries, train, Side(output / VALIDATION / name, num_validation))


def validation_share(limit: int, fraction: float) -> int:
    """Return the images for validation among `limit`, so that each side has one if it can."""
    return min(limit - 1, max(1, round(limit * fraction)))


def neighbours(folder: Path) -> list[Path]:
    """Return the other class folders of the data set that `folder` belongs to."""
    if not split_of(folder):
        return []
    data = folder.absolute().parent.parent
    classes = [path for name in SPLITS for path in sorted((data / name).glob("*"))]
    return [path for path in classes if is_class_folder(path) and path != folder.absolute()]
