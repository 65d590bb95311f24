"""Estimates the memory of a training step from the tensors that each layer's gradient needs.

Two graphs are modeled: with the operations of `tensorflow_cpu`, and with those that TensorFlow
differentiates itself, as on a GPU without XLA (XLA keeps less). The tensors kept by a graph are
counted to within 1 %. The estimate is within 15 % of the peak of TensorFlow's allocator in a step
on a CPU, and within 21 % of the memory of the process, for which gaps were fitted: Atto and Tiny at
224 px, with and without remat, and the networks for CIFAR-10 (`benchmarks/results/planning.json`).

No GPU was measured. PyTorch, which keeps fewer tensors for GELU, needed 4.2, 7.7 and 20.4 GB for
the isotropic networks with 32 images (arXiv 2201.03545, table 2); the estimates here are 5.0, 9.5
and 24.7 GB.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from keras_convnext.complexity import parts
from keras_convnext.training.devices import Device
from keras_convnext.training.recipe import Recipe
from keras_convnext.variants import Variant


class Memory(NamedTuple):
    """Memory of a device at the peak of a training step, in bytes.

    Args:
        weights: int. Weights in float32, plus half-precision copies with mixed precision.
        moments: int. The two moments of AdamW.
        average: int. The moving average of the weights, if used.
        accumulator: int. The accumulated gradients, if batches are accumulated.
        gradients: int. The gradients that exist at the peak.
        activations: int. The images, the tensors that the forward pass keeps for the backward pass,
            and the temporary tensors of the backward pass.
        workspace: int. Memory other than tensors: libraries, compiled code, gaps between tensors.
            Defaults to 0.
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
        """Sum of all parts, in bytes."""
        return sum(self)


class Section(NamedTuple):
    """A block, or the layers between blocks.

    Args:
        kept: int. Bytes per image that the forward pass keeps for the backward pass.
        open: int. Additional bytes per image while the backward pass is in this section.
        parameters: int. Number of weights.
    """

    kept: int
    open: int
    parameters: int


# Feature maps alive at the same time around the gradient of GELU, in widths of the block: three
# maps of four widths, or four in TensorFlow's own chain of operations; with global response
# normalization, two more in the compiled chain, which has sums in its middle; plus the gradient of
# the block's output as it arrives, after drop path, and after layer scale.
_WIDE_FUSED, _WIDE_PLAIN, _OF_RESPONSES, _NARROW = 3 * 4, 4 * 4, 2 * 4, 3


def sections(
    variant: Variant,
    size: int,
    classes: int,
    compute: int,
    remat: bool,
    fused: bool,
    visible: float = 1.0,
) -> Iterator[Section]:
    """Yields the sections of a network with the memory that their gradients need, bottom up.

    Args:
        variant: Variant. The network.
        size: int. Side of the images, in pixels.
        classes: int. Number of classes.
        compute: int. Bytes per value in the compute dtype.
        remat: bool. Whether blocks keep only their input.
        fused: bool. Whether the operations of `tensorflow_cpu` are used.
        visible: float. Share of the positions that pass the norm and the pointwise layers of a
            block. Defaults to 1.
    """
    stem, *stages, head = parts(variant, (size, size), classes)
    # A norm keeps a map in float32 and a factor per position; without our own operation, it also
    # keeps their product with the scale, which is another map.
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
            # Norm, its output, four maps of GELU, and the input of layer scale in float32.
            scaled = 4 * dim * (variant.layer_scale is not None)
            responses = 4 * 4 * dim * variant.grn  # the input of GRN in float32
            branch = (norm + compute) * dim + factors + 4 * 4 * dim * compute + scaled + responses
            # The inputs of layer scale and of the second pointwise layer are freed before GELU.
            recomputed = branch - scaled - 4 * dim * compute
        wide = _WIDE_FUSED + _OF_RESPONSES * variant.grn if fused else _WIDE_PLAIN
        backward = (wide * visible + _NARROW) * (4 if fused else compute) * dim
        norms = 4 * 4 * dim * variant.grn  # of the channels, once per image
        for parameters in blocks:
            yield Section(
                round(positions * (dim * compute + (0 if remat else branch * visible)))
                + (0 if remat else norms),
                round(positions * (backward + (recomputed if remat else 0))),
                parameters,
            )
        before = stage
    yield Section(0, 0, head.parameters)


def arithmetic_of(recipe: Recipe, device: Device) -> tuple[int, bool]:
    """Returns the bytes per value, and whether the operations of `tensorflow_cpu` are used."""
    compute = 4 if recipe.batch.precision == "float32" else 2
    return compute, not device.is_gpu and compute == 4


def peak_of(
    recipe: Recipe,
    rows: Sequence[Section],
    size: int,
    device_batch: int,
    accumulated: int,
    device: Device,
) -> Memory:
    """Estimates the peak memory of a training step of a network of any task.

    Args:
        recipe: Recipe. The recipe.
        rows: sequence of Section. The network, bottom up.
        size: int. Side of the images, in pixels.
        device_batch: int. Batch size per device.
        accumulated: int. Batches accumulated per update.
        device: Device. The device type.
    """
    parameters = sum(row.parameters for row in rows)
    kept, below = 0, 0
    states = []  # gradients and activations while the backward pass is in a section
    for row in rows:
        kept += row.kept
        states.append((4 * (parameters - below), device_batch * (kept + row.open)))
        below += row.parameters
    # The update has all gradients, or their means over the accumulated batches, and no activations
    # except the images.
    states.append((4 * parameters, device_batch * 12 * size**2))
    gradients, activations = max(states, key=sum)
    compute, _ = arithmetic_of(recipe, device)
    memory = Memory(
        weights=(4 if compute == 4 else 6) * parameters,
        moments=8 * parameters,
        average=4 * parameters if recipe.optimizer.ema_decay is not None else 0,
        accumulator=4 * parameters if accumulated > 1 else 0,
        gradients=gradients,
        activations=activations,
    )
    return memory._replace(workspace=device.workspace + round(device.gaps * memory.total))


def _downsampling(before: int, dim: int) -> int:
    """Number of weights of a norm and a 2x2 convolution."""
    return 2 * before + (4 * before + 1) * dim
