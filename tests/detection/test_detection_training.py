"""Training of detectors: augmentation, batches, recipes, and runs."""

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from drawn_objects import draw

from keras_convnext import identify
from keras_convnext.data.errors import DataError, NoSuchSplitError
from keras_convnext.detection import task
from keras_convnext.detection.augmentation import Scene, augmented, cropped, fitted, flipped
from keras_convnext.detection.input import (
    crowded,
    has_masks,
    open_training_data,
    training_batches,
    training_scene,
)
from keras_convnext.detection.recipes import RECIPES, Input
from keras_convnext.detection.sampler import sampled
from keras_convnext.detection.settings import recipe_for
from keras_convnext.detection.splits import open_objects
from keras_convnext.memory_errors import OutOfMemoryError
from keras_convnext.training.layout import Layout

SMALL = {
    "start": None, "shortest": (64,), "longest": 64, "crop_from": (), "scale": (64, 64),
    "batch_size": 2, "device_batch": 2, "drop_path_rate": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("objects")
    draw(folder / "train", 6, side=64)
    draw(folder / "val", 3, side=64, seed=1)
    return folder


def rectangles(height, width, count=3, seed=0):
    """An image whose objects are rectangles of one color: the label of an object."""
    random = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.uint8)
    boxes, masks = [], []
    for index in range(count):
        left, top = random.integers(0, (width - 21, height - 21))
        right, bottom = left + random.integers(10, 20), top + random.integers(10, 20)
        mask = np.zeros((height, width), np.uint8)
        mask[top:bottom, left:right] = 1
        image[mask == 1] = 50 * (index + 1)
        boxes.append([left, top, right, bottom])
        masks.append(mask)
    return Scene(image, np.float32(boxes), np.arange(count, dtype="int32"), np.array(masks))


