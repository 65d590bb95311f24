"""Training recipes for classifiers, one row each.

The settings are from Liu et al., "A ConvNet for the 2020s" (arXiv 2201.03545), tables 5 and 6, and
from the commands in the official TRAINING.md. Recipes chosen by this package are marked "ours".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from keras_convnext.training.recipe import Batch, Optimizer, Recipe, RecipeFamily, Schedule


@dataclass(frozen=True, kw_only=True)
class Network:
    """How the network starts.

    Args:
        start: str or None. Published weights to start from, or a weight file.
        published: str or None. Published weights trained with this recipe, which give its accuracy.
        drop_path_rate: float. Stochastic depth rate of the last block.
        layer_scale: float or None. Initial value of layer scale. V2 and networks of the roadmap
            ignore it.
        head_init_scale: float. Factor for the initial weights of the head.
    """

    start: str | None = None
    published: str | None = None
    drop_path_rate: float = 0.0
    layer_scale: float | None = 1e-6
    head_init_scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Input:
    """How images are read and augmented.

    Args:
        size: int. Side of the images, in pixels.
        early_sizes: tuple of int. Sides of the images in the first epochs, which smaller images
            make faster (progressive resizing). Validation always uses `size`.
        early_epochs: tuple of float. For each of `early_sizes`, the epoch until which it is used.
        crop_scale: tuple of two floats. Minimum and maximum share of the image in a random crop.
        crop_ratio: tuple of two floats. Minimum and maximum width / height of a random crop.
        horizontal_flip: float. Probability of a horizontal flip.
        rand_augment: str or None. RandAugment in timm's notation.
        color_jitter: float or None. Maximum change of brightness, contrast and saturation; ignored
            with RandAugment.
        random_erasing: float. Probability of random erasing.
        validation_share: float. Share of the training images to hold out if the data has no
            validation split; 0 for none.
    """

    size: int = 224
    early_sizes: tuple[int, ...] = ()
    early_epochs: tuple[float, ...] = ()
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    horizontal_flip: float = 0.5
    rand_augment: str | None = "rand-m9-mstd0.5-inc1"
    color_jitter: float | None = None
    random_erasing: float = 0.25
    validation_share: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What the network learns to predict.

    Args:
        label_smoothing: float. Label smoothing.
        teacher: str or None. A classifier to learn from: a weight file, or published weights as
            "convnext_base/imagenet".
        teacher_weight: float. Weight of the teacher in the loss.
        temperature: float. Temperature of the teacher's probabilities.
        mixup: float. Alpha of mixup; 0 to disable it.
        cutmix: float. Alpha of CutMix; 0 to disable it.
        mixing_probability: float. Probability that a batch is mixed.
        mixing_switch: float. Probability of CutMix instead of mixup, if both are enabled.
        mixing_batch: int. Number of images that share one draw of mixing: the batch size per device
            in the reference layout. The last group of an update may be smaller.
    """

    label_smoothing: float = 0.1
    teacher: str | None = None
    teacher_weight: float = 0.5
    temperature: float = 1.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mixing_probability: float = 1.0
    mixing_switch: float = 0.5
    mixing_batch: int = 128


@dataclass(frozen=True, kw_only=True)
class Classification(Recipe):
    """A recipe for a classifier.

    Args:
        network: Network.
        input: Input.
        targets: Targets.
    """

    network: Network = Network()
    input: Input = Input()
    targets: Targets = Targets()


_FROM_SCRATCH = Classification(
    name="imagenet1k",
    source="table 5; TRAINING.md, ImageNet-1K training",
    optimizer=Optimizer(learning_rate=4e-3, weight_decay=0.05, ema_decay=0.9999),
    schedule=Schedule(epochs=300, warmup_epochs=20),
    batch=Batch(batch_size=4096, device_batch=128, devices=32),
    network=Network(published="imagenet"),
    targets=Targets(mixup=0.8, cutmix=1.0),
)

