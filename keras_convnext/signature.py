"""The builders' common arguments: checks, and signatures for `help`, editors and type checkers."""

import inspect
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypedDict, TypeVar

import keras

from keras_convnext.printable import printable

Function = TypeVar("Function", bound=Callable[..., keras.Model])


class Builder(Protocol):
    """The common signature of `ConvNeXtTiny` and its siblings."""

    __name__: str
    __qualname__: str

    def __call__(
        self,
        include_top: bool = True,
        include_preprocessing: bool = True,
        weights: str | Path | None = ...,
        input_tensor: Any = None,
        input_shape: tuple[int | None, int | None, int] | None = None,
        pooling: str | None = None,
        classes: int | None = None,
        classifier_activation: str | Callable[[Any], Any] | None = "softmax",
        name: str = ...,
        *,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float | None = ...,
        head_init_scale: float = 1.0,
        remat: bool = False,
    ) -> keras.Model:
        """Builds a ConvNeXt.

        Args:
            include_top: bool. Whether to include the classifier. Defaults to True.
            include_preprocessing: bool. If True, the model takes pixels in 0..255 and normalizes
                them itself. If False, pixels must already be normalized with ImageNet's mean and
                standard deviation: their averages over the three channels for grayscale images;
                with more than three channels, the RGB values repeat. Defaults to True.
            weights: str, path or None. One of: the name of published weights, which are downloaded
                once; the path of a checkpoint in a published layout (`.pth`, `.safetensors`,
                `.weights.h5` or `.h5`, see `load_checkpoint`; PyTorch is not needed); a repository
                of the Hugging Face hub, such as "hf://timm/convnext_tiny.in12k"; None for
                random weights, initialized as in the published training. Defaults to the first of
                the network's published weights.
            input_tensor: Keras tensor or None. Tensor to use as the image input. Defaults to None.
            input_shape: tuple (height, width, channels) or None. Height and width may differ, and
                may be None for any size; both must be at least the network's stride, 32 px for all
                published networks. If channels is not 3, the stem kernel of a checkpoint is
                adapted: summed over its channels for 1, else repeated and scaled by 3 / channels.
                Defaults to (None, None, 3) without the top, else to the image size that the weights
                were published for, else to the network's default size.
            pooling: None, "avg" or "max". Only used without the top: None returns the last feature
                map, of shape (N, H/32, W/32, C) for most networks; "avg" returns the classifier's
                input, of shape (N, C), pooled and then normalized; "max" does the same with max
                pooling. Defaults to None.
            classes: int or None. Number of classes. If it differs from the checkpoint's, the head
                stays randomly initialized, with a warning. Defaults to None: the checkpoint's
                number, or 1000.
            classifier_activation: str, callable or None. Activation of the head, computed in
                float32 under mixed precision; None returns the logits. Defaults to "softmax".
            name: str. Name of the model. Any other name than the default becomes a prefix of the
                layer names, as in `left_stem_conv`, so that one model can contain two trunks.
                Defaults to the network's name, such as "convnext_tiny".
            drop_path_rate: float in [0, 1). Stochastic depth rate of the last block; it rises
                linearly from 0 in the first. Defaults to 0.
            layer_scale_init_value: float or None. Initial value of layer scale; None, or 0 as in
                the official code, disables it. ConvNeXt V2 has none. Defaults to 1e-6, and to None
                for V2, for the CIFAR-10 network and for the isotropic networks except the large
                one.
            head_init_scale: float. Scale of the initial weights of the head; 0.001 is the published
                value for fine-tuning. Defaults to 1.
            remat: bool. Whether training stores only the input of each block and recomputes the
                rest for the gradient, which saves memory and costs time. Defaults to False.

        Returns:
            A keras.Model.

        Raises:
            ValueError: If an argument is invalid, if Keras' image data format is channels_first,
                or if there are no published weights of this name; the message lists the available
                ones.
            CheckpointError: If the checkpoint is damaged, or belongs to another network.
            DownloadError: If published weights cannot be downloaded; the message says what to do.
            FileNotFoundError: If `weights` is a path that does not exist.

        References:
            Liu et al., "A ConvNet for the 2020s", CVPR 2022, arXiv 2201.03545, section 3.
            Woo et al., "ConvNeXt V2", CVPR 2023, arXiv 2301.00808, section 5.
        """
        ...


