"""ConvNeXt as a keras-hub backbone, for its classifiers, detectors and segmenters."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import keras

from keras_convnext.block import Block
from keras_convnext.builders import ConvNeXt, ConvNeXtV2
from keras_convnext.feature_maps import pyramid_features
from keras_convnext.initializers import about_to_load
from keras_convnext.loading import dtype_policy
from keras_convnext.network import head, pooled
from keras_convnext.printable import printable
from keras_convnext.trunks import trunk_of

try:
    import keras_hub
except ImportError as error:
    raise ImportError(
        f'keras_convnext.hub needs keras-hub: pip install "keras-convnext[hub]". Received: {error}',
        name=error.name,
    ) from error

_register = keras.saving.register_keras_serializable(package="keras_convnext")


@_register
class ConvNeXtBackbone(keras_hub.models.FeaturePyramidBackbone):
    """The stem and stages of a ConvNeXt, as a keras-hub backbone.

    It returns the last feature map, of shape `(N, H/32, W/32, C)`. `pyramid_outputs` contains the
    feature map of each stage, `P2` to `P5`, where `Pn` has stride 2**n, as in
    `keras_convnext.pyramid_features`. None of them is normalized.

    Example:

    ```python
    trunk = keras_convnext.ConvNeXtTiny(include_top=False)  # or any other network or checkpoint
    backbone = ConvNeXtBackbone.from_trunk(trunk)

    segmenter = keras_hub.models.DeepLabV3ImageSegmenter(
        keras_hub.models.DeepLabV3Backbone(
            image_encoder=backbone,
            spatial_pyramid_pooling_key="P5",
            low_level_feature_key="P2",
            upsampling_size=8,
            dilation_rates=[6, 12, 18],
        ),
        num_classes=21,
    )
    ```

    Args:
        depths: sequence of int. Blocks in each stage.
        dims: sequence of int, of the same length. Channels in each stage.
        patch_size: int, a power of 2. Side of the stem's patches, in pixels. Defaults to 4.
        kernel_size: int, odd. Side of the depthwise kernels. Defaults to 7.
        layer_scale_init_value: float or None. Initial value of layer scale; None disables it.
            Defaults to 1e-6.
        epsilon: float. Added to the variance in the norms. Defaults to 1e-6.
        grn: bool. Whether it is a ConvNeXt V2, with global response normalization in the blocks and
            without layer scale; `layer_scale_init_value` is ignored. Defaults to False.
        drop_path_rate: float in [0, 1). Stochastic depth rate of the last block; it rises linearly
            from 0 in the first. Defaults to 0.
        remat: bool. Whether training recomputes each block for the gradient, which saves memory.
            Defaults to False.
        include_preprocessing: bool. Whether the backbone takes pixels in 0..255 and normalizes them
            itself. If False, a preprocessor must do this. Defaults to True.
        image_shape: tuple (height, width, channels). Height and width may be None. Defaults to
            (None, None, 3).
        dtype: str, `keras.DTypePolicy` or None. Dtype policy of the layers, such as
            "mixed_bfloat16". Defaults to None, the global policy.
        **kwargs: `name` and `trainable`.

    Raises:
        ValueError: If `patch_size` is not a power of 2.

    References:
        Liu et al., "A ConvNet for the 2020s", CVPR 2022, arXiv 2201.03545.
        Woo et al., "ConvNeXt V2", CVPR 2023, arXiv 2301.00808.
    """

    def __init__(
        self,
        depths: Sequence[int],
        dims: Sequence[int],
        patch_size: int = 4,
        kernel_size: int = 7,
        layer_scale_init_value: float | None = 1e-6,
        epsilon: float = 1e-6,
        grn: bool = False,
        drop_path_rate: float = 0.0,
        remat: bool = False,
        include_preprocessing: bool = True,
        image_shape: tuple[int | None, int | None, int] = (None, None, 3),
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        # === Functional Model ===
        build = (
            ConvNeXtV2 if grn else partial(ConvNeXt, layer_scale_init_value=layer_scale_init_value)
        )
        with dtype_policy(dtype):
            trunk = build(
                depths,
                dims,
                patch_size=patch_size,
                kernel_size=kernel_size,
                epsilon=epsilon,
                include_top=False,
                include_preprocessing=include_preprocessing,
                input_shape=image_shape,
                drop_path_rate=drop_path_rate,
                remat=remat,
            )
        super().__init__(inputs=trunk.input, outputs=trunk.output, dtype=dtype, **kwargs)
        self.pyramid_outputs = pyramid_features(trunk).output

        # === Config ===
        self.depths = list(depths)
        self.dims = list(dims)
        self.patch_size = patch_size
        self.kernel_size = kernel_size
        self.layer_scale_init_value = layer_scale_init_value
        self.epsilon = epsilon
        self.grn = grn
        self.drop_path_rate = drop_path_rate
        self.remat = remat
        self.include_preprocessing = include_preprocessing
        self.image_shape = tuple(image_shape)

    @classmethod
    def from_trunk(cls, model: keras.Model, **kwargs: Any) -> "ConvNeXtBackbone":
        """Creates a backbone with the weights of a network. LoRA adapters are merged into them.

        Args:
            model: keras.Model. A hierarchical ConvNeXt, built by a builder or by
                `keras_convnext.load_model`, with or without its top.
            **kwargs: Constructor arguments that differ from the network's, such as
                `drop_path_rate`, `image_shape` or `dtype`.

        Returns:
            A ConvNeXtBackbone. It shares no weights with `model`.

        Raises:
            ValueError: If the model is not a hierarchical ConvNeXt, or is quantized.
        """
        pyramid_features(model)  # raises if there are none
        layers = trunk_of(model).layers
        if layers["stem_conv"].overlap is not None:
            raise ValueError(
                "A backbone has no overlapping patches. "
                f"Received: model={printable(model.name)} with them"
            )
        blocks = {name: layer for name, layer in layers.items() if isinstance(layer, Block)}
        by_stage: dict[str, list[Block]] = {}
        for name, block in blocks.items():
            by_stage.setdefault(name.partition("_blocks_")[0], []).append(block)
        *_, last = blocks.values()
        options = {
            "depths": [len(stage) for stage in by_stage.values()],
            "dims": [stage[0].dim for stage in by_stage.values()],
            "patch_size": layers["stem_conv"].patch_size,
            "kernel_size": last.kernel_size,
            "layer_scale_init_value": last.layer_scale,
            "epsilon": last.norm.epsilon,
            "grn": last.grn is not None,
            "drop_path_rate": last.drop_path.rate,
            "remat": last.remat,
            "include_preprocessing": "normalization" in layers,
            "image_shape": model.input_shape[1:],
        }
        with about_to_load():
            backbone = cls(**{**options, **kwargs})
        _copy_weights(layers, trunk_of(backbone).layers)
        return backbone

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "depths": self.depths,
            "dims": self.dims,
            "patch_size": self.patch_size,
            "kernel_size": self.kernel_size,
            "layer_scale_init_value": self.layer_scale_init_value,
            "epsilon": self.epsilon,
            "grn": self.grn,
            "drop_path_rate": self.drop_path_rate,
            "remat": self.remat,
            "include_preprocessing": self.include_preprocessing,
            "image_shape": self.image_shape,
        }


@_register
class ConvNeXtImageClassifier(keras_hub.models.ImageClassifier):
    """A keras-hub image classifier with ConvNeXt's head, in which the norm follows the pooling.

    `keras_hub.models.ImageClassifier` also accepts a `ConvNeXtBackbone`, but has no norm, so the
    head of a trained network does not fit it.

    Example:

    ```python
    classifier = ConvNeXtImageClassifier.from_trunk(keras_convnext.ConvNeXtTiny(), num_classes=10)
    classifier.fit(images, labels)
    classifier.save_to_preset("tuned")

    classifier = keras_hub.models.ImageClassifier.from_preset("tuned")
    ```

    Args:
        backbone: ConvNeXtBackbone.
        num_classes: int. Number of classes.
        preprocessor: `keras_hub.models.Preprocessor`, layer, callable or None. Applied to the
            images in `fit`, `predict` and `evaluate`. Defaults to None.
        pooling: "avg" or "max". Defaults to "avg".
        activation: str, callable or None. None returns logits. Defaults to None.
        dropout: float in [0, 1). Dropout before the last layer. Defaults to 0.
        head_dtype: str, `keras.DTypePolicy` or None. Defaults to None, the backbone's.
        **kwargs: `name` and `compile`, as in `keras_hub.models.Task`.
    """

    backbone_cls = ConvNeXtBackbone

    def __init__(
        self,
        backbone: ConvNeXtBackbone,
        num_classes: int,
        preprocessor: Any = None,
        pooling: str = "avg",
        activation: Any = None,
        dropout: float = 0.0,
        head_dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        self.backbone = backbone
        self.preprocessor = preprocessor

        # === Functional Model ===
        with dtype_policy(head_dtype or backbone.dtype_policy):
            x = pooled(backbone(backbone.input), pooling, epsilon=backbone.epsilon)  # (N, C)
            x = keras.layers.Dropout(dropout, name="output_dropout")(x)
            x = head(x, num_classes, init_scale=1.0, activation=activation)
        # The parent's constructor would add its own head.
        keras_hub.models.Task.__init__(self, inputs=backbone.input, outputs=x, **kwargs)

        # === Config ===
        self.num_classes = num_classes
        self.activation = activation
        self.pooling = pooling
        self.dropout = dropout

    @classmethod
    def from_trunk(
        cls, model: keras.Model, num_classes: int | None = None, **kwargs: Any
    ) -> "ConvNeXtImageClassifier":
        """Creates a classifier with the weights of a network: backbone, norm and head.

        Args:
            model: keras.Model. A hierarchical ConvNeXt, built by a builder or by
                `keras_convnext.load_model`.
            num_classes: int or None. If it differs from the network's, the head is initialized
                randomly. Defaults to None: the network's number.
            **kwargs: Constructor arguments, such as `activation`. The network's activation is not
                copied.

        Returns:
            A ConvNeXtImageClassifier. It shares no weights with `model`.

        Raises:
            ValueError: As in `ConvNeXtBackbone.from_trunk`, or if the network has no head and
                `num_classes` is None.
        """
        layers = trunk_of(model).layers
        own = layers["head"].units if "head" in layers else None
        num_classes = own if num_classes is None else num_classes
        if num_classes is None:
            raise ValueError(
                "The network has no head: pass num_classes. "
                f"Received: model={printable(model.name)}, num_classes=None"
            )
        classifier = cls(ConvNeXtBackbone.from_trunk(model), num_classes, **kwargs)
        above = {"norm", "head"} if num_classes == own else {"norm"}
        _copy_weights(layers, {layer.name: layer for layer in classifier.layers}, above)
        return classifier


def _copy_weights(
    theirs: Mapping[str, keras.layers.Layer],
    ours: Mapping[str, keras.layers.Layer],
    names: Collection[str] | None = None,
) -> None:
    """Copies weights between layers of the same name. LoRA adapters are merged into the kernels."""
    for name in sorted(theirs.keys() & ours.keys() & set(names or ours)):
        parts = [(theirs[name], ours[name])]
        if isinstance(ours[name], Block):
            parts += zip(theirs[name].parts(), ours[name].parts())
        for source, target in parts:
            if source.quantization_mode:
                raise ValueError(
                    "A quantized network cannot be converted: call quantize on the backbone "
                    f"instead. Received: a network with quantized layer {printable(source.path)}"
                )
            for variable in ("gamma", "beta", "kernel", "bias"):
                if (weight := getattr(source, variable, None)) is not None:
                    getattr(target, variable).assign(keras.ops.convert_to_numpy(weight))
