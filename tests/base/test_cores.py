"""The number of cores is that which this process may use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imagesieve import cores

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_cpu_count_is_that_of_the_affinity() -> None:
    code = (
        "import os; from imagesieve import cores\n"
        "before = cores.cpu_count()\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "print(before >= 1, cores.cpu_count())"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True 1"


@pytest.mark.parametrize(
    ("text", "count"), [("max 100000", 64), ("150000 100000", 2), ("1000 100000", 1), ("odd", 64)]
)
def test_the_cpu_count_keeps_to_the_containers_quota(
    monkeypatch: pytest.MonkeyPatch, text: str, count: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    monkeypatch.setattr(Path, "read_text", lambda path: text)
    assert cores.cpu_count() == count
