"""Builds the model in a weight file, whatever its task, and converts weight files."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras

from keras_convnext.detection.loading import load_detector
from keras_convnext.detection.weights import detector_keys, is_detector, save_detector_weights
from keras_convnext.loading import dtype_policy, is_local, load_classifier
from keras_convnext.pretrained.catalog import find, list_weights
from keras_convnext.pretrained.dense_heads import HEADS
from keras_convnext.pretrained.hub_files import local_source
from keras_convnext.pretrained.identify import head_of_file
from keras_convnext.pretrained.keras_file import SUFFIX as KERAS_SUFFIX
from keras_convnext.pretrained.layouts import Place
from keras_convnext.pretrained.model_weights import Progress
from keras_convnext.pretrained.rewriting import check_dtype
from keras_convnext.pretrained.writing import checkpoint_keys, save_checkpoint
from keras_convnext.printable import printable
from keras_convnext.segmentation.loading import load_segmenter
from keras_convnext.segmentation.weights import is_segmenter, save_segmenter_weights, segmenter_keys

_LOADERS = {  # by task
    "segmentation": load_segmenter,
    "detection": load_detector,
    "detection.rotated": load_detector,
}
TARGETS = (".h5", ".keras", ".safetensors", ".pth")


def load_model(
    source: str | Path,
    model: str | None = None,
    include_top: bool = True,
    entry: str | None = None,
    progress: Progress = iter,
    *,
    prefix: str | None = None,
    ignore: str | Iterable[str] = (),
    **options: Any,
) -> keras.Model:
    """Builds a model that matches a weight file, and loads its weights.

    The file determines the depths and widths, layer scale, the number of classes, the number of
    image channels and, if recorded, the image size. A file of a segmenter becomes a
    `segmentation.UperNet`, and one of a detector a `detection.MaskRCNN`,
    `detection.CascadeMaskRCNN` or `detection.RotatedRetinaNet`.

    The model in a `.keras` file is loaded as it was saved, including layers around the network, and
    without compiling it. If `options` are given, its network is rebuilt with a builder if possible.

    Example:

    ```python
    model = keras_convnext.load_model("convnext_base_22k_224.pth")  # base, with 21,841 classes
    ```

    Args:
        source: str or path. A PyTorch, safetensors or HDF5 file in any layout, the index of a
            sharded checkpoint, a folder that contains one of these, or a `.keras` file; the name of
            published weights, such as "imagenet"; or a repository of the Hugging Face hub with
            timm's or transformers' files, such as "hf://timm/convnextv2_nano.fcmae_ft_in1k", with
            "@" and a branch, tag or commit after it if not its newest.
        model: str or None. Name of the network, such as "convnext_tiny" or "upernet_convnext_tiny".
            Required for published weights; for files, it is checked. Defaults to None.
        include_top: bool. Whether to keep the head. If False, or if the file has no head, the model
            returns pooled and normalized features. Defaults to True.
        entry: str or None. The dict of tensors in a `.pth` file, as in `load_checkpoint`.
        progress: function. As in `load_checkpoint`.
        prefix: str or None. Which of several ConvNeXts to load, as in `load_checkpoint`.
        ignore: str or iterable of str. Tensors to ignore, as in `load_checkpoint`.
        **options: Other arguments of the builder, such as `input_shape`.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: If the network has no such published weights.
        CheckpointError: If the file is damaged or is of another network; or if `options` are given
            for a `.keras` model with layers that no builder creates.
        DownloadError: If published weights cannot be downloaded.
        FileNotFoundError: If the file does not exist.
    """
    source = local_source(source)
    head = _head_of(Path(source), model, entry, prefix, ignore) if include_top else ""
    if head:
        load = _LOADERS[HEADS[head].task]
        return load(source, model, entry, progress, prefix=prefix, ignore=ignore, **options)
    return load_classifier(
        source, model, include_top, entry, progress, prefix=prefix, ignore=ignore, **options
    )


def _head_of(
    source: Path,
    model: str | None,
    entry: str | None,
    prefix: str | None,
    ignore: str | Iterable[str],
) -> str:
    """Returns the name of the dense head in a weight file, or "" for a classifier."""
    if not is_local(source, model):
        tags = {row.tag for row in list_weights(model)} if model is not None else set()
        return find(model, str(source))[0].head if str(source) in tags else ""
    if source.suffix == KERAS_SUFFIX:
        return ""  # the model in it is loaded as it is
    return head_of_file(source, entry, prefix, ignore)


def save(
    model: keras.Model,
    path: str | Path,
    layout: str | None = None,
    dtype: str | None = None,
    progress: Progress = iter,
) -> None:
    """Saves the weights of a model as a checkpoint, with its dense head if it has one.

    Args and errors are those of `save_checkpoint`, or of `save_segmenter_weights`.
    """
    if is_segmenter(model):
        save_segmenter_weights(model, path, layout or "official", dtype, progress)
    elif is_detector(model):
        save_detector_weights(model, path, layout or "official", dtype, progress)
    else:
        save_checkpoint(model, path, layout, dtype, progress)


def keys(model: keras.Model, layout: str = "official") -> dict[Place, tuple[str, tuple[int, ...]]]:
    """Returns the key and shape with which `save` writes each weight of a model.

    Args and errors are those of `checkpoint_keys`.
    """
    if is_segmenter(model):
        return segmenter_keys(model, layout)
    return (detector_keys if is_detector(model) else checkpoint_keys)(model, layout)


def convert(
    source: str | Path,
    target: str | Path,
    model: str | None = None,
    layout: str | None = None,
    include_top: bool = True,
    dtype: str | None = None,
    entry: str | None = None,
    progress: Progress = iter,
    *,
    prefix: str | None = None,
    ignore: str | Iterable[str] = (),
) -> keras.Model:
    """Converts a weight file to another format or layout.

    Example:

    ```python
    convert("convnext_tiny_1k_224_ema.pth", "tiny.safetensors", layout="timm", dtype="float16")
    ```

    Args:
        source: as in `load_model`.
        target: str or path. The file to write, which must end in `.weights.h5`, `.h5` (legacy),
            `.keras`, `.safetensors` or `.pth`. It is written under a temporary name and renamed
            when it is complete.
        model: as in `load_model`.
        layout: str or None. As in `save_checkpoint`; not used for `.keras`. Defaults to None.
        include_top: bool. Whether to keep the head. Defaults to True.
        dtype: str or None. The dtype to cast the weights to, such as "float16". Defaults to None,
            for their own dtype.
        entry: as in `load_model`.
        progress: function. As in `load_checkpoint`, first for reading and then for writing.
        prefix: as in `load_model`.
        ignore: as in `load_model`.

    Returns:
        The `keras.Model` that was written.

    Raises:
        ValueError: If `target` has another suffix, or the layout does not fit it.
        CheckpointError: As in `load_model`, or if the layout has no name for a weight.
        OSError: If the target cannot be written; no partial file remains.
    """
    target = Path(target)
    if not target.name.endswith(TARGETS):
        raise ValueError(
            f"target must end in {', '.join(TARGETS)}. Received: target={printable(target)}"
        )
    check_dtype(dtype)
    if target.suffix != ".keras":
        converted = load_model(
            source, model, include_top, entry, progress, prefix=prefix, ignore=ignore
        )
        save(converted, target, layout, dtype, progress)
        return converted
    if dtype is not None and Path(source).suffix == ".keras":
        raise ValueError(
            "dtype cannot be changed from one .keras file to another: convert to another format. "
            f"Received: dtype={dtype}"
        )
    with dtype_policy(dtype):
        converted = load_model(
            source, model, include_top, entry, progress, prefix=prefix, ignore=ignore
        )
    partial = target.with_name(f"partial.{target.name}")
    try:
        converted.save(partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return converted
