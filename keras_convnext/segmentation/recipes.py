"""Training recipes for segmenters, one row each.

The published settings are those of facebookresearch/ConvNeXt, semantic_segmentation/configs, as run
on mmsegmentation 0.11. Recipes chosen by this package are marked "ours".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from keras_convnext.training.recipe import Batch, Optimizer, Recipe, RecipeFamily, Schedule

AVERAGES = ("all", "valid")


@dataclass(frozen=True, kw_only=True)
class Network:
    """How the network starts.

    Args:
        start: str or None. Published weights to start from, or a weight file of a classifier or a
            segmenter.
        drop_path_rate: float. Stochastic depth rate of the last block.
        layer_scale: float or None. Initial value of layer scale, if nothing is loaded. V2 has none.
        channels: int. Width of the head.
        pool_scales: tuple of int. Grids of the pyramid pooling.
    """

    start: str | None = None
    drop_path_rate: float = 0.0
    layer_scale: float | None = 1.0
    channels: int = 512
    pool_scales: tuple[int, ...] = (1, 2, 3, 6)


@dataclass(frozen=True, kw_only=True)
class Input:
    """How images and masks are read and augmented.

    Args:
        scale: tuple of int. Longest and shortest side to which images are resized, keeping their
            aspect ratio; empty for the size of each image.
        ratio: tuple of two floats. In training, `scale` is multiplied by a number in this range.
        size: int. Side of the random crops, in pixels.
        most_of_one_class: float. Largest share of one class in a crop; another crop is drawn up to
            ten times.
        horizontal_flip: float. Probability of a horizontal flip.
        photometric: bool. Whether brightness, contrast, saturation and hue are distorted.
        window: int. Side of the windows in which images are validated.
        stride: int. Distance between two windows.
        validation_share: float. Share of the training images to hold out if the data has no
            validation split; 0 for none.
    """

    scale: tuple[int, ...] = (2048, 512)
    ratio: tuple[float, float] = (0.5, 2.0)
    size: int = 512
    most_of_one_class: float = 0.75
    horizontal_flip: float = 0.5
    photometric: bool = True
    window: int = 512
    stride: int = 341
    validation_share: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What the numbers in the masks mean.

    Args:
        first_label: int or None. Label of the first class. None infers it from the masks.
        ignored: tuple of int. Labels of pixels without a class, in addition to 255.
    """

    first_label: int | None = None
    ignored: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What is minimized.

    Args:
        auxiliary_weight: float. Weight of the loss of the auxiliary head; 0 builds none.
        average: str. "all" averages over all pixels, of which those without a class contribute 0,
            as the published runs did; "valid" over those with a class.
        class_balance: float. Pixels of a class have the weight `share ** -class_balance`, divided
            by its mean, where `share` is that of the class among the pixels of the data.
    """

    auxiliary_weight: float = 0.4
    average: str = "all"
    class_balance: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Segmentation(Recipe):
    """A recipe for a segmenter.

    Args:
        network: Network.
        input: Input.
        labels: Labels.
        loss: Loss.
    """

    network: Network = Network()
    input: Input = Input()
    labels: Labels = Labels()
    loss: Loss = Loss()


_ADE20K = Segmentation(
    name="ade20k",
    source="semantic_segmentation/configs/convnext/upernet_convnext_*_512_160k_ade20k_ss.py",
    optimizer=Optimizer(
        learning_rate=1e-4, weight_decay=0.05, layer_decay=0.9, layer_groups="stage_wise"
    ),
    schedule=Schedule(
        updates=160_000, warmup_updates=1_500, warmup_start=1e-6, decay="polynomial",
        min_learning_rate=0.0, evaluation_updates=16_000,
    ),
    batch=Batch(batch_size=16, device_batch=2, devices=8, precision="mixed_float16"),
    network=Network(start="imagenet_no_ema"),
    labels=Labels(first_label=1),
)  # fmt: skip

RECIPES = {
    family.recipe.name: family
    for family in (
        RecipeFamily(_ADE20K, {
            "convnext_tiny":  {"drop_path_rate": 0.4},
            "convnext_small": {"drop_path_rate": 0.3},
            "convnext_base":  {"drop_path_rate": 0.4},
        }, ("drop_path_rate",)),
        RecipeFamily(
            replace(
                _ADE20K,
                name="ade20k_640",
                source=(
                    "semantic_segmentation/configs/convnext/upernet_convnext_*_640_160k_ade20k_ss.py"
                ),
                network=Network(start="imagenet22k", drop_path_rate=0.4),
                input=Input(scale=(2560, 640), size=640, window=640, stride=426),
            ),
            {
                "convnext_base":   {},
                "convnext_large":  {"precision": "float32"},
                "convnext_xlarge": {"precision": "float32", "learning_rate": 8e-5},
            },
        ),
        # Ours, for a hundred of your own images of any size on one machine. It starts from ADE20K
        # where there are such weights, whose head has 512 channels.
        RecipeFamily(
            Segmentation(
                name="segment_small",
                source="ours, after the published settings",
                optimizer=Optimizer(
                    learning_rate=2e-4, weight_decay=0.05, layer_decay=0.9,
                    layer_groups="stage_wise",
                ),
                schedule=Schedule(epochs=60, warmup_epochs=3),
                batch=Batch(batch_size=8, device_batch=8),
                network=Network(start="imagenet", drop_path_rate=0.1, channels=128),
                input=Input(scale=(), ratio=(0.5, 1.5), size=256, validation_share=0.2),
            ),
            {
                "convnext_tiny":   {"start": "ade20k", "channels": 512},
                "convnext_small":  {"start": "ade20k", "channels": 512},
                "convnext_base":   {"start": "ade20k_22k", "channels": 512},
                "convnext_large":  {"start": "ade20k_22k", "channels": 512},
                "convnext_xlarge": {"start": "ade20k_22k", "channels": 512},
            },
        ),
        # Ours, for CamVid on a CPU, from random weights: the last weights of Atto reach 60.4 % mIoU
        # on the validation images at their own size, after 76 minutes on two busy cores. The run
        # had scale=360,270 and ratio=0.75,1.5, which are the same crops; at that scale, which it
        # validated at, it reached 56.9 %.
        RecipeFamily(
            Segmentation(
                name="camvid",
                source="ours",
                optimizer=Optimizer(
                    algorithm="muon", learning_rate=4e-3, weight_decay=0.05, ema_decay=0.998
                ),
                schedule=Schedule(
                    epochs=55, warmup_epochs=2, evaluation_updates=675, save_updates=75
                ),
                batch=Batch(batch_size=8, device_batch=8),
                network=Network(layer_scale=None, channels=48),
                input=Input(scale=(), size=256, ratio=(0.5625, 1.125)),
                labels=Labels(ignored=(11,)),
                loss=Loss(class_balance=0.5),
            ),
        ),
    )
}  # fmt: skip
