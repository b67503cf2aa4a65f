"""What a run shall reach: one class, its searches, and the folders that they fill."""

import dataclasses
from pathlib import Path

from imagesieve.collecting.bing.queries import Query

TRAIN = "train"
VALIDATION = "validation"
SPLITS = (TRAIN, VALIDATION, "test")


@dataclasses.dataclass(frozen=True)
class Side:
    """One folder to fill.

    Attributes:
        folder: where the images go.
        limit: good images that it shall hold, those of earlier runs included.
    """

    folder: Path
    limit: int


@dataclasses.dataclass(frozen=True)
class Target:
    """What is wanted of one class.

    Attributes:
        name: the class, as people are told of it.
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
        """Good images wanted in all."""
        return sum(side.limit for side in self.sides)

    @property
    def validation_fraction(self) -> float:
        """The part of `limit` that is for validation, 0 to 1."""
        return self.validation.limit / self.limit if self.validation else 0.0


def split_target(
    name: str, queries: tuple[Query, ...], output: Path, limit: int, validation_fraction: float
) -> Target:
    """Give a target that fills `output/train/name` and `output/validation/name`.

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


def neighbours(folder: Path) -> list[Path]:
    """Give the other class folders of the data set that `folder` belongs to.

    A data set is recognised by its splits: `<data>/<split>/<class>`; any other folder stands alone.
    """
    split = folder.absolute().parent
    if split.name not in SPLITS:
        return []
    classes = [path for name in SPLITS for path in sorted((split.parent / name).glob("*"))]
    shown = [path for path in classes if path.is_dir() and not path.name.startswith(".")]
    return [path for path in shown if path != folder.absolute()]
