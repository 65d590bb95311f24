"""Objects in COCO's files, their errors, and average precision against pycocotools by hand."""

import copy
import json
import random

import numpy as np
import pytest
from drawn_objects import draw
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from test_detectors import toy
from typer.testing import CliRunner

from keras_convnext import cli
from keras_convnext.data.errors import DataError
from keras_convnext.detection import evaluate, read_coco
from keras_convnext.detection.evaluation import FIGURES, results_of, scores_of
from keras_convnext.detection.masks import encode_rle
from keras_convnext.detection.names import names_of_classes
from keras_convnext.detection.objects import mask_of
from keras_convnext.detection.prediction import Detections
from keras_convnext.resizing import scaled_size


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("drawn"), 6)


def changed(drawn, tmp_path, change):
    """Writes a changed file, for the same images."""
    path, content = drawn
    content = copy.deepcopy(content)
    change(content)
    target = tmp_path / "changed.json"
    target.write_text(json.dumps(content))
    return target, path.parent


def test_images_objects_and_counts(drawn, tmp_path):
    path, content = drawn
    objects = read_coco(path)
    assert objects.classes == ("circle", "square", "triangle")
    assert objects.category_ids == (10, 20, 30)
    first, own = objects.pictures[0], content["annotations"][0]
    assert (first.path, first.height, first.width) == (path.parent / "0000.png", 96, 96)
    x, y, w, h = own["bbox"]
    assert first.annotations[0].box == pytest.approx((x, y, x + w, y + h))
    assert first.annotations[0].label == own["category_id"] // 10 - 1
    assert objects.counts()["boxes"] == objects.counts()["masks"] == len(content["annotations"])

    def change(content):
        content["annotations"][0]["iscrowd"] = 1
        content["annotations"][0]["segmentation"] = {"size": [96, 96], "counts": [96 * 96]}
        content["annotations"][1]["bbox"][0] = -0.5
        del content["annotations"][2]["segmentation"]
        content["images"].append({**content["images"][0], "id": "spare"})

    target, images = changed(drawn, tmp_path, change)
    summary = read_coco(target, images).summary()
    assert summary.startswith("COCO: 7 images, ")
    assert "1 crowds, 1 images without objects, 1 boxes clipped by up to a pixel" in summary


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("categories"), r"has the lists images, .* Received: images, annotations"),
        (lambda c: c["images"].append(c["images"][0]), "Two images have the id 0"),
        (lambda c: c["images"][1].update(file_name="no.png"), r"1 of 6 images are not .*\(no.png"),
        (lambda c: c["images"][1].update(file_name="../a.png"), "must be below the folder"),
        (lambda c: c["images"][1].update(height=0), "Image 1 needs a height and"),
        (lambda c: c["categories"].append(c["categories"][0]), "Two categories have the id 10"),
        (lambda c: c["annotations"][0].update(image_id=99), "Annotation 1 is of image 99"),
        (lambda c: c["annotations"][0].update(category_id=7),
         "annotation 1 of image 0 has the unknown category id 7"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 0, 5]), "bbox without area"),
        (lambda c: c["annotations"][0].update(bbox=[90, 2, 9, 5]),
         r"annotation 1 of image 0 has a bbox outside of the image of 96 x 96 pixels"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), "needs a bbox of four numbers"),
        (lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3, 4]]), "polygon of 2 points"),
        (lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3, 4, 200, 6]]),
         "a polygon that reaches 104.0 pixels out of the image"),
        (lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3, 4, 5]]), "pairs of numbers"),
        (lambda c: c["annotations"][0].update(segmentation={"size": [9, 9], "counts": [81]}),
         r"run lengths of the size \[9, 9\], but the image has \[96, 96\]"),
        (lambda c: c["annotations"][0].update(segmentation={"size": [96, 96], "counts": [81]}),
         "is damaged: The run lengths of a mask must add up to"),
    ],
)  # fmt: skip
def test_broken_files_are_refused(change, message, drawn, tmp_path):
    target, images = changed(drawn, tmp_path, change)
    with pytest.raises(DataError, match=message) as told:
        read_coco(target, images)
    assert str(target) in str(told.value)
    if "annotation 1 of" in str(told.value):
        objects = read_coco(target, images, skip_broken=True)
        assert objects.tolerated["broken annotations skipped"] == 1


