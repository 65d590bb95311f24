"""Estimates the updates, memory and hours of a recipe on devices that need not be present.

Hours are those of the training steps alone, at the measured or assumed rates in `DEVICES`.
"""

import difflib
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from keras_convnext.printable import printable
from keras_convnext.training.devices import (
    DEVICES,
    DEVICES_PER_MACHINE,
    INPUT_IMAGES_PER_CORE,
    Device,
    Rate,
)
from keras_convnext.training.layout import shares
from keras_convnext.training.length import length_of
from keras_convnext.training.memory import Memory
from keras_convnext.training.recipe import Recipe
from keras_convnext.training.settings import flat


class Cost(NamedTuple):
    """What a network needs in training.

    Args:
        size: int. Side of the images, in pixels.
        macs: int. Multiply-accumulates of a forward pass, for one image.
        parameters: int. Number of weights.
        memory: function (recipe, device_batch, accumulated, device) that returns the `Memory`.
    """

    size: int
    macs: int
    parameters: int
    memory: Callable[[Any, int, int, Device], Memory]


class Plan(NamedTuple):
    """The result of `plan`.

    Args:
        recipe: Recipe. The recipe.
        model: str. Name of the network.
        device: Device. The device type.
        devices: int. Number of devices.
        images: int. Images per epoch.
        updates_per_epoch: int. Updates per epoch.
        updates: int. Updates in total.
        images_seen: int. Images in total.
        device_batch: int. Batch size per device.
        accumulated: int. Batches accumulated per update.
        memory: Memory. Peak memory per device.
        memory_limit: int. Memory of a device, in bytes.
        advice: tuple of str. Settings that save memory, if not even one image fits.
        flops_per_image: int. Floating-point operations of a training step per image.
        rate: Rate. The utilization of the device.
        images_per_second: float. Throughput of all devices.
        hours_per_epoch: float. Hours of training steps, without evaluation and communication.
        hours: float. Hours in total.
        checkpoint: int. Size of a checkpoint in bytes; the last three are kept.
        machines: int. Number of machines.
        input_rate: float. Images that each machine must decode and augment per second.
        input_cores: int. CPU cores that this needs, for photographs of ImageNet's size.
        size: int. Side of the images, in pixels.
    """

    recipe: Recipe
    model: str
    device: Device
    devices: int
    images: int
    updates_per_epoch: int
    updates: int
    images_seen: int
    device_batch: int
    accumulated: int
    memory: Memory
    memory_limit: int
    advice: tuple[str, ...]
    flops_per_image: int
    rate: Rate
    images_per_second: float
    hours_per_epoch: float
    hours: float
    checkpoint: int
    machines: int
    input_rate: float
    input_cores: int
    size: int

    @property
    def fits(self) -> bool:
        """Whether the memory is sufficient."""
        return self.memory.total <= self.memory_limit

    def rows(self) -> list[tuple[str, str, str]]:
        """Returns the rows of a table for display: name, value and basis."""
        recipe, device, memory = self.recipe, self.device, self.memory
        gib = {name: f"{size / 2**30:.2f} GiB" for name, size in memory._asdict().items() if size}
        peak = device.peak(recipe.batch.precision)
        share = f"{self.rate.utilization:.3f} of {peak * 1000:,.0f} GFLOP/s"
        if device.is_gpu:
            share = f"{self.rate.utilization:.3f} of {peak:,.0f} TFLOP/s"
        return [
            ("images per epoch", f"{self.images:,}", ""),
            (
                "updates per epoch",
                f"{self.updates_per_epoch:,}",
                f"of {recipe.batch.batch_size:,} images",
            ),
            ("updates", f"{self.updates:,}", f"{self.updates / self.updates_per_epoch:g} epochs"),
            ("images seen", f"{self.images_seen:,}", ""),
            ("devices", f"{self.devices:,}", f"{device.name}, machines: {self.machines}"),
            (
                "device batch",
                f"{self.device_batch:,}",
                f"{self.size} px, {recipe.batch.precision}",
            ),
            ("accumulated batches", f"{self.accumulated:,}", ""),
            *(("memory: " + name, size, "") for name, size in gib.items()),
            (
                "memory per device" if device.is_gpu else "memory",
                f"{memory.total / 2**30:.2f} GiB",
                f"of {self.memory_limit / 2**30:,.0f}",
            ),
            ("GFLOP per image", f"{self.flops_per_image / 1e9:,.1f}", "forward and backward"),
            ("utilization", share, self.rate.basis),
            ("images per second", f"{self.images_per_second:,.0f}", ""),
            ("hours per epoch", f"{self.hours_per_epoch:,.2f}", "without evaluation and waiting"),
            ("hours", f"{self.hours:,.1f}", ""),
            ("checkpoint", f"{self.checkpoint / 2**30:.2f} GiB", "the last three are kept"),
            (
                "input per machine",
                f"{self.input_rate:,.0f} images/s",
                f"cores: {self.input_cores:,}, at {INPUT_IMAGES_PER_CORE} images/s each, measured",
            ),
        ]

    def as_dict(self) -> dict[str, object]:
        """Returns a dict for programs, with memory in bytes and times in hours."""
        return {
            **self._asdict(),
            "recipe": flat(self.recipe),
            "device": self.device.name,
            "memory": {**self.memory._asdict(), "total": self.memory.total},
            "fits": self.fits,
            "rate": self.rate._asdict(),
        }


