"""Images with masks: folders, kinds of masks, inferred labels, and every error before a run."""

import json
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from keras_convnext.data.errors import DataError, NoSuchSplitError
from keras_convnext.segmentation.class_table import CITYSCAPES, VOC
from keras_convnext.segmentation.masks import read_mask
from keras_convnext.segmentation.recipes import Labels
from keras_convnext.segmentation.source import open_pairs

LABELS = np.random.default_rng(0).integers(0, 3, (6, 8)).astype("uint8")
COLORS = np.array([(0, 0, 0), (128, 64, 128), (70, 70, 70)], "uint8")
NAMES = ("sky", "road", "car")


def save_image(path, size=(8, 6), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3)).astype("uint8")
    Image.fromarray(pixels).save(path, **options)


def save_mask(path, labels=LABELS, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels)
    if mode == "P":
        image.putpalette(np.random.default_rng(2).integers(0, 255, 768).astype("uint8").tobytes())
    image.save(path, **options)


def folder(place, count=3, labels=LABELS, names=NAMES, **options):
    for number in range(count):
        save_image(place / "images" / f"{number}.jpg")
        save_mask(place / "masks" / f"{number}.png", labels, **options)
    if names:
        (place / "classes.txt").write_text("\n".join(names) + "\n")
    return place


def classes_of(source, index=0):
    """The classes of a mask, which must be the same inside `tf.data`."""
    pixels, classes = source.arrays(index)
    assert pixels.shape == (*classes.shape, 3)
    file, table = tf.io.read_file(source.pairs.masks[index]), source.meaning.table
    decoded = next(iter(tf.data.Dataset.from_tensors(file).map(table.decode).map(table.lookup)))
    np.testing.assert_array_equal(decoded, classes)
    return classes


