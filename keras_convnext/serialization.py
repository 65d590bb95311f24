"""Registers our layers and optimizers with Keras, so that it can load models that contain them.

`import keras_convnext` is enough for `keras.models.load_model`, before or after `import keras`,
although it imports neither Keras nor these classes. Importing them in Keras' post-import hook would
find half-initialized modules if one of ours is the first to import Keras. So Keras gets proxies,
which import a class on first use; the class registers itself in place of the proxy.
"""

from types import ModuleType

import wrapt

REGISTERED = {
    "block": ("Block",),
    "detection.layers": ("BoxHead", "FeaturePyramid", "MaskHead", "ProposalHead"),
    "detection.rotated.layers": ("DecodeRotated", "RotatedHead"),
    "detection.stages": ("Detect", "FillPadding", "Propose", "Refine", "RoIAlign", "SelectMasks"),
    "export.detectors": ("PadImages",),
    "export.inference": (
        "InferenceBlock",
        "InferenceLayerNormalization",
        "InferenceResponseNormalization",
        "LargestChannel",
    ),
    "feature_maps": (
        "LargestOfResized",
        "PoolToGrid",
        "PyramidConv2D",
        "ResizeLike",
        "WithAuxiliary",
    ),
    "initializers": ("TruncatedNormal",),
    "layers": (
        "BatchNormalization",
        "DropPath",
        "GlobalResponseNormalization",
        "LayerNormalization",
        "PatchConv2D",
        "PreLogits",
        "SyncBatchNormalization",
    ),
    "training.loss_scale": ("LossScaleOptimizer",),
    "training.muon": ("Muon",),
    "training.optimizer": ("AdamW",),
    "training.schedule": ("WarmupCosine", "WarmupPolynomial", "WarmupSteps"),
}


def register_with_keras() -> None:
    """Registers the classes now, or once Keras is imported."""
    wrapt.register_post_import_hook(_register, "keras")


def _register(keras: ModuleType) -> None:
    objects = keras.saving.get_custom_objects()
    for module, names in REGISTERED.items():
        for name in names:
            proxy = wrapt.lazy_import(f"keras_convnext.{module}", name, interface=type)
            objects.setdefault(f"keras_convnext>{name}", proxy)
