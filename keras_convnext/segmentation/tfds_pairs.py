"""Images with masks from TensorFlow Datasets."""

from pathlib import Path
from typing import TYPE_CHECKING

from keras_convnext.data.errors import DataError
from keras_convnext.data.stored import Stored
from keras_convnext.data.tfds_source import builder_of_folder, prepared_builder, record_files
from keras_convnext.segmentation.pairs import Pairs

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


def find_tfds_pairs(data: str | Path, split: str | None) -> Pairs | None:
    """Finds the images and masks of a split of a dataset; None if `data` is another folder.

    Args:
        data: str or path. A folder that TensorFlow Datasets has prepared; or the name of a dataset,
            if there is no such folder or it begins with `tfds:`.
        split: str or None. As in `open_source`.

    Raises:
        DataError: If there is no such dataset, or it has not one mask per image.
        NoSuchSplitError: If there is no such split.
        ImportError: If tensorflow-datasets is not installed.
    """
    text, path = str(data), Path(data).expanduser()
    if text.startswith("tfds:"):
        return _pairs(prepared_builder(text.removeprefix("tfds:")), text, split)
    if (path / "dataset_info.json").is_file():
        return _pairs(builder_of_folder(path), text, split)
    if path.exists() or path.is_absolute() or text.startswith("."):
        return None
    return _pairs(prepared_builder(text), text, split)


def _pairs(builder: "tfds.core.DatasetBuilder", name: str, split: str | None) -> Pairs:
    image, mask = _features(builder, name)
    split, records = record_files(builder, name, split)
    images, masks = (
        [Stored(records, index, feature) for index in range(len(records))]
        for feature in (image, mask)
    )
    return Pairs("", split, images, masks)


def _features(builder: "tfds.core.DatasetBuilder", name: str) -> tuple[str, str]:
    """Returns the names of the features with the image and with the mask."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    depths = {
        key: features[key].shape[-1]
        for key in features
        if isinstance(features[key], tfds.features.Image)
    }
    images, masks = ([key for key in depths if depths[key] == depth] for depth in (3, 1))
    if len(images) != 1 or len(masks) != 1:
        raise DataError(
            "Segmentation needs a dataset with one image and one mask per example. "
            f"Received: {name} with {', '.join(features)}"
        )
    return images[0], masks[0]
