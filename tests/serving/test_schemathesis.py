"""The running service against its own description, by schemathesis: all checks, no failure.

Longer, by hand, against a server that was started with `main.py`, from this folder:

    PYTHONPATH=. schemathesis --config-file schemathesis.toml run \\
        http://127.0.0.1:8133/openapi.json --checks all --seed 2 --max-time 300
"""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from running import SECONDS, RunningServer, serving

HERE = Path(__file__).resolve().parent
KEY = "0123456789abcdef0123456789abcdef"
METHODS = ("get", "post", "put", "patch", "delete")

# Some thousand requests: the machine may be busy.
pytestmark = pytest.mark.timeout(600)


def schemathesis(folder: Path, location: str, *options: str) -> "subprocess.CompletedProcess[str]":
    """Run it in a folder of its own: it leaves some files."""
    program = [sys.executable, "-m", "schemathesis.cli"]
    keys = ["-H", f"X-API-Key: {KEY}", "-H", f"Authorization: Bearer {KEY}"]
    config = ["--config-file", str(HERE / "schemathesis.toml")]
    command = [*program, *config, "run", location, "--checks", "all", "--no-color", *keys, *options]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def num_operations(spec: dict[str, Any]) -> int:
    """Count what it should try; the address of the description itself is left out."""
    paths = [path for path in spec["paths"] if path != "/openapi.json"]
    return sum(method in spec["paths"][path] for path in paths for method in METHODS)


@pytest.fixture(scope="module")
def server(
    make_version: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """Return a server with keys and two versions."""
    folder = tmp_path_factory.mktemp("server")
    for name in ("former", "latter"):
        make_version(folder / "modelFile", name=name)
    keys = folder / "keys.txt"
    keys.write_text(f"tester predict,feedback,admin {KEY}\n")
    keys.chmod(0o600)
    with serving(folder, folder / "modelFile", "--keys", str(keys)) as one:
        yield one


@pytest.fixture(scope="module")
def spec(server: RunningServer) -> dict[str, Any]:
    return requests.get(f"{server.url}/openapi.json", timeout=SECONDS).json()


def test_the_service_does_what_its_description_says(
    server: RunningServer, spec: dict[str, Any], tmp_path: Path
) -> None:
    done = schemathesis(tmp_path, f"{server.url}/openapi.json")
    assert done.returncode == 0, done.stdout + done.stderr
    count = num_operations(spec)
    assert f"Selected: {count}/{count}" in done.stdout
    assert f"Tested: {count}" in done.stdout
    assert requests.get(f"{server.url}/readyz", timeout=SECONDS).ok
    assert "Traceback" not in server.printed()


def test_a_description_that_is_not_true_is_found_out(
    server: RunningServer, spec: dict[str, Any], tmp_path: Path
) -> None:
    spec = copy.deepcopy(spec)
    spec["paths"] = {path: spec["paths"][path] for path in ("/v1/review",)}
    spec["components"]["schemas"]["Review"]["required"].append("queue")
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    done = schemathesis(tmp_path, "spec.json", "--url", server.url, "--phases", "coverage")
    assert done.returncode == 1
    assert '"queue" is a required property' in done.stdout