def box_of(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def test_boxes_and_masks_move_along():
    scene = rectangles(90, 120)
    mirrored = flipped(scene)
    np.testing.assert_array_equal(mirrored.image, np.fliplr(scene.image))
    for box, mask in zip(mirrored.boxes, mirrored.masks):
        np.testing.assert_array_equal(box, box_of(mask))

    larger = fitted(scene, 180, 1333)  # exactly twice as large
    assert larger.image.shape == (180, 240, 3)
    np.testing.assert_array_equal(larger.masks, scene.masks.repeat(2, 1).repeat(2, 2))
    np.testing.assert_allclose(larger.boxes, 2 * scene.boxes, rtol=1e-6)
    assert fitted(scene, 180, 200).image.shape == (150, 200, 3)

    x1, y1, x2, y2 = scene.boxes[0].astype(int)
    part = cropped(scene, y1 + 3, x1 + 2, 80 - y1, 100 - x1)
    np.testing.assert_array_equal(part.image, scene.image[y1 + 3 : 83, x1 + 2 : 102])
    assert part.labels[0] == 0
    np.testing.assert_array_equal(part.boxes[0], [0, 0, x2 - x1 - 2, y2 - y1 - 3])
    for label, mask in zip(part.labels, part.masks):
        np.testing.assert_array_equal(mask, scene.masks[label, y1 + 3 : 83, x1 + 2 : 102])
    away = cropped(scene, 0, 0, 2, 2)
    count = (scene.boxes[:, :2] < 2).all(1).sum()
    assert len(away.boxes) == len(away.labels) == len(away.masks) == count


def expected_geometry(scene, random, own):
    """The part of the original image that is seen and the size of the result, on the same draws."""
    height, width = scene.image.shape[:2]
    mirrored = random.random() < own.horizontal_flip
    x_scale = y_scale = 1.0
    left = top = 0.0

    def fit(shortest, height, width):
        factor = min(own.longest / max(height, width), shortest / min(height, width))
        return int(height * factor + 0.5), int(width * factor + 0.5)

    if own.crop_from and random.random() < 0.5:
        rows, columns = fit(random.choice(own.crop_from), height, width)
        y_scale, x_scale = rows / height, columns / width
        height, width = (
            int(random.integers(min(own.crop[0], side), min(own.crop[1], side) + 1))
            for side in (rows, columns)
        )
        top = random.integers(0, rows - height + 1) / y_scale
        left = random.integers(0, columns - width + 1) / x_scale
    rows, columns = fit(random.choice(own.shortest), height, width)
    return mirrored, left, top, x_scale * columns / width, y_scale * rows / height, (rows, columns)


@pytest.mark.parametrize("seed", range(6))
def test_augmentation_equals_an_independent_version(seed):
    own = Input(shortest=(64, 96), longest=150, crop_from=(80, 100), crop=(50, 70))
    scene = rectangles(90, 120, seed=seed)
    found = augmented(scene, np.random.default_rng(seed), own)
    mirrored, left, top, x_scale, y_scale, size = expected_geometry(
        scene, np.random.default_rng(seed), own
    )
    assert found.image.shape == (*size, 3)
    boxes = scene.boxes.astype("float64")
    if mirrored:
        boxes[:, [0, 2]] = 120 - boxes[:, [2, 0]]
    boxes = (boxes - [left, top] * 2) * ([x_scale, y_scale] * 2)
    boxes = np.clip(boxes, 0, [size[1], size[0]] * 2)
    seen = (boxes[:, 2:] > boxes[:, :2]).all(1)
    np.testing.assert_array_equal(found.labels, np.flatnonzero(seen))
    np.testing.assert_allclose(found.boxes, boxes[seen], atol=1e-3)
    for label, mask, box in zip(found.labels, found.masks, found.boxes):
        if mask.any():
            np.testing.assert_allclose(box_of(mask), box, atol=2.5)
        inside = mask[2:-2, 2:-2].astype(bool)
        values = np.abs(found.image[2:-2, 2:-2].mean(-1)[inside] - 50 * (label + 1))
        # Other rectangles may lie on it, and its border is interpolated.
        assert not inside.any() or (values < 1).mean() > 0.2


def test_batches_are_padded_and_resume(data):
    settings = SMALL | {"shortest": (48, 80), "longest": 80}
    recipe = recipe_for("detect_small", "convnext_atto", settings)
    training, validation = open_training_data(data, None, recipe)
    assert (training.size, len(validation.pictures)) == (6, 3)
    layout = Layout(0, 1, 1, 2, 1)
    batches = list(training_batches(training, recipe, True, layout).take(5))
    for (boxes, images, labels, masks, sizes), _ in batches:
        assert images.shape[1] % 32 == images.shape[2] % 32 == 0
        assert masks.shape == (2, labels.shape[1], *images.shape[1:3])
        assert boxes.shape == (2, labels.shape[1], 4)
        for size, image, own in zip(sizes.numpy().astype(int), images.numpy(), labels.numpy()):
            assert not image[size[0] :].any()
            assert not image[:, size[1] :].any()
            assert (own >= 0).any()
    resumed = next(iter(training_batches(training, recipe, True, layout, first_update=4)))
    for one, other in zip(resumed[0], batches[4][0]):
        np.testing.assert_array_equal(one, other)
    first = training_scene(training, recipe, False, 0, 0, 1)
    assert first.masks.shape[1:] == (0, 0)
    most = replace(recipe, input=replace(recipe.input, most_objects=1))
    assert crowded(training, 1) > 0
    for index in range(6):
        assert len(training_scene(training, most, True, index, 0, 0).labels) == 1


def test_data_that_cannot_be_trained_on(data, tmp_path):
    recipe = recipe_for("detect_small", "convnext_atto", SMALL)
    with pytest.raises(DataError, match="no such file or folder"):
        open_objects(tmp_path / "none", "train")
    with pytest.raises(
        NoSuchSplitError, match="'train': of COCO, such as annotations/instances_train"
    ):
        open_objects(tmp_path, "train")
    training, validation = open_training_data(data / "train" / "annotations.json", None, recipe)
    assert (training.size, len(validation.pictures)) == (5, 1)  # held out
    for index, picture in enumerate(training.objects.pictures):
        shapeless = [each._replace(shape=None) for each in picture.annotations]
        training.objects.pictures[index] = picture._replace(annotations=tuple(shapeless))
    assert not has_masks(training, None)
    with pytest.raises(DataError, match="objects have no mask: set masks=false"):
        has_masks(training, True)


def test_recipes_are_those_of_the_official_code():
    found = {
        (name, model): recipe_for(name, model)
        for name, family in RECIPES.items()
        for model in family.networks
        if name.startswith("coco")
    }
    assert len(found) == 7
    rates = {
        (name, model): (own.optimizer.learning_rate, own.optimizer.layer_decay,
                        own.network.drop_path_rate, own.batch.precision)
        for (name, model), own in found.items()
    }  # fmt: skip
    half, full = "mixed_float16", "float32"
    assert rates == {
        ("coco_mask_rcnn", "convnext_tiny"): (1e-4, 0.95, 0.4, half),
        ("coco_cascade", "convnext_tiny"): (2e-4, 0.7, 0.4, half),
        ("coco_cascade", "convnext_small"): (2e-4, 0.7, 0.6, half),
        ("coco_cascade", "convnext_base"): (2e-4, 0.8, 0.7, half),
        ("coco_cascade_22k", "convnext_base"): (1e-4, 0.8, 0.6, half),
        ("coco_cascade_22k", "convnext_large"): (1e-4, 0.7, 0.7, full),
        ("coco_cascade_22k", "convnext_xlarge"): (1e-4, 0.7, 0.8, full),
    }
    for own in found.values():
        assert (own.schedule.epochs, own.schedule.milestones) == (36, (27, 33))
        assert (own.batch.batch_size, own.optimizer.weight_decay) == (16, 0.05)
        assert own.input.shortest == (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    with pytest.raises(ValueError, match="was published for convnext_tiny"):
        recipe_for("coco_cascade", "convnext_atto")
    with pytest.raises(ValueError, match=r"bucket must be a multiple of 32. Received: bucket=40"):
        recipe_for("detect_small", "convnext_atto", {"bucket": 40})
    with pytest.raises(ValueError, match=r"scale must be two integers of at least 32"):
        recipe_for("detect_small", "convnext_atto", {"scale": "800"})


def test_fewer_candidates_than_samples_in_a_graph():
    specs = tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, None))
    draw_samples = tf.function(lambda *given: sampled(*given, 16, 0.25), input_signature=specs)
    assigned = tf.constant([[2, -1, -2, 0, -1]])
    found = draw_samples(assigned, tf.constant([[0.1, 0.2, 0.9, 0.8, 0.7]]))
    assert found.is_sample.numpy().sum() == 4
    np.testing.assert_array_equal(found.indices.numpy()[0, :4], [3, 0, 4, 1])