_FINE_TUNE = Classification(
    name="imagenet22k_to_1k",
    source="table 6; TRAINING.md, ImageNet-1K fine-tuning",
    optimizer=Optimizer(learning_rate=5e-5, weight_decay=1e-8, layer_decay=0.8),
    schedule=Schedule(epochs=30),
    batch=Batch(batch_size=512, device_batch=32, devices=16),
    network=Network(start="imagenet22k", published="imagenet22k_ft", head_init_scale=0.001),
)

# Appendix A.1 of "ConvNeXt V2" (arXiv 2301.00808), and TRAINING.md of its code; learning rates
# are for the whole batch. Commands exist for Atto, Tiny and Base only. For Base and Large, table 11
# prints ten times the learning rate of the command, which is used here for both. For Huge it prints
# 1.25e-3 for a batch of 256, which is divided by ten, too. Groups of layers are "single" but for
# Base and Large, whose command has the groups of V1.
_V2 = Classification(
    name="fcmae_to_1k",
    source="V2, table 11; TRAINING.md, fine-tuning; learning rates of Large and Huge are unclear",
    optimizer=Optimizer(learning_rate=8e-4, weight_decay=0.05, layer_decay=0.9,
                        layer_groups="single", ema_decay=0.9999),
    schedule=Schedule(epochs=600),
    batch=Batch(batch_size=1024, device_batch=32, devices=32),
    network=Network(start="fcmae", published="imagenet", head_init_scale=0.001, layer_scale=None),
    targets=Targets(label_smoothing=0.2, mixing_batch=32),
)  # fmt: skip
_MIXED = {"label_smoothing": 0.1, "mixup": 0.8, "cutmix": 1.0}
_GROUPED = {"learning_rate": 2.5e-3, "epochs": 100, "warmup_epochs": 20, "layer_decay": 0.6,
            "layer_groups": "official", **_MIXED}  # fmt: skip

_NEEDS = ("drop_path_rate",)

