"""Estimates the updates, memory and hours of training a classifier, without running it."""

from keras_convnext.classification.memory import memory_of, network_of
from keras_convnext.classification.recipes import Classification
from keras_convnext.complexity import parts
from keras_convnext.printable import printable
from keras_convnext.roadmap.steps import find_model
from keras_convnext.training.devices import Device
from keras_convnext.training.memory import Memory
from keras_convnext.training.planning import Cost, Plan, estimate

_IMAGENET_1K = (1_281_167, 1_000)
DATA = {  # images and classes in the training split of each recipe's dataset
    "imagenet1k": _IMAGENET_1K,
    "imagenet1k_isotropic": _IMAGENET_1K,
    "roadmap": _IMAGENET_1K,
    "imagenet22k": (14_197_122, 21_841),  # fall 2011
    "imagenet22k_to_1k": _IMAGENET_1K,
    "imagenet22k_to_1k_384": _IMAGENET_1K,
    "imagenet1k_384": _IMAGENET_1K,
    "finetune_small": (None, 1_000),  # a head with fewer classes needs less memory
    "cifar10": (50_000, 10),
    "cifar10_gpu": (50_000, 10),
}


def plan(
    recipe: Classification, model: str, images: int | None, devices: int, device_type: str
) -> Plan:
    """Estimates the updates, memory and time of a run without running it.

    The batch size per device is the recipe's, or the largest smaller one that fits in memory. All
    cores of a CPU together are one device.

    Example:

    ```python
    planned = plan(recipe_for("imagenet22k", "convnext_xlarge"), "convnext_xlarge", None, 128,
                   "a100-80gb")
    planned.hours
    ```

    Args:
        recipe: Classification. As returned by `recipe_for`.
        model: str. Name of the network.
        images: int or None. Images per epoch, or None for those of the recipe's dataset.
        devices: int. Number of devices, or of CPU cores.
        device_type: str. A key of `DEVICES`.

    Returns:
        A `Plan`.

    Raises:
        ValueError: If the network is one of the roadmap's, if the device type is unknown or does
            not support the recipe's precision, if the number of images is unknown or less than a
            batch, or if the batch size is not a multiple of the number of devices.
    """
    if find_model(model):
        raise ValueError(
            "The memory of the roadmap's networks cannot be estimated. `keras-convnext list "
            f"--roadmap` shows their multiply-accumulates. Received: model={printable(model)}"
        )
    known, classes = DATA.get(recipe.name, (None, 1_000))
    cost = cost_of(recipe, model, classes)
    return estimate(recipe, model, cost, images or known, devices, device_type)


def cost_of(recipe: Classification, model: str, classes: int) -> Cost:
    """Returns what a classifier needs in training."""
    counted = parts(network_of(recipe, model), (recipe.input.size, recipe.input.size), classes)

    def memory(
        recipe: Classification, device_batch: int, accumulated: int, device: Device
    ) -> Memory:
        return memory_of(recipe, model, classes, device_batch, accumulated, device)

    return Cost(
        recipe.input.size,
        sum(part.macs for part in counted),
        sum(part.parameters for part in counted),
        memory,
    )
