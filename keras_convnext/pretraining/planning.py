"""Estimates the updates, memory and hours of masked pre-training, without running it."""

from keras_convnext.complexity import Part, parts
from keras_convnext.pretraining.recipes import Pretraining
from keras_convnext.pretraining.settings import visible_patches
from keras_convnext.training.devices import Device
from keras_convnext.training.memory import Memory, Section, arithmetic_of, peak_of, sections
from keras_convnext.training.planning import Cost, Plan, estimate, find_device
from keras_convnext.variants import VARIANTS, Variant

DATA = {"fcmae": 1_281_167}  # ImageNet-1K


def plan(
    recipe: Pretraining, model: str, images: int | None, devices: int, device_type: str
) -> Plan:
    """Estimates the updates, memory and time of a run without running it.

    Args:
        recipe: Pretraining. As returned by `recipe_for`.
        model: str. Name of a ConvNeXt V2.
        images: int or None. Images per epoch, or None for those of the recipe's dataset.
        devices: int. Number of devices, or of CPU cores.
        device_type: str. A key of `DEVICES`.

    Returns:
        A `classification.Plan`.

    Raises:
        ValueError: If the device type is unknown or does not support the recipe's precision, if the
            number of images is unknown or less than a batch, or if the batch size is not a multiple
            of the number of devices.
    """
    device = find_device(device_type, recipe.batch.precision)
    cost = cost_of(recipe, model, device)
    return estimate(recipe, model, cost, images or DATA.get(recipe.name), devices, device_type)


def cost_of(recipe: Pretraining, model: str, device: Device) -> Cost:
    """Returns what the autoencoder of a recipe needs in training on a device.

    With the operations of `tensorflow_cpu`, only the visible positions of the encoder pass the
    norms and the pointwise layers. The other devices compute all positions.
    """
    variant, own, size = VARIANTS[model], recipe.network, recipe.input.size
    width, cells, values = own.decoder_width, (size // variant.stride) ** 2, 3 * variant.stride**2
    decoder = Variant(
        "decoder", (own.decoder_depth,), (width,), None, variant.stride, isotropic=True, grn=True
    )
    *encoder, _ = parts(variant, (size, size))
    _, blocks, _ = parts(decoder, (size, size))
    projection, prediction = (variant.dims[-1] + 1) * width, (width + 1) * values
    visible = _visible(recipe) if arithmetic_of(recipe, device)[1] else 1.0
    hidden_macs = (1 - visible) * sum(_pointwise_macs(stage) for stage in encoder[1:])

    def memory(recipe: Pretraining, device_batch: int, accumulated: int, device: Device) -> Memory:
        compute, fused = arithmetic_of(recipe, device)
        kind = compute, recipe.batch.remat, fused
        rows = list(sections(variant, size, 0, *kind, visible))[:-1]
        rows.append(Section(cells * variant.dims[-1] * compute, 0, projection + width))
        rows += list(sections(decoder, size, 0, *kind))[1:-1]
        # Targets, predicted values and their errors, in float32.
        maps = 3 * 4 * cells * values
        rows.append(Section(cells * width * compute + maps, maps, prediction))
        return peak_of(recipe, rows, size, device_batch, accumulated, device)

    return Cost(
        size,
        round(sum(part.macs for part in (*encoder, blocks)) - hidden_macs)
        + cells * width * (variant.dims[-1] + values),
        sum(part.parameters for part in (*encoder, blocks)) + projection + width + prediction,
        memory,
    )


def _visible(recipe: Pretraining) -> float:
    """Returns the share of the visible patches of an image."""
    patches = (recipe.input.size // recipe.masking.patch) ** 2
    return visible_patches(patches, recipe.masking.ratio) / patches


def _pointwise_macs(stage: Part) -> int:
    height, width, dim = stage.output
    return stage.blocks * height * width * 8 * dim**2
