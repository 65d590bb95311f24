"""Training recipes, one row each.

The settings are from Liu et al., "A ConvNet for the 2020s" (arXiv 2201.03545), tables 5 and 6, and
from the commands in the official TRAINING.md. Recipes chosen by this package are marked "ours".
"""

from collections.abc import Mapping
from typing import NamedTuple

OPTIMIZERS = ("adamw", "muon")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


class Recipe(NamedTuple):
    """All settings of a training run except for the network, the data and the output folder.

    Args:
        name: str. Name of the recipe.
        source: str. Where the settings come from.
        epochs: int. Number of epochs.
        batch_size: int. Images per weight update, over all devices and accumulated batches.
        learning_rate: float. Peak learning rate, for that batch size.
        weight_decay: float. Decoupled weight decay, for tensors of rank 2 and more.
        optimizer: str. One of `OPTIMIZERS`.
        warmup_epochs: float. Epochs of linear warmup from 0.
        min_learning_rate: float. Final learning rate of the cosine.
        layer_decay: float. Learning rate factor from one group of layers to the group below it; 1
            to disable layer-wise decay.
        frozen_epochs: float. Epochs at the start in which only the head is trained.
        clip_norm: float or None. Maximum global norm of the gradients.
        ema_decay: float or None. Decay of the moving average of the weights.
        drop_path_rate: float. Stochastic depth rate of the last block.
        layer_scale: float or None. Initial value of layer scale.
        head_init_scale: float. Factor for the initial weights of the head.
        start: str or None. Published weights to start from.
        published: str or None. Published weights trained with this recipe, which give its accuracy.
        validation_share: float. Share of the training images to hold out if the data has no
            validation split; 0 for none.
        size: int. Side of the images, in pixels.
        crop_scale: tuple of two floats. Minimum and maximum share of the image in a random crop.
        crop_ratio: tuple of two floats. Minimum and maximum width / height of a random crop.
        horizontal_flip: float. Probability of a horizontal flip.
        rand_augment: str or None. RandAugment in timm's notation.
        color_jitter: float or None. Maximum change of brightness, contrast and saturation; ignored
            with RandAugment.
        random_erasing: float. Probability of random erasing.
        mixup: float. Alpha of mixup; 0 to disable it.
        cutmix: float. Alpha of CutMix; 0 to disable it.
        mixing_probability: float. Probability that a batch is mixed.
        mixing_switch: float. Probability of CutMix instead of mixup, if both are enabled.
        mixing_batch: int. Number of images that share one draw of mixing: the batch size per device
            in the reference layout. Its greatest common divisor with a process's batch is used.
        label_smoothing: float. Label smoothing.
        device_batch: int. Batch size per device in the reference layout.
        devices: int. Number of devices in the reference layout.
        precision: str. One of `PRECISIONS`.
        remat: bool. Whether blocks are recomputed for the gradient to save memory.
        save_steps: int or None. Updates between checkpoints, in addition to one after each epoch.
        seed: int. Seed of the weights, the order and the augmentation.
    """

    name: str
    source: str
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    optimizer: str = "adamw"
    warmup_epochs: float = 0
    min_learning_rate: float = 1e-6
    layer_decay: float = 1.0
    frozen_epochs: float = 0
    clip_norm: float | None = None
    ema_decay: float | None = None
    drop_path_rate: float = 0.0
    layer_scale: float | None = 1e-6
    head_init_scale: float = 1.0
    start: str | None = None
    published: str | None = None
    validation_share: float = 0.0
    size: int = 224
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    horizontal_flip: float = 0.5
    rand_augment: str | None = "rand-m9-mstd0.5-inc1"
    color_jitter: float | None = None
    random_erasing: float = 0.25
    mixup: float = 0.0
    cutmix: float = 0.0
    mixing_probability: float = 1.0
    mixing_switch: float = 0.5
    mixing_batch: int = 128
    label_smoothing: float = 0.1
    device_batch: int = 128
    devices: int = 1
    precision: str = "float32"
    remat: bool = False
    save_steps: int | None = None
    seed: int = 0


class RecipeFamily(NamedTuple):
    """A recipe, and settings that differ for some networks; `recipe_for` combines them.

    Networks that are not in a dict use the setting in `shared`. `drop_path_rate` is an exception:
    if it is not empty, the recipe was published for the networks in it only.

    Args:
        shared: Recipe. Settings of all other networks.
        start: dict from network names, as in the following, to (str or None).
        size: dict to int.
        drop_path_rate: dict to float.
        layer_scale: dict to (float or None).
        ema_decay: dict to (float or None).
        device_batch: dict to int.
        devices: dict to int.
    """

    shared: Recipe
    start: Mapping[str, str | None] = {}
    size: Mapping[str, int] = {}
    drop_path_rate: Mapping[str, float] = {}
    layer_scale: Mapping[str, float | None] = {}
    ema_decay: Mapping[str, float | None] = {}
    device_batch: Mapping[str, int] = {}
    devices: Mapping[str, int] = {}