KINDS = {
    "gray": {},
    "palette": {"mode": "P"},
    "palette of 2 bits": {"mode": "P", "bits": 2},
    "16 bits": {"labels": LABELS.astype("uint16")},
    "colors": {"labels": COLORS[LABELS]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_mask_has_the_same_classes(kind, tmp_path):
    place = folder(tmp_path, 1, **KINDS[kind])
    if kind == "colors":
        rows = [{"name": name, "color": color.tolist()} for name, color in zip(NAMES, COLORS)]
        (place / "classes.json").write_text(json.dumps(rows))
    source = open_pairs(place)
    assert source.classes == NAMES
    np.testing.assert_array_equal(classes_of(source), LABELS)
    np.testing.assert_array_equal(source.pixels, np.bincount(LABELS.ravel()))
    if kind == "colors":
        assert source.meaning.colors == tuple(map(tuple, COLORS.tolist()))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(header, lines):
    """A PNG file with valid checksums, whatever it contains."""
    packed = struct.pack(">IIBBBBB", *header)
    parts = chunk(b"IHDR", packed), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gray_values_of_few_bits_are_not_scaled(bits, tmp_path):
    """As written by encoders that pack them, which Pillow does not."""
    labels = LABELS % 2**bits
    digits = np.unpackbits(labels[..., None], axis=-1)[..., -bits:].reshape(6, -1)
    lines = b"".join(b"\0" + np.packbits(line).tobytes() for line in digits)
    place = folder(tmp_path, 1, names=())
    (place / "masks" / "0.png").write_bytes(png((8, 6, bits, 0, 0, 0, 0), lines))
    np.testing.assert_array_equal(classes_of(open_pairs(place)), labels)


def layouts(place):
    """Each layout: the files, the split that is asked for, and the classes that it implies."""
    save = {
        "images, masks": ("images/a.jpg", "masks/a.png"),
        "images, labels, splits": ("images/train/a.jpg", "labels/train/a.png"),
        "splits first": ("train/images/a.jpg", "train/masks/a_mask.png"),
        "camvid": ("train/a.png", "trainannot/a.png"),
        "ade20k": ("images/training/a.jpg", "annotations/training/a.png"),
        "cityscapes": (
            "leftImg8bit/train/aachen/a_leftImg8bit.png",
            "gtFine/train/aachen/a_gtFine_labelTrainIds.png",
        ),
        "voc": ("JPEGImages/a.jpg", "SegmentationClass/a.png"),
    }
    return {name: tuple(place / file for file in files) for name, files in save.items()}


@pytest.mark.parametrize("name", layouts(Path()))
def test_folders_are_recognized(name, tmp_path):
    image, mask = layouts(tmp_path)[name]
    save_image(image)
    save_mask(mask)
    if name == "voc":
        save_image(tmp_path / "JPEGImages" / "not_listed.jpg")
        lists = tmp_path / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True)
        (lists / "train.txt").write_text("a\n")
    if name == "ade20k":
        (tmp_path / "objectInfo150.txt").write_text("Idx")
    source = open_pairs(tmp_path, "train")
    assert (source.pairs.images, source.pairs.masks) == ([str(image)], [str(mask)])
    if name == "ade20k":  # label 0 has no class
        assert source.meaning.table.classes[:3].tolist() == [-1, 0, 1]
        assert source.classes[:2] == ("wall", "building")
        assert len(source.meaning.colors) == 150
    elif name in ("cityscapes", "voc"):
        assert source.classes == {"cityscapes": CITYSCAPES, "voc": VOC}[name]
    else:
        np.testing.assert_array_equal(classes_of(source), LABELS)
    with pytest.raises(NoSuchSplitError):
        open_pairs(tmp_path, "validation")


def test_cityscapes_ids_become_classes(tmp_path):
    image, mask = layouts(tmp_path)["cityscapes"]
    save_image(image)
    ids = np.array([[0, 7, 8, 33], [11, 24, 26, 5]], "uint8").repeat(3, 0).repeat(2, 1)
    save_mask(mask.with_name("a_gtFine_labelIds.png"), ids)
    expected = np.array([[-1, 0, 1, 18], [2, 11, 13, -1]]).repeat(3, 0).repeat(2, 1)
    np.testing.assert_array_equal(classes_of(open_pairs(tmp_path, "train")), expected)


@pytest.mark.parametrize(
    ("labels", "names", "own", "expected", "report"),
    [
        (LABELS, NAMES, {}, [0, 1, 2], "3 classes, which have labels from 0 on"),
        (LABELS + 1, NAMES, {}, [0, 1, 2], "3 classes, which have labels from 1 on"),
        (LABELS, ("road", "car"), {"first_label": 1}, [-1, 0, 1], r"\(0\)"),
        (LABELS, ("sky", "road"), {"ignored": (2,)}, [0, 1, -1], r"have no class \(2\)"),
        (LABELS, ("sky", "Void", "car"), {}, [0, -1, 1], "2 classes"),
        (np.where(LABELS == 1, 255, LABELS), NAMES, {}, [0, -1, 2], "no pixel is of road"),
        (LABELS, (), {}, [0, 1, 2], "3 classes"),
        (LABELS, ("a", "b", "c", "d", "e", "f", "g"), {}, [0, 1, 2], "of d, e, f and 1 others"),
    ],
)
def test_what_labels_mean_is_inferred_and_reported(labels, names, own, expected, report, tmp_path):
    source = open_pairs(folder(tmp_path, 1, labels, names), labels=Labels(**own))
    np.testing.assert_array_equal(classes_of(source), np.array(expected)[LABELS])
    assert re.search(report, source.meaning.report)
    if not names:
        assert source.classes == ("class 0", "class 1", "class 2")
    counted = np.bincount(np.array(expected)[LABELS].ravel() + 1, minlength=len(source.classes) + 1)
    np.testing.assert_array_equal(source.pixels, counted[1:])


def test_the_validation_split_has_the_labels_of_the_training_split(tmp_path):
    for split, labels in (("train", LABELS), ("val", np.ones_like(LABELS))):
        save_image(tmp_path / "images" / split / "a.jpg")
        save_mask(tmp_path / "masks" / split / "a.png", labels)
    training = open_pairs(tmp_path, "train")
    validation = open_pairs(tmp_path, "validation", meaning=training.meaning)
    np.testing.assert_array_equal(classes_of(validation), 1)
    save_mask(tmp_path / "masks" / "val" / "a.png", np.full_like(LABELS, 9))
    with pytest.raises(DataError, match=r"label 9 at row 0, column 0.*val.*a.png"):
        open_pairs(tmp_path, "validation", meaning=training.meaning)


def test_a_share_is_held_out(tmp_path):
    source = open_pairs(folder(tmp_path, 10))
    training, validation = source.hold_out(0.2, seed=3)
    assert (training.size, validation.size) == (8, 2)
    assert {*training.pairs.masks, *validation.pairs.masks} == set(source.pairs.masks)
    assert source.hold_out(0.2, seed=3)[1].pairs == validation.pairs
    assert source.hold_out(0.2, seed=4)[1].pairs != validation.pairs


def change_size(place):
    save_mask(place / "masks" / "1.png", LABELS[:, :-1])


def drop_mask(place):
    (place / "masks" / "1.png").unlink()


def drop_image(place):
    (place / "images" / "1.jpg").unlink()


def as_jpeg(place):
    Image.fromarray(LABELS).save(place / "masks" / "1.png", "jpeg")


def with_alpha(place):
    save_mask(place / "masks" / "1.png", np.dstack([LABELS] * 4))


def too_large_a_label(place):
    labels = LABELS.copy()
    labels[2, 5] = 7
    save_mask(place / "masks" / "1.png", labels)


def one_label_more(place):
    labels = LABELS.copy()
    labels[2, 5] = 3
    save_mask(place / "masks" / "1.png", labels)


def in_color(place):
    save_mask(place / "masks" / "1.png", COLORS[LABELS])


def truncated(place):
    path = place / "masks" / "1.png"
    path.write_bytes(path.read_bytes()[:60])


def broken_image(place):
    (place / "images" / "1.jpg").write_bytes(b"\xff\xd8\xff nothing")


def empty(place):
    (place / "masks" / "1.png").write_bytes(b"")


def a_page(place):
    (place / "masks" / "1.png").write_bytes(b"<!DOCTYPE html><html></html>")


def same_name(place):
    save_image(place / "images" / "1.png")


def all_ignored(place):
    for number in range(3):
        save_mask(place / "masks" / f"{number}.png", np.full_like(LABELS, 255))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change_size, r"size of its image. Received: 7 x 6 px in .*1.png, and 8 x 6 px in .*1.jpg"),
        (drop_mask, r"An image has no mask: .*1.jpg"),
        (drop_image, r"A mask has no image: .*1.png"),
        (as_jpeg, r"must not be a JPEG, whose compression.*1.png"),
        (with_alpha, r"must not have an alpha channel.*1.png"),
        (too_large_a_label, r"The label 7 at row 2, column 5 has no class: the 3 classes have the "
                            r"labels 0 to 2.*ignored=7.*1.png"),
        (one_label_more, r"labels 0 to 3, one more than.*first_label=1.*ignored=3.*1.png"),
        (in_color, r"Some masks have colors and others have not.*1.png and .*0.png"),
        (truncated, r"The mask is broken.*1.png"),
        (broken_image, r"An image is broken.*1.jpg"),
        (empty, r"The mask is empty.*1.png"),
        (a_page, r"A mask is no PNG. This is a web page.*1.png"),
        (same_name, r"Two images have the same name.*1.*and.*1"),
        (all_ignored, r"No pixel has a class. Received: only the labels \[255\]"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_before_a_run(damage, message, tmp_path):
    place = folder(tmp_path)
    damage(place)
    with pytest.raises(DataError, match=message):
        open_pairs(place)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("{}", "must be a list such as"),
        ('[{"name": "a", "color": [1, 2, 300]}]', "Entry 0 of the list"),
        ('[{"name": "a"}, {"name": "a"}]', "Two classes have the name 'a'"),
        ('[{"name": "a", "color": [1, 2, 3]}, {"name": "b", "color": [1, 2, 3]}]', "the color"),
        ('[{"name": "a", "ignored": true}]', "contains no classes"),
        ('["a", ""]', "has no name"),
        ('["a", "b\\u001b[31m", "c"]', "must be printable text"),
    ],
)
def test_a_damaged_list_of_classes_is_refused(text, message, tmp_path):
    place = folder(tmp_path, 1)
    (place / "classes.json").write_text(text)
    with pytest.raises(DataError, match=message):
        open_pairs(place)