def test_too_little_memory_is_told_with_what_needs_less(data, tmp_path, monkeypatch):
    def fit(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(task, "fit", fit)
    with pytest.raises(OutOfMemoryError, match=r"atto at 64 px.*--set device_batch=1 \(1"):
        task.train("detect_small", "convnext_atto", data, tmp_path / "run", SMALL)


PROGRAM = """
import os, signal
import tensorflow as tf
from keras_convnext.detection.task import train
from keras_convnext.training import journal
data, output, settings, stop, devices = {arguments!r}
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
strategy = tf.distribute.MirroredStrategy([f"CPU:{{i}}" for i in range(devices)])
original = journal.Journal.on_train_batch_end
def end(self, batch, logs=None):
    original(self, batch, logs)
    if self.progress.updates == stop:
        os.kill(os.getpid(), signal.SIGKILL)
journal.Journal.on_train_batch_end = end
if devices == 1:
    strategy = None
train("detect_small", "convnext_atto", data, output, settings, strategy=strategy)
"""


def run(data, output, stop=None, code=0, devices=1, **more):
    settings = SMALL | {
        "updates": 6, "epochs": None, "warmup_epochs": 0, "evaluation_updates": 3,
        "save_updates": 1, "channels": 16, "hidden": 32, "before": 50, "regions": 16,
        "proposals": 40, "tested": 40, "ema_decay": 0.5, "drop_path_rate": 0.1, **more,
    }  # fmt: skip
    program = PROGRAM.format(arguments=(str(data), str(output), settings, stop, devices))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == code, done.stderr[-3000:]


@pytest.mark.slow
def test_a_run_resumes_to_the_bit(data, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(data, whole)
    run(data, killed, stop=4, code=-9)
    run(data, killed)
    for name in ("final.keras", "final_ema.keras"):
        ours, theirs = (keras.models.load_model(each / name) for each in (killed, whole))
        for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
    assert (killed / "log.csv").read_bytes() == (whole / "log.csv").read_bytes()
    (first, *_) = csv.DictReader((whole / "log.csv").read_text().splitlines())
    assert {"loss", "val_box_ap", "val_box_ap50", "val_mask_ap", "val_mask_ap50"} <= first.keys()
    assert (whole / "classes.txt").read_text() == "circle\nsquare\ntriangle\n"
    assert identify(whole / "final.keras").class_names == ("circle", "square", "triangle")


@pytest.fixture
def same_images(data, tmp_path):
    """Four images that are equal: the losses of a batch are then means over its images."""
    content = json.loads((data / "train" / "annotations.json").read_text())
    image = content["images"][0]
    own = [each for each in content["annotations"] if each["image_id"] == image["id"]]
    content["images"] = [
        {**image, "id": number, "file_name": f"{number}.png"} for number in range(4)
    ]
    content["annotations"] = [
        {**each, "image_id": number, "id": 100 * number + index}
        for number in range(4)
        for index, each in enumerate(own)
    ]
    folder = tmp_path / "same" / "train"
    folder.mkdir(parents=True)
    for number in range(4):
        shutil.copy(data / "train" / image["file_name"], folder / f"{number}.png")
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder.parent


@pytest.mark.slow
def test_two_devices_with_two_images_each_equal_one_with_four(same_images, tmp_path):
    settings = {
        "batch_size": 4, "updates": 3, "evaluation_updates": 3, "drop_path_rate": 0.0,
        "cascade": True, "horizontal_flip": 0.0, "validation_share": 0.0, "masks": True,
        # All candidates are sampled, whatever is drawn.
        "anchors": 256, "regions": 500, "before": 60, "proposals": 100,
    }  # fmt: skip
    run(same_images, tmp_path / "one", device_batch=4, **settings)
    run(same_images, tmp_path / "two", device_batch=2, devices=2, **settings)
    one, two = (
        list(csv.DictReader((tmp_path / name / "log.csv").read_text().splitlines()))
        for name in ("one", "two")
    )
    np.testing.assert_allclose(float(two[-1]["loss"]), float(one[-1]["loss"]), rtol=1e-5)
    ours, theirs = (
        keras.models.load_model(tmp_path / name / "final.keras") for name in ("one", "two")
    )
    for weight, other in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(other, weight, rtol=0, atol=5e-5, err_msg=weight.path)
