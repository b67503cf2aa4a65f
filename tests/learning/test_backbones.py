import functools
import gc
import http.server
import inspect
import re
import sys
import threading
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tiny_backbone import TINY

from imagesieve.errors import UsageError, WeightsError
from imagesieve.learning.features.store import Features
from imagesieve.learning.networks import backbones, network, random_weights, weights
from imagesieve.learning.networks.backbones import BACKBONES, Backbone
from imagesieve.learning.networks.weights import WeightsDownload
from imagesieve.learning.training import fine_tuning
from imagesieve.learning.training.fit import FitSettings

# Parameters without the top; with one for 1000 classes the seven of the first generation's table
# have as many as are named there.
ORIGINAL = {
    "Xception": 22_910_480,
    "InceptionV3": 23_851_784,
    "ResNeXt50": 25_097_128,
    "DenseNet201": 20_242_984,
    "DenseNet169": 14_307_880,
    "ResNet50V2": 25_613_800,
    "DenseNet121": 8_062_504,
}
NUM_FEATURES = {
    **dict.fromkeys(("Xception", "InceptionV3", "ResNeXt50", "ResNet50V2"), 2048),
    **{"DenseNet201": 1920, "DenseNet169": 1664, "DenseNet121": 1024, "SmallCNN": 64},
    **{"MobileNetV2": 1280, "MobileNetV3Large": 960, "EfficientNetV2B0": 1280, "ConvNeXtTiny": 768},
}
NUM_PARAMETERS = {
    **{name: count - 1000 * (NUM_FEATURES[name] + 1) for name, count in ORIGINAL.items()},
    "MobileNetV2": 2_257_984,
    "MobileNetV3Large": 2_996_352,
    "EfficientNetV2B0": 5_919_312,
    "ConvNeXtTiny": 27_820_128,
}


@functools.cache
def built(name: str) -> Any:
    """Build a row once for all tests that only look at it, as small as it may be."""
    backbone = BACKBONES[name]
    return backbones.build(backbone, (backbone.min_side, backbone.min_side), seed=1)


