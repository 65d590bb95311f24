"""Objects in the files of YOLO, Pascal VOC and TensorFlow Datasets equal those of COCO's files."""

import random
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from drawn_objects import draw
from PIL import Image

from keras_convnext.data.errors import DataError, NoSuchSplitError
from keras_convnext.detection import open_objects, read_coco
from keras_convnext.detection.evaluation import pixels_of
from keras_convnext.detection.objects import mask_of

NAMES = ("circle", "square", "triangle")
SIDE = 96


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    path, _ = draw(tmp_path_factory.mktemp("drawn"), 6, side=SIDE)
    return read_coco(path)


def yolo(drawn, folder, polygons):
    """Writes objects as Ultralytics has them, in `images/train` and `labels/train`."""
    for kind in ("images", "labels"):
        (folder / kind / "train").mkdir(parents=True)
    for picture in drawn.pictures:
        shutil.copy(picture.path, folder / "images" / "train")
        lines = []
        for each in picture.annotations:
            x1, y1, x2, y2 = np.array(each.box) / SIDE
            box = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
            shape = np.array(each.shape[0]) / SIDE if polygons else box
            lines.append(" ".join([str(each.label), *(f"{share:.8f}" for share in shape)]))
        (folder / "labels" / "train" / f"{picture.path.stem}.txt").write_text("\n".join(lines))
    (folder / "data.yaml").write_text(
        "path: ../datasets/shapes\ntrain: images/train\nnames:\n"
        + "".join(f"  {index}: {name}\n" for index, name in enumerate(NAMES))
    )
    return folder


def voc(drawn, folder):
    """Writes objects as Pascal VOC has them: whole pixels, counted from 1."""
    for kind in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / kind).mkdir(parents=True)
    for picture in drawn.pictures:
        shutil.copy(picture.path, folder / "JPEGImages")
        objects = ""
        for each in picture.annotations:
            x1, y1, x2, y2 = np.round(each.box).astype(int)
            corners = {"xmin": x1 + 1, "ymin": y1 + 1, "xmax": x2, "ymax": y2}
            box = "".join(f"<{key}>{value}</{key}>" for key, value in corners.items())
            objects += (
                f"<object><name>{NAMES[each.label]}</name><difficult>0</difficult>"
                f"<bndbox>{box}</bndbox></object>"
            )
        (folder / "Annotations" / f"{picture.path.stem}.xml").write_text(
            f"<annotation><filename>{picture.path.name}</filename><size><width>{SIDE}</width>"
            f"<height>{SIDE}</height><depth>3</depth></size>{objects}</annotation>"
        )
    names = [picture.path.stem for picture in drawn.pictures]
    (folder / "ImageSets" / "Main" / "train.txt").write_text("\n".join(names[:4]) + "\n")
    (folder / "ImageSets" / "Main" / "val.txt").write_text("\n".join(names[4:]) + "\n")
    return folder


def assert_same(found, expected, atol):
    for own, other in zip(found, expected, strict=True):
        assert (own.height, own.width) == (other.height, other.width)
        assert [a.label for a in own.annotations] == [a.label for a in other.annotations]
        for a, b in zip(own.annotations, other.annotations):
            np.testing.assert_allclose(a.box, b.box, atol=atol)


@pytest.mark.parametrize("polygons", [True, False])
def test_yolo(drawn, polygons, tmp_path):
    folder = yolo(drawn, tmp_path, polygons)
    objects = open_objects(folder, "train")
    assert objects.classes == NAMES
    assert objects.summary().startswith("YOLO: 6 images, ")
    assert_same(objects.pictures, drawn.pictures, 1e-4)
    for own, other in zip(objects.pictures, drawn.pictures):
        for a, b in zip(own.annotations, other.annotations):
            if polygons:
                apart = mask_of(a, SIDE, SIDE) != mask_of(b, SIDE, SIDE)
                assert apart.sum() <= 2
            else:
                assert a.shape is None
    with pytest.raises(NoSuchSplitError, match=r"images/val"):
        open_objects(folder, "validation")


