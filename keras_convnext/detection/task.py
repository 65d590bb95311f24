"""Detection as the training engine sees it, and `train`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from rich.console import Console
from rich.text import Text

from keras_convnext.backbones import backbone_of, is_for_whole
from keras_convnext.detection.builders import DETECTORS
from keras_convnext.detection.evaluation import pixels_of, results_of, scores_of
from keras_convnext.detection.input import (
    crowded,
    has_masks,
    open_training_data,
    training_batches,
)
from keras_convnext.detection.objective import objective
from keras_convnext.detection.objects import coco_tools
from keras_convnext.detection.planning import cost_of
from keras_convnext.detection.prediction import detect_with
from keras_convnext.detection.recipes import Detection
from keras_convnext.detection.settings import check_recipe, recipe_for
from keras_convnext.detection.training_network import SAMPLING, Sampling, loss_names, trained
from keras_convnext.pretrained.record import Record, add_record
from keras_convnext.training.engine import fit
from keras_convnext.training.fitted import FittedModel
from keras_convnext.training.layout import Layout, find_strategy
from keras_convnext.training.memory_advice import advising
from keras_convnext.training.task import Metric, Objective

BOX_AP = Metric("box_ap", percent=True)


class DetectionTask:
    """A detector, opened on its data.

    Args:
        recipe: Detection. The recipe.
        model: str. Name of the backbone.
        data: str or path. As in `open_objects`.
        validation_data: str, path or None. Other data to validate on.
    """

    metric = BOX_AP
    restarts: Sequence[int] = ()

    def __init__(
        self,
        recipe: Detection,
        model: str,
        data: str | Path,
        validation_data: str | Path | None = None,
    ) -> None:
        check_recipe(recipe, model)
        coco_tools("cocoeval", "Detectors in training")
        self.recipe = recipe
        self.model = model
        self.data = str(data)
        self.training, self.validation = open_training_data(data, validation_data, recipe)
        self.masks = has_masks(self.training, recipe.network.masks)
        self.examples = self.training.size
        self.classes = self.training.classes
        self.crowded = crowded(self.training, recipe.input.most_objects)

    @property
    def kind(self) -> str:
        """The kind of detector."""
        return "cascade_mask_rcnn" if self.recipe.network.cascade else "mask_rcnn"

    @property
    def sampling(self) -> Sampling:
        """What the detector is trained on."""
        own, published = self.recipe.samples, SAMPLING[self.kind]
        return published._replace(
            before=own.before,
            anchors=own.anchors,
            regions=own.regions,
            proposals=own.proposals or published.proposals,
        )

    def describe(self) -> Mapping[str, Any]:
        """Returns what identifies the run."""
        return {
            "task": "detection",
            "model": self.model,
            "data": self.data,
            "images": self.examples,
            "objects": self.training.objects.counts(),
            "classes": len(self.classes),
            "masks": self.masks,
            "data_digest": self.training.digest(),
        }

    def files(self) -> Mapping[str, str]:
        """Returns the list of classes."""
        return {"classes.txt": "".join(f"{name}\n" for name in self.classes)}

    def network(self) -> keras.Model:
        """Builds the detector, and returns what is trained of it."""
        own = self.recipe.network
        whole = is_for_whole(self.kind, self.model, own.start)
        trunk = backbone_of(
            self.model,
            weights=None if whole else own.start,
            input_shape=(None, None, 3),
            drop_path_rate=own.drop_path_rate,
            layer_scale=own.layer_scale,
            remat=self.recipe.batch.remat,
        )
        self.detector = DETECTORS[self.kind](
            trunk,
            weights=own.start if whole else None,
            classes=len(self.classes),
            masks=self.masks,
            channels=own.channels,
            hidden=own.hidden,
            proposals=self.recipe.samples.tested,
        )
        return trained(self.detector, self.sampling)

    def objective(self) -> Objective:
        """Returns the loss, and each of its parts as a metric."""
        return objective(loss_names(self.sampling, self.masks))

    def batches(self, layout: Layout, first_update: int) -> tf.data.Dataset:
        """Returns the augmented images and their objects."""
        return training_batches(self.training, self.recipe, self.masks, layout, first_update)

    def evaluation(
        self, model: FittedModel, layout: Layout
    ) -> Callable[[], Mapping[str, float]] | None:
        """Returns a function that measures the average precision on the validation images."""
        if self.validation is None:
            return None
        objects, (longest, shortest) = self.validation, self.recipe.input.scale
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
            results = []
            for picture in objects.pictures:
                found = detect_with(predict, pixels_of(picture), (longest, shortest))
                results += results_of(found, picture, objects)
            scores = scores_of(objects, results)
            found_scores = {"box_ap": scores.box["AP"], "box_ap50": scores.box["AP50"]}
            if self.masks:
                own = scores.mask or {"AP": 0.0, "AP50": 0.0}  # nothing was found
                found_scores |= {"mask_ap": own["AP"], "mask_ap50": own["AP50"]}
            return found_scores

        return measure

    def save(self, path: Path) -> None:
        """Saves the detector."""
        self.detector.save(path)
        preprocessing = {"scale": list(self.recipe.input.scale), "pixels": "RGB in 0..255"}
        add_record(path, Record("detection", self.classes, preprocessing))

    def refuse_broken(self, update: int) -> None:
        """Raises an error that names the broken image of an update or of the validation."""
        batch_size = self.recipe.batch.batch_size
        epoch, within = divmod(update, self.examples // batch_size)
        order = self.training.order(self.recipe.seed, epoch)
        for index in order[within * batch_size : (within + 1) * batch_size]:
            pixels_of(self.training.objects.pictures[index])
        for picture in self.validation.pictures if self.validation else ():
            pixels_of(picture)


def train(
    recipe: str | Detection,
    model: str,
    data: str | Path,
    output: str | Path,
    settings: Mapping[str, object] | None = None,
    *,
    validation_data: str | Path | None = None,
    strategy: tf.distribute.Strategy | None = None,
    console: Console | None = None,
) -> keras.Model:
    """Trains a detector, or resumes an interrupted run. Needs pycocotools.

    The folder of the run gets the files that `classification.train` writes; the best weights are
    those of the highest average precision of boxes.

    Example:

    ```python
    model = train("detect_small", "convnext_tiny", "photos", "runs/photos", {"epochs": 30})
    ```

    Args:
        recipe: str or Detection. The name of a recipe in `RECIPES`, or a complete recipe.
        model: str. Name of the backbone.
        data: str or path. As in `open_objects`, with a split "train", and possibly "validation".
            Without the latter, the recipe's `validation_share` of the images is held out; if that
            is 0, nothing is validated, and no best weights are kept.
        output: str or path. The folder of the run. Several machines must share it.
        settings: dict or None. Fields of the recipe to override. Defaults to None.
        validation_data: str, path or None. Other data to validate on, with the same categories.
            Defaults to None.
        strategy: tf.distribute.Strategy or None. Defaults to None, for all available devices.
        console: rich.console.Console or None. Where to show progress. Defaults to None, to show
            nothing.

    Returns:
        The trained `keras.Model`, made by `MaskRCNN` or `CascadeMaskRCNN`.

    Raises:
        ValueError: If a setting or the data is invalid, or `output` belongs to another run.
        ImportError: If pycocotools is not installed.
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
    task = DetectionTask(recipe, model, data, validation_data)
    if console is not None:
        for notice in _notices(task):
            console.print(Text(notice, "yellow"), soft_wrap=True)
    with advising(recipe, model, strategy, lambda _: cost_of(recipe, model)):
        fit(task, recipe, output, strategy=strategy, console=console)
    return task.detector


def _notices(task: DetectionTask) -> list[str]:
    notices = [f"Training on {task.training.objects.summary()}"]
    if task.crowded:
        notices.append(
            f"{task.crowded:,} images have more than {task.recipe.input.most_objects} objects, of "
            "which the largest are trained on: set most_objects to train on all"
        )
    if task.validation is None:
        notices.append("There are no validation images, so only the last weights are kept")
    return notices