class Options(TypedDict, total=False):
    """The arguments of `Builder` that `ConvNeXt` and its siblings of any size pass on."""

    include_top: bool
    include_preprocessing: bool
    input_tensor: Any
    input_shape: tuple[int | None, int | None, int] | None
    pooling: str | None
    classes: int | None
    classifier_activation: str | Callable[[Any], Any] | None
    drop_path_rate: float
    head_init_scale: float
    remat: bool


def documentation(title: str, example: str, notes: str = "") -> str:
    """Composes the docstring of a builder: title, example and notes, then the common sections."""
    shared = inspect.cleandoc(Builder.__call__.__doc__ or "").partition("\n\n")[2]
    return f"Builds {title}.\n\nExample:\n\n```python\n{example}\n```\n{notes}\n{shared}\n"


def options_written_out(function: Function) -> Function:
    """Expands `**options` in the signature and the docstring of a builder."""
    signature = inspect.signature(function)
    *own, _ = signature.parameters.values()
    shared = inspect.signature(Builder.__call__).parameters
    options = [
        shared[name].replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name in Options.__annotations__
    ]
    written_out = signature.replace(parameters=[*own, *options])
    function.__signature__ = written_out  # type: ignore[attr-defined]  # read by `inspect`
    of_builder = inspect.cleandoc(Builder.__call__.__doc__ or "").partition("Args:\n")[2]
    function.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n{of_builder}\n"
    return function


def check_arguments(
    pooling: str | None,
    classes: int | None,
    drop_path_rate: float,
    layer_scale_init_value: float | None = None,
    is_v2: bool = False,
) -> None:
    """Checks the arguments that do not depend on the network.

    Raises:
        ValueError: If one is invalid, or if Keras' image data format is channels_first.
    """
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "ConvNeXt supports channels_last images only: call "
            "keras.config.set_image_data_format('channels_last') first. "
            f"Received: image_data_format={keras.config.image_data_format()}"
        )
    if pooling not in (None, "avg", "max"):
        raise ValueError(f"pooling must be None, 'avg' or 'max'. Received: pooling={pooling}")
    if classes is not None and not whole(classes):
        raise ValueError(f"classes must be a positive integer. Received: classes={classes}")
    if not 0 <= drop_path_rate < 1:
        raise ValueError(
            f"drop_path_rate must be in [0, 1). Received: drop_path_rate={drop_path_rate}"
        )
    if layer_scale_init_value is not None and not layer_scale_init_value >= 0:
        raise ValueError(
            "layer_scale_init_value must be None or a non-negative number. "
            f"Received: layer_scale_init_value={layer_scale_init_value}"
        )
    if is_v2 and layer_scale_init_value:
        raise ValueError(
            "ConvNeXt V2 has no layer scale: omit layer_scale_init_value. "
            f"Received: layer_scale_init_value={layer_scale_init_value}"
        )


def image_input(
    input_tensor: Any, input_shape: tuple[int | None, int | None, int], prefix: str
) -> Any:
    """Returns the input tensor, or a new one of a shape.

    Raises:
        ValueError: If it is not a Keras tensor.
    """
    if input_tensor is None:
        return keras.Input(input_shape, name=f"{prefix}image")
    if not keras.backend.is_keras_tensor(input_tensor):
        raise ValueError(
            "input_tensor must be a Keras tensor, such as keras.Input(...). "
            f"Received: input_tensor={input_tensor!r}"
        )
    return input_tensor


def check_image_shape(shape: tuple[int | None, ...], name: str, min_size: int) -> None:
    """Checks the shape of an image for the network called `name`.

    Raises:
        ValueError: If it has no channels, or a side below `min_size`.
    """
    if len(shape) != 3 or not shape[-1]:
        raise ValueError(
            "input_shape must be (height, width, channels), and channels must not be None. "
            f"Received: input_shape={tuple(shape)}"
        )
    if any(side is not None and side < min_size for side in shape[:2]):
        raise ValueError(
            f"The height and width must be at least {min_size} for {printable(name)}. "
            f"Received: input_shape={tuple(shape)}"
        )


def whole(number: object) -> int:
    """Converts a positive Python or NumPy integer to int; returns 0 for anything else."""
    try:
        converted = operator.index(number)  # type: ignore[arg-type]  # raises TypeError for others
    except TypeError:
        return 0
    return 0 if isinstance(number, bool) else max(0, converted)
