"""Records of one split in an order that a seed and an epoch fix, from any position on."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from keras_convnext.data.errors import DataError

# Read by one call: enough that calling Python is cheap, few enough that the first batch is there
# soon.
CHUNK = 32

# Of the positions that a worker counts for itself, makes epochs, positions in them, and images.
Locator = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


class Source(ABC):
    """The images of one split, each with its label, at random access.

    Example:

    ```python
    source = open_source("imagenet2012", "validation")
    for encoded, label, position in source.records(shuffled=False):
        ...
    ```

    Attributes:
        name: str. Where the images come from.
        split: str. Which of its splits this is.
        classes: tuple of str. The names of the classes, in the order of the labels.
        size: int. The number of images.
    """

    def __init__(self, name: str, split: str, classes: Sequence[str], size: int) -> None:
        self.name = name
        self.split = split
        self.classes = tuple(classes)
        self.size = size
        self._orders: dict[tuple[int, int], np.ndarray] = {}
        self._lock = threading.Lock()
        if not size:
            raise DataError(f"There is not one image. Received: {name}, split {split!r}")

    @abstractmethod
    def find(self, indices: np.ndarray) -> list[bytes]:
        """Returns what stands for the images at `indices`: records, or the paths of files."""

    @abstractmethod
    def parse(self, found: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Makes of what was found (K,) the encoded images, or paths, and the int64 labels (K,)."""

    def load(self, parsed: tf.Tensor) -> tf.Tensor:
        """Makes of one of what `parse` returned the encoded image."""
        return parsed

    @abstractmethod
    def name_of(self, index: int) -> str:
        """Says where image `index` lies, for a message."""

    def example(self, index: int) -> tuple[bytes, int]:
        """Returns one image, encoded, and its label, at once."""
        indices = np.array([index], np.int64)
        parsed, label = self.parse(tf.constant(self.find(indices)), tf.constant(indices))
        return self.load(parsed[0]).numpy(), int(label[0])

    def counts(self) -> np.ndarray | None:
        """Returns the number of images of each class, if it is known without reading them."""
        return None

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Returns the permutation of an epoch: the image at each of its positions.

        Args:
            seed: int. Of the run, from 0 up.
            epoch: int. From 0 up.

        Returns:
            int32 array (size,), the same whatever was asked for before, and in every process with
            this version of NumPy.
        """
        with self._lock:
            if (seed, epoch) not in self._orders:
                # Two are in use while one epoch goes over into the next.
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
        """Reads one epoch, each image once.

        Where several workers share it, each gets its slice of every global batch: batching theirs
        by `batch / workers` and laying the pieces side by side gives the global batches of one
        worker. The last may be partial; some workers then have fewer images in it, or none, and
        whoever needs equal shares pads them.

        Args:
            seed: int. Of the run. Defaults to 0.
            epoch: int. From 0 up. Defaults to 0.
            first: int. The position in the epoch to begin at; nothing before it is read. With
                several workers a multiple of `batch`. Defaults to 0.
            shuffled: bool. Whether the order is `order(seed, epoch)` or that of the storage.
                Defaults to True.
            shard: tuple (worker, workers). Defaults to (0, 1).
            batch: int. The images of a global batch, of all workers together. Defaults to 1.

        Returns:
            Dataset of (encoded, label, position): the bytes of the image file, a string; its
            class, int64; its place in the epoch, 0..size-1, int64.

        Raises:
            ValueError: If `first`, `shard` and `batch` do not fit each other.
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
        """Reads one shuffled epoch after another without end, for training.

        Args:
            seed: int. Of the run.
            first: int. How many images all workers together have had of the stream; it goes on
                there at once. With several workers a multiple of `batch`. Defaults to 0.
            shard: tuple (worker, workers), as for `records`. Defaults to (0, 1).
            batch: int. The images of a global batch, of all workers together. Defaults to 1.
            drop_remainder: bool. Whether an epoch ends with its last whole global batch, so that
                it has `size // batch` steps. If not, every image is used, and one batch may hold
                the end of an epoch and the start of the next. Defaults to True.

        Returns:
            Dataset of (encoded, label, epoch, position), the last two int64.

        Raises:
            ValueError: If `first`, `shard` and `batch` do not fit each other.
            DataError: If there are fewer images than one global batch takes.
        """
        worker, slice_size = _slice_of_batch(first, shard, batch)
        length = self.size - self.size % batch if drop_remainder else self.size
        if not length:
            raise DataError(
                f"{self.name}, split {self.split!r}, has {self.size:,} images: fewer than one "
                f"batch. Take a smaller batch, or drop_remainder=False. Received: batch={batch}"
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
    """Leaves parallelism at one call a core.

    The thread that would tune it sleeps for twice as long each time. It can miss that its iterator
    is being deleted, which then waits for it: an evaluation of six seconds takes ten (TensorFlow
    2.21).
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def _slice_of_batch(first: int, shard: tuple[int, int], batch: int) -> tuple[int, int]:
    """Returns the worker and how many images of each global batch are its own."""
    worker, workers = shard
    received = f"Received: first={first}, shard={shard}, batch={batch}"
    if not 0 <= worker < workers:
        raise ValueError(f"shard is (worker, workers), the first counted from 0. {received}")
    if first < 0 or batch < 1:
        raise ValueError(f"first counts from 0, batch from 1. {received}")
    if batch % workers or (workers > 1 and first % batch):
        raise ValueError(
            "Workers take equal slices of whole global batches: batch is a multiple of their "
            f"number, and first a multiple of batch. {received}"
        )
    return worker, batch // workers


def _global_position(
    local: np.ndarray, first: int, worker: int, slice_size: int, batch: int
) -> np.ndarray:
    """Counts over all workers what one worker counts for itself."""
    step, within = np.divmod(local, slice_size)
    return first + step * batch + worker * slice_size + within
