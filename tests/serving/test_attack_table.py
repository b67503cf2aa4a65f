"""The table of attacks, row by row, against running servers that must be unharmed after each.

Rows are numbered as in the facts on serving. Most are attacked over HTTP, in the modules
`attacks_*`; the details of many, and what cannot be done from outside, are tests of their own.
`ROWS` names all of these.
"""

import ast
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
APP, REQUESTS = f"{SERVING}/test_serving_app.py", f"{SERVING}/test_serving_requests.py"
MAIN, PIPELINE = f"{SERVING}/test_main.py", f"{SERVING}/test_pipeline.py"
KEYS, HOSTS, SITES, RATES, WIRE = (
    f"{SERVING}/test_access_{name}.py"
    for name in ("keys", "hosts", "sites", "rates", "on_the_wire")
)
URLS, URL_ADDRESSES, URL_ANSWERS, URL_TLS = (
    f"{SERVING}/test_url_{name}.py" for name in ("input", "addresses", "answers", "tls")
)
IMAGES, IMAGES_ORIENTATION, IMAGES_REFUSED, IMAGES_LIMITS = (
    f"tests/images/test_images{name}.py" for name in ("", "_orientation", "_refused", "_limits")
)
CORRECTIONS, FEEDBACK = f"{SERVING}/test_corrections_http.py", f"{SERVING}/test_feedback.py"
MODELS, ADMIN, PAGE = (f"{SERVING}/test_{name}.py" for name in ("models", "admin", "page"))
IMAGE = f"{APP}::test_hostile_image_is_a_problem_at_once_and_harms_nobody"
ODD_IMAGE = f"{APP}::test_odd_but_good_image_is_judged_right"
FAULT = f"{REQUESTS}::test_every_fault_has_its_own_error"
FLOOD = "tests/images/test_image_blocks.py::test_a_flood_is_refused_at_little_cost"

