import concurrent.futures
import inspect
import itertools
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from data_folders import draw_scene, fill
from painted import COLOURS, encode, paint
from tensorflow.keras.preprocessing import image as keras_image

from imagesieve.errors import DataError, UnreadableImageError, UsageError
from imagesieve.images import decode
from imagesieve.learning.data.dataset import read_dataset
from imagesieve.learning.data.generator import FIRST_GENERATION, ImageDataGenerator, ImageIterator

SIDE = 40  # Keras puts the centre of a warp elsewhere when an image is not square

TRANSFORMS: dict[str, Mapping[str, Any]] = {
    "nothing": {},
    "rotation": {"theta": 23},
    "shift": {"tx": 4.5, "ty": -7.25},
    "shear": {"shear": 12},
    "zoom in": {"zx": 0.8, "zy": 0.9},
    "zoom out": {"zx": 1.3, "zy": 1.15},
    "first generation": {"shear": -0.2, "zx": 0.85, "zy": 1.2, "flip_horizontal": True},
    "flips": {"flip_horizontal": True, "flip_vertical": True},
    "all": {
        "theta": -31,
        "tx": 5,
        "ty": 3,
        "shear": 9,
        "zx": 1.2,
        "zy": 0.7,
        "flip_horizontal": True,
        "flip_vertical": True,
        "channel_shift_intensity": 17.0,
    },
}


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a class folder of 21 images, so that the last batch of 4 is a rest."""
    return fill(tmp_path_factory.mktemp("few"), 7) / "train"


uses_keras_warp = pytest.mark.filterwarnings(
    # Keras 3.15 calls SciPy under a name that SciPy is about to drop; ours does not.
    "ignore:Please import `affine_transform`:DeprecationWarning"
)


def scene(seed: int = 1, side: int = SIDE) -> np.ndarray:
    return np.asarray(draw_scene(seed, (side, side)))


@uses_keras_warp
@pytest.mark.parametrize("fill_mode", ["nearest", "reflect"])
@pytest.mark.parametrize("parameters", TRANSFORMS.values(), ids=TRANSFORMS)
def test_images_are_warped_as_keras_does_and_bytes_within_rounding(
    parameters: Mapping[str, Any], fill_mode: str
) -> None:
    x = scene()
    keras_s = keras_image.ImageDataGenerator(fill_mode=fill_mode)
    expected = keras_s.apply_transform(x.astype(np.float32), parameters)
    ours = ImageDataGenerator(fill_mode=fill_mode)
    found = ours.apply_transform(x.astype(np.float32), parameters)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-3)
    found = ours.apply_transform(x, parameters)
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 1


@uses_keras_warp
@pytest.mark.parametrize("brightness", [0.4, 1.0, 1.7])
def test_brightness_is_keras_s_within_rounding(brightness: float) -> None:
    x = scene().astype(np.float32)
    change = {"brightness": brightness}
    expected = keras_image.ImageDataGenerator().apply_transform(x.copy(), change)
    found = ImageDataGenerator().apply_transform(x, change)
    assert np.abs(found - expected).max() <= 1


def test_a_half_turn_of_a_wide_image_stays_centred() -> None:
    x = np.asarray(draw_scene(3, (60, 30)))
    found = ImageDataGenerator().apply_transform(x, {"theta": 180})
    assert np.abs(found.astype(int) - x[::-1, ::-1]).max() <= 1


def test_constant_fill_puts_cval_where_the_image_ends() -> None:
    x = np.full((20, 20, 3), 200, np.uint8)
    found = ImageDataGenerator(fill_mode="constant", cval=7).apply_transform(x, {"ty": 10})
    assert (found[:10] == 200).all()
    assert (found[11:] == 7).all()


def test_a_height_shift_moves_along_the_height() -> None:
    generator = ImageDataGenerator(height_shift_range=0.5)
    parameters = [generator.get_random_transform((30, 50, 3), seed) for seed in range(20)]
    assert all(each["tx"] == 0 for each in parameters)
    shifts = [float(each["ty"] or 0) for each in parameters]
    assert 5 < max(map(abs, shifts)) <= 15


def test_parameters_stay_within_the_ranges_and_use_them() -> None:
    generator = ImageDataGenerator(
        rotation_range=30,
        width_shift_range=[3, 5],
        brightness_range=(0.5, 1.5),
        channel_shift_range=9,
        vertical_flip=True,
        **FIRST_GENERATION,
    )
    drawn = [generator.get_random_transform((32, 32, 3), seed) for seed in range(200)]

    def values(name: str) -> np.ndarray:
        return np.array([each[name] for each in drawn], dtype=float)

    assert 25 < np.abs(values("theta")).max() <= 30
    assert 0.15 < np.abs(values("shear")).max() <= 0.2
    assert 0.8 <= values("zx").min() < 0.85
    assert 1.15 < values("zy").max() <= 1.2
    assert not np.array_equal(values("zx"), values("zy"))
    assert set(values("tx")) == {-5, -3, 3, 5}
    assert 70 < values("flip_horizontal").sum() < 130
    assert 70 < values("flip_vertical").sum() < 130
    assert 0.5 <= values("brightness").min() < 0.6
    assert 8 < np.abs(values("channel_shift_intensity")).max() <= 9


def test_constructor_and_flow_take_every_argument_of_keras_s() -> None:
    parent = keras_image.ImageDataGenerator
    for name in inspect.signature(parent.__init__).parameters:
        assert name in ("self", *vars(parent()), "validation_split")
    ours = ImageDataGenerator(shear_range=0.2, zoom_range=0.2, rescale=1 / 255)
    assert isinstance(ours, parent)
    assert (ours.rescale, ours.zoom_range, ours.fill_mode) == (1 / 255, [0.8, 1.2], "nearest")
    expected = list(inspect.signature(parent.flow_from_directory).parameters)
    found = list(inspect.signature(ImageDataGenerator.flow_from_directory).parameters)
    assert found[: len(expected)] == expected


@pytest.mark.parametrize(
    ("constructor", "flow", "message"),
    [
        ({"interpolation_order": 2}, {}, "interpolation_order"),
        ({"data_format": "channels_first"}, {}, "data_format"),
        ({"fill_mode": "mirror"}, {}, "fill_mode"),
        ({}, {"color_mode": "grayscale"}, "color_mode"),
        ({}, {"save_to_dir": "somewhere"}, "save_to_dir"),
        ({}, {"follow_links": True}, "follow_links"),
        ({}, {"interpolation": "nearest"}, "interpolation"),
        ({}, {"keep_aspect_ratio": True}, "keep_aspect_ratio"),
        ({}, {"class_mode": "multi_output"}, "class_mode"),
        ({}, {"subset": "training"}, "subset needs a generator"),
        ({}, {"subset": "test"}, "'training' or 'validation'"),
    ],
    ids=str,
)
def test_options_that_cannot_be_kept_are_refused(
    few: Path, constructor: dict[str, Any], flow: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        ImageDataGenerator(**constructor).flow_from_directory(few, **flow)


def test_a_folder_that_is_missing_or_has_no_images_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no folder .*nowhere"):
        ImageDataGenerator().flow_from_directory(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no images"):
        ImageDataGenerator().flow_from_directory(tmp_path)


def test_what_decodes_is_read_from_class_folders_and_the_rest_left_out_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b", ".thumbnails", "empty"):
        (tmp_path / name).mkdir()
        if name != "empty":
            (tmp_path / name / "x.webp").write_bytes(encode(paint(COLOURS["red"]), "WEBP"))
            (tmp_path / name / "x.gif").write_bytes(encode(paint(COLOURS["blue"]), "GIF"))
    jpeg = encode(paint(COLOURS["red"], size=(200, 200)))
    (tmp_path / "a/half.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    found = ImageDataGenerator().flow_from_directory(tmp_path, target_size=(32, 32))
    assert found.class_indices == {"a": 0, "b": 1}
    assert (found.samples, found.n, found.num_classes) == (4, 4, 2)
    assert sorted(found.filenames) == ["a/x.gif", "a/x.webp", "b/x.gif", "b/x.webp"]
    assert found[0][0].shape == (4, 32, 32, 3)
    assert "half.jpg" in caplog.text


def first_of_each(folder: Path, generator: ImageDataGenerator, **options: Any) -> Any:
    """Return the one batch of a folder with an image of each class."""
    how = {"target_size": (32, 48), "shuffle": False, **options}
    return generator.flow_from_directory(fill(folder, 1) / "train", **how)[0]


def test_pixels_are_those_of_prediction_and_labels_as_the_class_mode_says(tmp_path: Path) -> None:
    images = first_of_each(tmp_path, ImageDataGenerator(), class_mode=None)
    paths = sorted((tmp_path / "train").rglob("*.png"))
    expected = [decode(path, image_size=(32, 48)).pixels for path in paths]
    np.testing.assert_array_equal(images, np.stack(expected))
    assert images.dtype == np.float32
    one_hot = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    modes = {"categorical": one_hot, "sparse": [0, 1, 2], "binary": [0, 1, 2]}
    for mode, labels in modes.items():
        found = first_of_each(tmp_path, ImageDataGenerator(), class_mode=mode)
        np.testing.assert_array_equal(found[1], labels)
    changing = ImageDataGenerator(rescale=1 / 255, preprocessing_function=lambda x: 255 - x)
    changed, labels = first_of_each(tmp_path, changing, class_mode="input")
    np.testing.assert_allclose(changed, (255 - images) / 255, rtol=1e-5)
    np.testing.assert_array_equal(changed, labels)


def test_validation_split_goes_by_content_without_overlap_or_augmentation(tmp_path: Path) -> None:
    folder = fill(tmp_path, 20) / "train"
    generator = ImageDataGenerator(validation_split=0.25, **FIRST_GENERATION)

    def parts() -> list[ImageIterator]:
        return [
            generator.flow_from_directory(folder, (32, 32), shuffle=False, seed=1, subset=subset)
            for subset in ("training", "validation")
        ]

    def contents(flow: ImageIterator) -> set[bytes]:
        return {Path(path).read_bytes() for path in flow.filepaths}

    training, validation = parts()
    assert training.n + validation.n == 60
    assert 0 < validation.n < training.n
    assert not contents(training) & contents(validation)
    plain = decode(validation.filepaths[0], image_size=(32, 32)).pixels
    np.testing.assert_array_equal(validation[0][0][0], plain)
    plain = decode(training.filepaths[0], image_size=(32, 32)).pixels
    assert not np.array_equal(training[0][0][0], plain)

    before = contents(validation)
    for path in list(folder.rglob("*.png")):
        path.rename(path.with_name(f"{999 - int(path.stem)}.png"))
    fill(tmp_path, 5, first=20)
    assert before <= contents(parts()[1])


def flow(folder: Path, seed: int = 3, **options: Any) -> ImageIterator:
    generator = ImageDataGenerator(rotation_range=20, **FIRST_GENERATION)
    return generator.flow_from_directory(folder, (32, 32), batch_size=4, seed=seed, **options)


def test_every_image_comes_exactly_once_in_an_epoch(few: Path) -> None:
    images = ImageDataGenerator().flow_from_directory(few, (32, 32), batch_size=4, seed=1)
    assert len(images) == 6
    orders = []
    for _ in range(3):
        batches = [images[index][0] for index in range(len(images))]
        assert [len(batch) for batch in batches] == [4, 4, 4, 4, 4, 1]
        orders.append([image.tobytes() for batch in batches for image in batch])
        assert len(set(orders[-1])) == 21
        images.on_epoch_end()
    assert set(orders[0]) == set(orders[1])
    assert orders[0] != orders[1] != orders[2]
    with pytest.raises(IndexError):
        images[6]


def test_seed_and_epoch_decide_the_batches_and_no_global_random_state(few: Path) -> None:
    def take(seed: int) -> list[bytes]:
        return [batch.tobytes() for batch, _ in itertools.islice(flow(few, seed), 14)]

    np.random.seed(12)
    state = np.random.get_state()[1].copy()
    first = take(5)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    np.random.seed(13)
    assert take(5) == first
    assert not set(take(6)) & set(first)
    assert len(set(first)) == 14  # the second epoch is no repetition of the first
    unseeded = ImageDataGenerator(**FIRST_GENERATION).flow_from_directory
    assert not np.array_equal(unseeded(few, (32, 32))[0][0], unseeded(few, (32, 32))[0][0])
    images = flow(few, 5)
    images.on_epoch_end()
    assert images[0][0].tobytes() == first[6]
    images.reset()
    assert images[0][0].tobytes() == first[0]


def test_a_view_belongs_to_the_content_wherever_the_image_stands(tmp_path: Path) -> None:
    found = read_dataset(fill(tmp_path, 4))
    generator = ImageDataGenerator(**FIRST_GENERATION)
    forwards, backwards = (
        ImageIterator(generator, samples, found.classes, image_size=(32, 32), seed=2)
        for samples in (found.train, found.train[::-1])
    )
    last = len(found.train) - 1
    np.testing.assert_array_equal(forwards.image(0, 1), backwards.image(last, 1))


def seen_by_fit(images: ImageIterator) -> list[bytes]:
    """Return the batches that Keras takes in three epochs."""
    seen: list[bytes] = []

    class Recorder(keras.Sequential):
        def train_step(self, data: Any) -> Any:
            seen.append(data[0].numpy().tobytes())
            return super().train_step(data)

    layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, activation="softmax")]
    model = Recorder([keras.Input((32, 32, 3)), *layers])
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    model.fit(images, epochs=3, shuffle=False, verbose=0)
    return seen


def seen_by_threads(images: ImageIterator, num_epochs: int) -> list[bytes]:
    """What four threads get that ask for the batches of an epoch at once."""
    seen: list[bytes] = []
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for _ in range(num_epochs):
            batches = pool.map(images.__getitem__, range(len(images)))
            seen += [batch.tobytes() for batch, _ in batches]
            images.on_epoch_end()
    return seen


def test_fit_and_threads_see_the_batches_of_a_plain_loop(few: Path) -> None:
    expected = [batch.tobytes() for batch, _ in itertools.islice(flow(few), 24)]
    assert seen_by_threads(flow(few), 4) == expected
    found = seen_by_fit(flow(few, class_mode="sparse"))
    # Keras closes an epoch of its own while it builds a model, so `fit` may begin at the second.
    start = expected.index(found[0])
    assert start in (0, 6)
    assert found == expected[start : start + 18]


def threads_left() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "ThreadPool" in thread.name]


def test_no_thread_outlives_an_abandoned_loop(few: Path) -> None:
    images = flow(few)
    batches = iter(images)
    next(batches)
    assert threads_left()
    batches.close()
    assert not threads_left()


def test_an_image_that_has_gone_is_named_and_stops_the_batch(tmp_path: Path) -> None:
    images = flow(fill(tmp_path, 2) / "train", shuffle=False)
    gone = Path(images.filepaths[1])
    gone.unlink()
    with pytest.raises(UnreadableImageError, match=gone.name):
        images[0]
    with pytest.raises(UnreadableImageError, match=gone.name):
        next(iter(images))
    assert len(images[1][0]) == 2
    assert not threads_left()


def test_a_loop_that_is_interrupted_does_not_finish_what_was_begun(few: Path) -> None:
    begun = []

    class Slow(ImageDataGenerator):
        def apply_transform(self, x: np.ndarray, transform_parameters: Any) -> np.ndarray:
            begun.append(x)
            time.sleep(0.2)
            return super().apply_transform(x, transform_parameters)

    images = Slow().flow_from_directory(few, (32, 32), batch_size=21, seed=1)
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.4, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        next(iter(images))
    assert 0 < len(begun) < 21
    timer.join()


def test_standardising_of_a_subclass_is_called_for_each_image_in_the_caller_s_thread(
    few: Path,
) -> None:
    seen = []

    class Halving(ImageDataGenerator):
        def standardize(self, x: np.ndarray) -> np.ndarray:
            seen.append(threading.current_thread())
            return x / 2

    halved = Halving().flow_from_directory(few, (32, 32), batch_size=4, seed=3)
    plain = ImageDataGenerator().flow_from_directory(few, (32, 32), batch_size=4, seed=3)
    np.testing.assert_array_equal(halved[0][0], plain[0][0] / 2)
    assert seen == [threading.current_thread()] * 4