def noise_images(count: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Return float32 (count, height, width, 3) images, each noise around a colour of its own."""
    random = np.random.default_rng(seed)
    colours = random.uniform(0, 255, (count, 1, 1, 3))
    noise = random.normal(0, 30, (count, *size, 3))
    return np.clip(colours + noise, 0, 255).astype(np.float32)


def test_the_small_network_has_as_many_parameters_as_chollets() -> None:
    assert backbones.build(BACKBONES["SmallCNN"], (150, 150), seed=0).count_params() == 1_212_448


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)
def test_build_goes_from_pixels_to_features_and_splits_at_the_cut(backbone: Backbone) -> None:
    import keras

    model = built(backbone.name)
    side = backbone.min_side
    # It is flat, but for the sequences in Keras's own ConvNeXt.
    inner = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    assert all(isinstance(layer, keras.Sequential) for layer in inner)
    assert model.input_shape == (None, side, side, 3)
    assert model.output_shape == (None, NUM_FEATURES[backbone.name])
    assert model.count_params() == NUM_PARAMETERS.get(backbone.name, model.count_params())
    cut = model.get_layer(backbone.cut_layer).output
    # Keras refuses the tail if anything in it hangs on a tensor other than the cut.
    tail = keras.Model(cut, model.output)
    assert 0.1 < tail.count_params() / model.count_params() < 0.98


def test_a_side_below_the_minimum_is_refused() -> None:
    for backbone in BACKBONES.values():
        side = backbone.min_side
        with pytest.raises(UsageError, match=f"at least {side}"):
            backbones.build(backbone, (side + 1, side - 1), seed=0)


@pytest.mark.parametrize(
    ("name", "layer", "black", "white"),
    [
        ("InceptionV3", "scale_pixels", (-1, -1, -1), (1, 1, 1)),
        ("Xception", "scale_pixels", (-1, -1, -1), (1, 1, 1)),
        ("ResNet50V2", "scale_pixels", (-1, -1, -1), (1, 1, 1)),
        ("MobileNetV2", "scale_pixels", (-1, -1, -1), (1, 1, 1)),
        ("MobileNetV3Large", "rescaling", (-1, -1, -1), (1, 1, 1)),
        ("DenseNet121", "scale_pixels", (-2.1179, -2.0357, -1.8044), (2.2489, 2.4286, 2.6400)),
        ("ResNeXt50", "scale_pixels", (-2.1179, -2.0357, -1.8044), (2.2489, 2.4286, 2.6400)),
        ("EfficientNetV2B0", "normalization", (-2.1179, -2.0357, -1.8044), (2.2489, 2.4286, 2.64)),
        (
            "ConvNeXtTiny",
            "convnext_tiny_prestem_normalization",
            (-2.1179, -2.0357, -1.8044),
            (2.2489, 2.4286, 2.64),
        ),
        ("SmallCNN", "scale_pixels", (0, 0, 0), (1, 1, 1)),
    ],
)
def test_pixels_are_scaled_once_and_as_the_weights_expect(
    name: str, layer: str, black: tuple[float, ...], white: tuple[float, ...]
) -> None:
    import keras

    model = built(name)
    scaled = keras.Model(model.input, model.get_layer(layer).output)
    for value, expected in ((0.0, black), (255.0, white)):
        pixels = np.full((1, *model.input_shape[1:]), value, np.float32)
        np.testing.assert_allclose(scaled(pixels)[0, 0, 0], expected, atol=1e-3)


def test_the_same_seed_builds_the_same_network_under_the_same_names() -> None:
    first = built("MobileNetV3Large")
    again = backbones.build(BACKBONES["MobileNetV3Large"], first.input_shape[1:3], seed=1)
    assert [x.name for x in first.operations] == [x.name for x in again.operations]
    for a, b in zip(first.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    plain, other = built("SmallCNN"), backbones.build(BACKBONES["SmallCNN"], (48, 48), seed=2)
    assert np.any(plain.weights[0] != other.weights[0])


def test_a_head_is_trained_on_a_network_of_random_weights_that_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbones, "build", lambda backbone, *_, **__: built(backbone.name))
    resnext = network.build(BACKBONES["ResNeXt50"], 3, (32, 32), weights_path=None, seed=1)
    images = noise_images(6, (32, 32))
    random_weights.prepare(resnext.base, [images])
    features = np.asarray(resnext.base(images))
    assert features.shape == (6, 2048)
    assert np.ptp(features, axis=0).max() > 0.1  # they do not drown
    found = Features(features[np.newaxis], np.arange(6, dtype=np.int32) % 3)
    resnext.standardise(found.values)
    before = resnext.base.get_weights()
    fit = fine_tuning.train_dense_head(resnext, found, found, FitSettings(1, 1e-3, 16, 0, tmp_path))
    assert fit.best_epoch == 1
    for old, new in zip(before, resnext.base.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_grouped_convolution_equals_that_of_keras_and_is_saved(tmp_path: Path) -> None:
    import keras

    from imagesieve.learning.networks.own_architectures import _grouped_convolution

    pixels = keras.Input((9, 9, 64))
    ours = keras.Model(pixels, _grouped_convolution(pixels, 64, 2, "ours"))
    theirs = keras.layers.Conv2D(64, 3, strides=2, groups=32, use_bias=False)
    theirs.build((None, 9, 9, 64))
    kernel = ours.weights[0].numpy()  # (3, 3, group x channel read, channel written)
    by_group = kernel.reshape(3, 3, 32, 2, 2).transpose(0, 1, 3, 2, 4)
    theirs.kernel.assign(by_group.reshape(3, 3, 2, 64))
    maps = np.random.default_rng(0).normal(size=(2, 9, 9, 64)).astype(np.float32)
    np.testing.assert_allclose(ours(maps), theirs(maps), atol=1e-5)
    ours.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded(maps), ours(maps))


def test_an_unknown_name_gets_the_nearest_and_all() -> None:
    with pytest.raises(UsageError, match="Did you mean InceptionV3") as caught:
        backbones.find("inceptionv3")
    assert all(name in str(caught.value) for name in BACKBONES)
    with pytest.raises(UsageError, match=r"'zebra'\. Known are"):
        backbones.find("zebra")


# --- weights from files ---------------------------------------------------------------------------

MOBILE = BACKBONES["MobileNetV2"]


@functools.cache
def plain_mobilenet() -> Any:
    """Return the network as `keras.applications` has it, with statistics other than the initial."""
    import keras

    keras.utils.set_random_seed(5)
    model = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg"
    )
    random = np.random.default_rng(5)
    for weight in model.weights:
        weight.assign(weight.numpy() + random.uniform(0, 0.02, weight.shape))
    return model


def write_legacy_weights(model: Any, path: Path) -> None:
    """Write the layout of the files that `keras.applications` downloads."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            weights = layer.trainable_weights + layer.non_trainable_weights
            names = [f"{layer.name}/{weight.name}:0" for weight in weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, weights, strict=True):
                group[name] = weight.numpy()


@pytest.mark.parametrize("name", ["new.weights.h5", "new-under-another-name.h5", "legacy.h5"])
def test_both_formats_give_the_features_of_the_plain_network(name: str, tmp_path: Path) -> None:
    import keras

    path = tmp_path / name
    plain = plain_mobilenet()
    if name == "legacy.h5":
        write_legacy_weights(plain, path)
    else:
        plain.save_weights(tmp_path / "plain.weights.h5")
        (tmp_path / "plain.weights.h5").rename(path)
    model = built("MobileNetV2")
    weights.load_weights(model, "MobileNetV2", path)
    images = noise_images(3, (32, 32))
    expected = plain(keras.applications.mobilenet_v2.preprocess_input(images.copy()))
    np.testing.assert_allclose(model(images), expected, rtol=1e-4, atol=1e-5)


def _whole_model(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = "{}"
        file.create_group("model_weights")


def _cut_short(path: Path) -> None:
    plain_mobilenet().save_weights(path.with_name("whole.weights.h5"))
    path.write_bytes(path.with_name("whole.weights.h5").read_bytes()[:1_000_000])


def _wrong_shapes(path: Path) -> None:
    """As many layers and arrays of the same names, but one is wider."""
    whole = path.with_name("whole.weights.h5")
    plain_mobilenet().save_weights(whole)
    whole.rename(path)
    with h5py.File(path, "r+") as file:
        del file["layers/conv2d/vars/0"]
        file["layers/conv2d/vars/0"] = np.zeros((3, 3, 3, 64), np.float32)


FOREIGN_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "not an HDF5 file"),
    "garbage": (lambda path: path.write_bytes(b"\x93\x01garbage" * 99), "not an HDF5 file"),
    "web page": (lambda path: path.write_text("<!DOCTYPE html><p>Log in"), "a web page"),
    "keras archive": (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(99)), "saved model"),
    "whole model": (_whole_model, "a whole saved model"),
    "cut short": (_cut_short, "cut short"),
    "no layers": (lambda path: h5py.File(path, "w").close(), "no layers"),
    "legacy of another": (lambda path: write_legacy_weights(built("SmallCNN"), path), "do not fit"),
    "another": (
        lambda path: [
            built("SmallCNN").save_weights(path.with_name("x.weights.h5")),
            path.with_name("x.weights.h5").rename(path),
        ],
        "holds 8 arrays instead of 260",
    ),
    "wrong shapes": (_wrong_shapes, "do not fit"),
}


