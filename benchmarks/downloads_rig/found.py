"""What a downloader left on disk, beside what the hosts had sent."""

import collections
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# What a downloader writes for itself beside the images.
_RECORDS = frozenset({".jsonl", ".json", ".csv", ".txt", ".lock", ".log"})


@dataclasses.dataclass(frozen=True)
class File:
    """One file: its digest and its ending, in lower case and without the dot."""

    sha256: str
    ending: str


KEPT, LOST, LOST_UNASKED, UNASKED = "KEPT", "LOST", "UNASKED", "unasked"
WRONG_ENDING, RIGHT = "ending", "·"
LEGEND = (
    f"{RIGHT}: as it should be. {KEPT}: though bad. {LOST}: though good.\n"
    f"{WRONG_ENDING}: kept under the name of another format. "
    f"{LOST_UNASKED}, {UNASKED}: good or bad, and never requested."
)


def files_in(folder: Path) -> list[File]:
    """Return every file under `folder` but a downloader's own records."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [
        File(hashlib.sha256(path.read_bytes()).hexdigest(), path.suffix.lower().lstrip("."))
        for path in paths
        if path.suffix not in _RECORDS
    ]


def count_distinct(links: Sequence[Mapping[str, Any]], files: Sequence[File]) -> int:
    """Return the number of good links whose file is there."""
    digests = {file.sha256 for file in files}
    return sum(link["is_good"] and not digests.isdisjoint(link["sha256s"]) for link in links)


def compare(
    links: Sequence[Mapping[str, Any]], files: Sequence[File], asked_for: Sequence[str]
) -> dict[str, Any]:
    """Return what became of each link: `cells`, from its name to a word of `LEGEND`, and counts.

    `asked_for` names the links that were requested. Files that no host had sent whole count as
    bad ones too; `num_repeated` counts files whose bytes another file has already.
    """
    by_digest = collections.defaultdict(list)
    for file in files:
        by_digest[file.sha256].append(file)
    families: dict[str, set[str]] = collections.defaultdict(set)  # of all that show one image
    for link in links:
        families[link["copy_of"] or link["name"]].update(link["sha256s"])
    cells = {}
    for link in links:
        name, family = link["name"], families[link["copy_of"] or link["name"]]
        cells[name] = _cell(link, by_digest, family, name in asked_for)
    sent = {digest for link in links for digest in link["sha256s"]}
    words = collections.Counter(cells.values())
    return {
        "cells": cells,
        "num_bad_kept": words[KEPT] + sum(file.sha256 not in sent for file in files),
        "num_good_lost": words[LOST] + words[LOST_UNASKED],
        "num_wrong_endings": words[WRONG_ENDING],
        "num_repeated": len(files) - len(by_digest),
    }


def _cell(link: Mapping[str, Any], files: Mapping, family: set[str], was_asked_for: bool) -> str:
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
