"""Writes a network for another runtime, and checks it before the output folder appears."""

import json
import platform
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import keras
import numpy as np

from keras_convnext.detection.names import names_of_classes
from keras_convnext.detection.prediction import SCALE
from keras_convnext.detection.rotated.objects import names_of_rotated
from keras_convnext.detection.weights import classes_of_model, is_detector, is_rotated
from keras_convnext.export.artifact import MANIFEST, Artifact, Difference, compare, require
from keras_convnext.export.detectors import image_samples, longest_side
from keras_convnext.export.formats import FORMATS, Order
from keras_convnext.export.served import served_network
from keras_convnext.picture_files import find_images
from keras_convnext.preprocessing import (
    CROPPED_SHARE,
    WARP_FROM,
    class_names,
    load_image,
    open_image,
)
from keras_convnext.printable import PrintableMessage, printable
from keras_convnext.resizing import resized
from keras_convnext.shipped import shipped

# Allowed differences of the logits from the live model's, relative to the largest logit.
_TOLERANCES = {"float16": 1e-2, "bfloat16": 5e-2, "int8": 0.5}
_SAME_PIXELS = 0.999  # of a segmenter, in float32: near a border two logits may be almost equal
_OF_OBJECTS = 1e-4  # the least tolerance of a detector: of scores, not of the largest logit
_SAME_OBJECTS = 0.95  # of a detector, in float32: see `compare_detections`
MOST_SAMPLES = 256  # images for calibration and for the comparison
GRAY = (0.299, 0.587, 0.114)  # weights of R, G and B: ITU-R BT.601, as in Pillow's mode "L"


class ExportError(PrintableMessage, RuntimeError):
    """An artifact differs from the live model, or cannot be written. It has been removed."""


