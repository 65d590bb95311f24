"""Detection of rotated boxes as the training engine sees it, and `train`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from rich.console import Console
from rich.text import Text

from keras_convnext.backbones import backbone_of, is_for_whole
from keras_convnext.detection.objective import objective
from keras_convnext.detection.rotated.input import open_training_data, training_batches
from keras_convnext.detection.rotated.network import KINDS, RotatedRetinaNet
from keras_convnext.detection.rotated.planning import cost_of
from keras_convnext.detection.rotated.prediction import detect_rotated_with
from keras_convnext.detection.rotated.recipes import RotatedDetection
from keras_convnext.detection.rotated.scenes import Scene
from keras_convnext.detection.rotated.scores import scores_of_rotated
from keras_convnext.detection.rotated.settings import check_recipe, recipe_for
from keras_convnext.detection.rotated.training_network import (
    LOSSES,
    MEASURED,
    RotatedObjective,
    trained,
)
from keras_convnext.pretrained.record import Record, add_record
from keras_convnext.training.engine import fit
from keras_convnext.training.fitted import FittedModel
from keras_convnext.training.layout import Layout, find_strategy
from keras_convnext.training.memory_advice import advising
from keras_convnext.training.task import Metric, Objective

TASK = "detection.rotated"
AP50 = Metric("ap50", percent=True, logged=(*(f"{name}_loss" for name in LOSSES), *MEASURED))


class RotatedDetectionTask:
    """A detector of rotated boxes, opened on its data.

    Args:
        recipe: RotatedDetection. The recipe.
        model: str. Name of the backbone.
        data: str or path. As in `open_rotated`.
        validation_data: str, path or None. Other data to validate on.
    """

    metric = AP50
    restarts: Sequence[int] = ()

    def __init__(
        self,
        recipe: RotatedDetection,
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
            "task": TASK,
            "model": self.model,
            "data": self.data,
            "tiles": self.examples,
            "objects": self.training.objects.counts(),
            "classes": len(self.classes),
            "data_digest": self.training.digest(),
        }

    def files(self) -> Mapping[str, str]:
        """Returns the list of classes."""
        return {"classes.txt": "".join(f"{name}\n" for name in self.classes)}

    def network(self) -> keras.Model:
        """Builds the detector, and returns what is trained of it."""
        own, loss = self.recipe.network, self.recipe.loss
        whole = is_for_whole(KINDS[own.regression], self.model, own.start)
        trunk = backbone_of(
            self.model,
            weights=None if whole else own.start,
            input_shape=(None, None, 3),
            drop_path_rate=own.drop_path_rate,
            layer_scale=own.layer_scale,
            remat=self.recipe.batch.remat,
        )
        self.detector = RotatedRetinaNet(
            trunk,
            weights=own.start if whole else None,
            classes=len(self.classes),
            regression=own.regression,
            convention=own.convention,
            channels=own.channels,
        )
        # The pyramid begins with the second map: files have the norm of the first, which gets no
        # gradient.
        self.detector.get_layer("norm_0").trainable = False
        return trained(self.detector, RotatedObjective(loss.assigner, loss.box, loss.weight))

    def objective(self) -> Objective:
        """Returns the loss, and its parts and the measured values as metrics."""
        return objective(LOSSES, MEASURED)

    def batches(self, layout: Layout, first_update: int) -> tf.data.Dataset:
        """Returns the augmented tiles and their objects."""
        return training_batches(self.training, self.recipe, layout, first_update)

    def evaluation(
        self, model: FittedModel, layout: Layout
    ) -> Callable[[], Mapping[str, float]] | None:
        """Returns a function that measures the average precision on the validation images."""
        if self.validation is None:
            return None
        objects, own = self.validation, self.recipe.input
        specs = {
            "images": tf.TensorSpec((1, None, None, 3)),
            "sizes": tf.TensorSpec((1, 2)),
        }
        predict = tf.function(
            lambda inputs: self.detector(inputs, training=False),
            input_signature=[specs],
            autograph=False,
        )

        def measure() -> Mapping[str, float]:
            found = [
                detect_rotated_with(predict, picture.path, own.size, own.overlap)
                for picture in objects.pictures
            ]
            figures = scores_of_rotated(objects, found).eleven_points
            return {name.lower(): value for name, value in figures.items()}

        return measure

    def save(self, path: Path) -> None:
        """Saves the detector."""
        self.detector.save(path)
        own = self.recipe.input
        tiles = {"tile": own.size, "overlap": own.overlap, "pixels": "RGB in 0..255"}
        add_record(path, Record(TASK, self.classes, tiles))

    def refuse_broken(self, update: int) -> None:
        """Raises an error that names the broken image of an update or of the validation."""
        batch_size = self.recipe.batch.batch_size
        epoch, within = divmod(update, self.examples // batch_size)
        order = self.training.order(self.recipe.seed, epoch)
        for index in order[within * batch_size : (within + 1) * batch_size]:
            self.training.pixels(int(index))
        for picture in self.validation.pictures if self.validation else ():
            with Scene(picture.path) as scene:
                scene.band(0, scene.height)


def train(
    recipe: str | RotatedDetection,
    model: str,
    data: str | Path,
    output: str | Path,
    settings: Mapping[str, object] | None = None,
    *,
    validation_data: str | Path | None = None,
    strategy: tf.distribute.Strategy | None = None,
    console: Console | None = None,
) -> keras.Model:
    """Trains a detector of rotated boxes, or resumes an interrupted run.

    The last bits of two equal runs may differ, unless the environment of the process has
    `TF_NUM_INTEROP_THREADS=1`: TensorFlow's sums of three or more gradients depend on its threads.

    The folder of the run gets the files that `classification.train` writes; the best weights are
    those of the highest AP50. Images larger than a tile are cut while training, for which the whole
    image is read each time: cut large scenes with `write_tiles` first.

    Example:

    ```python
    model = train("detect_rotated_small", "convnext_tiny", "harbors", "runs/harbors")
    ```

    Args:
        recipe: str or RotatedDetection. The name of a recipe in `RECIPES`, or a complete recipe.
        model: str. Name of the backbone.
        data: str or path. A folder of DOTA or YOLO-OBB, as in `open_rotated`. Without a split for
            validation, the recipe's `validation_share` of the images is held out; if that is 0,
            nothing is validated, and no best weights are kept.
        output: str or path. The folder of the run. Several machines must share it.
        settings: dict or None. Fields of the recipe to override. Defaults to None.
        validation_data: str, path or None. Other data to validate on, with the same classes.
            Defaults to None.
        strategy: tf.distribute.Strategy or None. Defaults to None, for all available devices.
        console: rich.console.Console or None. Where to show progress. Defaults to None, to show
            nothing.

    Returns:
        The trained `keras.Model`, made by `RotatedRetinaNet`.

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
    task = RotatedDetectionTask(recipe, model, data, validation_data)
    if console is not None:
        for notice in _notices(task):
            console.print(Text(notice, "yellow"), soft_wrap=True)
    with advising(recipe, model, strategy, lambda _: cost_of(recipe, model)):
        fit(task, recipe, output, strategy=strategy, console=console)
    return task.detector


def _notices(task: RotatedDetectionTask) -> list[str]:
    summary = task.training.objects.summary()
    notices = [f"Training on {task.examples:,} tiles of {summary}"]
    most = task.recipe.input.most_objects
    crowded = sum(len(part.objects) > most for part in task.training.parts)
    if crowded:
        notices.append(
            f"{crowded:,} tiles have more than {most} objects, of which the largest are trained "
            "on: set most_objects to train on all"
        )
    if task.validation is None:
        notices.append("There are no validation images, so only the last weights are kept")
    return notices
