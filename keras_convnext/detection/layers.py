"""The layers of detectors with weights: pyramid, proposal head, box head, mask head.

C is the width of the pyramid, `channels`; a level of the pyramid is written P2 to P6.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_convnext.layers import BatchNormalization

_register = keras.saving.register_keras_serializable(package="keras_convnext")

ANCHORS = 3  # at each position


@_register
class FeaturePyramid(keras.layers.Layer):
    """Merges the maps of the backbone from coarse to fine: a feature pyramid network (FPN).

    Args:
        channels: int. Width of the pyramid. Defaults to 256.
        first: int. Index of the finest map that is used. Defaults to 0.
        coarser: str. The levels that are added: "pool" adds P6, every second row and column of P5;
            "input" and "output" add P6 and P7, by convolutions with stride 2 from the coarsest map
            of the backbone or from P5. Defaults to "pool".
        **kwargs: `name` and `dtype`, as in `keras.layers.Layer`.

    Input shape: a list of maps `(N, H/4, W/4, C2)` to `(N, H/32, W/32, C5)`. Output shape: a list
    of five maps with `channels`, P2 to P6, or P3 to P7 with `first=1` and added convolutions.

    References:
        Lin et al., "Feature Pyramid Networks for Object Detection", arXiv 1612.03144.
        Lin et al., "Focal Loss for Dense Object Detection", arXiv 1708.02002, for P6 and P7.
    """

    def __init__(
        self, channels: int = 256, first: int = 0, coarser: str = "pool", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.channels, self.first, self.coarser = channels, first, coarser
        own = range(4 - first)
        self.lateral = [
            conv_layer(channels, 1, "glorot_uniform", f"lateral_{i}", self) for i in own
        ]
        self.output_convs = [
            conv_layer(channels, 3, "glorot_uniform", f"output_{i}", self) for i in own
        ]
        self.coarser_convs = [
            conv_layer(
                channels, 3, "glorot_uniform", f"output_{len(own) + i}", self,
                strides=2, padding="valid",
            )
            for i in range(0 if coarser == "pool" else 2)
        ]  # fmt: skip

    def build(self, input_shape: Sequence[tuple[int | None, ...]]) -> None:
        """Creates the weights of the convolutions."""
        for lateral, output, shape in zip(
            self.lateral, self.output_convs, input_shape[self.first :]
        ):
            lateral.build(shape)
            output.build((*shape[:-1], self.channels))
        width = input_shape[-1][-1] if self.coarser == "input" else self.channels
        for conv in self.coarser_convs:
            conv.build((None, None, None, width))
            width = self.channels

    def call(self, inputs: Sequence[Any]) -> list[Any]:
        """Merges `inputs`, finest first."""
        maps = [lateral(x) for lateral, x in zip(self.lateral, inputs[self.first :])]
        for level in range(len(maps) - 1, 0, -1):
            maps[level - 1] = maps[level - 1] + _enlarged(maps[level], maps[level - 1])
        maps = [output(x) for output, x in zip(self.output_convs, maps)]
        if self.coarser == "pool":
            return [*maps, maps[-1][:, ::2, ::2]]
        x = inputs[-1] if self.coarser == "input" else maps[-1]
        for conv in self.coarser_convs:
            x = conv(ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))  # as PyTorch pads
            maps.append(x)
        return maps

    def compute_output_shape(
        self, input_shape: Sequence[tuple[int | None, ...]]
    ) -> list[tuple[int | None, ...]]:
        """Returns the shapes of the levels."""
        shapes = [(*shape[:-1], self.channels) for shape in input_shape[self.first :]]
        for _ in range(max(1, len(self.coarser_convs))):
            samples, *sides, channels = shapes[-1]
            halved = [None if side is None else (side + 1) // 2 for side in sides]
            shapes.append((samples, *halved, channels))
        return shapes

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        own = {name: getattr(self, name) for name in ("channels", "first", "coarser")}
        return {**super().get_config(), **own}


@_register
class ProposalHead(keras.layers.Layer):
    """Predicts for each anchor whether it contains an object, and how to change it to fit.

    Args:
        channels: int. Width. Defaults to 256.
        **kwargs: `name` and `dtype`, as in `keras.layers.Layer`.

    Input shape: a list of maps `(N, H, W, C)`. Output shape: a list of logits `(N, H, W, 3)` and a
    list of deltas `(N, H, W, 12)`, one entry per map.

    References:
        Ren et al., "Faster R-CNN", arXiv 1506.01497, section 3.1.
    """

    def __init__(self, channels: int = 256, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        normal = keras.initializers.RandomNormal
        self.conv = conv_layer(channels, 3, normal(stddev=0.01), "conv", self, "relu")
        self.objectness = conv_layer(ANCHORS, 1, normal(stddev=0.01), "objectness", self)
        self.deltas = conv_layer(4 * ANCHORS, 1, normal(stddev=0.01), "deltas", self)

    def build(self, input_shape: Sequence[tuple[int | None, ...]]) -> None:
        """Creates the weights, which all levels share."""
        self.conv.build(input_shape[0])
        for layer in (self.objectness, self.deltas):
            layer.build((*input_shape[0][:-1], self.channels))

    def call(self, inputs: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Applies the head to each of `inputs`."""
        maps = [self.conv(x) for x in inputs]
        return [self.objectness(x) for x in maps], [self.deltas(x) for x in maps]

    def compute_output_shape(self, input_shape: Sequence[tuple[int | None, ...]]) -> Any:
        """Returns the shapes of the logits and the deltas."""
        return tuple([(*shape[:-1], channels) for shape in input_shape] for channels in (3, 12))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "channels": self.channels}


