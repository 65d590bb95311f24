"""Rotated objects in scenes: predictions, scores by DOTA's rule, pictures and submissions."""

from itertools import pairwise

import numpy as np
import pytest
import shapely
from PIL import Image

from keras_convnext.data.errors import DataError
from keras_convnext.detection import (
    RotatedDetections,
    RotatedObject,
    RotatedObjects,
    RotatedPicture,
    draw_rotated,
    scores_of_rotated,
    to_points,
    write_submission,
)
from keras_convnext.detection.rotated.evaluation import _as_line, _done
from keras_convnext.detection.rotated.prediction import detect_rotated_with

RANDOM = np.random.default_rng(0)
CLASSES = ("plane", "ship", "harbor")


def some_objects(pictures=6, tmp_path="."):
    found = []
    for number in range(pictures):
        boxes = np.stack([
            RANDOM.uniform(0, 300, 12), RANDOM.uniform(0, 300, 12), RANDOM.uniform(20, 60, 12),
            RANDOM.uniform(8, 20, 12), RANDOM.uniform(-2, 2, 12),
        ], -1)  # fmt: skip
        points = to_points(boxes) + RANDOM.normal(0, 0.5, (12, 4, 2))  # not quite rectangles
        objects = tuple(
            RotatedObject(int(RANDOM.integers(2)), tuple(own.ravel()), int(RANDOM.random() < 0.2))
            for own in points
        )
        found.append((RotatedPicture(f"{tmp_path}/P{number}.png", 300, 300, objects), boxes))
    pictures = [picture for picture, _ in found]
    return RotatedObjects("DOTA", ".", pictures, CLASSES), [boxes for _, boxes in found]


def some_detections(objects, boxes):
    found = []
    for picture, own in zip(objects.pictures, boxes):
        times = np.repeat(np.arange(12), RANDOM.integers(0, 3, 12))
        moved = own[times] + RANDOM.normal(0, 1, (len(times), 5)) * [2, 2, 3, 1, 0.05]
        moved[:, 2:4] = np.maximum(moved[:, 2:4], 1)
        labels = np.array([picture.objects[index].label for index in times])
        labels = np.where(RANDOM.random(len(labels)) < 0.1, 1 - labels, labels)
        scores = RANDOM.random(len(times)).round(1)  # with ties
        order = np.argsort(-scores, kind="stable")
        found.append(RotatedDetections(moved[order], scores[order], labels[order], (300, 300)))
    return found


def measured_by_loop(objects, found, label, threshold):
    """Recall and precision after each detection, object by object, with shapely."""
    rows, taken = [], set()
    required = sum(
        each.label == label and not each.difficulty
        for picture in objects.pictures for each in picture.objects
    )  # fmt: skip
    for number, own in enumerate(found):
        for index in np.flatnonzero(own.labels == label):
            rows.append((own.scores[index], number, shapely.Polygon(own.points()[index])))
    rows.sort(key=lambda row: -row[0])
    right, wrong, curve = 0, 0, []
    for _, number, polygon in rows:
        best, at = -1.0, None
        for index, each in enumerate(objects.pictures[number].objects):
            if each.label == label:
                other = shapely.Polygon(np.reshape(each.points, (4, 2)))
                shared = polygon.intersection(other).area
                if shared / (polygon.area + other.area - shared) > best:
                    best, at = shared / (polygon.area + other.area - shared), index
        if best > threshold:
            if objects.pictures[number].objects[at].difficulty == 0:
                if (number, at) in taken:
                    wrong += 1
                else:
                    taken.add((number, at))
                    right += 1
        else:
            wrong += 1
        curve.append((right / required, right / max(right + wrong, 1)))
    return curve


def precision_at(curve, recall):
    return max((precision for own, precision in curve if own >= recall), default=0)


def test_average_precision_equals_an_independent_one():
    objects, boxes = some_objects()
    found = some_detections(objects, boxes)
    scores = scores_of_rotated(objects, found)
    eleven, area = [], []
    for threshold in (0.5, 0.75):
        for label in range(2):
            curve = measured_by_loop(objects, found, label, threshold)
            eleven.append(np.mean([precision_at(curve, t) for t in np.arange(0, 1.1, 0.1)]))
            recalls = sorted({0, *(recall for recall, _ in curve)})
            area.append(sum((b - a) * precision_at(curve, b) for a, b in pairwise(recalls)))
    assert scores.eleven_points["AP50"] == pytest.approx(np.mean(eleven[:2]))
    assert scores.eleven_points["AP75"] == pytest.approx(np.mean(eleven[2:]))
    assert scores.area["AP50"] == pytest.approx(np.mean(area[:2]))
    assert scores.area["AP75"] == pytest.approx(np.mean(area[2:]))
    assert scores.of_class["ship"] == pytest.approx(eleven[1])
    assert np.isnan(scores.of_class["harbor"])  # without objects, in no mean
    assert 0.05 < scores.area["AP"] < scores.area["AP50"] < 0.95


def test_difficult_objects_are_neither_right_nor_wrong():
    points = tuple(to_points([50, 50, 40, 20, 0]).ravel())
    far = tuple(to_points([150, 150, 40, 20, 0]).ravel())
    picture = RotatedPicture(
        "P.png", 300, 300, (RotatedObject(0, points, 2), RotatedObject(0, far))
    )
    objects = RotatedObjects("DOTA", ".", [picture], ("ship",))
    boxes = np.array([[50, 50, 40, 20, 0], [50, 50, 40, 20, 0], [150, 150, 40, 20, 0]])
    found = RotatedDetections(boxes, np.array([0.9, 0.8, 0.7]), np.zeros(3, int), (300, 300))
    assert scores_of_rotated(objects, [found]).area["AP"] == pytest.approx(1)
    nothing = found.above(0.95)
    assert scores_of_rotated(objects, [nothing]).area["AP50"] == 0


