"""The settings that save memory, for a run that has run out of it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import tensorflow as tf

from keras_convnext.classification.memory import memory_of
from keras_convnext.classification.recipes import Classification
from keras_convnext.memory_errors import OutOfMemoryError
from keras_convnext.roadmap.steps import find_model
from keras_convnext.training.devices import DEVICES, Device
from keras_convnext.training.layout import Layout, shares
from keras_convnext.training.memory import Memory
from keras_convnext.training.recipe import Batch, Recipe


def out_of_memory(
    recipe: Classification, model: str, classes: int, layout: Layout
) -> OutOfMemoryError:
    """Returns the error for a training step that needs too much memory.

    Args:
        recipe: Classification. The recipe.
        model: str. Name of the network.
        classes: int. Number of classes.
        layout: Layout. How the batch is distributed.

    Returns:
        An `OutOfMemoryError` whose message estimates the memory with these and with other settings,
        as `plan` does.
    """
    if find_model(model):
        return OutOfMemoryError(
            f"Out of memory: a training step of {model} at {recipe.input.size} px. Close other "
            "programs, or start in a new folder with a smaller --set device_batch. The images per "
            f"update stay the same. Received: device_batch={layout.device_batch}"
        )

    def memory(
        recipe: Classification, device_batch: int, accumulated: int, device: Device
    ) -> Memory:
        return memory_of(recipe, model, classes, device_batch, accumulated, device)

    return advice(recipe, model, recipe.input.size, layout, memory)


def advice(
    recipe: Recipe,
    model: str,
    size: int,
    layout: Layout,
    memory: Callable[[Any, int, int, Device], Memory],
) -> OutOfMemoryError:
    """Returns the error for a network of any task.

    Args:
        recipe: Recipe. The recipe.
        model: str. Name of the network.
        size: int. Side of the images, in pixels.
        layout: Layout. How the batch is distributed.
        memory: function (recipe, device_batch, accumulated, device) that returns the `Memory`.
    """
    is_gpu = bool(tf.config.list_physical_devices("GPU"))
    device = next(device for device in DEVICES.values() if device.is_gpu == is_gpu)
    replicas = layout.devices * layout.processes
    now = replace(recipe.batch, device_batch=layout.device_batch)

    def needed(batch: Batch) -> str:
        share = shares(batch.batch_size, replicas, batch.device_batch)
        total = memory(replace(recipe, batch=batch), *share, device).total
        return f"{total / 2**30:.1f} GiB"

    half = shares(now.batch_size, replicas, max(now.device_batch // 2, 1))[0]
    others = {
        f"device_batch={half}": replace(now, device_batch=half),
        "remat=true": replace(now, remat=True),
        "device_batch=1 --set remat=true": replace(now, device_batch=1, remat=True),
    }
    if is_gpu and now.precision == "float32":
        others["precision=mixed_bfloat16"] = replace(now, precision="mixed_bfloat16")
    remedies = [f"--set {name} ({needed(batch)})" for name, batch in others.items() if batch != now]
    return OutOfMemoryError(
        f"Out of memory: a training step of {model} at {size} px with device_batch="
        f"{now.device_batch} needs about {needed(now)} per device. Close other programs, or start "
        f"in a new folder with {', or '.join(remedies) or 'a smaller network'}. The images per "
        f"update stay the same. Received: device_batch={recipe.batch.device_batch}, "
        f"remat={now.remat}, precision={now.precision}"
    )
