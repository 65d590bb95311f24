"""ImageNet-22K for TensorFlow Datasets, prepared from the original release.

    import keras_convnext.data.imagenet22k
    tfds.load("imagenet22k", split="train")

`tfds build --imports=keras_convnext.data.imagenet22k imagenet22k` prepares it from the shell. Use
`--beam_pipeline_options` to distribute the work over a cluster, one class per work item.
"""

import io
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import tensorflow as tf
import tensorflow_datasets as tfds
from etils import epath
from PIL import Image, UnidentifiedImageError

from keras_convnext.data.imagenet22k_release import ClassFiles, find_release
from keras_convnext.memory_errors import is_out_of_memory
from keras_convnext.preprocessing import class_labels, open_image
from keras_convnext.printable import printable

if TYPE_CHECKING:
    import apache_beam as beam

Example = tuple[str, dict[str, object]]  # the key and features of an image

REPORT = "imagenet22k_report.txt"
_NOTES = "imagenet22k_notes"  # a folder with the notes on each class, collected in the report
_QUALITY = 100  # of re-encoded JPEG files, as in TensorFlow Datasets' imagenet2012


class Imagenet22k(tfds.core.GeneratorBasedBuilder):
    """ImageNet-22K: 14,197,122 images in 21,841 classes (fall 2011 release)."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}  # noqa: RUF012 (required by TensorFlow Datasets)
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Download `fall11_whole.tar` or `winter21_whole.tar` from https://image-net.org (needs an "
        "account). Put it in the manual folder, or in a subfolder `imagenet22k`, "
        "`fall11_whole` or `winter21_whole`: unchanged, unpacked into one tar file per class, or "
        "fully unpacked into one folder per class."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=[wnid for wnid, _ in class_labels(21841)]),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="ImageNet with all its classes. Images are JPEG files that decode to RGB: "
            "other formats and color spaces are re-encoded, and broken files are skipped. "
            f"{REPORT} in the data folder lists both.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage="https://image-net.org",
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> "dict[str, Iterator[Example] | beam.PTransform]":
        name, classes = find_release(dl_manager.manual_dir)
        present = {each.wnid for each in classes}
        missing = [wnid for wnid, _ in class_labels(21841) if wnid not in present]
        self.info.metadata.update(release=name, missing_classes=missing)
        return {"train": self._generate_examples(classes)}

    def _generate_examples(
        self, classes: list[ClassFiles]
    ) -> "Iterator[Example] | beam.PTransform":
        notes = epath.Path(self.data_dir) / _NOTES
        notes.mkdir(parents=True, exist_ok=True)
        if self._uses_beam:
            import apache_beam as beam

            # Without the reshuffle, a runner may put all classes on one machine.
            return (
                beam.Create(classes)
                | beam.Reshuffle()
                | beam.FlatMap(examples_of_class, notes=str(notes))
            )
        return (example for each in classes for example in examples_of_class(each, str(notes)))

    def _download_and_prepare(
        self,
        dl_manager: tfds.download.DownloadManager,
        download_config: tfds.download.DownloadConfig | None,
    ) -> None:
        config = download_config
        self._uses_beam = bool(config and (config.beam_runner or config.beam_options))
        super()._download_and_prepare(dl_manager, download_config)
        self._report()

    def _report(self) -> None:
        """Collects the notes on all classes in a report and the metadata, and prints a summary."""
        folder = epath.Path(self.data_dir)
        notes = []
        for path in sorted((folder / _NOTES).iterdir()):
            notes += json.loads(path.read_text())
        (folder / _NOTES).rmtree()
        broken = [note for note in notes if note["what"] == "skipped"]
        missing = self.info.metadata["missing_classes"]
        counts = {
            "images": self.info.splits["train"].num_examples,
            "reencoded": len(notes) - len(broken),
            "broken": len(broken),
        }
        self.info.metadata.update(counts)
        summary = (
            f"{self.info.metadata['release']}: {counts['images']:,} images in "
            f"{21841 - len(missing):,} classes; {len(missing):,} classes are missing; "
            f"{counts['reencoded']:,} images re-encoded, {len(broken):,} broken images skipped"
        )
        rows = [f"{note['file']}\t{note['what']}\t{note['why']}" for note in notes]
        rows += [f"{wnid}\tmissing from the release\t" for wnid in missing]
        (folder / REPORT).write_text("\n".join([summary, *rows, ""]))
        print(f"{summary}. See {REPORT}.")


def examples_of_class(files: ClassFiles, notes: str) -> Iterator[Example]:
    """Reads the images of one class, and notes which were re-encoded or skipped.

    Args:
        files: ClassFiles. The files of the class.
        notes: str. The folder for the notes.

    Yields:
        (key, example), as expected by TensorFlow Datasets.
    """
    remarks = []
    for stored_name, data in files.read():
        name = printable(stored_name)  # the report has one line per file
        file = f"{files.wnid}/{name}"
        try:
            image, change = rgb_jpeg(data)
        # Pillow's and TensorFlow's decoders raise many kinds of errors for broken files.
        except Exception as error:
            if is_out_of_memory(error):
                raise
            reason = printable(str(error).partition("\n")[0].strip()) or type(error).__name__
            remarks.append({"file": file, "what": "skipped", "why": reason})
            continue
        if change:
            remarks.append({"file": file, "what": "re-encoded", "why": change})
        example = {"image": io.BytesIO(image), "label": files.wnid, "file_name": name}
        yield file, example
    if remarks:
        (epath.Path(notes) / f"{files.wnid}.json").write_text(json.dumps(remarks))


def rgb_jpeg(data: bytes) -> tuple[bytes, str | None]:
    """Converts an image file to a JPEG file that TensorFlow decodes to RGB.

    RGB JPEG files are returned unchanged, and so are gray ones, because the decoder repeats their
    channel.

    Returns:
        The file, and the original format if it was re-encoded, else None.

    Raises:
        Exception: If the file is broken or not an image. The type varies.
    """
    if not data:
        raise ValueError("empty file")
    try:
        with Image.open(io.BytesIO(data)) as image:
            kind = f"{image.format} {image.mode}"
    except UnidentifiedImageError as error:
        raise ValueError("not an image") from error
    if kind in ("JPEG RGB", "JPEG L"):
        # At an eighth of the size, the whole file is read with little computation.
        tf.io.decode_jpeg(data, channels=3, ratio=8)
        return data, None
    file = io.BytesIO()
    open_image(data).save(file, "JPEG", quality=_QUALITY, subsampling=0)
    return file.getvalue(), kind
