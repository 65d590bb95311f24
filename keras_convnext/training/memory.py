"""The memory of a training step, part by part, from what the gradient of each layer reads.

Two graphs are known: with the operations of `tensorflow_cpu`, and with those that TensorFlow
differentiates by itself, as on a GPU without XLA; XLA keeps less. What a graph keeps is counted
here to one per cent. What TensorFlow's allocator gave out at the peak of a step on a CPU is met
within 12 %, and what the process took, whose gaps were fitted, within 11 %: Atto and Tiny at
224 px, with and without remat, the network for CIFAR-10 (`benchmarks/results/planning.json`).

No GPU was measured. PyTorch, which keeps less of GELU, took 4.2, 7.7 and 20.4 GB for the isotropic
networks at 32 images (arXiv 2201.03545, table 2), where this says 5.0, 9.5 and 24.7.
"""

from collections.abc import Iterator
from typing import NamedTuple

from keras_convnext.complexity import parts
from keras_convnext.training.devices import Device
from keras_convnext.training.recipes import Recipe
from keras_convnext.variants import VARIANTS, Variant


class Memory(NamedTuple):
    """What a device holds when a training step takes the most, in bytes.

    Args:
        weights: int. In float32, and in half precision where that computes.
        moments: int. The two averages of AdamW.
        average: int. The average of the weights, where there is one.
        accumulator: int. The sum of gradients, where batches are accumulated.
        gradients: int. Of the weights, as far as they are made by then.
        activations: int. The images, what forward keeps for backward, and what backward has open.
        workspace: int. No tensors: libraries, compiled code, gaps between tensors. Defaults to 0.
    """

    weights: int
    moments: int
    average: int
    accumulator: int
    gradients: int
    activations: int
    workspace: int = 0

    @property
    def total(self) -> int:
        """The sum."""
        return sum(self)


class Section(NamedTuple):
    """A block, or what stands between blocks.

    Args:
        kept: int. Bytes an image that forward keeps until backward is through with it.
        open: int. Bytes an image that backward has beside that, while it is there.
        parameters: int. Weights in it.
    """

    kept: int
    open: int
    parameters: int


# Maps, in widths of the block, that are open at once around the gradient of GELU: there three of
# four widths, in TensorFlow's own chain of steps four; and the gradient of the block's output, as
# it comes, past drop path and past layer scale.
_OPEN_FUSED = 3 * 4 + 3
_OPEN_PLAIN = 4 * 4 + 3


def network_of(recipe: Recipe, model: str) -> Variant:
    """The network as a recipe trains it: with or without layer scale."""
    variant = VARIANTS[model]
    if recipe.start is None:
        variant = variant._replace(layer_scale=recipe.layer_scale or None)
    return variant


def sections(
    variant: Variant, size: int, classes: int, compute: int, remat: bool, fused: bool
) -> Iterator[Section]:
    """Lists what a network keeps for its gradient, bottom up.

    Args:
        variant: Variant.
        size: int. Side of the images, in pixels.
        classes: int.
        compute: int. Bytes of a number in the compute dtype.
        remat: bool. Whether blocks keep their input alone.
        fused: bool. Whether the operations of `tensorflow_cpu` are in place.
    """
    stem, *stages, head = parts(variant, (size, size), classes)
    # A norm keeps a map in float32 and a factor for each position; without an operation of our own,
    # those times the scale as well, which are another map.
    norm, factors = (4, 4) if fused else (4 + 4, 4)

    height, width, dim = stem.output
    pixels = 3 * size**2 * (4 + compute)
    stem_norm = 0 if variant.isotropic else height * width * (norm * dim + factors)
    yield Section(pixels + stem_norm, height * width * dim * compute, stem.parameters)

    before = stem
    for stage in stages:
        height, width, dim = stage.output
        positions = height * width
        blocks = [stage.parameters // stage.blocks] * stage.blocks
        if before is not stem:
            rows, columns, channels = before.output
            blocks = [(stage.parameters - _downsampling(channels, dim)) // stage.blocks]
            blocks *= stage.blocks
            yield Section(
                rows * columns * ((norm + compute) * channels + factors),
                rows * columns * channels * 2 * compute,
                _downsampling(channels, dim),
            )
        if fused:
            recomputed = branch = 4 * (dim + 4 * dim) + factors  # normalized, and before GELU
        else:
            # Norm, its output, four maps of GELU, and what layer scale multiplies in float32.
            scaled = 4 * dim * (variant.layer_scale is not None)
            branch = (norm + compute) * dim + factors + 4 * 4 * dim * compute + scaled
            # What layer scale and the second pointwise layer read is free again before GELU's turn.
            recomputed = branch - scaled - 4 * dim * compute
        backward = (_OPEN_FUSED * 4 if fused else _OPEN_PLAIN * compute) * dim
        for parameters in blocks:
            yield Section(
                positions * (dim * compute + (0 if remat else branch)),
                positions * (backward + (recomputed if remat else 0)),
                parameters,
            )
        before = stage
    yield Section(0, 0, head.parameters)


def memory_of(
    recipe: Recipe, model: str, classes: int, device_batch: int, accumulated: int, device: Device
) -> Memory:
    """Finds what a training step takes of a device at its peak.

    Backward starts with all that forward kept and no gradient, and ends with all gradients: the
    peak is where both, and what is open there, are the most together.

    Args:
        recipe: Recipe. As `recipe_for` returns it.
        model: str. The network.
        classes: int.
        device_batch: int. Images at a time.
        accumulated: int. Batches that make an update.
        device: Device.
    """
    compute = 4 if recipe.precision == "float32" else 2
    variant = network_of(recipe, model)
    fused = not device.is_gpu and compute == 4
    rows = list(sections(variant, recipe.size, classes, compute, recipe.remat, fused))
    parameters = sum(row.parameters for row in rows)
    # Where batches are accumulated, a gradient has become a sum and its mean as soon as it is made.
    made = 4 * (1 + (accumulated > 1))
    kept, below = 0, 0
    states = []  # gradients and activations, once backward is at a section
    for row in rows:
        kept += row.kept
        states.append((made * (parameters - below), device_batch * (kept + row.open)))
        below += row.parameters
    # An update has all gradients, and no activations but the images.
    states.append((made * parameters, device_batch * 12 * recipe.size**2))
    gradients, activations = max(states, key=sum)
    memory = Memory(
        weights=(4 if compute == 4 else 6) * parameters,
        moments=8 * parameters,
        average=4 * parameters if recipe.ema_decay is not None else 0,
        accumulator=4 * parameters if accumulated > 1 else 0,
        gradients=gradients,
        activations=activations,
    )
    return memory._replace(workspace=device.workspace + round(device.gaps * memory.total))


def _downsampling(before: int, dim: int) -> int:
    """Weights of a norm and a 2x2 convolution."""
    return 2 * before + (4 * before + 1) * dim
