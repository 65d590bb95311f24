"""Feature maps for dense prediction: those of a backbone, and layers that change their size."""

from typing import Any

import keras
from keras import ops

from keras_convnext.layers import LayerNormalization
from keras_convnext.trunks import Trunk, trunk_of

_register = keras.saving.register_keras_serializable(package="keras_convnext")


def normalized_maps(model: keras.Model, prefix: str = "") -> list[Any]:
    """Returns the normalized feature map of each stage, as detectors and segmenters expect them.

    The norms are new layers, `norm_0` to `norm_3`. The next stage takes the map without norm.

    Args:
        model: keras.Model. A hierarchical ConvNeXt.
        prefix: str. Prefix of the names of the norms. Defaults to "".

    Returns:
        List of Keras tensors (N, H/4, W/4, C) to (N, H/32, W/32, 8C).

    References:
        facebookresearch/ConvNeXt, semantic_segmentation/backbone/convnext.py.
    """
    trunk: Trunk = trunk_of(model)
    return [
        LayerNormalization(epsilon=trunk.blocks[0].norm.epsilon, name=f"{prefix}norm_{stage}")(
            block.output
        )
        for stage, block in enumerate(trunk.ends_of_stages().values())
    ]


@_register
class ResizeLike(keras.layers.Layer):
    """Resizes feature maps to the height and width of other ones, by bilinear interpolation.

    The centers of the corner pixels are not aligned, and nothing is antialiased: PyTorch's
    `interpolate(mode="bilinear", align_corners=False)`.

    Input shape: maps `(N, H, W, C)` and `like`, `(N, H', W', C')`. Output shape: `(N, H', W', C)`.
    """

    def call(self, maps: Any, like: Any) -> Any:
        """Resizes `maps`, of shape `(N, H, W, C)`."""
        size = ops.shape(like)[1:3]
        if keras.config.backend() == "tensorflow":  # keras.ops refuses sizes that are tensors
            import tensorflow as tf

            resized = tf.image.resize(maps, size)
        else:
            resized = ops.image.resize(
                maps, size, "bilinear", antialias=False, data_format="channels_last"
            )
        return ops.cast(resized, self.compute_dtype)

    def compute_output_shape(
        self, maps_shape: tuple[int | None, ...], like_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """Returns the shape of the resized maps."""
        return (maps_shape[0], *like_shape[1:3], maps_shape[-1])
