"""Segmentation as the training engine sees it, and `train`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.text import Text

from keras_convnext.data.checks import refuse_broken
from keras_convnext.pretrained.record import Record, add_record
from keras_convnext.printable import printable
from keras_convnext.segmentation.inference import predict_classes
from keras_convnext.segmentation.input import open_training_data, training_batches
from keras_convnext.segmentation.losses import MEAN_IOU, NO_CLASS, objective
from keras_convnext.segmentation.planning import cost_of
from keras_convnext.segmentation.recipes import Segmentation
from keras_convnext.segmentation.scores import Counts, count, scores_of
from keras_convnext.segmentation.settings import check_recipe, recipe_for
from keras_convnext.segmentation.training_network import build_segmenter, trained
from keras_convnext.training.engine import fit
from keras_convnext.training.fitted import FittedModel
from keras_convnext.training.layout import Layout, find_strategy
from keras_convnext.training.memory_advice import advising
from keras_convnext.training.task import Objective


class SegmentationTask:
    """A segmenter, opened on its data.

    Args:
        recipe: Segmentation. The recipe.
        model: str. Name of the backbone.
        data: str or path. As in `open_pairs`.
        validation_data: str, path or None. Other data to validate on.
    """

    metric = MEAN_IOU
    restarts: Sequence[int] = ()

    def __init__(
        self,
        recipe: Segmentation,
        model: str,
        data: str | Path,
        validation_data: str | Path | None = None,
    ) -> None:
        check_recipe(recipe, model)
        self.recipe = recipe
        self.model = model
        self.data = str(data)
        self.training, self.validation = open_training_data(data, validation_data, recipe)
        self.examples = self.training.size
        self.classes = self.training.classes

    def describe(self) -> Mapping[str, Any]:
        """Returns what identifies the run."""
        return {
            "task": "segmentation",
            "model": self.model,
            "data": self.data,
            "images": self.examples,
            "classes": len(self.classes),
            "labels": self.training.meaning.report,
            "data_digest": self.training.digest(),
        }

    def files(self) -> Mapping[str, str]:
        """Returns the list of classes."""
        return {"classes.txt": "".join(f"{name}\n" for name in self.classes)}

    def network(self) -> keras.Model:
        """Builds the segmenter, and returns what is trained of it."""
        self.segmenter = build_segmenter(self.recipe, self.model, len(self.classes))
        return trained(self.segmenter, self.recipe.input.size)

    def objective(self) -> Objective:
        """Returns the loss."""
        return objective(self.recipe.loss, self.recipe.input.size, self.training.pixels)

    def batches(self, layout: Layout, first_update: int) -> tf.data.Dataset:
        """Returns the augmented crops and their classes."""
        return training_batches(self.training, self.recipe, layout, first_update)

    def evaluation(
        self, model: FittedModel, layout: Layout
    ) -> Callable[[], Mapping[str, float]] | None:
        """Returns a function that measures the scores of the validation images."""
        if self.validation is None:
            return None
        source, classes, own = self.validation, len(self.classes), self.recipe.input
        scale = (own.scale[0], own.scale[1]) if own.scale else None
        logits = keras.Model(self.segmenter.input, self.segmenter.get_layer("logits").output)
        predict = tf.function(
            lambda pixels: logits(pixels, training=False),
            input_signature=[tf.TensorSpec((1, None, None, 3))],
            autograph=False,
        )

        def measure() -> Mapping[str, float]:
            counts = Counts.none(classes)
            for index in range(layout.process, source.size, layout.processes):
                image, labels = source.arrays(index)
                found = predict_classes(
                    lambda pixels: predict(pixels.astype(np.float32)).numpy(),
                    image,
                    scale=scale,
                    crop=own.window,
                    stride=own.stride,
                )
                counts += count(found, labels, classes, NO_CLASS)
            scores = scores_of(summed(counts, model.distribute_strategy, layout))
            return {
                "mean_iou": scores.mean_iou,
                "pixel_accuracy": scores.pixel_accuracy,
                "class_accuracy": scores.class_accuracy,
            }

        return measure

    def save(self, path: Path) -> None:
        """Saves the segmenter, which returns probabilities."""
        self.segmenter.save(path)
        own = self.recipe.input
        preprocessing = {
            "scale": list(own.scale) or None,
            "window": own.window,
            "stride": own.stride,
            "colors": self.training.meaning.colors,
            "labels": {
                "first_label": self.recipe.labels.first_label,
                "ignored": list(self.recipe.labels.ignored),
            },
            "pixels": "RGB in 0..255",
        }
        add_record(path, Record("segmentation", self.classes, preprocessing))

    def refuse_broken(self, update: int) -> None:
        """Raises an error that names the broken image or mask of an update."""
        batch_size = self.recipe.batch.batch_size
        epoch, within = divmod(update, self.examples // batch_size)
        order = self.training.order(self.recipe.seed, epoch)
        chosen = order[within * batch_size : (within + 1) * batch_size]
        refuse_broken(self.training, chosen)
        for index in chosen:
            self.training.arrays(index)


def summed(counts: Counts, strategy: tf.distribute.Strategy, layout: Layout) -> Counts:
    """Adds the counts of all processes, which call this together."""
    if layout.processes == 1:
        return counts

    def of_all(own: tf.Tensor) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        is_first = tf.equal(context.replica_id_in_sync_group % layout.devices, 0)
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(is_first, own, 0))

    found = strategy.run(of_all, (tf.constant(np.stack(counts)),))
    return Counts(*strategy.experimental_local_results(found)[0].numpy())


def train(
    recipe: str | Segmentation,
    model: str,
    data: str | Path,
    output: str | Path,
    settings: Mapping[str, object] | None = None,
    *,
    validation_data: str | Path | None = None,
    strategy: tf.distribute.Strategy | None = None,
    console: Console | None = None,
) -> keras.Model:
    """Trains a segmenter, or resumes an interrupted run.

    The folder of the run gets the files that `classification.train` writes; the best weights are
    those of the highest mean intersection over union.

    Example:

    ```python
    model = train("segment_small", "convnext_tiny", "street", "runs/street", {"epochs": 30})
    ```

    Args:
        recipe: str or Segmentation. The name of a recipe in `RECIPES`, or a complete recipe.
        model: str. Name of the backbone.
        data: str or path. As in `open_pairs`, with a split "train", and possibly "validation" or
            "test". Without the latter, the recipe's `validation_share` of the images is held out;
            if that is 0, nothing is validated, and no best weights are kept.
        output: str or path. The folder of the run. Several machines must share it.
        settings: dict or None. Fields of the recipe to override. Defaults to None.
        validation_data: str, path or None. Other data to validate on, with the same labels.
            Defaults to None.
        strategy: tf.distribute.Strategy or None. Defaults to None, for all available devices.
        console: rich.console.Console or None. Where to show progress. Defaults to None, to show
            nothing.

    Returns:
        The trained `keras.Model`, which maps pixels (N, H, W, 3) to probabilities
        (N, H, W, classes).

    Raises:
        ValueError: If a setting or the data is invalid, or `output` belongs to another run.
        Interrupted: If SIGTERM or SIGINT was received. The state has been saved.
        OutOfMemoryError: If a step needs too much memory. The message says what to set.
        NonFiniteLossError: If the loss is NaN or infinite. The last good state is kept.
        LostMachineError: If another machine has stopped. The same call on all machines resumes from
            the last state.
    """
    if isinstance(recipe, str):
        recipe = recipe_for(recipe, model, settings)
    # A strategy for several machines must be created before any other use of TensorFlow.
    strategy = strategy or find_strategy()
    with console.status("Reading the masks") if console is not None else nullcontext():
        task = SegmentationTask(recipe, model, data, validation_data)
    if console is not None:
        for notice in _notices(task):
            console.print(Text(notice, "yellow"), soft_wrap=True)
    classes = len(task.classes)
    with advising(recipe, model, strategy, lambda _: cost_of(recipe, model, classes)):
        fit(task, recipe, output, strategy=strategy, console=console)
    return task.segmenter


def _notices(task: SegmentationTask) -> list[str]:
    found = [printable(f"{task.data}: {task.training.meaning.report}")]
    if task.validation is None:
        found.append(
            "There are no validation images, so only the last weights are kept. To validate, use "
            "--validation-data, or --set validation_share=0.1 to hold out some training images."
        )
    return found