@_register
class BoxHead(keras.layers.Layer):
    """Predicts the class of each region, and for each class how to change the region to fit.

    Args:
        classes: int. Number of classes, without the background.
        hidden: int. Width of the dense layers. Defaults to 1024.
        convolutions: int. Convolutions with batch norm before the dense layers. Defaults to 0.
        dense: int. Dense layers before the last ones. Defaults to 2.
        **kwargs: `name` and `dtype`, as in `keras.layers.Layer`.

    Input shape: pooled regions `(N, R, 7, 7, C)`. Output shape: logits `(N, R, classes + 1)`, the
    background last, and deltas `(N, R, classes, 4)`.
    """

    def __init__(
        self, classes: int, hidden: int = 1024, convolutions: int = 0, dense: int = 2, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.classes, self.hidden = classes, hidden
        self.convolutions, self.dense = convolutions, dense
        normal = keras.initializers.RandomNormal
        dtype = self.dtype_policy
        self.convs: list[keras.layers.Layer] = []
        self.norms = [
            BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=dtype, name=f"norm_{i}")
            for i in range(convolutions)
        ]
        self.fully_connected = [
            keras.layers.Dense(hidden, activation="relu", dtype=dtype, name=f"dense_{i}")
            for i in range(dense)
        ]
        self.classifier = keras.layers.Dense(
            classes + 1, kernel_initializer=normal(stddev=0.01), dtype=dtype, name="classifier"
        )
        self.deltas = keras.layers.Dense(
            4 * classes, kernel_initializer=normal(stddev=0.001), dtype=dtype, name="deltas"
        )

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Creates the weights."""
        channels, area = input_shape[-1], input_shape[-2] * input_shape[-3]
        self.convs = [
            conv_layer(channels, 3, _he(), f"conv_{i}", self, use_bias=False)
            for i in range(self.convolutions)
        ]
        for layer in (*self.convs, *self.norms):
            layer.build((None, *input_shape[2:]))
        width = area * channels
        for layer in self.fully_connected:
            layer.build((None, width))
            width = self.hidden
        for layer in (self.classifier, self.deltas):
            layer.build((None, width))

    def call(
        self, inputs: Any, is_region: Any = None, training: bool | None = None
    ) -> tuple[Any, Any]:
        """Predicts for pooled regions `inputs`; the norms skip those that are not `is_region`."""
        samples, regions, *pooled = ops.shape(inputs)
        x = ops.reshape(inputs, (samples * regions, *pooled))  # (N * R, 7, 7, C)
        mask = None
        if is_region is not None and training and self.norms:
            mask = ops.broadcast_to(ops.reshape(is_region, (-1, 1, 1)), ops.shape(x)[:3])
        for conv, norm in zip(self.convs, self.norms):
            x = ops.relu(norm(conv(x), training=training, mask=mask))
        # Channel by channel, as in PyTorch, so that files store the kernel as it is.
        x = ops.transpose(x, (0, 3, 1, 2))
        x = ops.reshape(x, (samples * regions, -1))
        for layer in self.fully_connected:
            x = layer(x)
        logits = ops.reshape(self.classifier(x), (samples, regions, self.classes + 1))
        return logits, ops.reshape(self.deltas(x), (samples, regions, self.classes, 4))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> Any:
        """Returns the shapes of the logits and the deltas."""
        return (*input_shape[:2], self.classes + 1), (*input_shape[:2], self.classes, 4)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        names = ("classes", "hidden", "convolutions", "dense")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@_register
class MaskHead(keras.layers.Layer):
    """Predicts a mask of each region for each class.

    Args:
        classes: int. Number of classes.
        channels: int. Width. Defaults to 256.
        **kwargs: `name` and `dtype`, as in `keras.layers.Layer`.

    Input shape: pooled regions `(N, R, 14, 14, C)`. Output shape: logits
    `(N, R, 28, 28, classes)`.

    References:
        He et al., "Mask R-CNN", arXiv 1703.06870, figure 4 (right).
    """

    def __init__(self, classes: int, channels: int = 256, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.classes, self.channels = classes, channels
        self.convs = [conv_layer(channels, 3, _he(), f"conv_{i}", self, "relu") for i in range(4)]
        self.upsample = keras.layers.Conv2DTranspose(
            channels, 2, strides=2, activation="relu", kernel_initializer=_he(),
            data_format="channels_last", dtype=self.dtype_policy, name="upsample",
        )  # fmt: skip
        self.classifier = conv_layer(classes, 1, _he(), "classifier", self)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights."""
        shape = (None, *input_shape[2:])
        for layer in (*self.convs, self.upsample, self.classifier):
            layer.build(shape)
            shape = (*shape[:-1], self.channels)

    def call(self, inputs: Any) -> Any:
        """Predicts for pooled regions `inputs`."""
        samples, regions, *pooled = ops.shape(inputs)
        x = ops.reshape(inputs, (samples * regions, *pooled))  # (N * R, 14, 14, C)
        for layer in (*self.convs, self.upsample, self.classifier):
            x = layer(x)  # from the upsampling on, (N * R, 28, 28, C)
        return ops.reshape(x, (samples, regions, *x.shape[1:]))

    def compute_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of the logits."""
        samples, regions, rows, columns, _ = input_shape
        return samples, regions, 2 * rows, 2 * columns, self.classes

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "classes": self.classes, "channels": self.channels}


def _he() -> keras.initializers.Initializer:
    return keras.initializers.VarianceScaling(2, "fan_out", "untruncated_normal")


def conv_layer(
    channels: int,
    kernel_size: int,
    initializer: Any,
    name: str,
    owner: keras.layers.Layer,
    activation: str | None = None,
    use_bias: bool = True,
    **kwargs: Any,
) -> keras.layers.Conv2D:
    """Returns a convolution with the precision of its owner."""
    return keras.layers.Conv2D(
        channels,
        kernel_size,
        **{"padding": "same", **kwargs},
        activation=activation,
        use_bias=use_bias,
        kernel_initializer=initializer,
        data_format="channels_last",
        dtype=owner.dtype_policy,
        name=name,
    )


def _enlarged(coarse: Any, fine: Any) -> Any:
    """Repeats the positions of a map up to the size of another one: the nearest neighbor."""
    for axis in (1, 2):
        length, target = ops.shape(coarse)[axis], ops.shape(fine)[axis]
        source = ops.arange(target, dtype="int32") * length // target
        coarse = ops.take(coarse, source, axis=axis)
    return coarse