BOXES = np.float32([[30, 40, 30, 10, 0.5], [130, 60, 30, 10, 1.2], [90, 110, 20, 20, 0]])


def seen(inputs):
    """A network that finds the boxes whose centers are marked in the image by their numbers."""
    pixels = inputs["images"][0]
    height, width = inputs["sizes"][0].astype(int)
    found = []
    for number, box in enumerate(BOXES):
        rows, columns = np.nonzero(pixels[:height, :width, 0] == number + 1)
        if len(rows):
            moved = box.copy()
            moved[:2] = columns[0], rows[0]
            found.append(moved)
    boxes = np.stack([*found, np.float32([5, 5, 3, 3, 0])])
    scores = np.zeros((len(boxes), 2), "float32")
    scores[:-1, 1] = 0.9
    return {"boxes": boxes[None], "scores": scores[None]}


@pytest.mark.parametrize("overlap", [0, 40])
def test_objects_of_tiles_are_moved_back_and_merged(overlap, tmp_path):
    scene = np.zeros((150, 170, 3), np.uint8)
    for number, (x, y, *_) in enumerate(BOXES.astype(int)):
        scene[y, x] = number + 1
    Image.fromarray(scene).save(tmp_path / "scene.png")
    calls = []
    for source in (scene, tmp_path / "scene.png"):
        found = detect_rotated_with(seen, source, 64, overlap, progress=lambda *n: calls.append(n))
        assert found.size == (150, 170)
        order = np.argsort(found.boxes[:, 0])
        np.testing.assert_array_equal(found.boxes[order], BOXES[[0, 2, 1]])
        assert found.labels.tolist() == [1, 1, 1]
    assert calls[-1][0] == calls[-1][1] == len(calls) // 2
    with pytest.raises(ValueError, match=r"multiple of 32. Received: tile=100"):
        detect_rotated_with(seen, scene, 100)
    with pytest.raises(ValueError, match="shape"):
        detect_rotated_with(seen, scene[..., 0])


def test_submissions_are_those_of_task_1(tmp_path):
    found = RotatedDetections(BOXES, np.float32([0.9, 0.8, 0.7]), np.array([0, 1, 0]), (150, 170))
    paths = write_submission(tmp_path, ["P0006"], [found], ("ship", "../a class"))
    assert [path.name for path in paths] == ["Task1_ship.txt", "Task1__a_class.txt"]
    first, second = (line.split() for line in paths[0].read_text().splitlines())
    assert (first[:2], second[:2]) == (["P0006", "0.900000"], ["P0006", "0.700000"])
    numbers = np.array(first[2:], float).reshape(4, 2)
    np.testing.assert_allclose(numbers, to_points(BOXES[0]), atol=0.006)
    paths = write_submission(tmp_path, ["P0006"], [found], ("船", "车"))
    assert [path.name for path in paths] == ["Task1__.txt", "Task1___1.txt"]
    assert [len(path.read_text().splitlines()) for path in paths] == [2, 1]


def test_an_interrupted_evaluation_is_continued(tmp_path):
    objects, boxes = some_objects(3)
    found = some_detections(objects, boxes)
    lines = [_as_line(RotatedPicture(tmp_path / f"P{i}.png", 300, 300, ()), each)
             for i, each in enumerate(found)]  # fmt: skip
    pictures = [
        each._replace(path=tmp_path / f"P{i}.png") for i, each in enumerate(objects.pictures)
    ]
    objects = RotatedObjects("DOTA", ".", pictures, CLASSES)
    path = tmp_path / "results.jsonl"
    path.write_text(lines[0] + lines[1] + lines[2][:20])
    done = _done(path, objects)
    assert len(done) == 2
    np.testing.assert_allclose(done[1].boxes, found[1].boxes, rtol=1e-6)
    assert path.read_text() == lines[0] + lines[1]
    path.write_text(lines[1])
    with pytest.raises(DataError, match="detections of other images"):
        _done(path, objects)


def test_pictures_show_outlines_and_a_legend(tmp_path):
    scene = np.full((2000, 4500, 3), 90, np.uint8)
    boxes = np.float32([[1000, 900, 400, 60, 0.3], [3000, 1500, 50, 50, 0]])
    found = RotatedDetections(boxes, np.float32([0.9, 0.4]), np.array([1, 0]), scene.shape[:2])
    drawn = draw_rotated(scene, found, CLASSES)
    assert drawn.width == 2250
    pixels = np.asarray(drawn)
    colored = (pixels[:1000] != 90).any(-1)
    assert 1000 < colored.sum() < 9000  # one outline
    x, y = to_points(boxes[0] / [2, 2, 2, 2, 1]).mean(0)  # the center is not painted over
    assert not colored[round(y), round(x)]
    assert drawn.height > 1000  # the legend
    Image.fromarray(scene).save(tmp_path / "scene.png")
    again = draw_rotated(tmp_path / "scene.png", found, CLASSES)
    np.testing.assert_array_equal(np.asarray(again), pixels)
    nothing = draw_rotated(scene[:100, :100], found.above(1), CLASSES)
    assert nothing.width == 400
