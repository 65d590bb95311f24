"""Training recipes for detectors of rotated boxes, one row each.

The first two are the rows of the table in Xuyihaoby/rotate_detection, configs/convnext/README.md:
75.03 / 46.58 / 45.04 and 5.07 / 0.34 / 1.31 (AP50 / AP75 / AP), trained on DOTA-v1.0's training
tiles and measured by its server on the test images. The configuration of the second one was never
published: what is not in its templates (configs/rretinanet) is that of the first. The third one is
open-mmlab/mmrotate's, trained on the training and validation images: AP50 74.49. Recipes chosen by
this package are marked "ours".
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
        regression: str. "expectation" or "direct", as in `RotatedRetinaNet`.
        convention: str. Of the angle, as in `RotatedRetinaNet`.
        drop_path_rate: float. Stochastic depth rate of the last block.
        layer_scale: float or None. Initial value of layer scale, if nothing is loaded.
        channels: int. Width of the pyramid and the head.
    """

    start: str | None = None
    regression: str = "expectation"
    convention: str = "le135"
    drop_path_rate: float = 0.0
    layer_scale: float | None = 1.0
    channels: int = 256


@dataclass(frozen=True, kw_only=True)
class Input:
    """How scenes are read, tiled and augmented.

    Args:
        size: int. Side of a tile in pixels, a multiple of 32; larger images are cut into tiles.
        overlap: int. Pixels that neighboring tiles share.
        horizontal_flip: float. Probability of a horizontal flip.
        vertical_flip: float. Probability of a vertical flip.
        quarter_turns: float. Probability of a turn by 90 degrees.
        most_objects: int. Objects of a tile that are trained on; of more, the largest.
        shortest_edge: float. Objects with a shorter edge, in pixels, are left out.
        hardest: int. Objects of a higher difficulty are left out.
        drop_empty: bool. Whether tiles without objects are left out.
        skip_broken: bool. Whether broken labels are skipped instead of refused.
        validation_share: float. Share of the training images to hold out if the data has no
            validation split; 0 for none.
    """

    size: int = 1024
    overlap: int = 512
    horizontal_flip: float = 0.5
    vertical_flip: float = 0.0
    quarter_turns: float = 0.0
    most_objects: int = 1000
    shortest_edge: float = 2.0
    hardest: int = 1
    drop_empty: bool = True
    skip_broken: bool = False
    validation_share: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Loss:
    """How boxes are assigned and compared.

    Args:
        assigner: str. "atss", or "iou" for thresholds of the intersection over union.
        box: str. "iou_log", "iou_linear", "iou_square", "kld" or "l1".
        weight: float. Of the loss of the boxes.
    """

    assigner: str = "atss"
    box: str = "iou_log"
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class RotatedDetection(Recipe):
    """A recipe for a detector of rotated boxes.

    Args:
        network: Network.
        input: Input.
        loss: Loss.
    """

    network: Network = Network()
    input: Input = Input()
    loss: Loss = Loss()


# Ours: no weight decay for any tensor of rank 1. The original has none for tensors whose name
# contains "norm", but decays biases, layer scales, group norms, and the norms before downsampling.
# Ours, as the sources do not tell it: one device.
_GFL = RotatedDetection(
    name="dota_gfl_retina",
    source="Xuyihaoby/rotate_detection, configs/convnext/gfl_convnext_tiny_fpn_1x.py",
    optimizer=Optimizer(learning_rate=1e-4, weight_decay=0.05, clip_norm=35.0),
    schedule=Schedule(
        epochs=12, warmup_updates=500, warmup_start=1e-3, decay="steps", milestones=(8, 11)
    ),
    batch=Batch(batch_size=2, device_batch=2),
    network=Network(start="imagenet_no_ema", drop_path_rate=0.4),
    input=Input(skip_broken=True),
)

RECIPES = {
    family.recipe.name: family
    for family in (
        RecipeFamily(_GFL, {"convnext_tiny": {}}),
        RecipeFamily(
            replace(
                _GFL,
                name="dota_retina",
                source="Xuyihaoby/rotate_detection, configs/rretinanet; the rest inferred",
                network=replace(_GFL.network, regression="direct"),
                loss=Loss(assigner="iou"),
            ),
            {"convnext_tiny": {}},
        ),
        RecipeFamily(
            replace(
                _GFL,
                name="dota_kld",
                source=(
                    "open-mmlab/mmrotate, configs/convnext/"
                    "rotated_retinanet_obb_kld_stable_convnext_adamw_fpn_1x_dota_le90.py"
                ),
                schedule=replace(_GFL.schedule, warmup_updates=1000, warmup_start=1 / 3),
                network=replace(_GFL.network, regression="direct", convention="le90"),
                input=replace(_GFL.input, overlap=200, horizontal_flip=0.25, vertical_flip=0.25),
                loss=Loss(assigner="iou", box="kld", weight=5.5),
            ),
            {"convnext_tiny": {}},
        ),
        # Ours, for a hundred of your own images on one machine.
        RecipeFamily(
            RotatedDetection(
                name="detect_rotated_small",
                source="ours, after dota_gfl_retina",
                optimizer=Optimizer(
                    learning_rate=2e-4, weight_decay=0.05, clip_norm=10.0,
                ),
                schedule=Schedule(epochs=60, warmup_epochs=2, warmup_start=1e-3),
                batch=Batch(batch_size=4, device_batch=4),
                network=Network(start="imagenet", drop_path_rate=0.1),
                input=Input(
                    overlap=256, vertical_flip=0.5, quarter_turns=0.5, validation_share=0.2,
                ),
            ),
        ),
    )
}  # fmt: skip