def test_layouts_of_yolo(drawn, tmp_path):
    folder = yolo(drawn, tmp_path / "one", False)
    (folder / "data.yaml").unlink()
    (folder / "classes.txt").write_text("circle\nsquare\ntriangle\n")
    assert open_objects(folder, "train").classes == NAMES
    other = tmp_path / "two"  # Roboflow's
    (other / "valid").mkdir(parents=True)
    for kind in ("images", "labels"):
        shutil.copytree(folder / kind / "train", other / "valid" / kind)
    (other / "data.yaml").write_text("val: ../valid/images\nnames: ['circle', 'square', triangle]")
    assert_same(open_objects(other, "validation").pictures, drawn.pictures, 1e-4)
    (other / "list.txt").write_text("./valid/images/0002.png\nvalid/images/0001.png\n")
    (other / "data.yaml").write_text("val: list.txt\nnames: [a, b, c]")
    found = open_objects(other, "validation").pictures
    assert_same(found, drawn.pictures[1:3], 1e-4)
    (other / "valid" / "labels" / "0001.txt").unlink()
    (other / "valid" / "labels" / "0002.txt").write_text("0 0.5 0.5 0.2 0.2\n" * 2)
    summary = open_objects(other, "validation").summary()
    assert "1 images without objects" in summary
    assert "1 repeated lines skipped, 1 images without a label file" in summary


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("3 0.5 0.5 0.1 0.1", r"line 1 of \S+0000.txt has the unknown category id 3"),
        ("x 0.5 0.5 0.1 0.1", "does not begin with the number of a class: x 0.5"),
        ("0 0.5 0.5 0.1", "needs four numbers of a box, or the pairs of a polygon"),
        ("0 0.5 0.5 0.1 nan", "needs four numbers"),
        ("0 40 40 10 10", "is not in shares of the image"),
        ("0 0.5 0.5 0 0.1", "bbox without area"),
        ("0 0.9 0.5 0.5 0.1", "bbox outside of the image of 96 x 96 pixels"),
        ("0 0.1 0.1 0.2 0.2 0.3 1.3", "outside of the image"),
    ],
)
def test_broken_lines_are_refused(line, message, drawn, tmp_path):
    folder = yolo(drawn, tmp_path, False)
    (folder / "labels" / "train" / "0000.txt").write_text(line)
    with pytest.raises(DataError, match=message):
        open_objects(folder, "train")
    objects = open_objects(folder, "train", skip_broken=True)
    assert objects.tolerated["broken objects skipped"] == 1


def test_folders_outside_are_refused(drawn, tmp_path):
    folder = yolo(drawn, tmp_path / "inside", False)
    shutil.copytree(folder / "images" / "train", tmp_path / "outside")
    for value in ("../outside", str(tmp_path / "outside"), "/", "..", "none"):
        (folder / "data.yaml").write_text(f"train: {value}\nnames: [a, b, c]")
        with pytest.raises(DataError, match="must be in the folder of that file"):
            open_objects(folder, "train")
    (folder / "data.yaml").write_text("train: list.txt\nnames: [a, b, c]")
    (folder / "list.txt").write_text(f"{tmp_path}/outside/0000.png")
    with pytest.raises(DataError, match="Line 1: there is no such image"):
        open_objects(folder, "train")
    shutil.rmtree(folder / "labels" / "train")
    (folder / "data.yaml").write_text("train: images/train\nnames: [a, b, c]")
    with pytest.raises(DataError, match=r"No image has a label file, such as \S+0000.txt"):
        open_objects(folder, "train")


