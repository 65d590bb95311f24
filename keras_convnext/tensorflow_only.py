"""What only the TensorFlow backend can do, in one place.

Recipes run on TensorFlow: their input is tf.data, devices are shared with tf.distribute, and the
engine resumes both exactly. Exports to SavedModel, ONNX, LiteRT and OpenVINO start from a graph of
TensorFlow. Everything else works on every backend: networks, weights, `predict`, fusing, and in
`model.fit` the optimizers, schedules, losses and layer groups.
"""

from collections.abc import Callable, Collection
from typing import Any


def requiring_tensorflow(
    get: Callable[[str], Any], package: str, names: Collection[str]
) -> Callable[[str], Any]:
    """Wraps the `__getattr__` of a package, so that some names raise an error on other backends.

    Args:
        get: function. The `__getattr__`.
        package: str. `__name__` of the package.
        names: collection of str. Names that require TensorFlow.
    """

    def checked(name: str) -> Any:
        if name in names:
            import keras

            if keras.config.backend() != "tensorflow":
                raise ImportError(
                    f"{package}.{name} requires the TensorFlow backend: set "
                    "KERAS_BACKEND=tensorflow before importing Keras. The optimizers and schedules "
                    "in keras_convnext.training work in model.fit on every backend. "
                    f"Received: KERAS_BACKEND={keras.config.backend()}"
                )
        return get(name)

    return checked
