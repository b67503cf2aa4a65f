"""requirements-serve.txt suffices: a clean environment serves and judges without TensorFlow."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from painted import COLOURS, encode, paint
from running import REPOSITORY, SECONDS, serving

from imagesieve import files
from imagesieve.model import versions

INSTALL_SECONDS = 300  # some 90 MB come over the network unless pip has them already
SERVED = "requirements-serve.txt"
# Import name -> the distribution it comes from, where the two differ.
DISTRIBUTIONS = {"PIL": "pillow", "flask_swagger_ui": "flask-swagger-ui"}
# Imported where used, and only by what a slim environment leaves out.
LEFT_OUT = {"keras", "tensorflow", "rich"}

pytestmark = pytest.mark.timeout(400)


def requirements(name: str) -> dict[str, str]:
    """Return project name -> its bounds."""
    lines = [
        line.partition("#")[0].strip() for line in (REPOSITORY / name).read_text().splitlines()
    ]
    matches = [re.fullmatch(r"([\w-]+)([<>=!~].*)", line) for line in lines if line]
    assert all(matches), lines
    return {match[1].lower(): match[2] for match in matches}


@pytest.fixture(scope="session")
def slim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of a new environment that holds requirements-serve.txt and nothing else."""
    folder = tmp_path_factory.mktemp("slim") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    # This environment's pip does it: one more copy of pip would take seconds.
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    lists = ["-r", str(REPOSITORY / SERVED), "-c", str(REPOSITORY / "constraints.txt")]
    options = ["--disable-pip-version-check", "--no-input", *lists]
    done = subprocess.run(
        [*install, *options], capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    return python


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


def test_tensorflow_is_not_there(slim: Path, tmp_path: Path) -> None:
    for name in ("tensorflow", "keras", "nncf", "pip"):
        done = run(slim, "-c", f"import {name}", cwd=tmp_path)
        assert f"No module named '{name}'" in done.stderr


def test_every_module_of_serving_can_be_imported(slim: Path) -> None:
    folder = REPOSITORY / "imagesieve" / "serving"
    names = [
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        for path in sorted(folder.rglob("[!_]*.py"))
    ]
    done = run(slim, "-c", f"import {', '.join(names)}", cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr


def test_the_server_judges_over_http(
    slim: Path, tmp_path: Path, version_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(slim))  # what runs the server
    with serving(tmp_path, version_path) as server:
        for name, colour in COLOURS.items():
            image = encode(paint(colour))
            answer = requests.post(f"{server.url}/v1/predict", data=image, timeout=SECONDS)
            assert (answer.status_code, answer.json()["label"]) == (200, name)
        for path in ("/", "/readyz", "/metrics", "/openapi.json", "/docs"):
            assert requests.get(f"{server.url}{path}", timeout=SECONDS).status_code == 200, path
        executable = Path(f"/proc/{server.process.pid}/cmdline").read_bytes().split(b"\0")[0]
        assert executable == str(slim).encode()
        assert server.stop() == 0


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
    assert port_of(check[-1]) == "8133"
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
            url = f"http://127.0.0.1:{port}/v1/predict"
            image, key = encode(paint(COLOURS["green"])), {"X-API-Key": "k" * 32}
            answer = requests.post(url, data=image, headers=key, timeout=SECONDS)
            assert answer.json()["label"] == "green"
            assert requests.post(url, data=image, timeout=SECONDS).status_code == 401
            server.terminate()
            assert server.wait(SECONDS) == 0
        finally:
            server.kill()


def copy_to(source: Path, target: Path) -> None:
    """Copy as COPY does: into the folder, or a folder as that name."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def port_of(code: str) -> str:
    match = re.search(r"127\.0\.0\.1:(\d+)/", code)
    assert match
    return match[1]


def test_the_command_line_judges(slim: Path, tmp_path: Path, version_path: Path) -> None:
    images = []
    for name, colour in COLOURS.items():
        images.append(tmp_path / f"{name}.png")
        images[-1].write_bytes(encode(paint(colour), "PNG"))
    script = str(REPOSITORY / "predictWithMyModel.py")
    options = ["--model", str(version_path), "--json", "--csv", "answers.csv"]
    done = run(slim, script, *map(str, images), *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["label"] for answer in answers] == list(COLOURS)
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 4


def test_a_keras_model_is_refused_in_one_sentence(
    slim: Path, tmp_path: Path, version_path: Path
) -> None:
    folder = tmp_path / "with-keras"
    with files.new_folder(folder) as partial:
        shutil.copytree(version_path / "openvino", partial / "openvino")
        (partial / versions.KERAS_MODEL).write_bytes(b"what is in it is never read")
        versions.seal(partial, versions.load(version_path).manifest)
    script = str(REPOSITORY / "predictWithMyModel.py")
    options = ["--model", str(folder), "--engine", "keras"]
    done = run(slim, script, "image.jpg", *options, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: Keras is not installed: run `pip install")
    assert len(done.stderr.splitlines()) == 1
