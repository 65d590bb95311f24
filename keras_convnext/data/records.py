"""Images in records, one tf.train.Example each."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from keras_convnext.data.errors import DataError
from keras_convnext.data.record_files import RecordFiles
from keras_convnext.data.source import Source

# Of records, a vector of strings, makes their encoded images and their labels, vectors too.
Parser = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class RecordSource(Source):
    """Images in the records of some files.

    Args:
        name, split, classes: as of a `Source`.
        files: RecordFiles.
        parser: function of records. Their encoded images and their labels.
        first_label: int. The label of the first class. Defaults to 0.
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
        # One record a file: what is wrong with all is found before a run starts.
        starts = np.array(files.starts())
        self.parse(tf.constant(self.find(starts)), tf.constant(starts))

    def name_of(self, index: int) -> str:
        """Returns the file that image `index` is in, and its number there."""
        return self._files.place(index)

    def find(self, indices: np.ndarray) -> list[bytes]:
        """Returns the records."""
        return [self._files[index] for index in indices]

    def parse(self, found: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Takes images and labels out of the records, and refuses a label that no class has."""
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
                f"A label outside the list of {count:,} classes, which have {self._first_label} to "
                f"{last}: {labels[wrong][0]} in {self.name_of(indices[wrong][0])}"
            )
        return labels - self._first_label
