"""Which devices train, and how they share the batch."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, NamedTuple

from keras_convnext.training.recipes import Recipe

if TYPE_CHECKING:
    import tensorflow as tf


class Layout(NamedTuple):
    """How an update's images are shared out: over processes, their devices, and time.

    Args:
        process: int. Which process this is, from 0.
        processes: int. How many there are, one a machine.
        devices: int. Devices of each.
        device_batch: int. Images of a device at a time.
        accumulated: int. Batches that make an update.
    """

    process: int
    processes: int
    devices: int
    device_batch: int
    accumulated: int

    @property
    def process_batch(self) -> int:
        """Images of this process at a time."""
        return self.devices * self.device_batch

    @property
    def is_chief(self) -> bool:
        """Whether this process writes what is kept."""
        return self.process == 0


def find_strategy() -> tf.distribute.Strategy:
    """Returns a strategy for all devices there are.

    Several machines, told by `TF_CONFIG` or by Slurm: MultiWorkerMirroredStrategy. Several devices
    of this one: MirroredStrategy. One: what TensorFlow does by itself.
    """
    import tensorflow as tf

    workers = json.loads(os.environ.get("TF_CONFIG", "{}")).get("cluster", {}).get("worker", [])
    if len(workers) > 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    if int(os.environ.get("SLURM_NTASKS", 1)) > 1 and "SLURM_PROCID" in os.environ:
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver()
        return tf.distribute.MultiWorkerMirroredStrategy(resolver)
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    if len(devices) > 1:
        return tf.distribute.MirroredStrategy(devices)
    return tf.distribute.get_strategy()


def layout_of(strategy: tf.distribute.Strategy, recipe: Recipe) -> Layout:
    """Shares the batch of a recipe out: what does not fit a device at once is accumulated.

    Raises:
        ValueError: If the batch is no multiple of the number of devices.
    """
    resolver = strategy.cluster_resolver
    process, processes = (
        (resolver.task_id, len(resolver.cluster_spec().as_dict()["worker"]))
        if (resolver and resolver.cluster_spec())
        else (0, 1)
    )
    replicas = strategy.num_replicas_in_sync
    device_batch, accumulated = shares(recipe.batch_size, replicas, recipe.device_batch)
    return Layout(process, processes, replicas // processes, device_batch, accumulated)


def shares(batch_size: int, replicas: int, most: int) -> tuple[int, int]:
    """Shares a batch out equally, over devices and over time.

    Example:

    ```python
    shares(4096, 8, 128)  # (128, 4): 8 devices x 128 images x 4 batches
    ```

    Args:
        batch_size: int. Images an update.
        replicas: int. Devices.
        most: int. Images that a device takes at a time, at the most.

    Returns:
        tuple of int: images a device at a time, and batches that make an update.

    Raises:
        ValueError: If the batch is no multiple of the number of devices.
    """
    each, rest = divmod(batch_size, replicas)
    if rest:
        raise ValueError(
            f"The batch is shared equally by {replicas} devices: set batch_size to a multiple of "
            f"that. Received: batch_size={batch_size}"
        )
    accumulated = next(
        count for count in range(1, each + 1) if each % count == 0 and each // count <= most
    )
    return each // accumulated, accumulated