@pytest.mark.parametrize("kind", FOREIGN_FILES)
def test_a_foreign_file_is_named_together_with_the_backbone(kind: str, tmp_path: Path) -> None:
    write, reason = FOREIGN_FILES[kind]
    path = tmp_path / "weights.h5"
    write(path)
    with pytest.raises(WeightsError, match=reason) as caught:
        weights.load_weights(built("MobileNetV2"), "MobileNetV2", path)
    assert str(path) in str(caught.value)
    assert "MobileNetV2" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        weights.find_weights(MOBILE, str(tmp_path / "none.h5"))
    with pytest.raises(WeightsError, match="is not a file"):
        weights.find_weights(MOBILE, str(tmp_path))
    path = tmp_path / "weights.h5"
    path.touch()
    assert weights.find_weights(MOBILE, str(path)) == path
    assert weights.find_weights(MOBILE, "random") is None


# --- weights from Keras ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ResNeXt50", "SmallCNN"])
def test_a_network_without_imagenet_weights_names_the_other_choices(name: str) -> None:
    with pytest.raises(WeightsError, match=r"--weights FILE.*--weights random") as caught:
        weights.find_weights(BACKBONES[name], "imagenet")
    assert name in str(caught.value)


def test_checksums_and_addresses_are_those_of_the_installed_keras() -> None:
    import keras

    for backbone in BACKBONES.values():
        if backbone.download is None:
            continue
        constructor = inspect.unwrap(getattr(keras.applications, backbone.name))
        # The V2 residual networks are called in a module of their own and made in that of V1.
        module = (
            constructor.__module__.removesuffix("_v2")
            if "ResNet" in backbone.name
            else constructor.__module__
        )
        source = re.sub(r'"\s*"', "", inspect.getsource(sys.modules[module]))
        assert backbone.download.url.rpartition("/")[0] in source
        assert backbone.download.checksum is None or backbone.download.checksum in source


