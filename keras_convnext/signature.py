"""What the builders share: their arguments, written once for `help`, editors and type checkers."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypedDict, TypeVar

import keras

Function = TypeVar("Function", bound=Callable[..., keras.Model])


class Builder(Protocol):
    """The signature that `ConvNeXtTiny` and its siblings share."""

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
        """Makes a ConvNeXt.

        Args:
            include_top: bool. Whether the classifier is part of the model. Defaults to True.
            include_preprocessing: bool. Whether the model takes pixels in 0..255 and normalises
                them itself. Without it, it takes pixels normalised with ImageNet's mean and
                standard deviation. Of a grey image these are averages over the three channels, and
                channels past the third start over with red's. Defaults to True.
            weights: str, path or None. The name of published weights, which are downloaded once;
                or the path of a checkpoint in a published layout (`.pth`, `.safetensors`,
                `.weights.h5` or `.h5`, as `load_checkpoint` reads; PyTorch is not needed); or None
                for random weights, as at the start of the published training. Defaults to the
                first of the network's published weights.
            input_tensor: Keras tensor or None. What to use as the image. Defaults to None.
            input_shape: tuple (height, width, channels) or None. Height and width may differ and
                may be None, for any size; each is at least the stride of the network, 32 px for
                all published ones. With a channel count other than 3, a ported stem kernel is
                summed over its channels for 1, else repeated over them and scaled by 3 / channels.
                Defaults to (None, None, 3) without the top, else to the size that the weights are
                published for, else to the network's own.
            pooling: None, "avg" or "max". Without the top: None returns the last map, of shape
                (N, H/32, W/32, C) for most networks; "avg" the features (N, C) that the classifier
                sees, pooled and then normalised; "max" the same of the maximum. Defaults to None.
            classes: int or None. Number of classes. If it differs from the checkpoint's, the head
                keeps its random start and a warning says so. Defaults to None: the checkpoint's,
                or 1000.
            classifier_activation: str, callable or None. Activation of the head, in float32 under
                mixed precision; None returns the logits. Defaults to "softmax".
            name: str. Name of the model. The names of its layers start with it, as in
                `left_stem_conv`, unless it is the default, so that two trunks fit into one model.
                Defaults to the network's name, such as "convnext_tiny".
            drop_path_rate: float in [0, 1). Stochastic depth at the last block; it rises linearly
                from 0 at the first. Defaults to 0.
            layer_scale_init_value: float or None. Initial value of layer scale; None, or 0 as in
                the official code, leaves it out. Defaults to 1e-6, and to None for the isotropic
                networks but the large one, and for the one for CIFAR-10.
            head_init_scale: float. Factor on the random weights of the head; 0.001 is the published
                one for fine-tuning. Defaults to 1.
            remat: bool. Whether training keeps only the input of each block and computes the rest
                again for the gradient, which saves memory and costs time. Defaults to False.

        Returns:
            A keras.Model.

        Raises:
            ValueError: If an argument is out of range, if Keras' image data format is
                channels_first, or if there are no published weights of this name; the message lists
                those there are.
            CheckpointError: If the checkpoint is damaged, or belongs to another network.
            DownloadError: If published weights cannot be downloaded; the message says what to do.
            FileNotFoundError: If `weights` names no file.

        References:
            Liu et al., "A ConvNet for the 2020s", CVPR 2022, arXiv 2201.03545, section 3.
        """
        ...


class Options(TypedDict, total=False):
    """The arguments of `Builder` that `ConvNeXt` and `ConvNeXtIsotropic` pass on."""

    include_top: bool
    include_preprocessing: bool
    input_tensor: Any
    input_shape: tuple[int | None, int | None, int] | None
    pooling: str | None
    classes: int | None
    classifier_activation: str | Callable[[Any], Any] | None
    drop_path_rate: float
    layer_scale_init_value: float | None
    head_init_scale: float
    remat: bool


def documentation(title: str, example: str, notes: str = "") -> str:
    """The docstring of a builder: what is its own, and then what `Builder` says for all."""
    shared = inspect.cleandoc(Builder.__call__.__doc__ or "").partition("\n\n")[2]
    return f"Makes {title}.\n\nExample:\n\n```python\n{example}\n```\n{notes}\n{shared}\n"


def options_written_out(function: Function) -> Function:
    """Puts the arguments that `**options` stands for into the signature and the docstring."""
    signature = inspect.signature(function)
    *own, _ = signature.parameters.values()
    shared = inspect.signature(Builder.__call__).parameters
    options = [
        shared[name].replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name in Options.__annotations__
    ]
    written_out = signature.replace(parameters=[*own, *options])
    function.__signature__ = written_out  # type: ignore[attr-defined]  # what `inspect` looks for
    of_builder = inspect.cleandoc(Builder.__call__.__doc__ or "").partition("Args:\n")[2]
    function.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n{of_builder}\n"
    return function
