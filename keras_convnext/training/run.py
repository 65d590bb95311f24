"""Trains a network with a recipe, saves it, and resumes interrupted runs."""

import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import keras
import tensorflow as tf
from rich.console import Console
from rich.text import Text

from keras_convnext.classification.input import evaluation_batches, training_batches
from keras_convnext.classification.network import build_network, compile_for, save_classifier
from keras_convnext.classification.recipes import Recipe
from keras_convnext.data.checks import check_images, reason_of, refuse_broken
from keras_convnext.data.errors import DataError, NoSuchSplitError
from keras_convnext.data.held_out import hold_out
from keras_convnext.data.source import Source
from keras_convnext.data.sources import open_source
from keras_convnext.printable import printable
from keras_convnext.training.display import Charts, ProgressBar, draw_run, is_installed
from keras_convnext.training.fitted import FittedModel
from keras_convnext.training.folder import claim, describe
from keras_convnext.training.journal import Interrupted, Journal, averaged_weights
from keras_convnext.training.layout import Layout, find_strategy, layout_of
from keras_convnext.training.settings import recipe_for
from keras_convnext.training.state import Progress, restore_state, saved_states, write_whole


def train(
    recipe: str | Recipe,
    model: str,
    data: str | Path,
    output: str | Path,
    settings: Mapping[str, object] | None = None,
    *,
    validation_data: str | Path | None = None,
    strategy: tf.distribute.Strategy | None = None,
    console: Console | None = None,
) -> keras.Model:
    """Trains a network, or resumes an interrupted run.

    The following files are written to the folder of the run: `run.json` (all settings),
    `classes.txt`, `log.csv`, `checkpoints/` (the last three states), and `best.keras` and
    `best_ema.keras` (highest validation accuracy); at the end `final.keras`, `final_ema.keras` and
    `run.png`; and `tensorboard/` if TensorBoard is installed. Files with `_ema` contain the moving
    averages of the weights, if the recipe uses them. The same call with the same folder resumes
    from the last state, and gives the same results as an uninterrupted run.

    Example:

    ```python
    model = train("finetune_small", "convnext_tiny", "photos", "runs/photos", {"epochs": 10})
    ```

    Args:
        recipe: str or Recipe. The name of a recipe in `RECIPES`, or a complete `Recipe`.
        model: str. Name of the network, as in `keras-convnext list`.
        data: str or path. As in `open_source`, with a split "train", and "validation" or "test".
            Without the latter, the recipe's `validation_share` of the images is held out.
        output: str or path. The folder of the run. Several machines must share it.
        settings: dict or None. Fields of the recipe to override. Defaults to None.
        validation_data: str, path or None. Other data to validate on. Defaults to None.
        strategy: tf.distribute.Strategy or None. Defaults to None, for all available devices.
        console: rich.console.Console or None. Where to show progress. Defaults to None, to show
            nothing.

    Returns:
        The trained `keras.Model`, which maps pixels to probabilities.

    Raises:
        ValueError: If a setting or the data is invalid, or `output` belongs to another run.
        Interrupted: If SIGTERM or SIGINT was received. The state has been saved.
        NonFiniteLossError: If the loss is NaN or infinite. The last good state is kept.
    """
    if isinstance(recipe, str):
        recipe = recipe_for(recipe, model, settings)
    # A strategy for several machines must be created before any other use of TensorFlow.
    strategy = strategy or find_strategy()
    train_source, validation_source = _sources(data, validation_data, recipe)
    output = Path(output)
    layout = layout_of(strategy, recipe)
    updates_per_epoch = train_source.size // recipe.batch_size
    if not updates_per_epoch:
        raise ValueError(
            f"There are only {train_source.size:,} training images, fewer than one batch. "
            f"Set a smaller batch_size. Received: batch_size={recipe.batch_size}"
        )
    description = describe(recipe, model, data, train_source)
    if layout.is_chief:
        claim(output, description, train_source.classes)

    keras.utils.set_random_seed(recipe.seed)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(recipe.precision)
    try:
        with strategy.scope():
            network = build_network(recipe, model, len(train_source.classes))
            fitted = FittedModel(network.inputs, network.outputs, name=network.name)
            compile_for(fitted, recipe, layout, updates_per_epoch, len(train_source.classes))
    finally:
        keras.config.set_dtype_policy(policy)
    progress = _restored(output / "checkpoints", fitted, console or Console(stderr=True))

    journal = Journal(
        output,
        recipe,
        layout,
        progress,
        updates_per_epoch,
        _validation(strategy, validation_source, recipe, layout),
        lambda path: write_whole(path, partial(save_classifier, network)),
    )
    journal.set_model(fitted)
    journal.write_log()
    with journal.stopping_on(signal.SIGTERM, signal.SIGINT):
        while (epoch := progress.updates // updates_per_epoch) < recipe.epochs:
            # The rest of an interrupted epoch is a separate `fit`.
            done = progress.updates % updates_per_epoch
            if done:
                journal.resume_metrics()
            batches = training_batches(train_source, recipe, layout, progress.updates)
            try:
                fitted.fit(
                    _distributed(strategy, layout, batches),
                    initial_epoch=epoch,
                    epochs=epoch + 1 if done else recipe.epochs,
                    steps_per_epoch=(updates_per_epoch - done) * layout.accumulated,
                    callbacks=[journal, *_spectators(journal, console)],
                    shuffle=False,
                    verbose=0,
                )
            except tf.errors.OpError as error:
                _refuse_broken(train_source, validation_source, recipe, progress.updates)
                if isinstance(error, tf.errors.NotFoundError):  # a file that has reappeared
                    raise DataError(f"{reason_of(error)} Received: {data}") from error
                raise
            if journal.signal:
                raise Interrupted(
                    f"Stopped by {journal.signal.name} after update {progress.updates:,}. Run the "
                    f"same command to resume. Received: output={output}",
                    journal.signal,
                )
    if layout.is_chief:
        write_whole(output / "final.keras", partial(save_classifier, network))
        if recipe.ema_decay is not None:
            with averaged_weights(fitted):
                write_whole(output / "final_ema.keras", partial(save_classifier, network))
        if is_installed("matplotlib"):
            title = f"{model}, {recipe.name}, {data}"
            write_whole(output / "run.png", partial(draw_run, progress.rows, title=title))
    network.get_layer("head").activation = keras.activations.softmax
    return network


def _sources(
    data: str | Path, validation_data: str | Path | None, recipe: Recipe
) -> tuple[Source, Source]:
    """Returns the training and validation images."""
    training = open_source(data, "train")
    check_images(training, least=2)  # a single image of a class would only be memorized
    try:
        validation = open_source(validation_data or data, "validation")
    except NoSuchSplitError as error:
        if recipe.validation_share and validation_data is None:
            return hold_out(training, recipe.validation_share, recipe.seed)
        raise DataError(
            f"There are no validation images: {error}. Put some in a folder val/ next to train/, "
            "pass other data with validation_data (--validation-data), or hold out some of the "
            "training images with validation_share (--set validation_share=0.2)"
        ) from error
    check_images(validation)
    if validation.classes != training.classes:
        raise ValueError(
            "Training and validation data must have the same classes. "
            f"Received: {training.classes[:5]}... and {validation.classes[:5]}..."
        )
    return training, validation


def _validation(
    strategy: tf.distribute.Strategy, source: Source, recipe: Recipe, layout: Layout
) -> tuple[tf.data.Dataset | tf.distribute.DistributedDataset, int]:
    """Returns the validation batches and their number."""
    batches = evaluation_batches(source, recipe, layout)
    # Where Keras can see the last batch, it begins a second pass after it that nobody reads.
    return _distributed(strategy, layout, batches.repeat()), int(batches.cardinality())


def _refuse_broken(
    train_source: Source, validation_source: Source, recipe: Recipe, updates: int
) -> None:
    """Raises an error that names the broken image, if one has ended the run."""
    epoch, update = divmod(updates, train_source.size // recipe.batch_size)
    first = update * recipe.batch_size
    order = train_source.order(recipe.seed, epoch)
    refuse_broken(train_source, order[first : first + recipe.batch_size])
    refuse_broken(validation_source, range(validation_source.size))


def _spectators(journal: Journal, console: Console | None) -> list[keras.callbacks.Callback]:
    spectators = []
    if journal.layout.is_chief and is_installed("tensorboard"):
        spectators.append(Charts(journal.output / "tensorboard"))
    if console is not None:
        spectators.append(ProgressBar(console, journal))
    return spectators


def _restored(folder: Path, model: keras.Model, console: Console) -> Progress:
    """Restores the newest readable state."""
    states = saved_states(folder)
    for state in states:
        try:
            return restore_state(state, model)
        except ValueError as error:
            if state is states[-1]:
                raise
            notice = Text(f"{printable(error)}. Using the previous state.", "yellow")
            console.print(notice, soft_wrap=True)
    return Progress()


def _distributed(
    strategy: tf.distribute.Strategy, layout: Layout, batches: tf.data.Dataset
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    if layout.devices * layout.processes == 1:
        return batches
    return strategy.distribute_datasets_from_function(
        lambda context: batches.rebatch(layout.device_batch)
    )