class _Keras(http.server.BaseHTTPRequestHandler):
    """Stands in for Keras's host: the path says how it behaves."""

    finished = threading.Event()

    def do_GET(self) -> None:
        if self.path.startswith("/silent"):
            self.finished.wait(30)
            return
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        body = b"<html>Log in" if self.path.startswith("/portal") else HDF5_BYTES
        length = len(body) * (2 if self.path.startswith("/broken") else 1)
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


class _Host(http.server.ThreadingHTTPServer):
    daemon_threads = False  # closing waits for them, so that no socket outlives its test


HDF5_BYTES = b"\x89HDF\r\n\x1a\n" + bytes(100)
HDF5_MD5 = "306dbb52477cb52eaf0e716ab225937b"


@pytest.fixture
def keras_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(weights, "DOWNLOAD_TIMEOUT_SECONDS", 0.5)
    _Keras.finished.clear()
    with _Host(("127.0.0.1", 0), _Keras) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        _Keras.finished.set()
        server.shutdown()
        thread.join()


def from_host(url: str, checksum: str | None = HDF5_MD5) -> Backbone:
    return replace(MOBILE, download=WeightsDownload(f"{url}/weights.h5", checksum))


@pytest.mark.parametrize(
    ("path", "checksum", "reason"),
    [
        ("/missing", HDF5_MD5, "the server answered 404 Not Found"),
        ("/silent", HDF5_MD5, "no answer within 0.5 seconds"),
        ("/broken", HDF5_MD5, "retrieval incomplete"),
        ("/portal", None, "not the file that Keras lists"),
        ("/other", "0" * 64, "not the file that Keras lists"),
        ("closed", HDF5_MD5, "Connection refused"),
    ],
)
def test_a_failed_download_says_why_and_what_else_to_do(
    keras_host: str, tmp_path: Path, path: str, checksum: str | None, reason: str
) -> None:
    host = keras_host + path if path.startswith("/") else "http://127.0.0.1:9"
    with pytest.raises(WeightsError, match=reason) as caught:
        weights.find_weights(from_host(host, checksum), "imagenet")
    gc.collect()  # an answer that was left open warns here and not in some later test
    target = tmp_path / "keras" / "models" / "weights.h5"
    for needed in ("MobileNetV2", "--weights FILE", "--weights random", str(target)):
        assert needed in str(caught.value)
    assert not target.exists()