def test_colors_need_a_table_that_has_them(tmp_path):
    place = folder(tmp_path, 1, COLORS[LABELS])
    with pytest.raises(DataError, match=r"need classes.json with the color.*0.png"):
        open_pairs(place)
    rows = [{"name": "sky", "color": [0, 0, 0]}, {"name": "road", "color": [128, 64, 128]}]
    (place / "classes.json").write_text(json.dumps(rows))
    row, column = np.argwhere(LABELS == 2)[0]
    where = rf"The color \(70, 70, 70\) at row {row}, column {column} has no class.*0.png"
    with pytest.raises(DataError, match=where):
        open_pairs(place)
    rows.append({"name": "void", "color": [70, 70, 70], "ignored": True})
    (place / "classes.json").write_text(json.dumps(rows))
    np.testing.assert_array_equal(classes_of(open_pairs(place)), np.array([0, 1, -1])[LABELS])


def test_a_photograph_is_no_mask(tmp_path):
    place = folder(tmp_path, 1)
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        save_image(place / kind / f"0.{suffix}", size=(80, 60))
    with pytest.raises(DataError, match=r"has 4,\d\d\d colors, like a photograph.*0.png"):
        open_pairs(place)


def test_settings_that_leave_no_class_are_refused(tmp_path):
    place = folder(tmp_path, 1, names=())
    with pytest.raises(DataError, match=r"first_label=5 and .*Received: the labels 0, 1, 2"):
        open_pairs(place, labels=Labels(first_label=5))


