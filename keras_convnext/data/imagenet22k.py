"""ImageNet-22K as a dataset of TensorFlow Datasets, from the release as it comes.

    import keras_convnext.data.imagenet22k
    tfds.load("imagenet22k", split="train")

`tfds build --imports=keras_convnext.data.imagenet22k imagenet22k` prepares it from the shell. Give
`--beam_pipeline_options` to spread the work over a cluster: a class is then a piece of work.
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
from keras_convnext.preprocessing import class_labels, open_image

if TYPE_CHECKING:
    import apache_beam as beam

Example = tuple[str, dict[str, object]]  # a key, and the features of an image

REPORT = "imagenet22k_report.txt"
_NOTES = "imagenet22k_notes"  # a folder of what each class adds to the report
_QUALITY = 100  # of JPEG files made of others, as in the imagenet2012 of TensorFlow Datasets


class Imagenet22k(tfds.core.GeneratorBasedBuilder):
    """ImageNet-22K: 14,197,122 images of 21,841 classes, in the fall 2011 release."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "The first."}  # noqa: RUF012 (so TensorFlow Datasets has it)
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Fetch `fall11_whole.tar` or `winter21_whole.tar` from https://image-net.org (it asks for "
        "an account) and lay it in the manual folder, as it is, or unpacked once into tars of one "
        "class each, or twice into folders of one class each. A folder `imagenet22k`, "
        "`fall11_whole` or `winter21_whole` in it may hold any of these."
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
            "other formats and colour spaces are encoded anew, broken files left out. "
            f"{REPORT}, beside the data, lists both.",
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

            # Without the reshuffle a runner may put all classes on one machine.
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
        """Collects the notes of all classes into one file, the metadata and one printed line."""
        folder = epath.Path(self.data_dir)
        notes = []
        for path in sorted((folder / _NOTES).iterdir()):
            notes += json.loads(path.read_text())
        (folder / _NOTES).rmtree()
        broken = [note for note in notes if note["what"] == "left out"]
        missing = self.info.metadata["missing_classes"]
        counts = {
            "images": self.info.splits["train"].num_examples,
            "encoded_anew": len(notes) - len(broken),
            "broken": len(broken),
        }
        self.info.metadata.update(counts)
        summary = (
            f"{self.info.metadata['release']}: {counts['images']:,} images of "
            f"{21841 - len(missing):,} classes; {len(missing):,} classes are not in it; "
            f"{counts['encoded_anew']:,} images encoded anew, {len(broken):,} broken ones left out"
        )
        rows = [f"{note['file']}\t{note['what']}\t{note['why']}" for note in notes]
        rows += [f"{wnid}\tno such class in the release\t" for wnid in missing]
        (folder / REPORT).write_text("\n".join([summary, *rows, ""]))
        print(f"{summary}. {REPORT} names them.")


def examples_of_class(files: ClassFiles, notes: str) -> Iterator[Example]:
    """Reads the images of one class, and writes down what was done to some.

    Args:
        files: ClassFiles.
        notes: str. The folder for what goes into the report.

    Yields:
        (key, example), as TensorFlow Datasets takes them.
    """
    remarks = []
    for name, data in files.read():
        file = f"{files.wnid}/{name}"
        try:
            image, change = rgb_jpeg(data)
        # Pillow's and TensorFlow's decoders let many kinds of error out at a broken file.
        except Exception as error:
            reason = " ".join(str(error).split("\n")[0].split()) or type(error).__name__
            remarks.append({"file": file, "what": "left out", "why": reason})
            continue
        if change:
            remarks.append({"file": file, "what": "encoded anew", "why": change})
        example = {"image": io.BytesIO(image), "label": files.wnid, "file_name": name}
        yield file, example
    if remarks:
        (epath.Path(notes) / f"{files.wnid}.json").write_text(json.dumps(remarks))


def rgb_jpeg(data: bytes) -> tuple[bytes, str | None]:
    """Makes of an image file a JPEG file that TensorFlow decodes to RGB.

    Files that are so are kept as they are, grey ones too, since their decoder repeats the channel.

    Returns:
        The file, and what the one that came was if it had to be encoded anew.

    Raises:
        Exception: Of many kinds, if the file is broken or no image.
    """
    if not data:
        raise ValueError("no bytes at all")
    try:
        with Image.open(io.BytesIO(data)) as image:
            kind = f"{image.format} {image.mode}"
    except UnidentifiedImageError as error:
        raise ValueError("no image") from error
    if kind in ("JPEG RGB", "JPEG L"):
        # An eighth of the size: the whole file is read, but little is computed.
        tf.io.decode_jpeg(data, channels=3, ratio=8)
        return data, None
    file = io.BytesIO()
    open_image(data).save(file, "JPEG", quality=_QUALITY, subsampling=0)
    return file.getvalue(), kind
