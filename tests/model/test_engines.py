import concurrent.futures
import dataclasses
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from painted import COLOURS, paint

from imagesieve import files
from imagesieve.errors import EngineError, ModelDamagedError, UsageError
from imagesieve.model import engines, versions
from imagesieve.model.decisions import DecisionPolicy
from imagesieve.model.engines import OpenVINOEngine

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def version(version_path: Path) -> versions.ModelVersion:
    return versions.load(version_path)


@pytest.fixture(scope="module")
def keras_version(tmp_path_factory: pytest.TempPathFactory) -> versions.ModelVersion:
    """Return a version that has a tiny Keras model and no OpenVINO one."""
    import keras

    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((32, 40, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    path = versions.new_version_path(tmp_path_factory.mktemp("modelFile"), "keras")
    with files.new_folder(path) as partial:
        model.save(partial / versions.KERAS_MODEL)
        versions.seal(
            partial, versions.Manifest(tuple(COLOURS), "SmallCNN", (32, 40), DecisionPolicy())
        )
    return versions.load(path)


def batch(count: int = 3) -> np.ndarray:
    """Return (count, 32, 40, 3) uint8: blue, green, red, blue and so on."""
    colours = list(COLOURS.values())
    return np.stack(
        [np.asarray(paint(colours[i % 3], size=(40, 32), seed=i)) for i in range(count)]
    )


def with_manifest(version: versions.ModelVersion, **changes: Any) -> versions.ModelVersion:
    return dataclasses.replace(version, manifest=dataclasses.replace(version.manifest, **changes))


def write_ir(path: Path, build: Callable[[Any, Any], Any], shape: tuple[int, ...]) -> Path:
    """Write a real IR whose output `build` gives from its input."""
    ov = engines.import_openvino()
    import openvino.opset13 as ops

    pixels = ops.parameter(shape, np.float32, name="pixels")
    ov.save_model(ov.Model([build(ops, pixels)], [pixels]), path, compress_to_fp16=False)
    return path


def child(code: str, version: Path) -> str:
    """Run Python code in a fresh process in the repository and return what it printed."""
    command = [sys.executable, "-W", "error", "-c", code, str(version)]
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_version_with_an_ir_runs_in_openvino(version: versions.ModelVersion) -> None:
    for engine in ("auto", "openvino"):
        opened = engines.open_engine(version, engine)
        assert (opened.name, opened.image_size) == ("openvino-f32", (32, 40))
    outputs = opened.run(batch())
    assert (outputs.shape, outputs.dtype) == ((3, 3), np.float32)
    assert outputs.argmax(axis=1).tolist() == [0, 1, 2]


def test_a_version_without_an_ir_runs_in_keras(keras_version: versions.ModelVersion) -> None:
    import keras

    path = keras_version.file(versions.KERAS_MODEL)
    expected = keras.saving.load_model(path)(batch().astype(np.float32)).numpy()
    for engine in ("auto", "keras"):
        opened = engines.open_engine(keras_version, engine)
        assert opened.name == "keras-f32"
        assert opened.image_size == (32, 40)
        np.testing.assert_allclose(opened.run(batch()), expected, atol=1e-5)
    np.testing.assert_allclose(opened.run(batch()[:1]), expected[:1], atol=1e-5)


@pytest.mark.parametrize(
    ("fixture", "engine", "precision", "error", "message"),
    [
        ("version", "keras", "auto", EngineError, r"has no model\.keras"),
        ("keras_version", "openvino", "auto", EngineError, r"model\.xml: use --engine keras"),
        ("keras_version", "auto", "bf16", UsageError, "f32 only, not bf16"),
        ("keras_version", "keras", "int8", UsageError, "f32 only, not int8"),
        ("version", "auto", "int8", UsageError, "no int8 model .it was made without one"),
    ],
)
def test_what_a_version_cannot_run_in_is_refused(
    request: pytest.FixtureRequest,
    fixture: str,
    engine: str,
    precision: str,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        engines.open_engine(request.getfixturevalue(fixture), engine, precision)


def test_bf16_on_request_is_refused_where_the_cpu_lacks_it(
    version: versions.ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "cpu_has_bf16", lambda: False)
    with pytest.raises(UsageError, match="no bfloat16 arithmetic"):
        engines.open_engine(version, precision="bf16")


def passed(milliseconds: object = None) -> dict[str, Any]:
    return {"passed": True} | ({} if milliseconds is None else {"milliseconds": milliseconds})


@pytest.fixture(scope="module")
def int8_version(version: versions.ModelVersion, tmp_path_factory: Any) -> versions.ModelVersion:
    """Return a version that passed the check of int8; its int8 IR takes blue for red.

    Its answers differ, since a network of one multiplication is not quantised.
    """
    path = tmp_path_factory.mktemp("modelFile") / "int8"
    with files.new_folder(path) as partial:
        (partial / "openvino").mkdir()
        for suffix in (".xml", ".bin"):
            data = (version.path / versions.OPENVINO_MODEL).with_suffix(suffix).read_bytes()
            (partial / versions.OPENVINO_MODEL).with_suffix(suffix).write_bytes(data)

        def swapped(ops: Any, pixels: Any) -> Any:
            means = ops.reduce_mean(pixels, ops.constant([1, 2], np.int64), False)
            return ops.softmax(ops.multiply(means, ops.constant(np.float32(1 / 60))), 1)

        write_ir(partial / versions.OPENVINO_INT8_MODEL, swapped, (-1, 32, 40, 3))
        checks = {"openvino-int8": passed()}
        versions.seal(partial, dataclasses.replace(version.manifest, engines=checks))
    return versions.load(path)


def test_int8_is_served_from_its_own_file(int8_version: versions.ModelVersion) -> None:
    for precision in ("auto", "int8"):
        opened = engines.open_engine(int8_version, precision=precision)
        assert opened.name == "openvino-int8"
        assert opened.run(batch()).argmax(axis=1).tolist() == [2, 1, 0]
    exact = engines.open_engine(int8_version, precision="f32")
    assert exact.run(batch()).argmax(axis=1).tolist() == [0, 1, 2]


def timed(*milliseconds: object) -> dict[str, Any]:
    names = ("openvino-f32", "openvino-bf16", "openvino-int8")
    return {name: passed(time) for name, time in zip(names, milliseconds, strict=True)}


ALL = timed(10.0, 5.0, 4.0)
REFUSED = {**ALL, "openvino-int8": {"passed": False, "milliseconds": 4.0}}


@pytest.mark.parametrize(
    ("checks", "has_bf16", "expected"),
    [
        (ALL, True, "int8"),
        (timed(10.0, 4.0, 5.0), True, "bf16"),
        (timed(4, 5.0, 6.0), True, "f32"),
        (timed(None, None, None), True, "int8"),
        (timed(None, 4.0, 5.0), True, "int8"),  # what is not known of one cannot be compared
        (timed("quick", 4.0, 5.0), True, "int8"),
        (ALL, False, "int8"),
        (REFUSED, True, "bf16"),
        (REFUSED, False, "f32"),
        ({"openvino-bf16": passed()}, True, "bf16"),
        ({"openvino-bf16": passed()}, False, "f32"),
        ({"openvino-bf16": {"passed": False}, "keras": passed()}, True, "f32"),
        ({"openvino-int8": {}}, True, "f32"),
        ({"openvino-int8": {"passed": 1}}, True, "f32"),
        ({}, True, "f32"),
    ],
)
def test_auto_takes_the_quickest_that_passed_its_check_and_that_the_cpu_has(
    int8_version: versions.ModelVersion,
    monkeypatch: pytest.MonkeyPatch,
    checks: dict[str, Any],
    has_bf16: bool,
    expected: str,
) -> None:
    monkeypatch.setattr(engines, "cpu_has_bf16", lambda: has_bf16)
    assert engines.choose_precision(with_manifest(int8_version, engines=checks)) == expected


def test_int8_that_was_refused_is_refused_with_the_reason_of_its_check(
    version: versions.ModelVersion,
) -> None:
    without_file = with_manifest(version, engines={"openvino-int8": passed()})
    assert engines.choose_precision(without_file) == "f32"
    reason = "it loses 9 of 21 validation images"
    checked = with_manifest(version, engines={"openvino-int8": {"passed": False, "reason": reason}})
    with pytest.raises(UsageError) as caught:
        engines.open_engine(checked, precision="int8")
    assert str(caught.value) == (
        f"The model version {version.path} has no int8 model ({reason}): "
        "use --precision f32 or auto."
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"image_size": (40, 32)},
        {"image_size": (64, 64)},
        {"classes": ("blue", "red")},
        {"classes": ("blue", "green", "red", "white")},
    ],
)
@pytest.mark.parametrize("fixture", ["version", "keras_version"])
def test_a_model_of_other_shapes_than_its_manifest_is_refused(
    request: pytest.FixtureRequest, fixture: str, changes: dict[str, Any]
) -> None:
    version = request.getfixturevalue(fixture)
    with pytest.raises(ModelDamagedError, match="its manifest says") as caught:
        engines.open_engine(with_manifest(version, **changes))
    assert str(version.path) in str(caught.value)


ODD_MODELS: dict[str, tuple[Callable[[Any, Any], Any], tuple[int, ...]]] = {
    "flat input": (lambda ops, pixels: ops.softmax(pixels, 1), (-1, 100)),
    "any height": (
        lambda ops, pixels: ops.reduce_mean(pixels, ops.constant([1, 2], np.int64), False),
        (-1, -1, 40, 3),
    ),
    "an output of images": (lambda ops, pixels: ops.relu(pixels), (-1, 32, 40, 3)),
    "an output without classes": (
        lambda ops, pixels: ops.reduce_mean(pixels, ops.constant([1, 2, 3], np.int64), False),
        (-1, 32, 40, 3),
    ),
}


@pytest.mark.parametrize("name", ODD_MODELS)
def test_an_ir_that_is_not_a_classifier_is_refused(
    version: versions.ModelVersion, tmp_path: Path, name: str
) -> None:
    build, shape = ODD_MODELS[name]
    (tmp_path / "openvino").mkdir()
    write_ir(tmp_path / versions.OPENVINO_MODEL, build, shape)
    odd = dataclasses.replace(version, path=tmp_path)
    with pytest.raises((EngineError, ModelDamagedError), match=str(tmp_path)):
        engines.open_engine(odd)


CORRUPT: dict[str, Callable[[Path], object]] = {
    "missing": lambda xml: xml.unlink(),
    "empty": lambda xml: xml.write_bytes(b""),
    "cut": lambda xml: xml.write_bytes(xml.read_bytes()[:500]),
    "text": lambda xml: xml.write_text("hello"),
    "another operation": lambda xml: xml.write_text(xml.read_text().replace("SoftMax", "SoftMix")),
    "without weights": lambda xml: xml.with_suffix(".bin").unlink(),
    "cut weights": lambda xml: xml.with_suffix(".bin").write_bytes(b"12"),
}


@pytest.mark.parametrize("name", CORRUPT)
def test_a_corrupt_ir_is_an_engine_error_in_one_line(
    version: versions.ModelVersion, tmp_path: Path, name: str
) -> None:
    source = version.path / versions.OPENVINO_MODEL
    xml = tmp_path / "model.xml"
    for suffix in (".xml", ".bin"):
        xml.with_suffix(suffix).write_bytes(source.with_suffix(suffix).read_bytes())
    CORRUPT[name](xml)
    with pytest.raises(EngineError) as caught:
        OpenVINOEngine(xml)
    assert str(caught.value).startswith(f"OpenVINO cannot load {xml}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"hello", b"PK\3\4" + bytes(100)])
def test_a_corrupt_keras_model_is_an_engine_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(data)
    with pytest.raises(EngineError, match=r"Keras cannot load .*model\.keras") as caught:
        engines.load_keras_model(path)
    assert "\n" not in str(caught.value)


def test_a_keras_model_that_carries_code_is_refused(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Lambda(lambda x: x * 2)])
    model.save(tmp_path / "model.keras")
    with pytest.raises(EngineError, match="Keras cannot load"):
        engines.load_keras_model(tmp_path / "model.keras")


def test_images_of_a_wrong_size_are_an_engine_error_and_block_nothing(
    version: versions.ModelVersion,
) -> None:
    opened = engines.open_engine(version)
    for _ in range(opened.num_streams + 1):  # more failures than requests
        with pytest.raises(EngineError, match="openvino-f32 failed"):
            opened.run(np.zeros((1, 40, 32, 3), np.uint8))
    assert opened.run(batch()).argmax(axis=1).tolist() == [0, 1, 2]


def test_threads_give_the_answers_of_one_thread(version: versions.ModelVersion) -> None:
    opened = engines.open_engine(version)
    images = batch(60)
    alone = [opened.run(image[np.newaxis]) for image in images]
    with concurrent.futures.ThreadPoolExecutor(4 * opened.num_streams) as pool:
        together = list(pool.map(lambda image: opened.run(image[np.newaxis]), images))
    np.testing.assert_array_equal(together, alone)
    backwards = opened.run(np.asfortranarray(images)[::-1])  # in one batch, of another layout
    np.testing.assert_allclose(backwards, np.concatenate(alone)[::-1], atol=1e-6)


def test_threads_may_bring_the_first_images_together(version_path: Path) -> None:
    code = (
        "import sys, threading; from pathlib import Path; import numpy as np\n"
        "from imagesieve.model import engines, versions\n"
        "sys.setswitchinterval(1e-6)\n"  # the more turns, the sooner two of them would lock
        "engine = engines.open_engine(versions.load(Path(sys.argv[1])))\n"
        "start = threading.Barrier(8)\n"
        "def run():\n"
        "    start.wait()\n"
        "    engine.run(np.zeros((1, 32, 40, 3), np.uint8))\n"
        "threads = [threading.Thread(target=run) for _ in range(8)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "print('answered')"
    )
    assert child(code, version_path) == "answered"


def test_the_files_of_an_open_version_are_not_mapped(version: versions.ModelVersion) -> None:
    opened = engines.open_engine(version)
    assert str(version.path) not in Path("/proc/self/maps").read_text()
    assert opened.run(batch()).argmax(axis=1).tolist() == [0, 1, 2]


def test_the_keras_engine_needs_no_generated_code(
    keras_version: versions.ModelVersion, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    opened = engines.open_engine(keras_version)
    assert opened.run(batch()).shape == (3, 3)
    assert list(tmp_path.iterdir()) == []  # where AutoGraph leaves the code that it writes


def test_running_a_version_imports_no_framework_and_no_telemetry(version_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from imagesieve.model import engines, versions\n"
        "engine = engines.open_engine(versions.load(Path(sys.argv[1])))\n"
        "engine.run(np.zeros((1, 32, 40, 3), np.uint8))\n"
        "frameworks = {'tensorflow', 'keras', 'torch', 'jax', 'nncf', 'openvino_telemetry.main'}\n"
        "print(sorted(frameworks & set(sys.modules)), sys.modules['openvino_telemetry'])"
    )
    assert child(code, version_path) == "[] None"


def test_a_missing_openvino_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EngineError, match=r"run `pip install openvino`, or use --engine keras\."):
        engines.import_openvino()
