import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from data_on_disk import encoded_image, example, write_folder, write_tfrecords
from PIL import Image
from test_cli import run

from keras_convnext import ConvNeXt
from keras_convnext.classification import draw_confusion, evaluate, evaluation, scoring
from keras_convnext.data.errors import DataError
from keras_convnext.data.sources import open_source
from keras_convnext.memory_errors import OutOfMemoryError
from keras_convnext.preprocessing import class_labels, load_image

WNIDS = [wnid for wnid, _ in class_labels(1000)]
NUMBERS = {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4, "f": 5, "g": 6}


def write_images(root, classes, number=3):
    """Photographs of noise over a color of the class, none of them square."""
    random = np.random.default_rng(0)
    for i, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for j in range(number):
            noise = random.integers(0, 120, (40 + 5 * j, 56, 3))
            noise[..., i % 3] += 20 * i % 120
            Image.fromarray(noise.astype(np.uint8)).save(root / name / f"{j}.png")
    return root


def model_of(classes, activation="softmax", size=32, seed=0):
    keras.utils.set_random_seed(seed)
    layers = [
        keras.Input((size, size, 3)),
        keras.layers.Rescaling(1 / 64, -2),
        keras.layers.AveragePooling2D(8),
        keras.layers.Flatten(),
        keras.layers.Dense(classes, activation, kernel_initializer="glorot_normal"),
    ]
    return keras.Sequential(layers)


@pytest.mark.parametrize(
    ("activation", "batch_size"), [("softmax", 1), ("linear", 4), ("softmax", 32)]
)
def test_the_figures_are_those_of_the_definition(tmp_path, activation, batch_size):
    write_images(tmp_path, NUMBERS)
    model = model_of(7, activation, seed=3)
    images = np.stack([load_image(path, 32) for path in sorted(tmp_path.rglob("*.png"))])
    labels = np.repeat(np.arange(7), 3)
    scores = np.asarray(model.predict(images, verbose=0), np.float64)
    order = np.argsort(-scores, axis=1)
    losses = keras.losses.sparse_categorical_crossentropy(
        labels, scores, from_logits=activation == "linear"
    )
    found = evaluate(model, tmp_path, batch_size=batch_size)
    assert found.images == 21
    assert found.top1 == (order[:, 0] == labels).mean()
    assert found.top5 == (order[:, :5] == labels[:, None]).any(axis=1).mean()
    assert 0 < found.top1 < found.top5 < 1
    assert found.loss == pytest.approx(float(np.mean(losses)), rel=0.01)
    assert found.images_per_second > 0
    pairs = list(zip(labels.tolist(), order[:, 0].tolist()))
    assert found.guesses == {pair: pairs.count(pair) for pair in pairs}


def test_the_picture_of_confusions_is_dark_where_images_are(tmp_path):
    guesses = {(0, 0): 9, (0, 2): 1, (1, 1): 10, (2, 0): 10}
    draw_confusion(guesses, ["ape", "bee", "cat"], tmp_path / "confusion.png")
    pixels = np.asarray(Image.open(tmp_path / "confusion.png").convert("L"), int)
    inside = np.flatnonzero((pixels < 100).mean(axis=0) > 0.1)  # where dark squares are
    left, right = inside[0], inside[-1]
    draw_confusion({(0, 1): 1}, ["ape", "bee", "cat"], tmp_path / "other.png")
    other = np.asarray(Image.open(tmp_path / "other.png").convert("L"), int)
    assert other.shape == pixels.shape
    assert right - left > pixels.shape[1] / 3
    assert (pixels < 100).sum() > 2 * (other < 100).sum()
    with pytest.raises(ValueError, match="supported"):
        draw_confusion(guesses, ["ape", "bee", "cat"], tmp_path / "confusion.docx")


def test_classes_by_wordnet_identifier_are_found_among_those_of_imagenet(tmp_path):
    chosen = [WNIDS[i] for i in (7, 3, 990)]
    write_images(tmp_path, chosen)
    bias = np.zeros(1000)
    bias[[3, 7]] = 9, 8
    model = model_of(1000)
    model.layers[-1].set_weights([np.zeros((48, 1000)), bias])
    found = evaluate(model, tmp_path)
    assert (found.top1, found.top5) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    whole = model_of(21841, "linear")
    names = [wnid for wnid, _ in class_labels(21841)]
    bias = np.zeros(21841)
    bias[names.index(WNIDS[990])] = 9
    whole.layers[-1].set_weights([np.zeros((48, 21841)), bias])
    assert evaluate(whole, tmp_path).top1 == pytest.approx(1 / 3)


