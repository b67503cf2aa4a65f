"""constraints.txt holds one tested version of every library that a requirements file names."""

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).resolve().parents[1]
LISTS = ("requirements.txt", "requirements-serve.txt", "requirements-dev.txt")


def lines(name: str) -> list[str]:
    text = (PROJECT / name).read_text()
    found = [re.split(r"\s#|^#", line)[0].strip() for line in text.splitlines()]
    return [line for line in found if line and not line.startswith("-r")]


def constraints() -> dict[str, str]:
    """Return project name -> version."""
    matches = [
        re.fullmatch(r"([\w.-]+)==([\w.+]+)(?:\s*;.*)?", line) for line in lines("constraints.txt")
    ]
    assert all(matches)
    return {canonicalize_name(match[1]): match[2] for match in matches if match}


@pytest.mark.parametrize("name", LISTS)
def test_every_requirement_has_a_tested_version_within_its_bounds(name: str) -> None:
    tested = constraints()
    for line in lines(name):
        requirement = Requirement(line)
        version = tested[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), line
