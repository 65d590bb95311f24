"""The devices used for training, and how they share the batch."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, NamedTuple

from keras_convnext.training.recipe import Recipe

if TYPE_CHECKING:
    import tensorflow as tf


class Layout(NamedTuple):
    """How the images of an update are distributed over processes, devices and time.

    Args:
        process: int. Index of this process, from 0.
        processes: int. Number of processes, one per machine.
        devices: int. Devices per process.
        device_batch: int. Batch size per device.
        accumulated: int. Batches accumulated per update.
    """

    process: int
    processes: int
    devices: int
    device_batch: int
    accumulated: int

    @property
    def process_batch(self) -> int:
        """Batch size of this process."""
        return self.devices * self.device_batch

    @property
    def is_chief(self) -> bool:
        """Whether this process writes files."""
        return self.process == 0

    def distributed(
        self, strategy: tf.distribute.Strategy, batches: tf.data.Dataset
    ) -> tf.data.Dataset | tf.distribute.DistributedDataset:
        """Distributes the batches of this process over its devices."""
        if self.devices * self.processes == 1:
            return batches
        return strategy.distribute_datasets_from_function(
            lambda context: batches.rebatch(self.device_batch)
        )


def find_strategy() -> tf.distribute.Strategy:
    """Returns a strategy for all available devices.

    This is MultiWorkerMirroredStrategy for several machines, configured by `TF_CONFIG` or Slurm;
    MirroredStrategy for several devices of this machine; and TensorFlow's default strategy for one.
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
    """Distributes the batch of a recipe, accumulating gradients if it exceeds the devices' batches.

    Raises:
        ValueError: If the batch size is not a multiple of the number of devices.
    """
    resolver = strategy.cluster_resolver
    process, processes = (
        (resolver.task_id, len(resolver.cluster_spec().as_dict()["worker"]))
        if (resolver and resolver.cluster_spec())
        else (0, 1)
    )
    replicas = strategy.num_replicas_in_sync
    device_batch, accumulated = shares(recipe.batch.batch_size, replicas, recipe.batch.device_batch)
    return Layout(process, processes, replicas // processes, device_batch, accumulated)


def shares(batch_size: int, replicas: int, most: int) -> tuple[int, int]:
    """Divides a batch equally over devices and accumulation steps.

    Example:

    ```python
    shares(4096, 8, 128)  # (128, 4): 8 devices x 128 images x 4 batches
    ```

    Args:
        batch_size: int. Images per update.
        replicas: int. Number of devices.
        most: int. Maximum batch size per device.

    Returns:
        Tuple of int: batch size per device, and accumulated batches per update.

    Raises:
        ValueError: If the batch size is not a multiple of the number of devices.
    """
    each, rest = divmod(batch_size, replicas)
    if rest:
        raise ValueError(
            f"batch_size must be a multiple of the number of devices, {replicas}. "
            f"Received: batch_size={batch_size}"
        )
    accumulated = next(
        count for count in range(1, each + 1) if each % count == 0 and each // count <= most
    )
    return each // accumulated, accumulated
