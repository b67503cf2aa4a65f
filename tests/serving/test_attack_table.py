"""The table of attacks, row by row, against running servers that must be unharmed after each.

Rows are numbered as in the facts on serving. Most are attacked over HTTP, in the modules
`attacks_*`; what cannot be done from outside are tests of their own, which `ROWS` names.
"""

import concurrent.futures
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attacks_bodies
import attacks_callers
import attacks_images
import numpy as np
import pytest
from attacking import (
    ADMIN_KEY,
    ATTACKS,
    BURST,
    GUARDED,
    HASTY_KEY,
    MEGABYTE,
    PREDICT_KEY,
    RATE,
    Target,
    assert_old_failure,
    assert_refused,
    wait_until,
)
from hostile import RED_JPEG, REFUSED
from painted import COLOURS, encode
from PIL import Image
from running import REPOSITORY, serving

from imagesieve.model import engines, versions

MODULES = (attacks_images, attacks_bodies, attacks_callers)  # each fills ATTACKS
ROOM = 4096  # open files for the connections of this process

SERVING = "tests/serving"
PIPELINE, FETCHING = (f"{SERVING}/test_{name}.py" for name in ("pipeline", "fetch_image"))
# Rows that no attack from outside shows -> the tests that do.
ROWS: dict[int, tuple[str, ...]] = {
    39: (f"{SERVING}/test_attack_table.py::test_row_39_a_model_that_gives_no_numbers",
         f"{PIPELINE}::test_an_engine_that_hangs_is_504_and_shows_in_readiness",
         f"{PIPELINE}::test_numbers_that_are_no_probabilities_are_never_answered"),
    45: (f"{FETCHING}::test_name_of_public_and_private_places_is_refused",
         f"{FETCHING}::test_name_that_changes_its_place_after_the_check_gains_nothing"),
    47: (f"{FETCHING}::test_endless_body_is_read_up_to_the_limit",
         f"{FETCHING}::test_deadline_holds_however_a_host_drips",
         f"{FETCHING}::test_gzip_bomb_is_not_inflated",
         f"{FETCHING}::test_length_that_is_too_short_gives_no_more_than_it_says",
         f"{FETCHING}::test_failed_fetches_keep_no_memory"),
    48: (f"{FETCHING}::test_only_a_host_that_proves_its_name_is_believed",),
    52: (f"{SERVING}/test_attack_table.py::test_row_52_a_server_that_is_told_to_leave",),
    53: (f"{SERVING}/test_attack_table.py::test_row_53_a_disk_that_is_full",),
    54: ("benchmarks/soak.py::soak",),
    55: (f"{SERVING}/test_schemathesis.py::test_the_service_does_what_its_description_says",),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _room_for_connections() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = ROOM if hard == resource.RLIM_INFINITY else min(ROOM, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def target(version_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Return a server as anybody starts it on their own machine."""
    folder = tmp_path_factory.mktemp("target")
    with serving(folder, version_path, "--feedback", str(folder / "feedback")) as server:
        yield Target(server)


@pytest.fixture(scope="module")
def guarded(
    make_version: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Target]:
    """Return a server with keys, a rate, an origin, several versions, and images by URL."""
    folder = tmp_path_factory.mktemp("guarded")
    model_dir = folder / "modelFile"
    make_version(model_dir, name="soft", softness=200)
    make_version(model_dir, name="classes", classes=("cyan", "green", "red"))
    broken = make_version(model_dir, name="broken")
    (broken / "openvino/model.bin").write_bytes(b"")
    make_version(model_dir, name="sharp")
    keys = folder / "keys.txt"
    keys.write_text(
        f"shop predict {PREDICT_KEY}\nhasty predict {HASTY_KEY}\nboss admin {ADMIN_KEY}\n"
    )
    keys.chmod(0o600)
    options = ("--keys", str(keys), "--allow-url", "--allow-origin", "https://shop.example")
    rate = ("--rate-limit", str(RATE), "--rate-burst", str(BURST))
    with serving(folder, model_dir, "--feedback", str(folder / "feedback"), *options, *rate) as one:
        target = Target(one, {"X-API-Key": PREDICT_KEY}, {"X-API-Key": ADMIN_KEY})
        for name in ("soft", "sharp"):  # the first change starts threads of OpenVINO's
            assert attacks_callers.activate(target, name).ok
        target.warm_up()
        yield target


def test_every_row_is_attacked_or_shown_by_tests_that_exist() -> None:
    assert sorted((*ATTACKS, *ROWS)) == list(range(1, 56))
    for test in (test for tests in ROWS.values() for test in tests):
        path, _, name = test.partition("::")
        text = (REPOSITORY / path).read_text(encoding="utf-8")
        assert f"\ndef {name}(" in text, test


@pytest.mark.parametrize("row", sorted(ATTACKS))
def test_attack_leaves_the_server_unharmed(row: int, request: pytest.FixtureRequest) -> None:
    target = request.getfixturevalue("guarded" if row in GUARDED else "target")
    ATTACKS[row](target)
    target.assert_unharmed()
    assert "Traceback" not in target.server.log()


def test_no_parser_of_a_refused_format_is_loaded(tmp_path: Path) -> None:
    for number, name in enumerate(attacks_images.RARE):
        (tmp_path / str(number)).write_bytes(REFUSED[name][0])
    script = (
        "import pathlib, sys\n"
        "from imagesieve import errors, images\n"
        f"for path in pathlib.Path({str(tmp_path)!r}).iterdir():\n"
        "    try: images.decode(path.read_bytes())\n"
        "    except errors.UnsupportedImageFormatError: continue\n"
        "    sys.exit(f'{path} was read')\n"
        "rare = ('Psd', 'Eps', 'Fits', 'Jpeg2K', 'Ico', 'Dds', 'Avif')\n"
        "sys.exit(' '.join(n for n in rare if f'PIL.{n}ImagePlugin' in sys.modules) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.strip()) == (0, "")


def faulty_version(make_version: Callable[..., Path], folder: Path) -> Path:
    """Return a version that divides by the brightness: of a black image it makes NaN."""
    version = make_version(folder)
    manifest = versions.read_manifest(version).manifest
    ov = engines.import_openvino()
    import openvino.opset13 as ops

    pixels = ops.parameter([-1, *manifest.image_size, 3], np.float32, name="pixels")
    means = ops.reduce_mean(pixels, ops.constant([1, 2], np.int64), keep_dims=False)
    shares = ops.divide(means, ops.reduce_sum(means, ops.constant([1], np.int64), keep_dims=True))
    swapped = ops.constant(8 * np.eye(3, dtype=np.float32)[:, ::-1])  # blue comes first
    scores = ops.matmul(shares, swapped, False, False)
    model = ov.Model([ops.softmax(scores, 1)], [pixels])
    ov.save_model(model, version / versions.OPENVINO_MODEL, compress_to_fp16=False)
    versions.seal(version, manifest)
    return version


def test_row_39_a_model_that_gives_no_numbers(
    make_version: Callable[..., Path], tmp_path: Path
) -> None:
    version = faulty_version(make_version, tmp_path / "modelFile")
    with serving(tmp_path, version, "--no-feedback") as server:
        target = Target(server)
        black = encode(Image.new("RGB", (64, 48)), "PNG")
        for number in range(5):
            failed = target.predict(black + bytes([number]))
            assert_refused(failed, 500, "internal")
            assert failed.headers["X-Request-Id"] in failed.json()["detail"]
            assert_old_failure(target.predict_old(black))
            assert target.predict(RED_JPEG).json()["label"] == "red"
        target.assert_unharmed()


def test_row_52_a_server_that_is_told_to_leave(tmp_path: Path, version_path: Path) -> None:
    photo = encode(Image.new("RGB", (7700, 7700), COLOURS["red"]), progressive=True)
    with (
        serving(tmp_path, version_path) as server,
        concurrent.futures.ThreadPoolExecutor(2) as pool,
    ):
        target = Target(server)
        answers = [pool.submit(target.predict, photo + bytes([number])) for number in range(2)]
        wait_until(lambda: target.figure("classifier_in_flight") == 2)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: target.ask("GET", "/readyz").status_code == 503)
        assert_refused(target.ask("GET", "/readyz"), 503, "shutting-down")
        assert [answer.result().status_code for answer in answers] == [200] * 2
        assert server.exit_code() == 0


def test_row_53_a_disk_that_is_full(tmp_path: Path, version_path: Path) -> None:
    """No file can grow any more, a temporary one neither."""
    with serving(tmp_path, version_path, "--feedback", str(tmp_path / "feedback")) as server:
        target = Target(server)
        answer_id = target.predict(RED_JPEG).json()["id"]
        correction = {"id": answer_id, "label": "blue"}
        large = RED_JPEG.ljust(3 * MEGABYTE, b"\0")
        usual = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, usual[1]))
        for number in range(5):
            small = target.predict(RED_JPEG + bytes([number]))
            assert (small.status_code, small.json()["cached"]) == (200, False)
            no_room = target.predict(large)
            assert_refused(no_room, 503, "overloaded")
            assert int(no_room.headers["Retry-After"]) >= 1
            assert target.predict_old(large).status_code == 503
            refused = target.ask("POST", "/v1/feedback", json=correction)
            assert_refused(refused, 503, "feedback-unavailable")
        target.assert_unharmed()
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, usual)
        assert target.predict(large).json()["label"] == "red"
        assert target.ask("POST", "/v1/feedback", json=correction).status_code == 201
        target.assert_unharmed()