def estimate(
    recipe: Recipe, model: str, cost: Cost, images: int | None, devices: int, device_type: str
) -> Plan:
    """Estimates the run of a network of any task; arguments and errors as in `plan`."""
    device = find_device(device_type, recipe.batch.precision)
    if images is None:
        raise ValueError(
            f"The recipe {printable(recipe.name)} is for your own data. Pass the number of images: "
            "images= (--images). Received: images=None"
        )
    if devices < 1:
        raise ValueError(f"devices must be at least 1. Received: devices={devices}")
    length = length_of(recipe, images)
    updates_per_epoch = length.epoch
    together = 1 if device.is_gpu else devices
    memory_limit = round(device.memory * 2**30) * together
    replicas = devices // together

    def shared(recipe: Recipe, most: int) -> tuple[int, int, Memory]:
        device_batch, accumulated = shares(recipe.batch.batch_size, replicas, most)
        memory = cost.memory(recipe, device_batch, accumulated, device)
        return device_batch, accumulated, memory

    device_batch, accumulated, memory = shared(recipe, recipe.batch.device_batch)
    while memory.total > memory_limit and device_batch > 1:
        device_batch, accumulated, memory = shared(recipe, device_batch - 1)
    advice: tuple[str, ...] = ()
    if memory.total > memory_limit:
        advice = tuple(_advice(recipe, device, lambda other: shared(other, 1)[2].total))

    rate = device.rates[recipe.batch.precision]
    flops_per_image = 2 * cost.macs * (4 if recipe.batch.remat else 3)
    reached = devices * device.peak(recipe.batch.precision) * 1e12 * rate.utilization
    images_per_second = reached / flops_per_image
    updates = length.updates
    hours_per_epoch = updates_per_epoch * recipe.batch.batch_size / images_per_second / 3600
    machines = math.ceil(devices / DEVICES_PER_MACHINE) if device.is_gpu else 1
    numbers = (
        3 + (recipe.optimizer.ema_decay is not None) + (accumulated > 1)
    )  # weights, two moments, ...
    return Plan(
        recipe=recipe,
        model=model,
        device=device,
        devices=devices,
        images=images,
        updates_per_epoch=updates_per_epoch,
        updates=updates,
        images_seen=updates * recipe.batch.batch_size,
        device_batch=device_batch,
        accumulated=accumulated,
        memory=memory,
        memory_limit=memory_limit,
        advice=advice,
        flops_per_image=flops_per_image,
        rate=rate,
        images_per_second=images_per_second,
        hours_per_epoch=hours_per_epoch,
        hours=hours_per_epoch * updates / updates_per_epoch,
        checkpoint=4 * numbers * cost.parameters,
        machines=machines,
        input_rate=images_per_second / machines,
        input_cores=math.ceil(images_per_second / machines / INPUT_IMAGES_PER_CORE),
        size=cost.size,
    )


def find_device(device_type: str, precision: str) -> Device:
    """Returns a device type of `DEVICES` that supports a precision, or says what is there."""
    if device_type not in DEVICES:
        close = difflib.get_close_matches(device_type, DEVICES, 1)
        raise ValueError(
            f"device_type must be one of {', '.join(DEVICES)}"
            + (f"; did you mean {close[0]}?" if close else "")
            + f". Received: device_type={printable(device_type)}"
        )
    device = DEVICES[device_type]
    if precision not in device.rates:
        raise ValueError(
            f"There is no data for {device.name} with this precision. Set precision to "
            f"{' or '.join(device.rates)}. Received: precision={precision}"
        )
    return device


def _advice(recipe: Recipe, device: Device, total: Callable[[Recipe], int]) -> list[str]:
    """Returns the memory with other settings and a batch size of one."""
    half = next(
        (name for name in ("mixed_bfloat16", "mixed_float16") if name in device.rates), None
    )
    batches = [] if recipe.batch.remat else [replace(recipe.batch, remat=True)]
    if half and recipe.batch.precision == "float32":
        batches += [replace(other, precision=half) for other in (recipe.batch, *batches)]
    lines = []
    for other in batches:
        changes = {"precision": other.precision, "remat": other.remat}
        settings = " ".join(
            f"{name}={value}"
            for name, value in changes.items()
            if value != getattr(recipe.batch, name)
        )
        taken = total(replace(recipe, batch=other)) / 2**30
        lines.append(f"{settings}: {taken:.1f} GiB".replace("remat=True", "remat=true"))
    return lines