def test_folders_of_no_known_kind_are_refused(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(DataError, match="Expected images/ beside masks/"):
        open_pairs(tmp_path)
    with pytest.raises(DataError, match="There is no such folder"):
        open_pairs(tmp_path / "other")
    folder(tmp_path)
    save_mask(tmp_path / "labels" / "0.png")
    with pytest.raises(DataError, match=r"several folders of masks.*masks, labels"):
        open_pairs(tmp_path)


def test_a_damaged_mask_is_read_or_refused():
    """Whatever the damage, there is no other error."""
    generator, refused = np.random.default_rng(0), 0
    for _ in range(400):
        depth, color = generator.choice([1, 2, 4, 8, 16, 7]), generator.choice([0, 2, 3, 4, 6, 5])
        width, height = generator.integers(0, 9, 2)
        lines = generator.integers(0, 5, generator.integers(0, 600), "uint8").tobytes()
        data = png((width, height, depth, color, 0, 0, generator.integers(0, 2)), lines)
        try:
            assert read_mask(data[: generator.integers(40, 4 * len(data))]).labels.ndim == 2
        except DataError:
            refused += 1
    assert 50 < refused < 350


def test_a_turned_photograph_has_the_size_that_is_seen(tmp_path):
    place = folder(tmp_path, 1)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    save_image(place / "images" / "0.jpg", size=(6, 8), exif=exif)
    pixels, classes = open_pairs(place).arrays(0)
    assert pixels.shape[:2] == classes.shape == (6, 8)


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    place = folder(tmp_path, 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(DataError, match=r"more than 40 pixels.*0.png"):
        open_pairs(place)


class SmallStreets(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    mask_shape = (None, None, 1)

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "segmentation_mask": tfds.features.Image(shape=self.mask_shape),
            "name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {"train": self._generate_examples(3)}

    def _generate_examples(self, count):
        for number in range(count):
            mask = np.roll(LABELS, number)[..., None]
            mask = np.broadcast_to(mask, (6, 8, self.mask_shape[-1])).astype("uint8")
            image = np.full((6, 8, 3), 80 * number, "uint8")
            yield number, {"image": image, "segmentation_mask": mask, "name": str(number)}


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_a_dataset_of_tensorflow_datasets_is_read(file_format, tmp_path):
    builder = SmallStreets(data_dir=tmp_path, file_format=file_format)
    builder.download_and_prepare()
    source = open_pairs(builder.data_dir, "train")
    assert (source.size, source.classes) == (3, ("class 0", "class 1", "class 2"))
    seen = set()
    for encoded, index, _, _ in source.stream(seed=0).take(3):
        number = int(tf.io.decode_jpeg(encoded)[0, 0, 0]) // 80 + (int(index) < 0)
        pixels, classes = source.arrays(int(index))
        assert pixels[0, 0, 0] // 80 == number
        np.testing.assert_array_equal(classes, np.roll(LABELS, number))
        table = source.meaning.table
        (decoded,) = tf.data.Dataset.from_tensors(index).map(source.mask).map(table.decode)
        np.testing.assert_array_equal(table.lookup(decoded), classes)
        seen.add(number)
    assert seen == {0, 1, 2}
    training, validation = source.hold_out(0.3, seed=0)
    assert (training.size, validation.size) == (2, 1)
    with pytest.raises(NoSuchSplitError):
        open_pairs(builder.data_dir, "validation")


def test_a_dataset_without_a_mask_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(SmallStreets, "mask_shape", (None, None, 3))
    builder = SmallStreets(data_dir=tmp_path)
    builder.download_and_prepare()
    with pytest.raises(DataError, match=r"one image and one mask per example.*segmentation_mask"):
        open_pairs(builder.data_dir, "train")