# Row -> tests besides its attack here.
ROWS: dict[int, tuple[str, ...]] = {
    1: (FAULT, f"{APP}::test_wrong_address_or_method_is_a_problem"),
    2: (FAULT,),
    3: (FAULT,),
    4: (IMAGE, f"{APP}::test_hostile_image_is_code_98_for_old_callers"),
    5: (IMAGE, f"{SERVING}/test_attack_table.py::test_no_parser_of_a_refused_format_is_loaded"),
    6: (f"{IMAGES}::test_a_png_named_jpg_is_a_png",),
    7: (ODD_IMAGE,),
    8: (IMAGE,),
    9: (IMAGE,
         f"{IMAGES_REFUSED}::test_an_image_cut_anywhere_before_its_last_pixels_is_refused"),
    10: (ODD_IMAGE,),
    11: (IMAGE, f"{IMAGES_LIMITS}::test_pixel_bombs_are_refused_before_they_are_decoded"),
    12: (IMAGE, f"{IMAGES_LIMITS}::test_too_many_pixels_are_refused_by_name"),
    13: (f"{APP}::test_large_images_are_decoded_one_after_another",),
    14: (IMAGE,
         f"{IMAGES_LIMITS}::test_a_png_with_countless_compressed_extras_is_refused_at_once"),
    15: (IMAGE, FLOOD),
    16: (f"{PIPELINE}::test_eight_hundred_frames_cost_no_more_than_their_share",),
    17: (f"{PIPELINE}::test_frames_beyond_the_first_are_looked_at_when_asked_for",
         f"{IMAGES}::test_of_an_animation_the_first_frame_counts"),
    18: (f"{APP}::test_image_without_colour_is_judged_as_such",
         f"{IMAGES}::test_every_mode_gives_the_colour_a_person_sees",
         f"{IMAGES}::test_16_bit_grey_keeps_its_order"),
    19: (f"{IMAGES_ORIENTATION}::test_every_orientation_shows_the_same_scene",
         f"{IMAGES_ORIENTATION}::test_bad_exif_is_ignored",
         f"{IMAGES_ORIENTATION}::test_an_orientation_that_does_not_exist_is_ignored"),
    20: (IMAGE,),
    21: (f"{MAIN}::test_body_just_over_the_limit_is_a_clean_413",
         f"{MAIN}::test_lying_content_length_hangs_nobody"),
    22: (f"{MAIN}::test_body_far_over_the_limit_is_refused_before_it_is_sent",),
    23: (f"{REQUESTS}::test_megabytes_of_base64_pass_as_form_and_as_text_part",
         f"{MAIN}::test_megabytes_of_base64_pass_as_form_and_as_text_part"),
    24: (f"{REQUESTS}::test_hostile_forms_are_refused_before_they_cost_anything",),
    25: (f"{REQUESTS}::test_hostile_multipart_is_refused_before_it_costs_anything", FAULT),
    26: (f"{REQUESTS}::test_hostile_json_is_refused_before_it_costs_anything", FAULT),
    27: (f"{REQUESTS}::test_base64_as_it_arrives_from_the_world_is_repaired",
         f"{REQUESTS}::test_every_form_gives_the_same_bytes"),
    28: (FAULT,),
    29: (FAULT,),
    30: (f"{APP}::test_file_name_is_neither_answered_nor_logged",),
    31: (f"{WIRE}::test_bytes_on_the_wire",
         f"{HOSTS}::test_forwarded_headers_are_not_believed",
         f"{HOSTS}::test_foreign_host_is_refused_where_hosts_are_known"),
    32: (f"{KEYS}::test_without_a_good_key_there_is_a_401",
         f"{KEYS}::test_every_key_is_compared_whatever_is_presented"),
    33: (f"{KEYS}::test_a_key_opens_what_its_scopes_say",
         f"{ADMIN}::test_only_an_admin_key_changes_the_model"),
    34: (f"{SITES}::test_unlisted_origin_gets_nothing",
         f"{SITES}::test_listed_origin_gets_its_headers_refusals_and_preflight_included"),
    35: (f"{RATES}::test_burst_then_429_with_seconds_to_wait_then_the_rate",
         f"{RATES}::test_each_key_has_its_own_share_and_refused_ones_that_of_their_address"),
    36: (f"{APP}::test_one_request_too_many_is_told_to_come_back_while_health_answers",),
    37: (f"{MAIN}::test_sixty_slow_senders_do_not_delay_health_or_prediction",),
    38: (f"{PIPELINE}::test_work_for_a_caller_who_has_hung_up_is_skipped",),
    39: (f"{SERVING}/test_attack_table.py::test_row_39_a_model_that_gives_no_numbers",
         f"{PIPELINE}::test_an_engine_that_hangs_is_504_and_shows_in_readiness",
         f"{PIPELINE}::test_numbers_that_are_no_probabilities_are_never_answered",
         f"{APP}::test_failure_of_the_server_tells_no_secret_and_the_next_request_is_right"),
    40: (f"{PIPELINE}::test_each_of_a_hundred_images_gets_its_own_answer",),
    41: (f"{ADMIN}::test_no_request_fails_while_models_come_and_go",
         f"{MODELS}::test_a_bad_version_is_refused_and_the_old_one_keeps_serving"),
    42: (f"{ADMIN}::test_a_version_that_is_not_there_is_unknown",
         f"{ADMIN}::test_an_address_below_the_list_leads_nowhere",
         f"{MODELS}::test_a_name_leads_nowhere_but_into_the_folder"),
    43: (f"{URLS}::test_address_is_refused_where_none_is_taken",),
    44: (f"{URL_ADDRESSES}::test_address_that_is_not_public_is_refused_before_any_connection",
         f"{URL_ADDRESSES}::test_what_is_no_plain_address_is_refused_without_asking_anybody"),
    45: (f"{URL_ADDRESSES}::test_name_of_public_and_private_places_is_refused",
         f"{URL_ADDRESSES}::test_name_that_changes_its_place_after_the_check_gains_nothing"),
    46: (f"{URL_ANSWERS}::test_no_redirect_is_followed",
         f"{URL_ANSWERS}::test_redirect_is_refused_wherever_it_leads",
         f"{URL_ANSWERS}::test_chain_of_redirects_ends_at_its_first"),
    47: (f"{URL_ANSWERS}::test_endless_body_is_read_up_to_the_limit",
         f"{URL_ANSWERS}::test_deadline_holds_however_a_host_drips",
         f"{URL_ANSWERS}::test_gzip_bomb_is_not_inflated",
         f"{URL_ANSWERS}::test_length_that_is_too_short_gives_no_more_than_it_says",
         f"{URL_ANSWERS}::test_failed_fetches_keep_no_memory"),
    48: (f"{URL_TLS}::test_host_that_does_not_prove_its_name_is_a_failure",),
    49: (f"{PIPELINE}::test_figures_have_no_series_of_a_caller_s_making",),
    50: (f"{CORRECTIONS}::test_a_correction_sent_a_thousand_times_is_one",
         f"{CORRECTIONS}::test_an_unknown_label_is_refused_with_the_classes",
         f"{FEEDBACK}::test_a_class_folder_that_leads_elsewhere_is_refused"),
    51: (f"{PAGE}::test_names_and_labels_are_text_and_never_markup",
         f"{PAGE}::test_pages_ask_nobody_but_this_server_and_break_no_rule"),
    52: (f"{SERVING}/test_attack_table.py::test_row_52_a_server_that_is_told_to_leave",
         f"{MAIN}::test_sigterm_under_load_loses_no_request"),
    53: (f"{SERVING}/test_attack_table.py::test_row_53_a_disk_that_is_full",
         f"{FEEDBACK}::test_a_full_disk_changes_nothing_wherever_it_strikes",
         f"{CORRECTIONS}::test_a_disk_that_fails_costs_corrections_and_nothing_else"),
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
    assert list(ROWS) == list(range(1, 56))
    assert set(range(1, 54)) - set(ATTACKS) == {39, 45, 47, 48, 52, 53}
    for row, tests in ROWS.items():
        assert tests, row
        for test in tests:
            path, _, name = test.partition("::")
            tree = ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))
            functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert name in functions, (row, test)


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
        concurrent.futures.ThreadPoolExecutor(4) as pool,
    ):
        target = Target(server)
        answers = [pool.submit(target.predict, photo + bytes([number])) for number in range(4)]
        wait_until(lambda: target.figure("classifier_in_flight") == 4)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: target.ask("GET", "/readyz").status_code == 503)
        assert_refused(target.ask("GET", "/readyz"), 503, "shutting-down")
        assert [answer.result().status_code for answer in answers] == [200] * 4
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
