"""Loads the network of --weights, for the commands that run one."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_convnext.cli.application import Reading, Shape
from keras_convnext.cli.terminal import messages, track, waiting
from keras_convnext.cli.versions import backend
from keras_convnext.pretrained.catalog import list_weights

if TYPE_CHECKING:
    import keras


def tensors_shown(description: str, tensors: list[Any]) -> Any:
    """Yields tensors with a progress bar: the `progress` argument of `load_model` and others."""
    return track(tensors, description, "tensors", len(tensors))


def import_backend() -> None:
    """Imports Keras and its backend, which takes several seconds."""
    with waiting(f"Starting {backend()}"):
        import keras_convnext.builders  # noqa: F401
    show_downloads()


def show_downloads() -> None:
    """Shows the progress of downloads on standard error, like other messages."""
    from keras_convnext.pretrained import transfer_display

    transfer_display.console = messages


def load_network(weights: str, model: str | None, shape: Shape, reading: Reading) -> "keras.Model":
    """Builds the network of --weights.

    Raises:
        ValueError, OSError: As `load_model` does.
    """
    import_backend()
    from keras_convnext.conversion import load_model
    from keras_convnext.feature_maps import with_values

    progress = partial(tensors_shown, "Loading weights")
    return with_values(load_model(weights, model, progress=progress, **reading, **shape))


def file_of(weights: str, model: str | None) -> Path:
    """Returns the path of the weights."""
    from keras_convnext.loading import checkpoint_file

    return Path(weights) if os.path.exists(weights) else checkpoint_file(weights, model)


def crop_of(weights: str, model: str | None) -> float | None:
    """Returns how the images for some weights are cropped, or None if it is not recorded."""
    from keras_convnext.pretrained.hub_files import is_hub_id  # which imports requests
    from keras_convnext.pretrained.preparation import recorded_preparation

    if os.path.exists(weights) or is_hub_id(weights):
        return recorded_preparation(file_of(weights, model)).crop
    rows = [row for row in list_weights(model) if row.tag == weights]
    return rows[0].crop if rows else None


def load_classifier(
    weights: str, model: str | None, shape: Shape, reading: Reading
) -> "keras.Model":
    """Builds the network of --weights, and checks that it can classify images.

    Raises:
        ValueError: If it cannot, or as `load_network` does.
    """
    network = load_network(weights, model, shape, reading)
    from keras_convnext.tasks import task_of_file
    from keras_convnext.trunks import has_no_classes

    task_of_file(file_of(weights, model), **reading)  # refuses tasks of a later version

    taken, returned = network.input_shape, network.output_shape
    if not isinstance(taken, tuple) or len(taken) != 4 or not isinstance(returned, tuple):
        raise ValueError(
            "The network must have one image input and one output. Received: "
            f"input shape {taken}, output shape {returned}, from {weights}"
        )
    if taken[-1] not in (1, 3) or taken[1] != taken[2]:
        raise ValueError(
            "This command prepares square images with 1 or 3 channels. Call the network from "
            f"Python for other inputs. Received: input shape {taken}, from {weights}"
        )
    if has_no_classes(network):
        raise ValueError(
            "These weights have no classifier. Use weights with a head, or add a head and "
            f"fine-tune it. Received: output shape {returned}, from {weights}"
        )
    return network
