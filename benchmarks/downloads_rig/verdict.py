"""What a downloader left on disk, held against what the hosts had sent."""

import collections
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# What a downloader writes for itself beside the images.
_RECORDS = frozenset({".jsonl", ".json", ".csv", ".txt", ".lock", ".log"})


@dataclasses.dataclass(frozen=True)
class Kept:
    """One file: its digest and its ending, in lower case and without the dot."""

    sha256: str
    ending: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of each link.

    Attributes:
        cells: name of the link -> a word of `WORDS`.
        num_bad_kept: bad links whose file is there, and files that no host had sent whole.
        num_good_lost: good links without a file.
        num_wrong_endings: good ones under a name that does not fit.
        num_repeated: files whose bytes another file has already.
    """

    cells: dict[str, str]
    num_bad_kept: int
    num_good_lost: int
    num_wrong_endings: int
    num_repeated: int


KEPT, LOST, LOST_UNASKED, UNASKED = "KEPT", "LOST", "UNASKED", "unasked"
WRONG_ENDING, RIGHT = "ending", "·"
WORDS = (
    f"{RIGHT}: as it should be. {KEPT}: though bad. {LOST}: though good.\n"
    f"{WRONG_ENDING}: kept under the name of another format. "
    f"{LOST_UNASKED}, {UNASKED}: good or bad, and never requested."
)


def files_in(folder: Path) -> list[Kept]:
    """Give every file under `folder` but a downloader's own records."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [
        Kept(_digest(path), path.suffix.lower().lstrip("."))
        for path in paths
        if path.suffix not in _RECORDS
    ]


def count_distinct(links: Sequence[Mapping[str, Any]], kept: Sequence[Kept]) -> int:
    """Count the good links whose file is there."""
    digests = {file.sha256 for file in kept}
    return sum(link["is_good"] and not digests.isdisjoint(link["sha256s"]) for link in links)


def judge(
    links: Sequence[Mapping[str, Any]], kept: Sequence[Kept], asked_for: Sequence[str]
) -> Verdict:
    """Judge a run.

    Args:
        links: as the fake Bing lists them.
        kept: what is on disk.
        asked_for: names of the links that were requested.
    """
    files = collections.defaultdict(list)
    for file in kept:
        files[file.sha256].append(file)
    families = _families(links)
    cells = {
        link["name"]: _cell(
            link, files, families[link["copy_of"] or link["name"]], link["name"] in asked_for
        )
        for link in links
    }
    sent = {digest for link in links for digest in link["sha256s"]}
    words = collections.Counter(cells.values())
    return Verdict(
        cells=cells,
        num_bad_kept=words[KEPT] + sum(file.sha256 not in sent for file in kept),
        num_good_lost=words[LOST] + words[LOST_UNASKED],
        num_wrong_endings=words[WRONG_ENDING],
        num_repeated=len(kept) - len(files),
    )


def _families(links: Sequence[Mapping[str, Any]]) -> dict[str, set[str]]:
    """Give, by the name of the first, the digests of all that show the same image."""
    families: dict[str, set[str]] = collections.defaultdict(set)
    for link in links:
        families[link["copy_of"] or link["name"]].update(link["sha256s"])
    return families


def _cell(
    link: Mapping[str, Any],
    files: Mapping[str, list[Kept]],
    family: set[str],
    was_asked_for: bool,
) -> str:
    own = [file for digest in link["sha256s"] for file in files.get(digest, [])]
    alike = [file for digest in family for file in files.get(digest, [])]
    if not link["is_good"]:
        # Of two that look the same either may stay, but not both.
        if own and (len(alike) > 1 or not link["copy_of"]):
            return KEPT
        return RIGHT if was_asked_for else UNASKED
    if not alike:
        return LOST if was_asked_for else LOST_UNASKED
    return RIGHT if all(file.ending in link["endings"] for file in own) else WRONG_ENDING


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
