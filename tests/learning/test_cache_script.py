"""`--cache-info` and `--clear-cache`, through the script, as a user runs it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from imagesieve.learning.features.store import FOLDER_NAME, FeatureStore, row_key

ROOT = Path(__file__).parents[2]
HEAVY = {"tensorflow", "keras", "openvino", "nncf", "matplotlib", "scipy"}
ABOUT = {
    "backbone": "Tiny",
    "image_size": [32, 32],
    "features": "pooled",
    "engine": "openvino-f32",
    "row_shape": [24],
}


def run(folder: Path, *arguments: str) -> str:
    """Run the training script; gives what it prints, having seen that it loaded nothing heavy."""
    command = [
        *(sys.executable, "-X", "importtime", ROOT / "trainMyDataWithKerasModel.py"),
        *arguments,
    ]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    lines = done.stderr.splitlines()
    assert done.returncode == 0, [line for line in lines if not line.startswith("import time:")]
    loaded = re.findall(r"^import time:.*\|\s*([\w.]+)$", done.stderr, re.MULTILINE)
    assert "numpy" in loaded  # the list was understood
    assert not {name.split(".")[0] for name in loaded} & HEAVY
    return done.stdout


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """Return a store with three rows in a table and a file in another place."""
    found = FeatureStore(tmp_path / "modelFile" / FOLDER_NAME, limit=1e9)
    with found.table(ABOUT) as table:
        for number in range(3):
            table.add([row_key(f"{number:064x}", "")], [np.zeros(24, np.float16)])
    with found.place({"backbone": "Tiny", "holds": "converted network"}) as place:
        (place / "base.bin").write_bytes(bytes(70_000))
    return found


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_table_says_what_is_kept(store: FeatureStore, tmp_path: Path) -> None:
    before = files(tmp_path)
    out = run(tmp_path, "--cache-info")
    assert re.search(r"^Tiny, 32×32, pooled, openvino-f32 +3 +0\.\d kB ", out, re.MULTILINE), out
    assert re.search(r"^Tiny, converted network +70\.\d kB +\d{4}-\d\d-\d\d", out, re.MULTILINE)
    assert re.search(r"^70\.\d kB in modelFile/\.features; --clear-cache removes it\.$", out, re.M)
    assert files(tmp_path) == before  # no log file either


def test_the_same_as_json(store: FeatureStore, tmp_path: Path) -> None:
    (line,) = run(tmp_path, "--cache-info", "--json").splitlines()
    value = json.loads(line)
    assert value["folder"] == "modelFile/.features"
    assert len(value["holdings"]) == 2
    (rows,) = [holding for holding in value["holdings"] if holding["rows"]]
    assert rows["rows"] == 3
    assert rows.items() >= ABOUT.items()
    assert sum(holding["bytes"] for holding in value["holdings"]) == sum(
        entry.num_bytes for entry in store.entries()
    )


def test_clearing_spares_what_is_in_use_and_then_leaves_nothing(
    store: FeatureStore, tmp_path: Path
) -> None:
    with store.table(ABOUT):
        out = run(tmp_path, "--clear-cache")
        assert re.fullmatch(
            r"Removed 70\.\d kB from modelFile/\.features; 0\.\d kB are in use\.\n", out
        )
        assert [entry.num_rows for entry in store.entries()] == [3]
    in_all = sum(entry.num_bytes for entry in store.entries())
    value = json.loads(run(tmp_path, "--clear-cache", "--json"))
    assert value == {"folder": "modelFile/.features", "removed": in_all, "left": 0}
    assert store.entries() == []


def test_where_nothing_was_trained_there_is_nothing_and_nothing_is_made(tmp_path: Path) -> None:
    out = run(tmp_path, "--cache-info", "--model-dir", "elsewhere")
    assert out == "Nothing is stored in elsewhere/.features.\n"
    assert json.loads(run(tmp_path, "--cache-info", "--json"))["holdings"] == []
    assert run(tmp_path, "--clear-cache") == "Removed 0.0 kB from modelFile/.features.\n"
    assert list(tmp_path.iterdir()) == []
