"""Pictures -> features of a frozen base, at the speed of the quickest engine, and none twice.

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

from classifier.cores import cpu_count
from classifier.errors import ImageError
from classifier.learning import frozen
from classifier.learning.dataset import changed_since
from classifier.learning.feature_shelf import Shelf, StoredRows, row_key
from classifier.learning.feature_store import FeatureStore
from classifier.learning.features import Features
from classifier.learning.generator import PictureIterator
from classifier.learning.network import Network

_MAP_BATCH = 64

Advance = Callable[[int], None]
Task = tuple[int, list[int]]  # a picture, and those views of it that are missing

_log = logging.getLogger(__name__)


class Extractor:
    """Features of one frozen base. A context manager; what it gives is of use only inside.

    Attributes:
        num_computed: pictures, each view counted, that went through the base.
    """

    def __init__(self, network: Network, store: FeatureStore) -> None:
        self._network = network
        self._store = store
        self._stack = contextlib.ExitStack()
        self._base: frozen.FrozenBase | None = None
        self.num_computed = 0

    def __enter__(self) -> "Extractor":
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def open(self, pictures: PictureIterator, precision: str = frozen.AUTO) -> None:
        """Make the base ready to run.

        Args:
            pictures: for training; see `frozen.open_base`.
            precision: see there.

        Raises:
            EngineError: no engine can run it.
            WeightsError: it gives numbers that are not finite.
            OutputError: the converted network cannot be kept.
        """
        opened = frozen.open_base(self._network, self._store, pictures, precision)
        self._base = self._stack.enter_context(opened)

    def pooled(
        self,
        pictures: PictureIterator,
        num_views: int,
        advance: Advance = lambda count: None,
        *,
        from_maps: bool = False,
    ) -> Features:
        """Give pooled features in memory, (views, pictures, num_features) float16.

        Args:
            pictures: what to run the base on.
            num_views: 1 for the pictures as they are, more for augmented views beside them.
            advance: called with the number of views just dealt with.
            from_maps: pool maps that are known instead of running the whole base. It is not quite
                what the engine would say, so it is for training, not for judging precisions.

        Raises:
            DataError: a picture became unreadable since the data folder was checked.
            WeightsError: the base gives numbers that are not finite.
            OutputError: the features cannot be kept.
        """
        keys = _keys(pictures, num_views)
        shelf = self._open_shelf(of_maps=False)
        if from_maps:
            self._pool_known_maps(shelf, keys)
        self._complete(pictures, keys, [shelf], advance)
        return Features(StoredRows(shelf, keys).load(), pictures.classes, pictures.weights)

    def maps(
        self, pictures: PictureIterator, num_views: int, advance: Advance = lambda count: None
    ) -> tuple[Features, Features]:
        """Give maps at the cut, which stay on disk, and pooled features as `pooled` does."""
        keys = _keys(pictures, num_views)
        # Pooled features first: a row that a killed process wrote without its map is made again,
        # and both come out of the same pass.
        shelves = [self._open_shelf(of_maps=False), self._open_shelf(of_maps=True)]
        self._complete(pictures, keys, shelves, advance)
        pooled, maps = (StoredRows(shelf, keys) for shelf in shelves)
        about = (pictures.classes, pictures.weights)
        return Features(maps, *about), Features(pooled.load(), *about)

    @property
    def base(self) -> frozen.FrozenBase:
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
        shelf.make_room(len(known), f"{len(known)} pictures")
        upper = self._network.upper_base()
        for start in range(0, len(known), _MAP_BATCH):
            batch = known[start : start + _MAP_BATCH]
            rows = np.asarray(upper.predict_on_batch(maps.read(batch).astype(np.float32)))
            for key, row in zip(batch, rows, strict=True):
                shelf.add(key, _half(row))

    def _complete(
        self,
        pictures: PictureIterator,
        keys: Sequence[Sequence[bytes]],
        shelves: Sequence[Shelf],
        advance: Advance,
    ) -> None:
        """Compute what the shelves lack."""
        tasks = _missing(keys, shelves)
        num_missing = sum(len(views) for _, views in tasks)
        advance(len(keys) * pictures.n - num_missing)
        if not tasks:
            return
        for shelf in shelves:
            shelf.make_room(num_missing, f"{pictures.n} pictures in {len(keys)} views")

        size = self.base.batch_size

        def compute(batch: Sequence[Task]) -> None:
            pixels, places = [], []
            for number, views in batch:
                pixels += _pixels(pictures, number, views)
                places += [keys[view][number] for view in views]
            for start in range(0, len(pixels), size):
                maps, pooled = self.base.run(np.stack(pixels[start : start + size]))
                for shelf, rows in zip(shelves, (pooled, maps), strict=False):
                    for key, row in zip(places[start : start + size], rows, strict=True):
                        shelf.add(key, _half(row))
                advance(len(pooled))

        _spread(compute, tasks, size, self.base.num_streams + cpu_count() // 2)
        self.num_computed += num_missing


def _keys(pictures: PictureIterator, num_views: int) -> list[list[bytes]]:
    names = [pictures.view_name(view) for view in range(num_views)]
    return [[row_key(sha256, name) for sha256 in pictures.sha256s] for name in names]


def _missing(keys: Sequence[Sequence[bytes]], shelves: Sequence[Shelf]) -> list[Task]:
    seen: set[bytes] = set()  # copies of a picture are computed once
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


def _pixels(pictures: PictureIterator, number: int, views: Sequence[int]) -> list[np.ndarray]:
    try:
        return pictures.views(number, views)
    except ImageError as error:
        raise changed_since(error) from error


def _half(row: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # half precision ends at 65504; what lies beyond is found here
        half = row.astype(np.float16)
    frozen.require_finite(half)
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