def always(model, output, outputs):
    """Makes a model answer with one class."""
    model.layers[-1].set_weights([np.zeros((48, outputs)), 9 * (np.arange(outputs) == output)])
    return model


def test_a_class_that_imagenet_22k_lacks_is_excluded_and_reported(tmp_path):
    teddy, others = "n04399382", [WNIDS[7], WNIDS[990]]
    write_images(tmp_path, [others[0], teddy, others[1]], 5)
    names = [wnid for wnid, _ in class_labels(21841)]
    assert set(WNIDS) - set(names) == {teddy}
    model = always(model_of(21841), names.index(others[1]), 21841)
    progress = []
    found = evaluate(model, tmp_path, batch_size=4, progress=lambda *done: progress.append(done))
    assert (found.images, found.top1) == (10, 0.5)
    assert (found.missing, found.excluded) == ((teddy,), 5)
    assert {true for true, _ in found.guesses} == {names.index(name) for name in others}
    assert progress[-1] == (15, 15)
    assert evaluate(always(model_of(1000), 7, 1000), tmp_path).missing == ()


@pytest.mark.parametrize("limit", [None, 12])
def test_classes_are_matched_by_the_names_of_the_model(tmp_path, limit):
    write_images(tmp_path, ["ant", "bee", "cat"], 6)
    model = always(model_of(4), 2, 4)
    found = evaluate(model, tmp_path, limit=limit, classes=["cow", "cat", "ant", "dog"])
    counts = 6 * np.ones(3, int)
    if limit:
        counts = np.bincount(open_source(tmp_path).order(0, 0)[:limit] // 6)
    assert (found.missing, found.excluded) == (("bee",), counts[1])
    assert (found.images, found.top1) == (counts[0] + counts[2], counts[0] / counts[[0, 2]].sum())
    assert found.guesses == {(2, 2): counts[0], (1, 2): counts[2]}


def test_records_are_excluded_by_their_labels(tmp_path):
    labels = [0, 1, 2, 1, 1, 0]
    records = [example(encoded_image(20 * i), label) for i, label in enumerate(labels)]
    write_tfrecords(tmp_path / "a.tfrecord", records)
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\n")
    found = evaluate(always(model_of(2), 1, 2), tmp_path, batch_size=2, classes=["cat", "ant"])
    assert (found.images, found.top1) == (3, pytest.approx(2 / 3))
    assert (found.missing, found.excluded) == (("bee",), 3)


def test_nothing_to_evaluate_is_no_accuracy(tmp_path):
    write_images(tmp_path / "train", ["ant", "bee"], 1)
    write_images(tmp_path / "val", ["bee"], 2)
    with pytest.raises(DataError, match=r"None of the 2 images.*such as 'bee'"):
        evaluate(model_of(2), tmp_path, classes=["ant", "cat"])


def test_a_broken_image_is_named_only_if_it_is_evaluated(tmp_path):
    write_folder(tmp_path, {"a": 9, "b": 9, "c": 9})
    excluded, evaluated = tmp_path / "b" / "001.jpg", tmp_path / "c" / "007.jpg"
    excluded.write_bytes(b"nothing")
    found = evaluate(model_of(2), tmp_path, batch_size=4, classes=["a", "c"])
    assert (found.images, found.excluded) == (18, 9)
    evaluated.write_bytes(b"nothing")
    with pytest.raises(DataError, match=f"An image is broken: {evaluated}"):
        evaluate(model_of(2), tmp_path, batch_size=4, classes=["a", "c"])


def test_the_command_reports_what_it_excluded(tmp_path):
    weights, data = tmp_path / "run" / "best.keras", tmp_path / "data"
    weights.parent.mkdir()
    ConvNeXt((1, 1), (8, 16), classes=3, input_shape=(32, 32, 3)).save(weights)
    (weights.parent / "classes.txt").write_text(f"{WNIDS[7]}\nant\ncat\n")
    write_images(data, ["ant", "b[red]e", "cat", "n04399382", WNIDS[7]], 2)
    result = run("evaluate", str(data), "--weights", str(weights), "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["images"] == 6
    assert (found["missing"], found["excluded"]) == (["b[red]e", "n04399382"], 4)
    result = run("evaluate", str(data), "--weights", str(weights))
    assert "the model does not have: b[red]e, n04399382 (teddy)" in result.stderr
    assert "excluded" in result.stdout


def exhausted_in_a_graph(*_, **__):
    def exhausted():
        raise MemoryError("OOM when allocating tensor")  # for which TensorFlow waits ten seconds

    return tf.ensure_shape(tf.py_function(exhausted, [], tf.uint8), (32, 32, 3))


@pytest.mark.parametrize(
    ("module", "name", "exhausted"),
    [
        (scoring, "_predict", lambda *_: np.zeros((2**30, 2**20))),
        (evaluation, "evaluation_image", exhausted_in_a_graph),
    ],
)
def test_out_of_memory_says_what_to_set(tmp_path, monkeypatch, module, name, exhausted):
    write_images(tmp_path, ["ant", "bee"])
    monkeypatch.setattr(scoring, "refuse_broken", lambda *_: pytest.fail("searched"))
    monkeypatch.setattr(module, name, exhausted)
    with pytest.raises(OutOfMemoryError, match=r"4 images of 32 px .* smaller batch_size"):
        evaluate(model_of(2), tmp_path, batch_size=4)


@pytest.mark.parametrize("outputs", [5, 1000])
def test_other_classes_than_the_model_has_are_refused(tmp_path, outputs):
    write_images(tmp_path, ["cat", "dog"], 1)
    with pytest.raises(DataError, match=rf"has {outputs:,} classes.* has 2, such as 'cat'"):
        evaluate(model_of(outputs), tmp_path)


def test_part_of_the_images_is_drawn_from_all_classes(tmp_path):
    write_images(tmp_path, NUMBERS, 6)
    model = model_of(7)
    model.layers[-1].set_weights([np.zeros((48, 7)), np.eye(7)[5]])
    seen = []
    found = evaluate(
        model, tmp_path, batch_size=8, limit=20, progress=lambda *done: seen.append(done)
    )
    assert found.images == 20
    assert seen == [(8, 20), (16, 20), (20, 20)]
    drawn = open_source(tmp_path).order(0, 0)[:20] // 6
    assert set(drawn) == set(range(7))
    assert found.top1 == (drawn == 5).mean() > 0


def test_a_split_may_be_named_or_a_source_given(tmp_path):
    write_images(tmp_path / "train", "ab", 5)
    write_images(tmp_path / "val", "ab", 2)
    assert evaluate(model_of(2), tmp_path).images == 4
    assert evaluate(model_of(2), tmp_path, "train").images == 10
    assert evaluate(model_of(2), open_source(tmp_path, "train")).images == 10


def test_the_size_is_that_of_the_model(tmp_path):
    write_images(tmp_path, "ab")
    with pytest.raises(ValueError, match=r"\(32, 32\) pixels. Received: size=64"):
        evaluate(model_of(2), tmp_path, size=64)
    pooled = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, "softmax")]
    any_size = keras.Sequential([keras.Input((None, None, 3)), *pooled])
    assert evaluate(any_size, tmp_path, size=64).images == 6


