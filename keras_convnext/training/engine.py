"""Trains the network of a task with a recipe, and resumes interrupted runs."""

import signal
from functools import partial
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from rich.console import Console
from rich.text import Text

from keras_convnext.data.checks import is_of_input, reason_of
from keras_convnext.data.errors import DataError
from keras_convnext.printable import printable
from keras_convnext.training.assembly import optimizer_of
from keras_convnext.training.display import Charts, ProgressBar, draw_run, is_installed
from keras_convnext.training.fitted import FittedModel
from keras_convnext.training.folder import check_folder, claim, describe, held
from keras_convnext.training.journal import Interrupted, Journal, averaged_weights
from keras_convnext.training.layout import Layout, find_strategy, layout_of
from keras_convnext.training.length import Length, length_of
from keras_convnext.training.machines import check_same_run, noticing_losses, of_first_machine
from keras_convnext.training.recipe import Recipe
from keras_convnext.training.state import (
    Progress,
    check_state,
    restore_state,
    saved_states,
    state_path,
    write_whole,
)
from keras_convnext.training.statistics import AveragedStatistics
from keras_convnext.training.task import Task


def fit(
    task: Task,
    recipe: Recipe,
    output: str | Path,
    *,
    strategy: tf.distribute.Strategy | None = None,
    console: Console | None = None,
) -> Progress:
    """Trains the network of a task, or resumes an interrupted run.

    The following files are written to the folder of the run: `run.json` (all settings), `log.csv`,
    `checkpoints/` (the last three states), and, if the task validates, `best.keras` and
    `best_ema.keras`; at the end `final.keras`, `final_ema.keras` and `run.png`; and `tensorboard/`
    if TensorBoard is installed. Files with `_ema` contain the moving averages of the weights, if
    the recipe uses them. The same call with the same folder resumes from the last state, and gives
    the same results as an uninterrupted run. Another number of devices gives the same results up to
    rounding, unless layers draw random numbers, as drop path does: each device draws its own.

    Args:
        task: Task. What is trained, on which data.
        recipe: Recipe. The recipe.
        output: str or path. The folder of the run. Several machines must share it.
        strategy: tf.distribute.Strategy or None. Defaults to None, for all available devices.
        console: rich.console.Console or None. Where to show progress. Defaults to None, to show
            nothing.

    Returns:
        The `Progress` of the finished run.

    Raises:
        ValueError: If `output` belongs to another run, there are fewer examples than one batch, or
            this machine has other settings or data than the first.
        Interrupted: If SIGTERM or SIGINT was received. The state has been saved.
        NonFiniteLossError: If the loss is NaN or infinite. The last good state is kept.
        LostMachineError: If another machine has stopped. The same call on all machines resumes from
            the last state.
    """
    strategy = strategy or find_strategy()
    output = Path(output)
    layout = layout_of(strategy, recipe)
    length = length_of(recipe, task.examples)
    description = describe(recipe, task)
    if layout.is_chief:  # others would see a folder that is being filled
        check_folder(output, description)
    with held(output, layout), noticing_losses(layout, output):
        if layout.is_chief:
            claim(output, description, task.files())
        check_same_run(strategy, layout, description)
        keras.utils.set_random_seed(recipe.seed)
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy(recipe.batch.precision)
        try:
            with strategy.scope():
                fitted = _model_of(task, recipe, layout, length)
        finally:
            keras.config.set_dtype_policy(policy)
        messages = console or Console(stderr=True)
        progress = _restored(output / "checkpoints", fitted, layout, messages)
        fitted.separate_devices()
        evaluate = task.evaluation(fitted, layout)
        keep = partial(write_whole, write=task.save)
        journal = Journal(output, recipe, layout, length, progress, task.metric, evaluate, keep)
        journal.set_model(fitted)
        journal.write_log()
        spectators: list[keras.callbacks.Callback] = []
        if layout.is_chief and is_installed("tensorboard"):
            spectators.append(Charts(output / "tensorboard", progress.rows))
        if console is not None:
            spectators.append(ProgressBar(console, journal))
        with journal.stopping_on(signal.SIGTERM, signal.SIGINT):
            while progress.updates < length.updates:
                _fit_on(task, fitted, journal, spectators)
                if journal.signal:
                    raise Interrupted(
                        f"Stopped by {journal.signal.name} after update {progress.updates:,}. Run "
                        f"the same command to resume. Received: output={output}",
                        journal.signal,
                    )
        if layout.is_chief:
            keep(output / "final.keras")
            if recipe.optimizer.ema_decay is not None:
                with averaged_weights(fitted):
                    keep(output / "final_ema.keras")
            if is_installed("matplotlib"):
                title = f"{fitted.name}, {recipe.name}, {output}"
                draw = partial(draw_run, progress.rows, task.metric, title=title)
                write_whole(output / "run.png", draw)
    return progress


