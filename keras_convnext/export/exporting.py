"""A network out of Keras and into a folder, checked before it is there."""

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
from PIL import Image

from keras_convnext.export.artifact import MANIFEST, Artifact, Difference, compare, require
from keras_convnext.export.formats import FORMATS, Order
from keras_convnext.export.served import served_network
from keras_convnext.prediction import find_images
from keras_convnext.preprocessing import (
    CROPPED_SHARE,
    WARP_FROM,
    class_names,
    load_image,
    open_image,
)
from keras_convnext.shipped import shipped

# How far the logits may be from the live model's, relative to the largest.
_TOLERANCES = {"float16": 1e-2, "bfloat16": 5e-2, "int8": 0.5}
MOST_SAMPLES = 256  # images to see ranges on, and to compare on
GREY = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601, as Pillow's "L"


class ExportError(RuntimeError):
    """An artifact does not equal the live model, or cannot be written. Nothing is left of it."""


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
    """Writes a network for another runtime, and compares it there with the live one.

    The artifact is the fused network, from pixels in 0..255, of any number of images at a time.
    Beside it, `export.json` tells what it is of, its classes, how images are to be prepared, the
    versions of what made it, and how far it is from the live model.

    Example:

    ```python
    model = keras_convnext.ConvNeXtTiny(weights="imagenet")
    keras_convnext.export.export(model, "served/tiny", "saved_model")
    keras_convnext.export.export(model, "tiny_int8", "onnx", dtype="int8", images="photographs")
    ```

    Args:
        model: keras.Model. A classifier of pixels in 0..255 and in float32: made by one of the
            builders, or a functional or Sequential model with such a network in it and a head of
            your own. If it takes images of any size, so does the artifact.
        output: str or path. The folder to make; it may be there if it is empty.
        format: str. "saved_model", "onnx", "litert" or "openvino". Defaults to "saved_model".
        dtype: str. What the weights are kept in: "float32", "float16", "bfloat16" (not LiteRT; in
            OpenVINO it is the arithmetic, on processors that have it, and weights are in float16),
            or "int8" (not SavedModel), where products are of integers too, and norms and GELU in
            float32. Defaults to "float32".
        pixels: str. What the artifact takes, "float32" or "uint8". Defaults to "float32".
        size: int or None. Side of the square that images are cropped to. Defaults to None: what the
            model takes, 224 if it takes any size. A model of images that are not square has them
            resized to its height and width.
        names: sequence of str or None. The classes. Defaults to None, those that are told by their
            number alone.
        images: str, path or None. A folder of photographs, up to 256 of which are compared, and for
            "int8" shown to see the ranges of maps. Defaults to None, the three that come with the
            package, which are too few for "int8".
        source: dict or None. What else `export.json` is to tell of where the weights come from.
        progress: function of how many images are compared and of how many, called after each batch.

    Returns:
        Difference between the artifact and the live model.

    Raises:
        ValueError: If the model, the format or the dtype is not one that can be exported.
        FileExistsError: If `output` holds something.
        ExportError: If the artifact is not close enough to the live model, or the disk is full.
        ImportError: If the format's packages are not installed; the message says what to do.
    """
    if format not in FORMATS:
        raise ValueError(f"format is one of {', '.join(FORMATS)}. Received: format={format}")
    chosen = FORMATS[format]
    if dtype not in chosen.dtypes:
        raise ValueError(
            f"{format} keeps weights in one of {', '.join(chosen.dtypes)}. Received: dtype={dtype}"
        )
    if pixels not in ("float32", "uint8"):
        raise ValueError(f"pixels is float32 or uint8. Received: pixels={pixels}")
    if dtype == "int8" and images is None:
        raise ValueError(
            "int8 takes photographs to see the ranges of maps on, some hundred like those it will "
            "meet: name a folder of them. Received: images=None"
        )
    if keras.config.backend() != "tensorflow":
        raise ValueError(
            f"Exports are made under KERAS_BACKEND=tensorflow. Received: {keras.config.backend()}"
        )
    require(format)
    network = served_network(model)
    *sides, channels = network.input.shape[1:]
    shape = _image_size(sides, size)
    classes = network.output["logits"].shape[-1]
    names = list(names or (name for _, name in class_names(classes)))
    if len(names) != classes:
        raise ValueError(f"The model has {classes} classes. Received: {len(names)} names")
    squares = _samples(images, shape, channels)
    with _folder(Path(output)) as folder:
        samples = [square[None].astype(pixels) for square in squares]
        chosen.write(Order(network, folder, pixels, dtype, shape, names, samples))
        manifest = {
            "format": format,
            "model": model.name,
            "dtype": dtype,
            "pixels": pixels,
            "size": shape,
            "channels": channels,
            "preparation": _preparation(shape),
            "source": source or {},
            "versions": _versions(chosen.packages),
            "classes": names,
        }
        _write_manifest(folder, manifest)
        difference = compare(model, _Counted(folder, len(squares), progress), squares)
        most = max(chosen.tolerance, _TOLERANCES.get(dtype, 0))
        if difference.error > most or (dtype == "float32" and difference.same_top5 < 1):
            raise ExportError(
                f"The {format} gives other answers than the live model, so it was thrown away: the "
                f"largest error is {difference.error:.1e} of the largest logit where {most:.0e} is "
                f"allowed, and {difference.same_top5:.0%} of {difference.images} images have the "
                "same five classes"
            )
        _write_manifest(folder, {**manifest, "difference": difference._asdict()})
    return difference


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
    """A folder that takes the place of `output` once all has gone well, and is gone otherwise."""
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise FileExistsError(f"The output is a new folder or an empty one. Received: {output}")
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
    """The side of the square images, or the height and width of others."""
    height, width = (side or size or 224 for side in sides)
    if size is None and None in sides:
        height = width = sides[0] or sides[1] or 224
    if size is not None and (height, width) != (size, size):
        raise ValueError(f"The model takes images of {tuple(sides)} pixels. Received: size={size}")
    return height if height == width else (height, width)


def _samples(images: str | Path | None, size: int | tuple[int, int], channels: int) -> np.ndarray:
    """Photographs as the model takes them; channels past the third start over with red's."""
    paths = find_images([images or shipped("examples/photos")])
    chosen = np.linspace(0, len(paths) - 1, min(len(paths), MOST_SAMPLES)).astype(int)
    samples = np.stack([_image(paths[index], size) for index in chosen])
    if channels == 1:
        return np.rint(samples @ GREY).astype("uint8")[..., None]
    return samples[..., np.arange(channels) % 3]


def _image(path: Path, size: int | tuple[int, int]) -> np.ndarray:
    if isinstance(size, int):
        return load_image(path, size)
    return np.asarray(open_image(path).resize(size[::-1], Image.Resampling.BICUBIC))


def _preparation(size: int | tuple[int, int]) -> str:
    if not isinstance(size, int):
        height, width = size
        return f"warp the whole image to {width} x {height} px, bicubic with antialiasing"
    if size >= WARP_FROM:
        return f"warp the whole image to {size} x {size} px, bicubic with antialiasing"
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
