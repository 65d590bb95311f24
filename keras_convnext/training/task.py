"""What the training engine asks a task for. It knows nothing else of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from keras_convnext.training.fitted import FittedModel
    from keras_convnext.training.layout import Layout


class Metric(NamedTuple):
    """The metric that selects the best weights.

    Args:
        name: str. A key of the measured values.
        higher_is_better: bool. Defaults to True.
        percent: bool. Whether it is a share in 0..1, shown in percent. Defaults to False.
        logged: tuple of str. Other metrics of the objective that `log.csv` has. Defaults to none.
    """

    name: str
    higher_is_better: bool = True
    percent: bool = False
    logged: tuple[str, ...] = ()


class Objective(NamedTuple):
    """What is minimized, and measured meanwhile.

    Args:
        loss: keras.losses.Loss. Takes the targets and the outputs of the network, as a list if
            it has several.
        metrics: sequence of keras.metrics.Metric. They also take the weights of the examples.
        targets: nested tf.TensorSpec. The targets of one example, without the batch axis.
        combine: function or None. Takes the loss of a training step, the inputs and the outputs,
            and returns the loss that is minimized. Defaults to None, for the loss itself.
    """

    loss: keras.losses.Loss
    metrics: Sequence[keras.metrics.Metric]
    targets: Any
    combine: Callable[[tf.Tensor, Any, Any], tf.Tensor] | None = None


class Task(Protocol):
    """A task, opened with a recipe, a network and data, as `fit` trains it.

    Attributes:
        examples: int. Number of training examples.
        metric: Metric. What the best weights are selected by.
        restarts: sequence of int. Updates from which batches have another shape.
    """

    examples: int
    metric: Metric
    restarts: Sequence[int]

    def describe(self) -> Mapping[str, Any]:
        """Returns what identifies the run in addition to the recipe, as values for JSON.

        A folder is resumed only by a run with the same description.
        """

    def files(self) -> Mapping[str, str]:
        """Returns the names and texts of files to put into the folder of the run."""

    def network(self) -> keras.Model:
        """Builds the network, in the scope of the strategy; its outputs are those of the loss."""

    def objective(self) -> Objective:
        """Returns the loss and the metrics, in the scope of the strategy."""

    def batches(self, layout: Layout, first_update: int) -> tf.data.Dataset:
        """Returns the endless batches (inputs, targets) of this process, from any update on.

        Returns:
            Dataset of batches of `layout.process_batch` examples. A batch must depend only on the
            seed and its number, so that a resumed run sees what an uninterrupted one sees.
        """

    def evaluation(
        self, model: FittedModel, layout: Layout
    ) -> Callable[[], Mapping[str, float]] | None:
        """Returns a function that measures the model's current weights, among others `metric`.

        All processes call it together. None means that there is nothing to validate on.
        """

    def save(self, path: Path) -> None:
        """Saves the network with its current weights, as users load it."""

    def refuse_broken(self, update: int) -> None:
        """Raises an error that names an example of this update, or of the validation, if broken.

        Called when reading or decoding has failed.
        """