def export(
    model: keras.Model,
    output: str | Path,
    format: str = "saved_model",
    *,
    dtype: str = "float32",
    pixels: str = "float32",
    size: int | None = None,
    names: Sequence[str] | None = None,
    images: str | Path | None = None,
    source: Mapping[str, object] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Difference:
    """Exports a network to another runtime, and checks it there against the live model.

    The artifact is the fused network. It takes pixels in 0..255, with any batch size. `export.json`
    next to it records the model, its classes, the preprocessing of the images, the versions of the
    packages that wrote it, and the difference from the live model.

    Example:

    ```python
    model = keras_convnext.ConvNeXtTiny(weights="imagenet")
    keras_convnext.export.export(model, "served/tiny", "saved_model")
    keras_convnext.export.export(model, "tiny_int8", "onnx", dtype="int8", images="photographs")
    ```

    Args:
        model: keras.Model. A float32 classifier, segmenter or detector of pixels in 0..255: built
            by one of the builders, or a functional or Sequential model that contains such a
            network, with your own head. If it takes images of any size, so does the artifact.
        output: str or path. Output folder, new or empty.
        format: str. "saved_model", "onnx", "litert" or "openvino". Defaults to "saved_model".
        dtype: str. Type of the stored weights: "float32", "float16", "bfloat16" or "int8". LiteRT
            does not support "bfloat16", and SavedModel does not support "int8". OpenVINO stores
            float16 weights for "bfloat16", and computes in bfloat16 on processors that support it.
            With "int8", which detectors do not support, convolutions and matrix products are
            computed in integers, norms and GELU in float32. Defaults to "float32".
        pixels: str. Type of the input, "float32" or "uint8". Defaults to "float32".
        size: int or None. Side of the square that images are cropped to. Defaults to None: the
            model's input size, or 224 if it takes any size. For a model of non-square images, they
            are resized to its height and width. For a detector it is the shorter side to which
            images are resized, 800 by default.
        names: sequence of str or None. Class names. Defaults to None: the names that
            `preprocessing.class_names` returns for the number of classes.
        images: str, path or None. Folder of images for the comparison and the calibration of
            "int8"; up to 256 are used. Defaults to None: the three that are shipped with the
            package, which are too few for "int8". A detector must find objects in them.
        source: dict or None. Information about the source of the weights, for `export.json`.
        progress: callable or None. Called after each batch of the comparison with the number of
            images compared and the total.

    Returns:
        Difference between the artifact and the live model.

    Raises:
        ValueError: If the model, the format or the dtype cannot be exported.
        FileExistsError: If `output` exists and is not empty.
        ExportError: If the artifact differs too much from the live model, or the disk is full.
        ImportError: If the format's packages are not installed; the message says how to install
            them.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}. Received: format={format}")
    chosen = FORMATS[format]
    if dtype not in chosen.dtypes:
        raise ValueError(
            f"The dtype of {format} must be one of {', '.join(chosen.dtypes)}. "
            f"Received: dtype={dtype}"
        )
    if pixels not in ("float32", "uint8"):
        raise ValueError(f"pixels must be float32 or uint8. Received: pixels={pixels}")
    if dtype == "int8" and images is None:
        raise ValueError(
            "int8 needs images for calibration: pass a folder with about a hundred typical ones. "
            "Received: images=None"
        )
    if keras.config.backend() != "tensorflow":
        raise ValueError(
            "Exporting needs the TensorFlow backend: set KERAS_BACKEND=tensorflow. "
            f"Received: {keras.config.backend()}"
        )
    finds_objects = is_detector(model)
    if finds_objects and dtype == "int8":
        raise ValueError("Detectors cannot be exported in int8: use float16. Received: dtype=int8")
    require(format)
    network = served_network(model)
    if not finds_objects and (format, dtype) == ("litert", "int8"):
        _check_classifies(model, network)
    *sides, channels = network.input.shape[1:]
    shape: int | tuple[int, int]
    squares: list[np.ndarray]
    if finds_objects:
        classes, shape = classes_of_model(model), size or min(SCALE)
        names = names or (names_of_rotated if is_rotated(model) else names_of_classes)(classes)
        squares = image_samples(images, sides, shape, MOST_SAMPLES)
        preparation = (
            f"resize the short side to {shape} px, but the long side to at most "
            f"{longest_side(shape)} px, bilinear"
        )
    else:
        classes, shape = network.output["logits"].shape[-1], _image_size(sides, size)
        squares = list(_samples(images, shape, channels))
        preparation = _preparation(shape)
    names = list(names or (name for _, name in class_names(classes)))
    if len(names) != classes:
        raise ValueError(f"The model has {classes} classes. Received: {len(names)} names")
    with _folder(Path(output)) as folder:
        samples = [square[None].astype(pixels) for square in squares]
        chosen.write(Order(network, folder, pixels, dtype, shape, names, samples))
        manifest = {
            "format": format,
            "task": _task(model, network),
            "model": model.name,
            "dtype": dtype,
            "pixels": pixels,
            "size": shape,
            "channels": channels,
            "preparation": preparation,
            "source": source or {},
            "versions": _versions(chosen.packages),
            "classes": names,
        }
        _write_manifest(folder, manifest)
        difference = compare(model, _Counted(folder, len(squares), progress), squares)
        most = max(chosen.tolerance, _TOLERANCES.get(dtype, _OF_OBJECTS if finds_objects else 0))
        is_same = _is_same(difference, finds_objects)
        if difference.error > most or (dtype == "float32" and not is_same):
            raise ExportError(
                f"The outputs of the {format} differ from the live model's, so it was removed: the "
                f"largest error is {difference.error:.1e}{'' if finds_objects else _RELATIVE}, "
                f"where {most:.0e} is allowed, and {_agreement(difference, finds_objects)}"
            )
        _write_manifest(folder, {**manifest, "difference": difference._asdict()})
    return difference


def _task(model: keras.Model, network: keras.Model) -> str:
    """Returns the name of the task in `tasks.TASKS`."""
    if is_detector(model):
        return "detection.rotated" if is_rotated(model) else "detection"
    is_map = len(network.output["logits"].shape) == 4
    return "segmentation" if is_map else "classification"


def _check_classifies(model: keras.Model, network: keras.Model) -> None:
    """Refuses a segmenter, whose head LiteRT quantizes but then fails to run.

    Raises:
        ValueError: If the model segments.
    """
    if _task(model, network) == "segmentation":
        raise ValueError(
            "LiteRT cannot run segmenters in int8: use dtype=float16, or the format openvino. "
            "Received: format=litert, dtype=int8"
        )


_RELATIVE = " of the largest logit"


def _is_same(difference: Difference, finds_objects: bool) -> bool:
    """Whether the classes are those of the live model."""
    if finds_objects:
        return difference.same_top1 >= _SAME_OBJECTS
    if difference.same_top5 is None:
        return difference.same_top1 >= _SAME_PIXELS
    return difference.same_top5 == 1


def _agreement(difference: Difference, finds_objects: bool) -> str:
    if finds_objects:
        return f"{difference.same_top1:.2%} of the detections are the same"
    if difference.same_top5 is None:
        return f"{difference.same_top1:.2%} of the pixels have the same class"
    share = f"{difference.same_top5:.0%} of {difference.images} images"
    return f"{share} have the same five classes"


class _Counted(Artifact):
    """An artifact that reports how many images it has classified."""

    def __init__(
        self, folder: Path, total: int, progress: Callable[[int, int], None] | None
    ) -> None:
        super().__init__(folder)
        self._done, self._total, self._progress = 0, total, progress

    def __call__(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        found = super().__call__(pixels)
        self._done += len(pixels)
        if self._progress:
            self._progress(self._done, self._total)
        return found


@contextmanager
def _folder(output: Path) -> Iterator[Path]:
    """A temporary folder, which becomes `output` on success and is removed on failure."""
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise FileExistsError(
            f"The output folder must be new or empty. Received: {printable(output)}"
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.mkdir()
        yield partial
        partial.replace(output)
    except OSError as error:
        raise ExportError(f"{output} could not be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _image_size(sides: Sequence[int | None], size: int | None) -> int | tuple[int, int]:
    """Returns the side of square images, or the height and width of other images."""
    height, width = (side or size or 224 for side in sides)
    if size is None and None in sides:
        height = width = sides[0] or sides[1] or 224
    if size is not None and (height, width) != (size, size):
        raise ValueError(f"The model's input is {tuple(sides)} pixels. Received: size={size}")
    return height if height == width else (height, width)


def _samples(images: str | Path | None, size: int | tuple[int, int], channels: int) -> np.ndarray:
    """Loads images for the model's input. With more than three channels, RGB repeats."""
    paths = find_images([images or shipped("examples/photos")])
    chosen = np.linspace(0, len(paths) - 1, min(len(paths), MOST_SAMPLES)).astype(int)
    samples = np.stack([_image(paths[index], size) for index in chosen])
    if channels == 1:
        return np.rint(samples @ GRAY).astype("uint8")[..., None]
    return samples[..., np.arange(channels) % 3]


def _image(path: Path, size: int | tuple[int, int]) -> np.ndarray:
    if isinstance(size, int):
        return load_image(path, size)
    return np.asarray(resized(open_image(path), size[::-1]))


def _preparation(size: int | tuple[int, int]) -> str:
    if not isinstance(size, int):
        height, width = size
        return f"resize to {width} x {height} px without cropping, bicubic with antialiasing"
    if size >= WARP_FROM:
        return f"resize to {size} x {size} px without cropping, bicubic with antialiasing"
    short = int(size / CROPPED_SHARE)
    return (
        f"resize the short side to {short} px, bicubic with antialiasing, and crop the central "
        f"{size} x {size} px"
    )


def _versions(packages: Sequence[str]) -> dict[str, str]:
    names = ["keras-convnext", "keras", "tensorflow", *packages]
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}


def _write_manifest(folder: Path, manifest: Mapping[str, object]) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
