"""Training recipes for detectors, one row each.

The published settings are those of facebookresearch/ConvNeXt, object_detection/configs, as run on
mmdetection 2.11. Recipes chosen by this package are marked "ours".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from keras_convnext.training.recipe import Batch, Optimizer, Recipe, RecipeFamily, Schedule


@dataclass(frozen=True, kw_only=True)
class Network:
    """The detector, and how it starts.

    Args:
        start: str or None. Published weights to start from, or a weight file of a classifier or a
            detector.
        cascade: bool. Whether it is Cascade Mask R-CNN.
        masks: bool or None. Whether it predicts masks. None for whether the data has them.
        drop_path_rate: float. Stochastic depth rate of the last block.
        layer_scale: float or None. Initial value of layer scale, if nothing is loaded.
        channels: int. Width of the pyramid and the heads.
        hidden: int. Width of the dense layers of the box heads.
    """

    start: str | None = None
    cascade: bool = False
    masks: bool | None = None
    drop_path_rate: float = 0.0
    layer_scale: float | None = 1.0
    channels: int = 256
    hidden: int = 1024


@dataclass(frozen=True, kw_only=True)
class Input:
    """How images are read and augmented.

    Args:
        shortest: tuple of int. Shorter sides of the images, of which one is drawn.
        longest: int. The longer side that an image must not exceed.
        crop_from: tuple of int. Half of the images are first resized to one of these shorter sides
            and cropped; empty for none.
        crop: tuple of two ints. The range of the sides of these crops.
        horizontal_flip: float. Probability of a horizontal flip.
        bucket: int. The sides of a batch are rounded up to a multiple of it.
        most_objects: int. Objects of an image that are trained on; of more, the largest.
        drop_empty: bool. Whether images without objects are left out.
        skip_broken: bool. Whether broken annotations are skipped instead of refused.
        scale: tuple of int. Longest and shortest side to which images are resized for validation.
        validation_share: float. Share of the training images to hold out if the data has no
            validation split; 0 for none.
    """

    shortest: tuple[int, ...] = tuple(range(480, 801, 32))
    longest: int = 1333
    crop_from: tuple[int, ...] = (400, 500, 600)
    crop: tuple[int, ...] = (384, 600)
    horizontal_flip: float = 0.5
    bucket: int = 32
    most_objects: int = 100
    drop_empty: bool = True
    skip_broken: bool = False
    scale: tuple[int, ...] = (1333, 800)
    validation_share: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Samples:
    """How much of an image is trained on.

    Args:
        before: int. Anchors of each level of the pyramid that are decoded.
        anchors: int. Anchors per image.
        regions: int. Regions per image and stage.
        proposals: int or None. Regions to sample from. None for the published number: 1000, or 2000
            for the cascade.
        tested: int. Regions per image that are classified in validation, and later.
    """

    before: int = 2000
    anchors: int = 256
    regions: int = 512
    proposals: int | None = None
    tested: int = 1000


@dataclass(frozen=True, kw_only=True)
class Detection(Recipe):
    """A recipe for a detector.

    Args:
        network: Network.
        input: Input.
        samples: Samples.
    """

    network: Network = Network()
    input: Input = Input()
    samples: Samples = Samples()


_COCO = Detection(
    name="coco_mask_rcnn",
    source="object_detection/configs/convnext/mask_rcnn_convnext_*_3x_coco_in1k.py",
    optimizer=Optimizer(
        learning_rate=1e-4, weight_decay=0.05, layer_decay=0.95, layer_groups="layer_wise"
    ),
    schedule=Schedule(
        epochs=36, warmup_updates=500, warmup_start=1e-3, decay="steps", milestones=(27, 33)
    ),
    batch=Batch(batch_size=16, device_batch=2, devices=8, precision="mixed_float16"),
    network=Network(start="imagenet_no_ema", masks=True, drop_path_rate=0.4),
    input=Input(skip_broken=True),
)
_CASCADE = replace(
    _COCO,
    name="coco_cascade",
    source="object_detection/configs/convnext/cascade_mask_rcnn_convnext_*_3x_coco_in1k.py",
    optimizer=replace(_COCO.optimizer, learning_rate=2e-4, layer_decay=0.7),
    network=replace(_COCO.network, cascade=True),
)

RECIPES = {
    family.recipe.name: family
    for family in (
        RecipeFamily(_COCO, {"convnext_tiny": {}}),
        RecipeFamily(
            _CASCADE,
            {
                "convnext_tiny":  {"drop_path_rate": 0.4},
                "convnext_small": {"drop_path_rate": 0.6},
                "convnext_base":  {"drop_path_rate": 0.7, "layer_decay": 0.8},
            },
            ("drop_path_rate",),
        ),
        RecipeFamily(
            replace(
                _CASCADE,
                name="coco_cascade_22k",
                source=(
                    "object_detection/configs/convnext/cascade_mask_rcnn_convnext_*_3x_coco_in22k.py"
                ),
                optimizer=replace(_CASCADE.optimizer, learning_rate=1e-4),
                network=replace(_CASCADE.network, start="imagenet22k"),
            ),
            {
                "convnext_base":   {"drop_path_rate": 0.6, "layer_decay": 0.8},
                "convnext_large":  {"drop_path_rate": 0.7, "precision": "float32"},
                "convnext_xlarge": {"drop_path_rate": 0.8, "precision": "float32"},
            },
            ("drop_path_rate",),
        ),
        # Ours, for a hundred of your own images on one machine. It starts from COCO where there
        # are such weights for Mask R-CNN.
        RecipeFamily(
            Detection(
                name="detect_small",
                source="ours, after the published settings",
                optimizer=Optimizer(
                    learning_rate=1e-4, weight_decay=0.05, layer_decay=0.9,
                    layer_groups="layer_wise", clip_norm=10.0,
                ),
                schedule=Schedule(epochs=40, warmup_epochs=2, warmup_start=1e-3),
                batch=Batch(batch_size=4, device_batch=4),
                network=Network(start="imagenet", drop_path_rate=0.1),
                input=Input(validation_share=0.2),
            ),
            {"convnext_tiny": {"start": "coco"}},
        ),
    )
}  # fmt: skip