def test_files_that_are_none(drawn, tmp_path):
    whole = drawn[0].read_text()
    for text, message in (
        (whole[: len(whole) // 2], "truncated"), ("[1]", "Received: a list"), ("[" * 99_999, "JSON")
    ):  # fmt: skip
        path = tmp_path / "other.json"
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_coco(path)
    with pytest.raises(DataError, match="no such file"):
        read_coco(tmp_path / "none.json")


VALUES = (
    None, True, -1, 0, 3, 1e400, float("nan"), 10**30, "", "\x1b[31m", [], {}, [[]], [None] * 4,
    [1, 2, 3, 4], [1e30] * 6, {"size": [96, 96]}, {"size": 5, "counts": "x"}, [[1, 2, 3, 4, 5, 6]],
)  # fmt: skip


def mutated(content, chance):
    """Replaces, deletes or copies one random value."""
    content = copy.deepcopy(content)
    place = content
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return content
        key = chance.choice(keys)
        if not isinstance(place[key], dict | list) or chance.random() < 0.2:
            break
        place = place[key]
    action = chance.random()
    if action < 0.2:
        del place[key]
    elif action < 0.3 and isinstance(place, list):
        place.append(copy.deepcopy(place[key]))
    else:
        place[key] = copy.deepcopy(chance.choice(VALUES))
    return content


def test_a_thousand_mutations_are_loaded_or_refused(drawn, tmp_path):
    path, content = drawn
    chance, loaded = random.Random(0), 0
    target = tmp_path / "mutated.json"
    for _ in range(1000):
        target.write_text(json.dumps(mutated(content, chance)))
        try:
            objects = read_coco(target, path.parent)
        except DataError:
            continue
        loaded += 1
        for picture in objects.pictures:
            for each in picture.annotations:
                x1, y1, x2, y2 = each.box
                assert 0 <= x1 < x2 <= picture.width
                assert 0 <= y1 < y2 <= picture.height
                if each.shape is not None:
                    mask_of(each, picture.height, picture.width)
    assert 100 < loaded < 900


def detections_near(objects, seed=0):
    """Random detections: most objects with an error, and some that are not there."""
    generator = np.random.default_rng(seed)
    results = []
    for picture in objects.pictures:
        boxes = np.array([each.box for each in picture.annotations] * 2).reshape(-1, 4)
        boxes = boxes + generator.normal(0, 4, boxes.shape)
        boxes = np.concatenate([boxes[:, :2], np.maximum(boxes[:, 2:], boxes[:, :2] + 1)], 1)
        labels = [each.label for each in picture.annotations] * 2
        labels = np.where(generator.random(len(labels)) < 0.8, labels, 0)
        found = Detections(
            boxes.astype("float32"), generator.random(len(labels)), labels,
            generator.random((len(labels), 28, 28)) ** 0.3, (picture.height, picture.width),
        )  # fmt: skip
        results += results_of(found, picture, objects)
    return results


def by_hand(annotations, results, kind, tmp_path):
    path = tmp_path / "results.json"
    if kind == "segm":
        results = [{k: v for k, v in each.items() if k != "bbox"} for each in results]
    path.write_text(json.dumps(results))
    truth = COCO(str(annotations))
    measured = COCOeval(truth, truth.loadRes(str(path)), kind)
    measured.evaluate()
    measured.accumulate()
    measured.summarize()
    return measured


def test_scores_equal_those_of_pycocotools_by_hand(drawn, tmp_path):
    def change(content):
        content["annotations"][0]["iscrowd"] = 1
        mask = np.zeros((96, 96), bool)
        mask[10:50, 20:70] = True
        content["annotations"][0]["segmentation"] = encode_rle(mask)

    target, images = changed(drawn, tmp_path, change)
    objects = read_coco(target, images)
    results = detections_near(objects)
    scores = scores_of(objects, results)
    for kind, own, of_class in (
        ("bbox", scores.box, scores.box_of_class), ("segm", scores.mask, scores.mask_of_class)
    ):  # fmt: skip
        measured = by_hand(target, results, kind, tmp_path)
        assert list(own) == list(FIGURES)
        expected = [value if value > -1 else np.nan for value in measured.stats]
        np.testing.assert_allclose(list(own.values()), expected, rtol=1e-6)
        assert 0.05 < own["AP"] < 0.95
        precision = measured.eval["precision"][..., 0, -1]
        for label, value in enumerate(of_class.values()):
            np.testing.assert_allclose(value, precision[:, :, label].mean(), rtol=1e-6)
    nothing = scores_of(objects, [])
    assert nothing.box["AP"] == 0
    assert nothing.mask is None


@pytest.fixture(scope="module")
def detector():
    return toy("mask_rcnn", weights=None, classes=3, masks=False)


def test_an_interrupted_evaluation_continues(drawn, detector, tmp_path, monkeypatch):
    objects = read_coco(drawn[0])
    found = {result["image_id"]: result for result in detections_near(objects)}
    asked = []

    def detect(model, image, scale):
        asked.append(len(asked))
        if len(asked) == 4:
            raise KeyboardInterrupt
        box = np.float32([found[0]["bbox"]])
        box[:, 2:] += box[:, :2]
        return Detections(box, np.float32([0.5]), np.int32([0]), None, image.shape[:2])

    monkeypatch.setattr("keras_convnext.detection.evaluation.detect", detect)
    target = tmp_path / "results.json"
    with pytest.raises(KeyboardInterrupt):
        evaluate(detector, objects, results=target)
    assert not target.exists()
    partial = target.with_suffix(".partial")
    with partial.open("a") as file:
        file.write('[3, [{"cut')
    seen = []
    scores = evaluate(detector, objects, results=target, progress=seen.append)
    assert seen == [4, 5, 6]
    assert [each["image_id"] for each in json.loads(target.read_text())] == list(range(6))
    assert not partial.exists()
    assert scores.mask is None
    partial.write_text('["other", []]\n')
    with pytest.raises(DataError, match="detections of other images"):
        evaluate(detector, objects, results=target)
    with pytest.raises(ValueError, match=r"has 5 classes, but the data has 3"):
        evaluate(toy("mask_rcnn", weights=None, classes=5), objects)


def test_the_command(drawn, detector, tmp_path, monkeypatch):
    path, content = drawn
    weights = tmp_path / "mine.keras"
    detector.save(weights)
    own = {each["image_id"]: each for each in content["annotations"]}

    def detect(model, image, scale):
        """The first object of an image, exactly."""
        number = next(n for n, p in enumerate(sorted(path.parent.glob("*.png")))
                      if np.array_equal(np.asarray(Image.open(p)), image))  # fmt: skip
        x, y, w, h = own[number]["bbox"]
        label = own[number]["category_id"] // 10 - 1
        box = np.float32([[x, y, x + w, y + h]])
        return Detections(box, np.float32([0.5]), np.int32([label]), None, image.shape[:2])

    monkeypatch.setattr("keras_convnext.detection.evaluation.detect", detect)
    command = ["evaluate", str(path), "--weights", str(weights)]
    shown = CliRunner().invoke(cli.app, [*command, "--output", str(tmp_path / "out")])
    assert shown.exit_code == 0, shown.output
    assert "AP50" in shown.stdout
    assert "triangle" in shown.stdout
    assert (tmp_path / "out" / "results.json").exists()
    printed = json.loads(CliRunner().invoke(cli.app, [*command, "--json"]).stdout)
    assert printed["images"] == 6
    assert 0.2 < printed["box"]["AP"] < 1
    assert len(printed["classes"]) == 3
    monkeypatch.setattr("keras_convnext.detection.prediction.detect", detect)
    picture, first = str(path.parent / "0000.png"), own[0]
    predicted = ["predict", picture, "--weights", str(weights)]
    shown = CliRunner().invoke(cli.app, predicted).stdout
    x, y, w, h = first["bbox"]
    name = f"class {first['category_id'] // 10 - 1}"  # Keras' own file records none
    assert f" 50.0%  {name}  ({x:.0f}, {y:.0f}, {x + w:.0f}, {y + h:.0f})" in shown
    printed = json.loads(CliRunner().invoke(cli.app, [*predicted, "--json"]).stdout)
    assert printed[0]["objects"][0]["box"] == pytest.approx([x, y, x + w, y + h], abs=1e-3)
    assert "%" not in CliRunner().invoke(cli.app, [*predicted, "--threshold", "0.6"]).stdout
    refused = CliRunner().invoke(cli.app, [*command, "--size", "64"])
    assert "with a detector" in refused.output


def test_images_are_scaled_as_by_mmcv():
    assert scaled_size((480, 640), (1333, 800)) == (800, 1067)
    assert scaled_size((400, 1200), (1333, 800)) == (444, 1333)
    assert scaled_size((1, 5000), (1333, 800)) == (1, 1333)


def test_classes_without_recorded_names():
    assert names_of_classes(2, ("a", "b")) == ("a", "b")
    assert names_of_classes(3) == ("class 0", "class 1", "class 2")
    coco = names_of_classes(80)
    assert (coco[0], coco[-1], len(set(coco))) == ("person", "toothbrush", 80)
