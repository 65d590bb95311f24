"""Detectors as they are exported, from pixels to detections, and how they are compared."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_convnext.call_graph import graph_of
from keras_convnext.detection.boxes import pairwise_iou
from keras_convnext.detection.prediction import SCALE
from keras_convnext.export.fusing import fused_calls
from keras_convnext.picture_files import find_images
from keras_convnext.preprocessing import open_image
from keras_convnext.resizing import resized_linearly, scaled_size
from keras_convnext.shipped import shipped

MULTIPLE = 32  # of the sides of a padded image
_LEAST_OVERLAP = 0.5  # of two boxes of the same object


@keras.saving.register_keras_serializable(package="keras_convnext")
class PadImages(keras.layers.Layer):
    """Pads images to multiples of 32 pixels, as detectors take them.

    Input shape: `(N, H, W, C)`. Output shape: the padded images, and the sizes `(N, 2)` without
    padding, height and width.
    """

    def call(self, images: Any) -> tuple[Any, Any]:
        """Pads `images` at the right and at the bottom."""
        samples, height, width, _ = ops.shape(images)
        rows, columns = -height % MULTIPLE, -width % MULTIPLE
        padded = ops.pad(images, [[0, 0], [0, rows], [0, columns], [0, 0]])
        size = ops.cast(ops.stack([height, width]), "float32")
        return padded, ops.tile(size[None], (samples, 1))

    def compute_output_spec(self, images: Any) -> tuple[Any, Any]:
        """Returns the shapes of the padded images and of the sizes."""
        samples, *sides, channels = images.shape
        sides = [None if side is None else side + -side % MULTIPLE for side in sides]
        padded = keras.KerasTensor((samples, *sides, channels), images.dtype)
        return padded, keras.KerasTensor((samples, 2), "float32")


def served_detector(model: keras.Model) -> keras.Model:
    """Builds the network of an artifact.

    Args:
        model: keras.Model. A detector.

    Returns:
        A fused keras.Model from images (N, H, W, C) of one size, with pixels in 0..255, to the dict
        that `model` returns.
    """
    graph = graph_of(model)
    by_name = dict(zip((x.name for x in model.inputs), graph.inputs))
    by_name["images"].dtype = "float32"  # so that a rescaling of integers can be folded
    image = keras.Input(by_name["images"].shape[1:], name="pixels")
    padded, sizes = PadImages(name="padded")(image)
    given = {by_name["images"]: padded, by_name["sizes"]: sizes}
    made = fused_calls(graph, [given[x] for x in graph.inputs])
    names = sorted(model.output)  # the order of Keras' flat outputs
    return keras.Model(
        image, {name: made[x] for name, x in zip(names, graph.outputs)}, name=model.name
    )


def longest_side(shortest: int) -> int:
    """Returns the most pixels of the longer side, as published for the shorter one."""
    return max(SCALE) * shortest // min(SCALE)


def image_samples(
    images: str | Path | None, sides: Sequence[int | None], shortest: int, most: int
) -> list[np.ndarray]:
    """Loads images for the comparison, resized as in the published evaluation.

    Args:
        images: str, path or None. As in `export`.
        sides: ints or Nones. Height and width of the model's input.
        shortest: int. Shorter side of the resized images.
        most: int. Images to load.

    Returns:
        List of uint8 arrays (H, W, 3).
    """
    paths = find_images([images or shipped("examples/photos")])
    chosen = np.linspace(0, len(paths) - 1, min(len(paths), most)).astype(int)
    scale = (longest_side(shortest), shortest)
    samples = []
    for index in chosen:
        pixels = np.asarray(open_image(paths[index]))
        fitted = scaled_size(pixels.shape[:2], scale)
        target = sides[0] or fitted[0], sides[1] or fitted[1]
        samples.append(np.rint(resized_linearly(pixels, target)).astype("uint8"))
    return samples


def compare_detections(
    model: keras.Model,
    artifact: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    images: Sequence[np.ndarray],
) -> tuple[float, float, int]:
    """Compares the detections of an artifact with those of the live model.

    Where two scores or two overlaps are almost equal, rounding decides which box is kept. So one
    detection in twenty may differ.

    Args:
        model: keras.Model. A detector.
        artifact: Artifact.
        images: sequence of uint8 arrays (H, W, C).

    Returns:
        The difference that 95 % of the detections do not exceed: of their scores, of the pixels of
        their masks, or of their boxes as a share of the longest side of the image. The share of the
        detections that both have. The number of detections of the live model.
    """
    errors: list[float] = []
    same, total, count = 0, 0, 0
    for image in images:
        ours = _detections(live_detections(model, image))
        theirs = _detections(artifact(image[None]))
        pairs = _pairs(ours, theirs)
        longest = max(image.shape[:2])
        errors += [_apart(ours, theirs, *pair, longest) for pair in pairs]
        same += len(pairs)
        total += max(len(ours["scores"]), len(theirs["scores"]))
        count += len(ours["scores"])
    errors += [float("inf")] * (total - same)
    error = float(np.quantile(errors, 0.95, method="higher")) if errors else 0.0
    return error, same / max(total, 1), count


def _apart(
    ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], mine: int, other: int, side: int
) -> float:
    differences = {
        name: np.abs(ours[name][mine] - theirs[name][other]).max()
        for name in ("scores", "boxes", "masks")
        if name in ours
    }
    differences["boxes"] /= side
    return float(max(differences.values()))


def live_detections(model: keras.Model, image: np.ndarray) -> Mapping[str, Any]:
    """Returns the outputs of a detector for an image (H, W, C)."""
    sides = image.shape[:2]
    padding = [(0, 0), *((0, -side % MULTIPLE) for side in sides), (0, 0)]
    padded = np.pad(image[None].astype("float32"), padding)
    return model({"images": padded, "sizes": np.array([sides], "float32")}, training=False)


def _detections(found: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns the detections of the only image, without padding."""
    arrays = {name: np.asarray(value)[0] for name, value in found.items()}
    count = int(arrays.pop("num_detections"))
    return {name: value[:count] for name, value in arrays.items()}


def _pairs(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> list[tuple[int, int]]:
    """Returns which detections are of the same object: of the same class, and overlapping most."""
    if not len(ours["scores"]) or not len(theirs["scores"]):
        return []
    overlaps = np.array(pairwise_iou(ours["boxes"], theirs["boxes"]))
    overlaps[ours["labels"][:, None] != theirs["labels"][None]] = 0
    pairs = []
    for mine in range(len(overlaps)):
        other = int(overlaps[mine].argmax())
        if overlaps[mine, other] >= _LEAST_OVERLAP:
            pairs.append((mine, other))
            overlaps[:, other] = 0
    return pairs
