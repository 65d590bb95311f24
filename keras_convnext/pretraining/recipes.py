"""The recipes of masked pre-training, one row each.

References are to "ConvNeXt V2" (arXiv 2301.00808) and to the commands in TRAINING.md of
facebookresearch/ConvNeXt-V2. None of the published runs was repeated here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from keras_convnext.training.recipe import Batch, Optimizer, Recipe, RecipeFamily, Schedule


@dataclass(frozen=True, kw_only=True)
class Network:
    """How the network is built.

    Args:
        start: str or None. Weights to start from, as in `weights=`.
        decoder_width: int. Channels of the decoder.
        decoder_depth: int. Number of its blocks.
    """

    start: str | None = None
    decoder_width: int = 512
    decoder_depth: int = 1


@dataclass(frozen=True, kw_only=True)
class Input:
    """How images are prepared.

    Args:
        size: int. Side of the images, in pixels.
        crop_scale: pair of floats. Minimum and maximum area of the crop, as a share of the image.
        horizontal_flip: float. Probability of a horizontal flip.
        validation_share: float. Share of the images to validate on if the data has no split for it.
    """

    size: int = 224
    crop_scale: tuple[float, float] = (0.2, 1.0)
    horizontal_flip: float = 0.5
    validation_share: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Masking:
    """What is hidden, and what is predicted.

    Args:
        ratio: float. Share of the patches that are hidden; rounded up to whole patches.
        patch: int. Side of these patches, in pixels: a multiple of the network's stride.
        normalize: bool. Whether the values of each patch are normalized before they are predicted.
    """

    ratio: float = 0.6
    patch: int = 32
    normalize: bool = True


@dataclass(frozen=True, kw_only=True)
class Pretraining(Recipe):
    """A recipe for masked pre-training.

    Args:
        network: Network.
        input: Input.
        masking: Masking.
        **kwargs: As in `Recipe`.
    """

    network: Network = field(default_factory=Network)
    input: Input = field(default_factory=Input)
    masking: Masking = field(default_factory=Masking)


# Networks for small images, whose patches are smaller than 32 px.
_SMALL = {"convnextv2_cifar": {"size": 32, "patch": 8, "decoder_width": 256}}

RECIPES = {
    family.recipe.name: family
    for family in (
        # The published encoders were trained for 1,600 epochs; table 8 has 800 or 1,600. The batch
        # is that of 8 machines with 8 GPUs.
        RecipeFamily(
            Pretraining(
                name="fcmae",
                source="table 8; TRAINING.md, FCMAE pre-training",
                optimizer=Optimizer(learning_rate=2.4e-3, weight_decay=0.05, beta_2=0.95),
                schedule=Schedule(epochs=1600, warmup_epochs=40, min_learning_rate=0.0),
                batch=Batch(batch_size=4096, device_batch=64, devices=64),
            ),
            _SMALL,
        ),
        # Ours, for thousands to hundreds of thousands of your own images on any device. The rate is
        # the published one for a batch of 256.
        RecipeFamily(
            Pretraining(
                name="pretrain_small",
                source="ours, after table 8",
                optimizer=Optimizer(learning_rate=6e-4, weight_decay=0.05, beta_2=0.95),
                schedule=Schedule(epochs=200, warmup_epochs=10, min_learning_rate=0.0),
                batch=Batch(batch_size=256, device_batch=64),
                input=Input(validation_share=0.02),
            ),
            _SMALL,
        ),
    )
}  # fmt: skip