def test_outputs_that_are_no_numbers_are_not_right(tmp_path):
    model = model_of(2)
    model.layers[-1].set_weights([np.full((48, 2), np.nan), np.zeros(2)])
    with pytest.raises(ValueError, match="NaN or infinite"):
        evaluate(model, write_images(tmp_path, "ab"))
    with pytest.raises(ValueError, match="activation=sigmoid"):
        evaluate(model_of(2, "sigmoid"), tmp_path)


@pytest.mark.parametrize("last", [keras.layers.Softmax, keras.layers.Flatten])
def test_a_head_may_end_in_another_layer_or_in_a_model(tmp_path, last):
    write_images(tmp_path, "ab")
    head = keras.Sequential([keras.Input((2,)), last()])
    found = evaluate(keras.Sequential([model_of(2, "linear"), head]), tmp_path)
    assert found.loss == pytest.approx(evaluate(model_of(2), tmp_path).loss)


def test_equal_outputs_are_right_for_the_first_class_alone(tmp_path):
    model = model_of(7)
    model.layers[-1].set_weights([np.zeros((48, 7)), np.zeros(7)])
    found = evaluate(model, write_images(tmp_path, NUMBERS))
    assert (found.top1, found.top5) == (pytest.approx(1 / 7), pytest.approx(5 / 7))
    assert found.loss == pytest.approx(np.log(7))


def test_a_broken_image_is_named(tmp_path):
    write_folder(tmp_path, {"a": 9, "b": 9})
    path = tmp_path / "b" / "004.jpg"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=f"An image is broken: {path}"):
        evaluate(model_of(2), tmp_path, batch_size=4)