RECIPES = {
    family.recipe.name: family
    for family in (
        RecipeFamily(_FROM_SCRATCH, {
            "convnext_tiny":  {"drop_path_rate": 0.1},
            "convnext_small": {"drop_path_rate": 0.4},
            "convnext_base":  {"drop_path_rate": 0.5},
            "convnext_large": {"drop_path_rate": 0.5, "mixing_batch": 64, "device_batch": 64,
                               "devices": 64},
        }, _NEEDS),
        RecipeFamily(
            replace(
                _FROM_SCRATCH,
                name="imagenet1k_isotropic",
                source="appendix A.1; TRAINING.md, isotropic ConvNeXt",
                schedule=Schedule(epochs=300, warmup_epochs=50),
                network=replace(_FROM_SCRATCH.network, layer_scale=None),
            ),
            {
                "convnext_isotropic_small": {"drop_path_rate": 0.1},
                "convnext_isotropic_base":  {"drop_path_rate": 0.2},
                "convnext_isotropic_large": {"drop_path_rate": 0.5, "layer_scale": 1e-6,
                                             "mixing_batch": 64, "device_batch": 64,
                                             "devices": 64},
            },
            _NEEDS,
        ),
        RecipeFamily(
            replace(
                _FROM_SCRATCH,
                name="imagenet22k",
                source="table 5; TRAINING.md, ImageNet-22K pre-training",
                optimizer=replace(_FROM_SCRATCH.optimizer, ema_decay=None),
                schedule=Schedule(epochs=90, warmup_epochs=5),
                batch=Batch(batch_size=4096, device_batch=32, devices=128),
                network=Network(published="imagenet22k"),
                targets=replace(_FROM_SCRATCH.targets, mixing_batch=32),
            ),
            {
                "convnext_tiny":   {"drop_path_rate": 0.0},
                "convnext_small":  {"drop_path_rate": 0.0},
                "convnext_base":   {"drop_path_rate": 0.1},
                "convnext_large":  {"drop_path_rate": 0.1},
                "convnext_xlarge": {"drop_path_rate": 0.2},
            },
            _NEEDS,
        ),
        RecipeFamily(_FINE_TUNE, {
            "convnext_tiny":   {"drop_path_rate": 0.0},
            "convnext_small":  {"drop_path_rate": 0.1},
            "convnext_base":   {"drop_path_rate": 0.2},
            "convnext_large":  {"drop_path_rate": 0.3},
            "convnext_xlarge": {"drop_path_rate": 0.4, "ema_decay": 0.9999, "device_batch": 16,
                                "devices": 32},
        }, _NEEDS),
        RecipeFamily(
            replace(
                _FINE_TUNE,
                name="imagenet22k_to_1k_384",
                batch=Batch(batch_size=512, device_batch=16, devices=32),
                network=replace(_FINE_TUNE.network, published="imagenet22k_ft_384"),
                input=Input(size=384),
            ),
            {
                "convnext_tiny":   {"drop_path_rate": 0.0},
                "convnext_small":  {"drop_path_rate": 0.1},
                "convnext_base":   {"drop_path_rate": 0.2},
                "convnext_large":  {"drop_path_rate": 0.3},
                "convnext_xlarge": {"drop_path_rate": 0.4, "ema_decay": 0.9999, "device_batch": 8,
                                    "devices": 64},
            },
            _NEEDS,
        ),
        RecipeFamily(
            replace(
                _FINE_TUNE,
                name="imagenet1k_384",
                optimizer=replace(_FINE_TUNE.optimizer, layer_decay=0.7),
                network=replace(_FINE_TUNE.network, start="imagenet", published="imagenet_384"),
                input=Input(size=384),
            ),
            {
                "convnext_base":  {"drop_path_rate": 0.8},
                "convnext_large": {"drop_path_rate": 0.95},
            },
            _NEEDS,
        ),
        RecipeFamily(_V2, {
            "convnextv2_atto":  {"drop_path_rate": 0.1, "weight_decay": 0.3},
            "convnextv2_femto": {"drop_path_rate": 0.0, "mixup": 0.3, "cutmix": 0.3},
            "convnextv2_pico":  {"drop_path_rate": 0.0, "weight_decay": 0.3, "mixup": 0.3,
                                 "cutmix": 0.3},
            "convnextv2_nano":  {"drop_path_rate": 0.1, "weight_decay": 0.3, "mixup": 0.5,
                                 "cutmix": 0.5},
            "convnextv2_tiny":  {"drop_path_rate": 0.2, "learning_rate": 3.2e-3, "epochs": 300,
                                 "warmup_epochs": 40, **_MIXED},
            "convnextv2_base":  {"drop_path_rate": 0.1, **_GROUPED},
            "convnextv2_large": {"drop_path_rate": 0.2, **_GROUPED},
            "convnextv2_huge":  {"drop_path_rate": 0.3, "learning_rate": 5e-4, "epochs": 50,
                                 "warmup_epochs": 10, "layer_decay": 0.75, **_MIXED},
        }, _NEEDS),
        RecipeFamily(
            replace(
                _V2,
                name="fcmae_to_22k",
                source="V2, appendix A.1",
                optimizer=replace(_V2.optimizer, learning_rate=4e-3, ema_decay=None),
                schedule=Schedule(epochs=90, warmup_epochs=5),
                batch=Batch(batch_size=4096, device_batch=32, devices=128),
                network=replace(_V2.network, published=None),
                targets=Targets(label_smoothing=0.1, mixup=0.8, cutmix=1.0, mixing_batch=32),
            ),
            {
                "convnextv2_nano":  {"drop_path_rate": 0.0},
                "convnextv2_tiny":  {"drop_path_rate": 0.0},
                "convnextv2_base":  {"drop_path_rate": 0.1, "layer_decay": 0.8},
                "convnextv2_large": {"drop_path_rate": 0.1, "layer_decay": 0.8},
                "convnextv2_huge":  {"drop_path_rate": 0.3, "layer_decay": 0.8},
            },
            _NEEDS,
        ),
        # It starts from a run of the recipe above, since no weights of it were published.
        RecipeFamily(
            replace(
                _V2,
                name="fcmae_22k_to_1k",
                source="V2, appendix A.1",
                optimizer=replace(_V2.optimizer, learning_rate=5e-5, weight_decay=1e-8),
                schedule=Schedule(epochs=30),
                batch=Batch(batch_size=512, device_batch=32, devices=16),
                network=replace(_V2.network, start="runs/fcmae_to_22k/final.keras",
                                published="imagenet22k_ft"),
                targets=Targets(label_smoothing=0.1, mixing_batch=32),
            ),
            {
                "convnextv2_nano":  {"drop_path_rate": 0.1, "epochs": 90},
                "convnextv2_tiny":  {"drop_path_rate": 0.1, "epochs": 90},
                "convnextv2_base":  {"drop_path_rate": 0.2, "layer_decay": 0.8},
                "convnextv2_large": {"drop_path_rate": 0.3, "layer_decay": 0.8},
                "convnextv2_huge":  {"drop_path_rate": 0.5, "layer_decay": 0.85, "ema_decay": None},
            },
            _NEEDS,
        ),
        # The road from ResNet to ConvNeXt (section 2): the same settings for every step.
        RecipeFamily(
            replace(
                _FROM_SCRATCH,
                name="roadmap",
                source="section 2.1 and table 5; for models such as roadmap:inverted",
                network=Network(drop_path_rate=0.1),
            ),
            {"roadmap:cifar": {"size": 32}},
        ),
        # Ours, for hundreds to thousands of your own images on any device. Only the head is trained
        # at first, because gradients from a random head would only disturb the trunk.
        RecipeFamily(
            Classification(
                name="finetune_small",
                source="ours, after table 6",
                optimizer=Optimizer(learning_rate=2e-4, weight_decay=0.05, layer_decay=0.8),
                schedule=Schedule(epochs=20, warmup_epochs=2, frozen_epochs=2),
                batch=Batch(batch_size=64, device_batch=64),
                network=Network(start="imagenet", drop_path_rate=0.1),
                input=Input(crop_scale=(0.35, 1.0), validation_share=0.2),
            ),
            {
                "convnext_cifar": {"start": "cifar10", "size": 32},
                "convnextv2_cifar": {"start": None, "size": 32},
            },
        ),
        # Ours, for a CPU: 88 % accuracy on the test images after 80 minutes on two cores.
        RecipeFamily(
            Classification(
                name="cifar10",
                source="ours",
                optimizer=Optimizer(
                    algorithm="muon", learning_rate=8e-3, weight_decay=0.05, ema_decay=0.998
                ),
                schedule=Schedule(epochs=12, warmup_epochs=1),
                batch=Batch(batch_size=128),
                network=Network(layer_scale=None),
                input=Input(
                    size=32, crop_scale=(0.6, 1.0), crop_ratio=(4 / 5, 5 / 4), rand_augment=None
                ),
            ),
        ),
        # Ours, for a GPU: examples/train_cifar10_on_a_gpu.py, which also shears the images, reached
        # 93.4 % in 6 minutes on an H200 with these settings (weights/cifar10/README.md).
        RecipeFamily(
            Classification(
                name="cifar10_gpu",
                source="ours",
                optimizer=Optimizer(learning_rate=3e-3, weight_decay=0.15, ema_decay=0.999),
                schedule=Schedule(epochs=500, warmup_epochs=15, min_learning_rate=3e-6),
                batch=Batch(batch_size=512, device_batch=512, precision="mixed_bfloat16"),
                network=Network(drop_path_rate=0.1, layer_scale=None),
                input=Input(
                    size=32, crop_scale=(0.5, 1.0), crop_ratio=(4 / 5, 5 / 4), rand_augment=None,
                    color_jitter=0.3,
                ),
                targets=Targets(mixup=0.8, cutmix=1.0),
            ),
        ),
    )
}  # fmt: skip