def _model_of(task: Task, recipe: Recipe, layout: Layout, length: Length) -> FittedModel:
    """Builds and compiles the model of a task, in the scope of a strategy."""
    network, objective = task.network(), task.objective()
    fitted = FittedModel(network.inputs, network.outputs, name=network.name)
    fitted.combine = objective.combine
    fitted.compile(
        optimizer_of(recipe, layout, length),
        objective.loss,
        # Keras 3.10 takes an empty list for one that lacks the metrics of each output.
        weighted_metrics=list(objective.metrics) or None,
        auto_scale_loss=False,
        # XLA with a strategy and mixed precision is broken (keras issue 20763).
        jit_compile="auto" if layout.devices * layout.processes == 1 else False,
    )

    if recipe.optimizer.ema_decay is not None:
        decay, accumulated = recipe.optimizer.ema_decay, layout.accumulated
        fitted.statistics = AveragedStatistics(fitted, decay, accumulated)

    def batched(spec: Any) -> tf.TensorSpec:
        return tf.TensorSpec((layout.device_batch, *spec.shape), spec.dtype)

    inputs = [tf.TensorSpec(each.shape[1:], each.dtype) for each in network.inputs]
    fitted.build_for(
        (
            tf.nest.map_structure(batched, inputs[0] if len(inputs) == 1 else tuple(inputs)),
            tf.nest.map_structure(batched, objective.targets),
            tf.TensorSpec((layout.device_batch,)),
        )
    )
    return fitted


def _fit_on(
    task: Task,
    model: keras.Model,
    journal: Journal,
    spectators: list[keras.callbacks.Callback],
) -> None:
    """Trains to the end, or to where another `fit` is needed."""
    length, layout, progress = journal.length, journal.layout, journal.progress
    end = min([*(at for at in task.restarts if at > progress.updates), length.updates])
    if progress.updates in task.restarts:
        model.make_train_function(force=True)  # the other shape would be traced as a dynamic one
    period, done = divmod(progress.updates, length.evaluation)
    periods = (end - progress.updates) // length.evaluation
    # The rest of an interrupted period, and a short one at the end, are a separate `fit`.
    steps, last = length.evaluation, period + periods
    if done or not periods:
        steps = min(length.evaluation - done, end - progress.updates)
        last = period + 1
    if done:
        journal.resume_metrics()
    batches = task.batches(layout, progress.updates)
    try:
        model.fit(
            layout.distributed(model.distribute_strategy, batches),
            initial_epoch=period,
            epochs=last,
            steps_per_epoch=steps * layout.accumulated,
            callbacks=[journal, *spectators],
            shuffle=False,
            verbose=0,
        )
    except Exception as error:
        if is_of_input(error):
            task.refuse_broken(progress.updates)
            if isinstance(error, tf.errors.NotFoundError):  # a file that has reappeared
                raise DataError(f"{reason_of(error)} Received: {journal.output}") from error
        raise


def _restored(folder: Path, model: FittedModel, layout: Layout, console: Console) -> Progress:
    """Restores the newest readable state, on all machines the one that the first can read."""
    updates = _newest(folder, model, console) if layout.is_chief else 0
    (updates,) = of_first_machine(model.distribute_strategy, layout, [updates])
    if not updates:
        return Progress()
    path = state_path(folder, updates)
    if not path.exists():
        raise ValueError(
            "This machine cannot see the state that the first machine resumes from. All machines "
            f"must share the folder of the run. Received: {printable(path)}"
        )
    return restore_state(path, model)


def _newest(folder: Path, model: keras.Model, console: Console) -> int:
    """Returns the number of updates of the newest readable state; 0 if there is none."""
    states = saved_states(folder)
    for state in states:
        try:
            return check_state(state, model).updates
        except ValueError as error:
            if state is states[-1]:
                raise
            notice = Text(f"{printable(error)}. Using the previous state.", "yellow")
            console.print(notice, soft_wrap=True)
    return 0
