"""Reads the images of one split in a reproducible order, from any position."""

import hashlib
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from keras_convnext.data.errors import DataError
from keras_convnext.printable import printable

# Images read per call: enough to make Python's overhead small, and few enough for a fast first
# batch.
CHUNK = 32

# Maps a worker's own positions to epochs, positions in these, and image indices.
Locator = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


class Source(ABC):
    """The labeled images of one split, with random access.

    Example:

    ```python
    source = open_source("imagenet2012", "validation")
    for encoded, label, position in source.records(shuffled=False):
        ...
    ```

    Attributes:
        name: str. Name or path of the data.
        split: str. Name of the split.
        classes: tuple of str. Class names in the order of the labels.
        size: int. Number of images.
    """

    def __init__(self, name: str, split: str, classes: Sequence[str], size: int) -> None:
        self.name = name
        self.split = split
        self.classes = tuple(classes)
        self.size = size
        self._orders: dict[tuple[int, int], np.ndarray] = {}
        self._lock = threading.Lock()
        for each in self.classes:
            if printable(each) != each:  # a run writes one class per line of classes.txt
                raise DataError(
                    f"A class name must be printable text on one line. Received: {each} in {name}"
                )
        if not size:
            raise DataError(f"There are no images. Received: {name}, split {split!r}")

    @abstractmethod
    def find(self, indices: np.ndarray) -> list[bytes]:
        """Returns the records or file paths of the images at `indices`."""

    @abstractmethod
    def parse(self, found: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Converts K found items to encoded images or paths (K,), and int64 labels (K,)."""

    def load(self, parsed: tf.Tensor) -> tf.Tensor:
        """Converts one of the images or paths from `parse` to an encoded image."""
        return parsed

    @abstractmethod
    def name_of(self, index: int) -> str:
        """Returns the location of image `index`, for a message."""

    def example(self, index: int) -> tuple[bytes, int]:
        """Returns one encoded image and its label, eagerly."""
        indices = np.array([index], np.int64)
        parsed, label = self.parse(tf.constant(self.find(indices)), tf.constant(indices))
        return self.load(parsed[0]).numpy(), int(label[0])

    def labels(self) -> np.ndarray | None:
        """Returns the class of each image, or None if unknown without reading them."""
        return None

    def counts(self) -> np.ndarray | None:
        """Returns the number of images per class, or None if unknown without reading them."""
        labels = self.labels()
        return None if labels is None else np.bincount(labels, minlength=len(self.classes))

    def digest(self) -> str:
        """Returns a hash of the classes and of the names of the images, to notice other data.

        Of large data, 10,000 names are used. Contents are not read, and the data may be moved.
        """
        every = np.linspace(0, self.size - 1, min(self.size, 10_000)).astype(np.int64)
        names = (self.name_of(int(index)).removeprefix(self.name) for index in every)
        text = json.dumps([self.size, self.classes, *names])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Returns the permutation of an epoch: the image index at each position.

        Args:
            seed: int. Seed of the run, at least 0.
            epoch: int. The epoch, counted from 0.

        Returns:
            int32 array (size,), independent of earlier calls and equal in all processes with the
            same version of NumPy.
        """
        with self._lock:
            if (seed, epoch) not in self._orders:
                # Two are in use at the transition between epochs.
                while len(self._orders) > 1:
                    del self._orders[next(iter(self._orders))]
                order = np.arange(self.size, dtype=np.int32)
                np.random.Generator(np.random.Philox(key=[seed, epoch])).shuffle(order)
                self._orders[seed, epoch] = order
            return self._orders[seed, epoch]

    def records(
        self,
        seed: int = 0,
        epoch: int = 0,
        first: int = 0,
        shuffled: bool = True,
        shard: tuple[int, int] = (0, 1),
        batch: int = 1,
    ) -> tf.data.Dataset:
        """Reads each image once, for one epoch.

        With several workers, each reads its slice of every global batch: if each batches its images
        by `batch / workers`, concatenating the results gives the global batches of a single worker.
        The last batch may be partial; some workers then get fewer images or none, and must pad them
        if equal shares are needed.

        Args:
            seed: int. Seed of the run. Defaults to 0.
            epoch: int. The epoch, counted from 0. Defaults to 0.
            first: int. Position in the epoch to start at; earlier images are not read. Must be a
                multiple of `batch` with several workers. Defaults to 0.
            shuffled: bool. Whether to use `order(seed, epoch)` instead of the storage order.
                Defaults to True.
            shard: tuple (worker, workers). Defaults to (0, 1).
            batch: int. Global batch size, over all workers. Defaults to 1.

        Returns:
            Dataset of (encoded, label, position): the bytes of the image file (string), its class
            (int64), and its position in the epoch in 0..size-1 (int64).

        Raises:
            ValueError: If `first`, `shard` and `batch` are inconsistent.
        """
        worker, slice_size = _slice_of_batch(first, shard, batch)
        batches, rest = divmod(max(self.size - first, 0), batch)
        count = batches * slice_size + min(max(rest - worker * slice_size, 0), slice_size)
        local = tf.data.Dataset.range(count)

        def locate(local: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            position = _global_position(local, first, worker, slice_size, batch)
            index = self.order(seed, epoch)[position] if shuffled else position
            return np.full_like(position, epoch), position, index

        dataset = self._read(local, locate, epochs=False)
        return dataset.apply(tf.data.experimental.assert_cardinality(count))

    def stream(
        self,
        seed: int,
        first: int = 0,
        shard: tuple[int, int] = (0, 1),
        batch: int = 1,
        drop_remainder: bool = True,
    ) -> tf.data.Dataset:
        """Reads an endless sequence of shuffled epochs, for training.

        Args:
            seed: int. Seed of the run.
            first: int. Number of images already read by all workers, where the stream resumes
                without reading them. Must be a multiple of `batch` with several workers. Defaults
                to 0.
            shard: tuple (worker, workers), as in `records`. Defaults to (0, 1).
            batch: int. Global batch size, over all workers. Defaults to 1.
            drop_remainder: bool. Whether an epoch ends with its last full global batch, after
                `size // batch` steps. If False, every image is used, and a batch may contain the
                end of one epoch and the start of the next. Defaults to True.

        Returns:
            Dataset of (encoded, label, epoch, position), the last two int64.

        Raises:
            ValueError: If `first`, `shard` and `batch` are inconsistent.
            DataError: If there are fewer images than in one global batch.
        """
        worker, slice_size = _slice_of_batch(first, shard, batch)
        length = self.size - self.size % batch if drop_remainder else self.size
        if not length:
            raise DataError(
                f"{self.name}, split {self.split!r}, has only {self.size:,} images, fewer than one "
                f"batch. Use a smaller batch or drop_remainder=False. Received: batch={batch}"
            )

        def locate(local: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            position = _global_position(local, first, worker, slice_size, batch)
            epochs, position = np.divmod(position, length)
            index = np.empty_like(position)
            for epoch in np.unique(epochs):
                here = epochs == epoch
                index[here] = self.order(seed, int(epoch))[position[here]]
            return epochs, position, index

        local = tf.data.Dataset.range(np.iinfo(np.int64).max)
        dataset = self._read(local, locate, epochs=True)
        return dataset.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))

    def _read(self, local: tf.data.Dataset, locate: Locator, epochs: bool) -> tf.data.Dataset:
        def find(local: np.ndarray) -> tuple[np.ndarray, ...]:
            epoch, position, index = locate(local)
            found = np.empty(len(index), object)
            found[:] = self.find(index)
            return found, epoch, position, index.astype(np.int64)

        def find_and_parse(local: tf.Tensor) -> tuple[tf.Tensor, ...]:
            types = tf.string, tf.int64, tf.int64, tf.int64
            columns = tf.numpy_function(find, [local], types, stateful=False)
            for column in columns:
                column.set_shape(local.shape)
            found, epoch, position, index = columns
            return *self.parse(found, index), epoch, position

        def load(parsed: tf.Tensor, label: tf.Tensor, *place: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return self.load(parsed), label, *(place if epochs else place[1:])

        options = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}
        loaded = local.batch(CHUNK).map(find_and_parse, **options).unbatch().map(load, **options)
        return loaded.with_options(untuned())


def untuned() -> tf.data.Options:
    """Returns options that disable autotuning, for one parallel call per core.

    The tuning thread sleeps twice as long each time, and can miss that its iterator is being
    deleted, which then waits for it: an evaluation of six seconds takes ten (TensorFlow 2.21).
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def _slice_of_batch(first: int, shard: tuple[int, int], batch: int) -> tuple[int, int]:
    """Returns the worker and its number of images in each global batch."""
    worker, workers = shard
    received = f"Received: first={first}, shard={shard}, batch={batch}"
    if not 0 <= worker < workers:
        raise ValueError(f"shard must be (worker, workers), with worker counted from 0. {received}")
    if first < 0 or batch < 1:
        raise ValueError(f"first must be at least 0 and batch at least 1. {received}")
    if batch % workers or (workers > 1 and first % batch):
        raise ValueError(
            "Workers read equal slices of full global batches: batch must be a multiple of the "
            f"number of workers, and first a multiple of batch. {received}"
        )
    return worker, batch // workers


def _global_position(
    local: np.ndarray, first: int, worker: int, slice_size: int, batch: int
) -> np.ndarray:
    """Converts a worker's own positions to positions over all workers."""
    step, within = np.divmod(local, slice_size)
    return first + step * batch + worker * slice_size + within