_FROM_SCRATCH = Recipe(
    "imagenet1k",
    "table 5; TRAINING.md, ImageNet-1K training",
    epochs=300,
    warmup_epochs=20,
    batch_size=4096,
    learning_rate=4e-3,
    weight_decay=0.05,
    ema_decay=0.9999,
    mixup=0.8,
    cutmix=1.0,
    device_batch=128,
    devices=32,
    published="imagenet",
)

_FINE_TUNE = Recipe(
    "imagenet22k_to_1k",
    "table 6; TRAINING.md, ImageNet-1K fine-tuning",
    epochs=30,
    batch_size=512,
    learning_rate=5e-5,
    weight_decay=1e-8,
    layer_decay=0.8,
    head_init_scale=0.001,
    start="imagenet22k",
    published="imagenet22k_ft",
    device_batch=32,
    devices=16,
)

_FINE_TUNED = RecipeFamily(
    _FINE_TUNE,
    drop_path_rate={
        "convnext_tiny":   0.0,
        "convnext_small":  0.1,
        "convnext_base":   0.2,
        "convnext_large":  0.3,
        "convnext_xlarge": 0.4,
    },
    ema_decay={"convnext_xlarge": 0.9999},
    device_batch={"convnext_large": 16, "convnext_xlarge": 8},
    devices={"convnext_large": 32, "convnext_xlarge": 64},
)  # fmt: skip

RECIPES = {
    family.shared.name: family
    for family in (
        RecipeFamily(
            _FROM_SCRATCH,
            drop_path_rate={
                "convnext_tiny":  0.1,
                "convnext_small": 0.4,
                "convnext_base":  0.5,
                "convnext_large": 0.5,
            },
            device_batch={"convnext_large": 64},
            devices={"convnext_large": 64},
        ),
        RecipeFamily(
            _FROM_SCRATCH._replace(
                name="imagenet1k_isotropic",
                source="appendix A.1; TRAINING.md, isotropic ConvNeXt",
                warmup_epochs=50,
                layer_scale=None,
            ),
            drop_path_rate={
                "convnext_isotropic_small": 0.1,
                "convnext_isotropic_base":  0.2,
                "convnext_isotropic_large": 0.5,
            },
            layer_scale={"convnext_isotropic_large": 1e-6},
            device_batch={"convnext_isotropic_large": 64},
            devices={"convnext_isotropic_large": 64},
        ),
        RecipeFamily(
            _FROM_SCRATCH._replace(
                name="imagenet22k",
                source="table 5; TRAINING.md, ImageNet-22K pre-training",
                epochs=90,
                warmup_epochs=5,
                ema_decay=None,
                mixing_batch=32,
                device_batch=32,
                devices=128,
                published="imagenet22k",
            ),
            drop_path_rate={
                "convnext_tiny":   0.0,
                "convnext_small":  0.0,
                "convnext_base":   0.1,
                "convnext_large":  0.1,
                "convnext_xlarge": 0.2,
            },
        ),
        _FINE_TUNED,
        _FINE_TUNED._replace(
            shared=_FINE_TUNE._replace(
                name="imagenet22k_to_1k_384",
                size=384,
                published="imagenet22k_ft_384",
            ),
        ),
        _FINE_TUNED._replace(
            shared=_FINE_TUNE._replace(
                name="imagenet1k_384",
                layer_decay=0.7,
                start="imagenet",
                size=384,
                published="imagenet_384",
            ),
            drop_path_rate={"convnext_base": 0.8, "convnext_large": 0.95},
            ema_decay={},
        ),
        # Ours, for hundreds to thousands of your own images on any device. Only the head is trained
        # at first, because gradients from a random head would only disturb the trunk.
        RecipeFamily(
            _FINE_TUNE._replace(
                name="finetune_small",
                source="ours, after table 6",
                epochs=20,
                warmup_epochs=2,
                frozen_epochs=2,
                batch_size=64,
                learning_rate=2e-4,
                weight_decay=0.05,
                drop_path_rate=0.1,
                head_init_scale=1.0,
                crop_scale=(0.35, 1.0),
                start="imagenet",
                validation_share=0.2,
                published=None,
                device_batch=64,
                devices=1,
            ),
            start={"convnext_cifar": "cifar10"},
            size={"convnext_cifar": 32},
        ),
        # Ours, for a CPU: 88.3 % accuracy on the test images after 80 minutes on two cores.
        RecipeFamily(
            Recipe(
                "cifar10",
                "ours",
                epochs=12,
                warmup_epochs=1,
                batch_size=128,
                optimizer="muon",
                learning_rate=8e-3,
                weight_decay=0.05,
                ema_decay=0.998,
                layer_scale=None,
                size=32,
                crop_scale=(0.6, 1.0),
                crop_ratio=(4 / 5, 5 / 4),
                rand_augment=None,
                device_batch=128,
            ),
        ),
    )
}  # fmt: skip
