"""What Keras finds by name when it loads a model with our layers or optimizers in it.

`import keras_convnext` is enough for `keras.models.load_model`, before or after `import keras`,
although it imports neither Keras nor these classes. Importing them as soon as Keras is there would
meet half-initialized modules if it is one of ours that imports Keras first; so Keras gets proxies,
which import a class when it is first used. From then on Keras has the class itself.
"""

from types import ModuleType

import wrapt

REGISTERED = {
    "block": ("Block",),
    "export.inference": ("InferenceBlock", "InferenceLayerNormalization"),
    "initializers": ("TruncatedNormal",),
    "layers": ("DropPath", "LayerNormalization", "PatchConv2D"),
    "training.muon": ("Muon",),
    "training.optimizer": ("AdamW", "LossScaleOptimizer"),
    "training.schedule": ("WarmupCosine",),
}


def register_with_keras() -> None:
    """Registers the classes, now or as soon as Keras is imported."""
    wrapt.register_post_import_hook(_register, "keras")


def _register(keras: ModuleType) -> None:
    objects = keras.saving.get_custom_objects()
    for module, names in REGISTERED.items():
        for name in names:
            proxy = wrapt.lazy_import(f"keras_convnext.{module}", name, interface=type)
            objects.setdefault(f"keras_convnext>{name}", proxy)