def test_a_download_that_is_refused_leaves_no_connection_open(keras_host: str) -> None:
    with pytest.raises(WeightsError) as caught:
        weights.find_weights(from_host(f"{keras_host}/missing"), "imagenet")
    assert isinstance(answer := caught.value.__cause__.__context__, urllib.error.HTTPError)
    assert answer.fp.closed


def test_a_download_is_kept_and_checked_each_time(
    keras_host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = weights.find_weights(from_host(keras_host), "imagenet")
    assert path == tmp_path / "keras" / "models" / "weights.h5"
    assert path.read_bytes() == HDF5_BYTES
    assert capsys.readouterr().out == ""
    assert weights.find_weights(from_host("http://127.0.0.1:9"), "imagenet") == path
    path.write_bytes(HDF5_BYTES[:-1])
    assert weights.find_weights(from_host(keras_host), "imagenet") == path
    assert path.read_bytes() == HDF5_BYTES


# --- batch-norm statistics ------------------------------------------------------------------------


def _output_moments(model: Any, images: np.ndarray) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
    """Return (layer, mean, variance per channel) of each batch norm in inference mode."""
    import keras

    layers = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    outputs = keras.Model(model.input, [layer.output for layer in layers])(images)
    for layer, output in zip(layers, outputs, strict=True):
        yield layer, np.mean(output, axis=(0, 1, 2)), np.var(output, axis=(0, 1, 2))


def test_one_batch_is_normalised_exactly() -> None:
    model = backbones.build(TINY, (32, 32), seed=0)
    images = noise_images(32, (32, 32))
    for layer in model.layers:
        if hasattr(layer, "gamma"):
            layer.gamma.assign(np.full(layer.gamma.shape, 1.5))
    random_weights.prepare(model, [images])
    for layer, mean, variance in _output_moments(model, images):
        before = np.asarray(layer.moving_variance)
        np.testing.assert_allclose(mean, random_weights.OFFSET, atol=2e-3)
        np.testing.assert_allclose(
            variance, 1.5**2 * before / (before + layer.epsilon), rtol=2e-2, atol=1e-4
        )


def test_several_batches_count_by_their_images() -> None:
    import keras

    pixels = keras.Input((6, 5, 3))
    model = keras.Model(pixels, keras.layers.BatchNormalization()(pixels))
    images = noise_images(80, (6, 5))
    random_weights.prepare(model, iter([images[:32], images[32:64], images[64:]]))
    np.testing.assert_allclose(model.layers[-1].moving_mean, images.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(model.layers[-1].moving_variance, images.var((0, 1, 2)), rtol=1e-4)


def test_layers_get_their_settings_back_and_dropout_adds_no_noise() -> None:
    import keras

    pixels = keras.Input((6, 5, 3))
    dropped = keras.layers.Dropout(0.4)(pixels)
    model = keras.Model(pixels, keras.layers.BatchNormalization(momentum=0.9)(dropped))
    model.trainable = False
    _, dropout, batch_norm = model.layers
    images = noise_images(16, (6, 5))
    random_weights.prepare(model, [images])
    np.testing.assert_allclose(batch_norm.moving_mean, images.mean((0, 1, 2)), rtol=1e-5)
    assert (dropout.rate, batch_norm.momentum, batch_norm.trainable) == (0.4, 0.9, False)

    def failing() -> Iterator[np.ndarray]:
        yield images
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        random_weights.prepare(model, failing())
    assert (dropout.rate, batch_norm.momentum, batch_norm.trainable) == (0.4, 0.9, False)


def test_no_batch_norm_needs_no_image() -> None:
    random_weights.prepare(built("ConvNeXtTiny"), [])