def test_turned_images_have_the_size_that_is_seen(drawn, tmp_path):
    folder = yolo(drawn, tmp_path, False)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.new("RGB", (40, 20))
    for name in ("0000.jpg", "0001.png"):
        turned.save(folder / "images" / "train" / name, exif=exif)
    (folder / "images" / "train" / "0000.png").unlink()
    objects = open_objects(folder, "train")
    for picture in objects.pictures[:2]:
        assert (picture.height, picture.width) == (40, 20)
        assert pixels_of(picture).shape == (40, 20, 3)


def test_voc(drawn, tmp_path, monkeypatch):
    folder = voc(drawn, tmp_path)
    objects = open_objects(folder, "train")
    assert objects.classes == NAMES
    assert objects.summary().startswith("Pascal VOC: 4 images, ")
    assert_same(objects.pictures, drawn.pictures[:4], 0.5)
    assert all(each.shape is None for p in objects.pictures for each in p.annotations)
    assert open_objects(folder, "validation").classes == NAMES
    assert_same(open_objects(folder, "validation").pictures, drawn.pictures[4:], 0.5)
    with pytest.raises(NoSuchSplitError, match=r"ImageSets/Main/test\.txt"):
        open_objects(folder, "test")
    beside = tmp_path / "beside" / "train"
    shutil.copytree(folder / "JPEGImages", beside)
    shutil.copytree(folder / "Annotations", beside, dirs_exist_ok=True)
    assert_same(open_objects(beside.parent, "train").pictures, drawn.pictures, 0.5)
    for path in beside.glob("*.xml"):
        path.write_text(re.sub("circle|square|triangle", "cat", path.read_text()))
    assert open_objects(beside.parent, "train").classes == ("cat",)
    monkeypatch.setattr("keras_convnext.detection.voc.CLASSES", ("cat",))  # those of the challenge
    (beside.parent / "other.xml").write_text(
        "<annotation><object><name>dog</name></object></annotation>"
    )
    assert open_objects(beside.parent, "train").classes == ("cat",)
    (beside.parent / "classes.txt").write_text("dog\ncat\n")
    text = (beside / "0000.xml").read_text()
    (beside / "0000.xml").write_text(text.replace("<difficult>0", "<difficult>1", 1))
    objects = open_objects(beside.parent, "train")
    assert objects.classes == ("dog", "cat")
    assert objects.counts()["crowds"] == 1


ENTITIES = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><annotation>&b;'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], r"This is not XML: .*0000.xml"),
        (lambda text: text.replace("annotation>", "html>"), "Received: <html>"),
        (lambda text: ENTITIES + text[12:], "XML with a DOCTYPE is not read"),
        (lambda text: (ENTITIES + text[12:]).encode("utf-16"), "XML with a DOCTYPE is not read"),
        (lambda text: "<a>" * 99_999, "nested too deep"),
        (lambda text: re.sub("<name>.*?</name>", "<name>cow</name>", text, count=1),
         "unknown class 'cow'"),
        (lambda text: re.sub("<xmin>.*?</xmin>", "", text, count=1), "object 1 of .* needs a bnd"),
        (lambda text: re.sub("<xmin>.*?<", "<xmin>95<", text, count=1), "bbox without area"),
        (lambda text: re.sub("<xmax>.*?<", "<xmax>999<", text, count=1), "bbox outside"),
        (lambda text: text.replace("<width>96", "<width>97"), "of an image of 97 x 96 pixels"),
        (lambda text: text.replace("0000.png", "9.png"), None),
    ],
)  # fmt: skip
def test_broken_voc_files_are_refused(change, message, drawn, tmp_path):
    folder = voc(drawn, tmp_path)
    (folder / "classes.txt").write_text("\n".join(NAMES))
    path = folder / "Annotations" / "0000.xml"
    text = change(path.read_text())
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    if message is None:  # the image of the same name is used
        assert open_objects(folder, "train").pictures[0].path.name == "0000.png"
        return
    with pytest.raises(DataError, match=message):
        open_objects(folder, "train")


