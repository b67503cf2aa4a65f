"""Images -> features of a frozen base, at the speed of the quickest engine, and none twice.

A frozen network gives the same answer for the same pixels in every epoch, so it is run once before
the training instead of in every step of it; and what it gave is kept for the next training.
"""

import concurrent.futures
import contextlib
import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from imagesieve.cores import cpu_count
from imagesieve.errors import ImageError
from imagesieve.learning.data.dataset import changed_since
from imagesieve.learning.data.generator import ImageIterator
from imagesieve.learning.features import frozen_base
from imagesieve.learning.features.batches import Features
from imagesieve.learning.features.store import FeatureStore
from imagesieve.learning.features.table import Shelf, StoredRows, row_key
from imagesieve.learning.networks.network import Network

_MAP_BATCH = 64

Advance = Callable[[int], None]
Task = tuple[int, list[int]]  # an image, and those views of it that are missing

_log = logging.getLogger(__name__)


class Extractor:
    """Features of one frozen base. A context manager; what it gives is of use only inside.

    Attributes:
        num_computed: images, each view counted, that went through the base.
    """

    def __init__(self, network: Network, store: FeatureStore) -> None:
        self._network = network
        self._store = store
        self._stack = contextlib.ExitStack()
        self._base: frozen_base.FrozenBase | None = None
        self.num_computed = 0

    def __enter__(self) -> "Extractor":
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def open(self, images: ImageIterator, precision: str = frozen_base.AUTO) -> None:
        """Make the base ready to run.

        Args:
            images: for training; see `frozen_base.open_base`.
            precision: see there.

        Raises:
            EngineError: no engine can run it.
            WeightsError: it gives numbers that are not finite.
            OutputError: the converted network cannot be kept.
        """
        opened = frozen_base.open_base(self._network, self._store, images, precision)
        self._base = self._stack.enter_context(opened)

    def pooled(
        self,
        images: ImageIterator,
        num_views: int,
        advance: Advance = lambda count: None,
        *,
        from_maps: bool = False,
    ) -> Features:
        """Give pooled features in memory, (views, images, num_features) float16.

        Args:
            images: what to run the base on.
            num_views: 1 for the images as they are, more for augmented views beside them.
            advance: called with the number of views just dealt with.
            from_maps: pool maps that are known instead of running the whole base. It is not quite
                what the engine would say, so it is for training, not for judging precisions.

        Raises:
            DataError: an image became unreadable since the data folder was checked.
            WeightsError: the base gives numbers that are not finite.
            OutputError: the features cannot be kept.
        """
        keys = _keys(images, num_views)
        shelf = self._open_shelf(of_maps=False)
        if from_maps:
            self._pool_known_maps(shelf, keys)
        self._complete(images, keys, [shelf], advance)
        return Features(StoredRows(shelf, keys).load(), images.classes, images.weights)

    def maps(
        self, images: ImageIterator, num_views: int, advance: Advance = lambda count: None
    ) -> tuple[Features, Features]:
        """Give maps at the cut, which stay on disk, and pooled features as `pooled` does."""
        keys = _keys(images, num_views)
        # Pooled features first: a row that a killed process wrote without its map is made again,
        # and both come out of the same pass.
        shelves = [self._open_shelf(of_maps=False), self._open_shelf(of_maps=True)]
        self._complete(images, keys, shelves, advance)
        pooled, maps = (StoredRows(shelf, keys) for shelf in shelves)
        about = (images.classes, images.weights)
        return Features(maps, *about), Features(pooled.load(), *about)

    @property
    def base(self) -> frozen_base.FrozenBase:
        """The base, which must have been opened."""
        if self._base is None:
            raise ValueError("the base is not open")
        return self._base

    def _open_shelf(self, *, of_maps: bool) -> Shelf:
        about = self.base.about(of_maps=of_maps)
        shape = self.base.map_shape if of_maps else self.base.pooled_shape
        return self._stack.enter_context(self._store.shelf(about, shape))

    def _pool_known_maps(self, shelf: Shelf, keys: Sequence[Sequence[bytes]]) -> None:
        """Fill a shelf from maps, if they are known: after fine-tuning only the top is new."""
        if not self._store.has_shelf(self.base.about(of_maps=True), self.base.map_shape):
            return
        maps = self._open_shelf(of_maps=True)
        known = [key for key in itertools.chain(*keys) if key in maps and key not in shelf]
        if not known:
            return
        shelf.make_room(len(known), f"{len(known)} images")
        upper = self._network.upper_base()
        for start in range(0, len(known), _MAP_BATCH):
            batch = known[start : start + _MAP_BATCH]
            rows = np.asarray(upper.predict_on_batch(maps.read(batch).astype(np.float32)))
            for key, row in zip(batch, rows, strict=True):
                shelf.add(key, _half(row))

    def _complete(
        self,
        images: ImageIterator,
        keys: Sequence[Sequence[bytes]],
        shelves: Sequence[Shelf],
        advance: Advance,
    ) -> None:
        """Compute what the shelves lack."""
        tasks = _missing(keys, shelves)
        num_missing = sum(len(views) for _, views in tasks)
        advance(len(keys) * images.n - num_missing)
        if not tasks:
            return
        for shelf in shelves:
            shelf.make_room(num_missing, f"{images.n} images in {len(keys)} views")

        size = self.base.batch_size

        def compute(batch: Sequence[Task]) -> None:
            pixels, places = [], []
            for number, views in batch:
                pixels += _pixels(images, number, views)
                places += [keys[view][number] for view in views]
            for start in range(0, len(pixels), size):
                maps, pooled = self.base.run(np.stack(pixels[start : start + size]))
                for shelf, rows in zip(shelves, (pooled, maps), strict=False):
                    for key, row in zip(places[start : start + size], rows, strict=True):
                        shelf.add(key, _half(row))
                advance(len(pooled))

        _spread(compute, tasks, size, self.base.num_streams + cpu_count() // 2)
        self.num_computed += num_missing


def _keys(images: ImageIterator, num_views: int) -> list[list[bytes]]:
    names = [images.view_name(view) for view in range(num_views)]
    return [[row_key(sha256, name) for sha256 in images.sha256s] for name in names]


def _missing(keys: Sequence[Sequence[bytes]], shelves: Sequence[Shelf]) -> list[Task]:
    seen: set[bytes] = set()  # copies of an image are computed once
    tasks = []
    for number in range(len(keys[0])):
        views = []
        for view, row in enumerate(keys):
            key = row[number]
            if key not in seen and not all(key in shelf for shelf in shelves):
                seen.add(key)
                views.append(view)
        if views:
            tasks.append((number, views))
    return tasks


def _pixels(images: ImageIterator, number: int, views: Sequence[int]) -> list[np.ndarray]:
    try:
        return images.views(number, views)
    except ImageError as error:
        raise changed_since(error) from error


def _half(row: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # half precision ends at 65504; what lies beyond is found here
        half = row.astype(np.float16)
    frozen_base.require_finite(half)
    return half


def _spread(
    compute: Callable[[Sequence[Task]], None], tasks: Sequence[Task], size: int, num_threads: int
) -> None:
    """Have threads take batches of tasks until none is left or one of them fails."""
    batches = _batches(tasks, size)
    taking = threading.Lock()
    failed = threading.Event()

    def work() -> None:
        while not failed.is_set():
            with taking:
                batch = next(batches, None)
            if batch is None:
                return
            try:
                compute(batch)
            except BaseException:
                failed.set()
                raise

    with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
        try:
            for future in [pool.submit(work) for _ in range(num_threads)]:
                future.result()
        finally:
            failed.set()


def _batches(tasks: Sequence[Task], size: int) -> Iterator[Sequence[Task]]:
    for start in range(0, len(tasks), size):
        yield tasks[start : start + size]
