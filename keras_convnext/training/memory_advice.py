"""The settings that save memory, for a run of any task that has run out of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import tensorflow as tf

from keras_convnext.memory_errors import OutOfMemoryError, is_out_of_memory
from keras_convnext.training.devices import DEVICES, Device
from keras_convnext.training.layout import Layout, layout_of, shares
from keras_convnext.training.planning import Cost
from keras_convnext.training.recipe import Batch, Recipe


@contextmanager
def advising(
    recipe: Recipe,
    model: str,
    strategy: tf.distribute.Strategy,
    cost_on: Callable[[Device], Cost | None],
) -> Iterator[None]:
    """Says what to set if the training in its body runs out of memory.

    Args:
        recipe: Recipe. The recipe.
        model: str. Name of the network.
        strategy: tf.distribute.Strategy. The devices.
        cost_on: function from a `Device` to the `Cost` of the network, or to None where it is not
            known.

    Raises:
        OutOfMemoryError: If memory is exhausted. The message estimates the memory with these and
            with other settings, as `plan` does.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        is_gpu = bool(tf.config.list_physical_devices("GPU"))
        device = next(device for device in DEVICES.values() if device.is_gpu == is_gpu)
        cost, layout = cost_on(device), layout_of(strategy, recipe)
        raise OutOfMemoryError(advice(recipe, model, cost, layout, device)) from error


def advice(recipe: Recipe, model: str, cost: Cost | None, layout: Layout, device: Device) -> str:
    """Returns what to set, with an estimate of the memory where the cost is known."""
    now = replace(recipe.batch, device_batch=layout.device_batch)
    if cost is None:
        return (
            f"Out of memory: a training step of {model}. Close other programs, or start in a new "
            "folder with a smaller --set device_batch. The images per update stay the same. "
            f"Received: device_batch={now.device_batch}"
        )
    replicas = layout.devices * layout.processes

    def needed(batch: Batch) -> str:
        share = shares(batch.batch_size, replicas, batch.device_batch)
        total = cost.memory(replace(recipe, batch=batch), *share, device).total
        return f"{total / 2**30:.1f} GiB"

    half = shares(now.batch_size, replicas, max(now.device_batch // 2, 1))[0]
    others = {
        f"device_batch={half}": replace(now, device_batch=half),
        "remat=true": replace(now, remat=True),
        "device_batch=1 --set remat=true": replace(now, device_batch=1, remat=True),
    }
    if device.is_gpu and now.precision == "float32":
        others["precision=mixed_bfloat16"] = replace(now, precision="mixed_bfloat16")
    remedies = [f"--set {name} ({needed(batch)})" for name, batch in others.items() if batch != now]
    return (
        f"Out of memory: a training step of {model} at {cost.size} px with device_batch="
        f"{now.device_batch} needs about {needed(now)} per device. Close other programs, or start "
        f"in a new folder with {', or '.join(remedies) or 'a smaller network'}. The images per "
        f"update stay the same. Received: device_batch={recipe.batch.device_batch}, "
        f"remat={now.remat}, precision={now.precision}"
    )
