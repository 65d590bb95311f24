"""Images in records, each a `tf.train.Example`."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from keras_convnext.data.errors import DataError
from keras_convnext.data.record_files import RecordFiles
from keras_convnext.data.source import Source

# From a vector of records, extracts the vectors of encoded images and labels.
Parser = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class RecordSource(Source):
    """Images in the records of some files.

    Args:
        name, split, classes: as in `Source`.
        files: RecordFiles. The files.
        parser: function. Takes records and returns their encoded images and labels.
        first_label: int. Label of the first class. Defaults to 0.
    """

    def __init__(
        self,
        name: str,
        split: str,
        classes: Sequence[str],
        files: RecordFiles,
        parser: Parser,
        first_label: int = 0,
    ) -> None:
        super().__init__(name, split, classes, len(files))
        self._files = files
        self._parser = parser
        self._first_label = first_label
        # Parses one record per file, to find systematic problems before a run starts.
        starts = np.array(files.starts())
        self.parse(tf.constant(self.find(starts)), tf.constant(starts))

    def name_of(self, index: int) -> str:
        """Returns the file of image `index` and its record number."""
        return self._files.place(index)

    def find(self, indices: np.ndarray) -> list[bytes]:
        """Returns the records."""
        return [self._files[index] for index in indices]

    def parse(self, found: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Extracts images and labels from the records, and checks the labels."""
        encoded, labels = self._parser(found)
        if tf.executing_eagerly():
            return encoded, self._to_classes(labels.numpy(), indices.numpy())
        known = tf.numpy_function(self._to_classes, [labels, indices], tf.int64, stateful=False)
        return encoded, tf.ensure_shape(known, indices.shape)

    def _to_classes(self, labels: np.ndarray, indices: np.ndarray) -> np.ndarray:
        count = len(self.classes)
        wrong = (labels < self._first_label) | (labels >= self._first_label + count)
        if wrong.any():
            last = self._first_label + count - 1
            raise DataError(
                f"The labels of the {count:,} classes are {self._first_label} to {last}. "
                f"Received: {labels[wrong][0]} in {self.name_of(indices[wrong][0])}"
            )
        return labels - self._first_label