def test_missing_files_of_voc(drawn, tmp_path):
    folder = voc(drawn, tmp_path)
    (folder / "JPEGImages" / "0001.png").unlink()
    with pytest.raises(DataError, match=r"The image 0001.png is not in \S+JPEGImages"):
        open_objects(folder, "train")
    (folder / "ImageSets" / "Main" / "train.txt").write_text("../../0001\n")
    with pytest.raises(DataError, match=r"There is no Annotations/../../0001.xml"):
        open_objects(folder, "train")


VALUES = b"", b"-1", b"0", b"9", b"1.5", b"97", b"1e99", b"nan", b"x", b"1 2", b"9" * 30


def mutated(content, chance):
    """Replaces a number, or removes, repeats or replaces some bytes."""
    if chance.random() < 0.6:
        number = chance.choice(list(re.finditer(rb"[\d.]+", content)))
        return content[: number.start()] + chance.choice(VALUES) + content[number.end() :]
    start = chance.randrange(len(content))
    end = start + chance.choice((1, 1, 2, 8, 40))
    pieces = b"", b"-", b" ", b"\n", b"\xff", b"\x00", b"<", b"</object>", content[start:end] * 2
    return content[:start] + chance.choice(pieces) + content[end:]


@pytest.mark.parametrize("kind", ["yolo", "yaml", "voc"])
def test_a_thousand_mutations_are_loaded_or_refused(kind, drawn, tmp_path):
    drawn = replace(drawn, pictures=drawn.pictures[:1])
    folder = voc(drawn, tmp_path) if kind == "voc" else yolo(drawn, tmp_path, True)
    target = {
        "yolo": folder / "labels" / "train" / "0000.txt", "yaml": folder / "data.yaml",
        "voc": folder / "Annotations" / "0000.xml",
    }[kind]  # fmt: skip
    whole, chance, loaded = target.read_bytes(), random.Random(0), 0
    for _ in range(1000):
        target.write_bytes(mutated(whole, chance))
        try:
            objects = open_objects(folder, "train")
        except DataError:
            continue
        loaded += 1
        for picture in objects.pictures:
            for each in picture.annotations:
                x1, y1, x2, y2 = each.box
                assert 0 <= x1 < x2 <= picture.width
                assert 0 <= y1 < y2 <= picture.height
                assert 0 <= each.label < len(objects.classes)
    assert 100 < loaded < 950


class SmallShapes(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    given = None

    def _info(self):
        objects = {
            "bbox": tfds.features.BBoxFeature(), "label": tfds.features.ClassLabel(names=NAMES),
            "is_crowd": np.bool_, "area": np.int64,
        }  # fmt: skip
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
        features = {"image": image, "objects": tfds.features.Sequence(objects)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for number, picture in enumerate(self.given.pictures):
            objects = []
            for each in picture.annotations:
                x1, y1, x2, y2 = np.array(each.box) / SIDE
                box = tfds.features.BBox(y1, x1, y2, x2)
                objects.append({"bbox": box, "label": each.label, "is_crowd": False, "area": 1})
            yield number, {"image": str(picture.path), "objects": objects}


def test_tensorflow_datasets(drawn, tmp_path):
    SmallShapes.given = drawn
    SmallShapes(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    folder = tmp_path / "small_shapes" / "1.0.0"
    objects = open_objects(folder, "train")
    assert objects.classes == NAMES
    assert objects.summary().startswith("TensorFlow Datasets: 6 images, ")
    found = {pixels_of(picture).tobytes(): picture for picture in objects.pictures}
    ordered = [found[pixels_of(picture).tobytes()] for picture in drawn.pictures]
    assert_same(ordered, drawn.pictures, 1e-3)
    assert "record" in objects.pictures[0].title
    with pytest.raises(NoSuchSplitError, match="no such split"):
        open_objects(folder, "validation")
    with pytest.raises(DataError, match="no dataset of this name"):
        open_objects("no/such_data_set", "train")
