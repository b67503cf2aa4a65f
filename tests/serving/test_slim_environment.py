"""requirements-serve.txt suffices: a clean environment serves and judges without TensorFlow."""

import importlib.metadata
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import requests
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from painted import COLOURS, encode, paint
from running import REPOSITORY, SECONDS

from imagesieve import files
from imagesieve.model import versions

SERVED = "requirements-serve.txt"
# Import name -> the distribution it comes from, where the two differ.
DISTRIBUTIONS = {"PIL": "pillow", "flask_swagger_ui": "flask-swagger-ui"}
# Imported where used, and only by what a slim environment leaves out.
LEFT_OUT = {"keras", "tensorflow", "rich"}


def requirements(name: str) -> dict[str, Requirement]:
    """Return project name -> what the list asks for."""
    text = (REPOSITORY / name).read_text()
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    found = [Requirement(line) for line in lines if line]
    return {one.name.lower(): one for one in found}


def closure(wanted: Iterable[Requirement]) -> Iterator[importlib.metadata.Distribution]:
    """Yield the distributions that are asked for, and all that they require here."""
    left, seen = [*wanted], set()
    while left:
        one = left.pop()
        name = canonicalize_name(one.name)
        if name not in seen and (not one.marker or one.marker.evaluate({"extra": ""})):
            seen.add(name)
            distribution = importlib.metadata.distribution(name)
            left += map(Requirement, distribution.requires or ())
            yield distribution


@pytest.fixture(scope="module")
def slim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of a new environment with what requirements-serve.txt asks for.

    Its packages are links to those of this environment: pip would take some ten seconds.
    """
    folder = tmp_path_factory.mktemp("slim") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for one in closure(requirements(SERVED).values()):
        for name in {path.parts[0] for path in one.files or ()} - {"..", "__pycache__"}:
            (packages / name).symlink_to(one.locate_file(name))
    return folder / "bin" / "python"


def run(python: Path, *arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    # Nothing of this environment may shine through.
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(python), "-W", "error", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS * 3,
        check=False,
    )


def test_both_lists_say_the_same_of_what_they_share() -> None:
    everything, served = requirements("requirements.txt"), requirements(SERVED)
    assert {name: everything.get(name) for name in served} == served
    assert not {"tensorflow", "keras", "nncf", "scipy", "matplotlib", "tensorboard"} & set(served)
    # The names that users of the first generation look for.
    fixed = {"tensorflow", "keras", "flask", "pillow", "numpy", "requests"}
    assert fixed <= set(everything)


def test_every_library_that_serving_imports_is_named() -> None:
    """They are read from the source: of the scripts, the wing, and what lies below it."""
    from test_layering import PARTS, all_imports

    floors = [REPOSITORY / "imagesieve" / part for part in (*PARTS, "serving")]
    paths = [REPOSITORY / "main.py", REPOSITORY / "predictWithMyModel.py"]
    for room in floors:
        paths += sorted(room.rglob("*.py")) if room.is_dir() else [room.with_suffix(".py")]
    roots = {
        name.partition(".")[0]
        for path in paths
        for name in all_imports(path.relative_to(REPOSITORY).as_posix())
    }
    foreign = roots - set(sys.stdlib_module_names) - {"imagesieve", "predictWithMyModel"} - LEFT_OUT
    assert {"flask", "openvino", "PIL"} <= foreign
    assert {DISTRIBUTIONS.get(name, name) for name in foreign} == set(requirements(SERVED))


def test_every_module_of_serving_is_imported_where_tensorflow_is_not(
    slim: Path, tmp_path: Path
) -> None:
    for name in ("tensorflow", "keras", "nncf", "pip"):
        done = run(slim, "-c", f"import {name}", cwd=tmp_path)
        assert f"No module named '{name}'" in done.stderr
    names = [
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        for path in sorted((REPOSITORY / "imagesieve" / "serving").rglob("[!_]*.py"))
    ]
    done = run(slim, "-c", f"import {', '.join(names)}", cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr


def copy_to(source: Path, target: Path) -> None:
    """Copy as COPY does: into the folder, or a folder as that name."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def test_what_the_image_holds_is_enough(slim: Path, tmp_path: Path, version_path: Path) -> None:
    """There is no Docker here: its steps are done by hand, in a folder instead of an image."""
    dockerfile = (REPOSITORY / "Dockerfile").read_text().replace("\\\n", " ")
    code, state = tmp_path / "opt", tmp_path / "srv"
    for line in re.findall(r"^COPY (.*)$", dockerfile, flags=re.MULTILINE):
        *names, target = line.split()
        for name in names:
            copy_to(REPOSITORY / name, code / target)
    for name in ("data/feedback", "log"):
        (state / name).mkdir(parents=True)
    shutil.copytree(version_path.parent, state / "modelFile")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    check = json.loads(re.findall(r"^HEALTHCHECK .* CMD (.*)$", dockerfile, flags=re.MULTILINE)[0])
    assert "127.0.0.1:8133/" in check[-1]
    check[-1] = check[-1].replace("8133", port)

    command = json.loads(re.findall(r"^ENTRYPOINT (.*)$", dockerfile, flags=re.MULTILINE)[0])
    command[:2] = [str(slim), str(code / "main.py")]
    command[command.index("8133")] = port
    keys = {"CLASSIFIER_KEYS": f"shop predict {'k' * 32}"}
    assert run(slim, *check[1:], cwd=tmp_path).returncode != 0  # nobody is there yet
    with subprocess.Popen(
        command, cwd=state, env=os.environ | keys, stderr=subprocess.PIPE
    ) as server:
        try:
            deadline = time.monotonic() + SECONDS
            while run(slim, *check[1:], cwd=tmp_path).returncode:
                assert server.poll() is None
                assert time.monotonic() < deadline
            url = f"http://127.0.0.1:{port}"
            image, key = encode(paint(COLOURS["green"])), {"X-API-Key": "k" * 32}
            answer = requests.post(f"{url}/v1/predict", image, headers=key, timeout=SECONDS)
            assert answer.json()["label"] == "green"
            refused = requests.post(f"{url}/v1/predict", image, timeout=SECONDS)
            assert refused.status_code == 401
            for path in ("/", "/openapi.json", "/docs"):
                assert requests.get(url + path, timeout=SECONDS).status_code == 200, path
            executable = Path(f"/proc/{server.pid}/cmdline").read_bytes().split(b"\0")[0]
            assert executable == str(slim).encode()
            server.terminate()
            assert server.wait(SECONDS) == 0
        finally:
            server.kill()


def test_the_command_line_predicts_and_refuses_keras_in_one_sentence(
    slim: Path, tmp_path: Path, version_path: Path
) -> None:
    images = [tmp_path / f"{name}.png" for name in COLOURS]
    for image in images:
        image.write_bytes(encode(paint(COLOURS[image.stem]), "PNG"))
    script = str(REPOSITORY / "predictWithMyModel.py")
    options = ["--model", str(version_path), "--json", "--csv", "answers.csv"]
    done = run(slim, script, *map(str, images), *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["label"] for answer in answers] == list(COLOURS)
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 4
    folder = tmp_path / "with-keras"
    with files.new_folder(folder) as partial:
        shutil.copytree(version_path / "openvino", partial / "openvino")
        (partial / versions.KERAS_MODEL).write_bytes(b"what is in it is never read")
        versions.seal(partial, versions.load(version_path).manifest)
    options = ["--model", str(folder), "--engine", "keras"]
    done = run(slim, script, str(images[0]), *options, cwd=tmp_path)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith("error: Keras is not installed: run `pip install")
