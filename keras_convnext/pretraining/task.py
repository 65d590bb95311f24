"""Masked pre-training as the training engine sees it, and `train`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

from keras_convnext.data.checks import refuse_broken
from keras_convnext.pretraining.input import evaluation_images, training_batches
from keras_convnext.pretraining.losses import LOSS, objective
from keras_convnext.pretraining.network import autoencoder, trunk_for
from keras_convnext.pretraining.pictures import draw_reconstructions
from keras_convnext.pretraining.planning import cost_of
from keras_convnext.pretraining.recipes import Pretraining
from keras_convnext.pretraining.settings import check_recipe, recipe_for
from keras_convnext.pretraining.source import open_images
from keras_convnext.training.engine import fit
from keras_convnext.training.fitted import FittedModel
from keras_convnext.training.layout import Layout, find_strategy
from keras_convnext.training.memory_advice import advising
from keras_convnext.training.state import write_whole
from keras_convnext.training.task import Objective
from keras_convnext.variants import VARIANTS

PICTURES = 8  # images in the sheet of reconstructions


class PretrainingTask:
    """Masked pre-training, opened on its images.

    Args:
        recipe: Pretraining. The recipe.
        model: str. Name of a ConvNeXt V2.
        data: str or path. As in `open_images`.
        validation_data: str, path or None. Other images to validate on.
    """

    metric = LOSS
    restarts: Sequence[int] = ()

    def __init__(
        self,
        recipe: Pretraining,
        model: str,
        data: str | Path,
        validation_data: str | Path | None = None,
    ) -> None:
        check_recipe(recipe, model)
        self.recipe = recipe
        self.model = model
        self.data = str(data)
        share = recipe.input.validation_share
        self.training, self.validation = open_images(data, validation_data, share, recipe.seed)
        self.examples = self.training.size
        self.stride = VARIANTS[model].stride

    def describe(self) -> Mapping[str, Any]:
        """Returns what identifies the run."""
        return {
            "task": "pretraining",
            "model": self.model,
            "data": self.data,
            "images": self.examples,
            "data_digest": self.training.digest(),
        }

    def files(self) -> Mapping[str, str]:
        """Returns no files."""
        return {}

    def network(self) -> keras.Model:
        """Builds the autoencoder, and keeps the trunk in it."""
        own = self.recipe.network
        self.trunk = trunk_for(self.model, self.recipe.input.size, own.start)
        self.autoencoder = autoencoder(self.trunk, own.decoder_width, own.decoder_depth)
        return self.autoencoder

    def objective(self) -> Objective:
        """Returns the loss."""
        return objective(self.recipe.input.size // self.stride, self.stride**2 * 3)

    def batches(self, layout: Layout, first_update: int) -> tf.data.Dataset:
        """Returns the masked images and the patches to predict."""
        return training_batches(self.training, self.recipe, self.stride, layout, first_update)

    def evaluation(
        self, model: FittedModel, layout: Layout
    ) -> Callable[[], Mapping[str, float]] | None:
        """Returns a function that measures the loss of the validation images.

        The images and masks are the same each time. Where they do not fill the last batch, the
        first ones fill it.
        """
        if self.validation is None:
            return None
        whole = layout.process_batch * layout.processes
        steps = -(-self.validation.size // whole)
        images = evaluation_images(self.validation, self.recipe, self.stride).repeat()
        batches = images.shard(layout.processes, layout.process).batch(layout.process_batch)
        distributed = layout.distributed(
            model.distribute_strategy, batches.take(steps).repeat().prefetch(2)
        )

        def measure() -> Mapping[str, float]:
            return model.evaluate(distributed, steps=steps, verbose=0, return_dict=True)

        return measure

    def save(self, path: Path) -> None:
        """Saves the trunk, from which other tasks start."""
        self.trunk.save(path)

    def refuse_broken(self, update: int) -> None:
        """Raises an error that names the broken image of an update or of the validation."""
        batch_size = self.recipe.batch.batch_size
        epoch, within = divmod(update, self.examples // batch_size)
        order = self.training.order(self.recipe.seed, epoch)
        refuse_broken(self.training, order[within * batch_size : (within + 1) * batch_size])
        if self.validation is not None:
            refuse_broken(self.validation, range(self.validation.size))

    def draw(self, path: Path) -> None:
        """Draws masked, reconstructed and original images of the validation or training data."""
        source = self.validation or self.training
        shown = islice(evaluation_images(source, self.recipe, self.stride), PICTURES)
        inputs = np.stack([pixels.numpy() for pixels, _ in shown])
        draw_reconstructions(self.autoencoder, inputs, path, self.recipe.masking.normalize)


def train(
    recipe: str | Pretraining,
    model: str,
    data: str | Path,
    output: str | Path,
    settings: Mapping[str, object] | None = None,
    *,
    validation_data: str | Path | None = None,
    strategy: tf.distribute.Strategy | None = None,
    console: Console | None = None,
) -> keras.Model:
    """Pre-trains a ConvNeXt V2 on images without labels, or resumes an interrupted run.

    The folder of the run gets the files that `classification.train` writes, except for
    `classes.txt`. `final.keras` and `best.keras` contain the trunk, and `reconstructions.png` shows
    masked, reconstructed and original images. Other tasks start from the trunk with the setting
    `start=runs/mine/final.keras`.

    Example:

    ```python
    train("pretrain_small", "convnextv2_nano", "photos", "runs/pre")
    classification.train(
        "finetune_small", "convnextv2_nano", "labeled", "runs/fine",
        {"start": "runs/pre/final.keras"},
    )
    ```

    Args:
        recipe: str or Pretraining. The name of a recipe in `RECIPES`, or a complete recipe.
        model: str. Name of a ConvNeXt V2, as in `keras-convnext list`.
        data: str or path. A folder with images at any depth, or with a subfolder `train` of them;
            or what `open_source` opens, whose labels are not used.
        output: str or path. The folder of the run. Several machines must share it.
        settings: dict or None. Fields of the recipe to override. Defaults to None.
        validation_data: str, path or None. Other images to validate on. Defaults to None, for the
            recipe's `validation_share` of the images; if that is 0, nothing is validated.
        strategy: tf.distribute.Strategy or None. Defaults to None, for all available devices.
        console: rich.console.Console or None. Where to show progress. Defaults to None, to show
            nothing.

    Returns:
        The trained trunk, a `keras.Model` from pixels in 0..255 to the last feature map.

    Raises:
        ValueError: If a setting or the data is invalid, or `output` belongs to another run.
        Interrupted: If SIGTERM or SIGINT was received. The state has been saved.
        OutOfMemoryError: If a step needs too much memory. The message says what to set.
        NonFiniteLossError: If the loss is NaN or infinite. The last good state is kept.
        LostMachineError: If another machine has stopped. The same call on all machines resumes from
            the last state.

    References:
        Woo et al., "ConvNeXt V2", CVPR 2023, arXiv 2301.00808, section 3.
    """
    if isinstance(recipe, str):
        recipe = recipe_for(recipe, model, settings)
    # A strategy for several machines must be created before any other use of TensorFlow.
    strategy = strategy or find_strategy()
    task = PretrainingTask(recipe, model, data, validation_data)
    with advising(recipe, model, strategy, lambda device: cost_of(recipe, model, device)):
        fit(task, recipe, output, strategy=strategy, console=console)
    write_whole(Path(output) / "reconstructions.png", task.draw)
    return task.trunk
