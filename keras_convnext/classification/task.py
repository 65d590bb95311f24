"""Classification as the training engine sees it, and `train`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from rich.console import Console
from rich.text import Text

from keras_convnext.classification.distillation import distilled, open_teacher
from keras_convnext.classification.input import (
    evaluation_batches,
    open_training_data,
    training_batches,
)
from keras_convnext.classification.losses import ACCURACY, CROSS_ENTROPY, objective
from keras_convnext.classification.network import build_classifier, for_size, without_softmax
from keras_convnext.classification.planning import cost_of
from keras_convnext.classification.recipes import Classification
from keras_convnext.classification.settings import check_recipe, recipe_for
from keras_convnext.data.checks import refuse_broken
from keras_convnext.preprocessing import prepared
from keras_convnext.pretrained.record import Record, add_record
from keras_convnext.printable import printable
from keras_convnext.roadmap.steps import find_model
from keras_convnext.training.devices import Device
from keras_convnext.training.engine import fit
from keras_convnext.training.fitted import FittedModel
from keras_convnext.training.layout import Layout, find_strategy
from keras_convnext.training.memory_advice import advising
from keras_convnext.training.planning import Cost
from keras_convnext.training.task import Objective


class ClassificationTask:
    """A classifier, opened on its data.

    Args:
        recipe: Classification. The recipe.
        model: str. Name of the network.
        data: str or path. As in `open_source`.
        validation_data: str, path or None. Other data to validate on.
        teacher: keras.Model or None. A classifier to learn from, instead of the recipe's `teacher`.
    """

    metric = ACCURACY

    def __init__(
        self,
        recipe: Classification,
        model: str,
        data: str | Path,
        validation_data: str | Path | None = None,
        teacher: keras.Model | None = None,
    ) -> None:
        check_recipe(recipe, model)
        self.recipe = recipe
        self.model = model
        self.data = str(data)
        self.training, self.validation = open_training_data(data, validation_data, recipe)
        self.examples = self.training.size
        self.classes = self.training.classes
        self.teacher = teacher or recipe.targets.teacher
        epoch = self.examples // recipe.batch.batch_size
        self.restarts: Sequence[int] = [round(each * epoch) for each in recipe.input.early_epochs]

    def describe(self) -> Mapping[str, Any]:
        """Returns what identifies the run."""
        name = getattr(self.teacher, "name", self.teacher)
        return {
            "task": "classification",
            "model": self.model,
            "data": self.data,
            "images": self.examples,
            "classes": len(self.classes),
            "data_digest": self.training.digest(),
            "teacher": name or "",
        }

    def files(self) -> Mapping[str, str]:
        """Returns the list of classes."""
        return {"classes.txt": "".join(f"{name}\n" for name in self.classes)}

    def network(self) -> keras.Model:
        """Builds the classifier, and returns it without its softmax."""
        recipe, classes = self.recipe, len(self.classes)
        if not recipe.input.early_sizes:
            self.classifier = build_classifier(recipe, self.model, classes)
            return without_softmax(self.classifier)
        whole = build_classifier(recipe, self.model, classes, any_size=True)
        self.classifier = for_size(whole, recipe.input.size)
        return without_softmax(whole)

    def objective(self) -> Objective:
        """Returns the loss and the metrics."""
        found, own = objective(len(self.classes)), self.recipe.targets
        if self.teacher is None:
            return found
        teacher = open_teacher(self.teacher, self.recipe.input.size, len(self.classes))
        combine = distilled(teacher, own.teacher_weight, own.temperature)
        return found._replace(combine=combine)

    def batches(self, layout: Layout, first_update: int) -> tf.data.Dataset:
        """Returns the augmented images and soft targets."""
        early = zip(self.restarts, self.recipe.input.early_sizes)
        sizes = [size for restart, size in early if first_update < restart]
        recipe = self.recipe
        if sizes:
            recipe = replace(recipe, input=replace(recipe.input, size=sizes[0]))
        return training_batches(self.training, recipe, layout, first_update)

    def evaluation(
        self, model: FittedModel, layout: Layout
    ) -> Callable[[], Mapping[str, float]] | None:
        """Returns a function that measures the loss and accuracy of the validation images."""
        if self.validation is None:
            return None
        batches = evaluation_batches(self.validation, self.recipe, layout)
        steps = int(batches.cardinality())
        # Where Keras can see the last batch, it begins a second pass after it that nobody reads.
        distributed = layout.distributed(model.distribute_strategy, batches.repeat())

        def measure() -> Mapping[str, float]:
            found = model.evaluate(distributed, steps=steps, verbose=0, return_dict=True)
            # The loss that Keras computes of padded batches is wrong; the metric has weights.
            found["loss"] = found.pop(CROSS_ENTROPY)
            return found

        return measure

    def save(self, path: Path) -> None:
        """Saves the classifier, which returns probabilities."""
        self.classifier.save(path)
        add_record(path, Record("classification", self.classes, prepared(self.recipe.input.size)))

    def refuse_broken(self, update: int) -> None:
        """Raises an error that names the broken image of an update or of the validation."""
        batch_size = self.recipe.batch.batch_size
        epoch, within = divmod(update, self.examples // batch_size)
        order = self.training.order(self.recipe.seed, epoch)
        refuse_broken(self.training, order[within * batch_size : (within + 1) * batch_size])
        if self.validation is not None:
            refuse_broken(self.validation, range(self.validation.size))


def train(
    recipe: str | Classification,
    model: str,
    data: str | Path,
    output: str | Path,
    settings: Mapping[str, object] | None = None,
    *,
    validation_data: str | Path | None = None,
    teacher: keras.Model | None = None,
    strategy: tf.distribute.Strategy | None = None,
    console: Console | None = None,
) -> keras.Model:
    """Trains a classifier, or resumes an interrupted run.

    The following files are written to the folder of the run: `run.json` (all settings),
    `classes.txt`, `log.csv`, `checkpoints/` (the last three states), and `best.keras` and
    `best_ema.keras` (highest validation accuracy); at the end `final.keras`, `final_ema.keras` and
    `run.png`; and `tensorboard/` if TensorBoard is installed. Files with `_ema` contain the moving
    averages of the weights, if the recipe uses them. The same call with the same folder resumes
    from the last state, and gives the same results as an uninterrupted run. Another number of
    devices gives the same results up to rounding, unless the recipe uses drop path, for which each
    device draws its own masks.

    Example:

    ```python
    model = train("finetune_small", "convnext_tiny", "photos", "runs/photos", {"epochs": 10})
    ```

    Args:
        recipe: str or Classification. The name of a recipe in `RECIPES`, or a complete recipe.
        model: str. Name of the network, as in `keras-convnext list`.
        data: str or path. As in `open_source`, with a split "train", and possibly "validation" or
            "test". Without the latter, the recipe's `validation_share` of the images is held out;
            if that is 0, nothing is validated, and no best weights are kept.
        output: str or path. The folder of the run. Several machines must share it.
        settings: dict or None. Fields of the recipe to override. Defaults to None.
        validation_data: str, path or None. Other data to validate on. Its classes may be some of
            those of the training data, such as ImageNet-1K for ImageNet-22K. Defaults to None.
        teacher: keras.Model or None. A classifier to learn from (knowledge distillation), instead
            of the recipe's `teacher`. Defaults to None.
        strategy: tf.distribute.Strategy or None. Defaults to None, for all available devices.
        console: rich.console.Console or None. Where to show progress. Defaults to None, to show
            nothing.

    Returns:
        The trained `keras.Model`, which maps pixels to probabilities.

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
    task = ClassificationTask(recipe, model, data, validation_data, teacher)
    if console is not None and (notice := _about_validation(task)):
        console.print(Text(notice, "yellow"), soft_wrap=True)

    def cost_on(device: Device) -> Cost | None:
        return None if find_model(model) else cost_of(recipe, model, len(task.classes))

    with advising(recipe, model, strategy, cost_on):
        fit(task, recipe, output, strategy=strategy, console=console)
    return task.classifier


def _about_validation(task: ClassificationTask) -> str:
    if task.validation is None:
        return (
            "There are no validation images, so only the last weights are kept. To validate, use "
            "--validation-data, or --set validation_share=0.1 to hold out some training images."
        )
    missing = getattr(task.validation, "missing", ())
    if not missing:
        return ""
    return (
        f"Images of {len(missing):,} validation classes are not evaluated, because the training "
        f"data does not have them: {printable(', '.join(missing[:3]))}"
    )
