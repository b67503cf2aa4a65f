"""Images -> features of a frozen base, on the fastest engine, each computed once.

A frozen network gives the same answer for the same pixels in every epoch, so it is run once before
the training instead of in every step of it; the features are stored for the next training.
"""

import contextlib
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from imagesieve.cores import cpu_count
from imagesieve.errors import ImageError
from imagesieve.learning.data.dataset import changed_since
from imagesieve.learning.data.generator import ImageIterator
from imagesieve.learning.features import frozen_base
from imagesieve.learning.features.batches import Features
from imagesieve.learning.features.store import FeatureStore, FeatureTable, StoredRows, row_key
from imagesieve.learning.networks.network import Network
from imagesieve.prediction.ahead import map_ahead

_MAP_BATCH = 64

Advance = Callable[[int], None]
Task = tuple[int, list[int]]  # the number of an image, and its views that are missing


class Extractor:
    """Features of one frozen base. A context manager; features are valid only inside.

    Attributes:
        base: what runs.
        num_computed: images, each view counted, that went through the base.
    """

    def __init__(
        self,
        network: Network,
        store: FeatureStore,
        images: ImageIterator,
        precision: str = frozen_base.AUTO,
    ) -> None:
        """Take the arguments of `frozen_base.open_base`, which is called on entering."""
        self._network = network
        self._store = store
        self._images = images
        self._precision = precision
        self._stack = contextlib.ExitStack()
        self.num_computed = 0

    def __enter__(self) -> "Extractor":
        opened = frozen_base.open_base(self._network, self._store, self._images, self._precision)
        self.base = self._stack.enter_context(opened)
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def pooled(
        self,
        images: ImageIterator,
        num_views: int,
        advance: Advance = lambda count: None,
        *,
        from_maps: bool = False,
    ) -> Features:
        """Return pooled features in memory, (views, images, num_features) float16.

        Args:
            images: what to run the base on.
            num_views: 1 for the images as they are, more for augmented views beside them.
            advance: called with the number of views just finished.
            from_maps: pool stored maps instead of running the whole base. The result differs a
                little from the engine's, so it is for training, not for comparing precisions.

        Raises:
            DataError: an image became unreadable since the data folder was checked.
            WeightsError: the base gives numbers that are not finite.
            OutputError: the features cannot be stored.
        """
        keys = _keys(images, num_views)
        table = self._open_table("pooled")
        if from_maps:
            self._pool_stored_maps(table, keys)
        self._complete(images, keys, [table], advance)
        return Features(StoredRows(table, keys).load(), images.classes, images.weights)

    def maps(
        self, images: ImageIterator, num_views: int, advance: Advance = lambda count: None
    ) -> tuple[Features, Features]:
        """Return maps at the split layer, which stay on disk, and pooled features; see `pooled`."""
        keys = _keys(images, num_views)
        # Pooled features first: a row that a killed process wrote without its map is made again,
        # and both come out of the same pass.
        tables = [self._open_table("pooled"), self._open_table("maps")]
        self._complete(images, keys, tables, advance)
        pooled, maps = (StoredRows(table, keys) for table in tables)
        labels = (images.classes, images.weights)
        return Features(maps, *labels), Features(pooled.load(), *labels)

    def _open_table(self, name: str) -> FeatureTable:
        return self._stack.enter_context(self._store.table(*self.base.tables[name]))

    def _pool_stored_maps(self, table: FeatureTable, keys: Sequence[Sequence[bytes]]) -> None:
        """Fill a table from maps, if there are any: after fine-tuning only the top is new."""
        if not self._store.has_table(*self.base.tables["maps"]):
            return
        maps = self._open_table("maps")
        stored = [key for key in itertools.chain(*keys) if key in maps and key not in table]
        if not stored:
            return
        table.make_room(len(stored), f"{len(stored)} images")
        upper = self._network.upper_base()
        for start in range(0, len(stored), _MAP_BATCH):
            batch = stored[start : start + _MAP_BATCH]
            rows = np.asarray(upper.predict_on_batch(maps.read(batch).astype(np.float32)))
            table.add(batch, _half(rows))

    def _complete(
        self,
        images: ImageIterator,
        keys: Sequence[Sequence[bytes]],
        tables: Sequence[FeatureTable],
        advance: Advance,
    ) -> None:
        """Compute what the tables lack."""
        tasks = _missing(keys, tables)
        num_missing = sum(len(views) for _, views in tasks)
        advance(len(keys) * images.n - num_missing)
        if not tasks:
            return
        for table in tables:
            table.make_room(num_missing, f"{images.n} images in {len(keys)} views")

        size = self.base.batch_size

        def compute(batch: Sequence[Task]) -> int:
            pixels = [image for number, views in batch for image in images.views(number, views)]
            missing = [keys[view][number] for number, views in batch for view in views]
            for start in range(0, len(pixels), size):
                maps, pooled = self.base.run(np.stack(pixels[start : start + size]))
                for table, rows in zip(tables, (pooled, maps), strict=False):
                    table.add(missing[start : start + size], _half(rows))
            return len(pixels)

        # More threads than the base runs at once: the others decode meanwhile.
        threads = self.base.num_streams + cpu_count() // 2
        batches = (tasks[start : start + size] for start in range(0, len(tasks), size))
        try:
            for count in map_ahead(compute, batches, threads=threads, ahead=threads):
                advance(count)
        except ImageError as error:
            raise changed_since(error) from error
        self.num_computed += num_missing


def _keys(images: ImageIterator, num_views: int) -> list[list[bytes]]:
    names = [images.view_name(view) for view in range(num_views)]
    return [[row_key(sha256, name) for sha256 in images.sha256s] for name in names]


def _missing(keys: Sequence[Sequence[bytes]], tables: Sequence[FeatureTable]) -> list[Task]:
    seen: set[bytes] = set()  # copies of an image are computed once
    tasks = []
    for number in range(len(keys[0])):
        views = []
        for view, row in enumerate(keys):
            key = row[number]
            if key not in seen and not all(key in table for table in tables):
                seen.add(key)
                views.append(view)
        if views:
            tasks.append((number, views))
    return tasks


def _half(rows: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # half precision ends at 65504; what lies beyond is found here
        half = rows.astype(np.float16)
    frozen_base.require_finite(half)
    return half
