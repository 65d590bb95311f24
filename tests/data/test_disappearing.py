"""Files that go away, or change, while a run reads them."""

import keras
import pytest
from data_on_disk import encoded_image, example, write_folder, write_tfrecords
from PIL import Image

from keras_convnext.classification import evaluate
from keras_convnext.classification.prediction import (
    PHOTO_HEIGHT,
    Label,
    Prediction,
    draw_predictions,
    predict_files,
)
from keras_convnext.data.errors import DataError
from keras_convnext.data.sources import open_source


def model_of(classes):
    layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(classes, "softmax")]
    return keras.Sequential([keras.Input((32, 32, 3)), *layers])


def lose(path):
    path.unlink()


def cut(path):
    path.write_bytes(path.read_bytes()[:200])


def replace(path):
    path.write_text("something else")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lose, "disappeared or cannot be read: {path}. No such file"),
        (cut, "An image is broken: {path}"),
        (replace, "An image is broken: {path}. Not an image"),
    ],
)
def test_evaluation_names_the_file(tmp_path, change, said):
    write_folder(tmp_path, {"a": 200, "b": 200})
    source = open_source(tmp_path)
    path = tmp_path / "b" / "190.jpg"

    def progress(done, total):
        if done == 2:
            change(path)

    with pytest.raises(DataError, match=said.format(path=path)):
        evaluate(model_of(2), source, batch_size=2, progress=progress)


def test_what_is_back_again_is_no_traceback(tmp_path, monkeypatch):
    write_folder(tmp_path, {"a": 3, "b": 3})
    path = tmp_path / "b" / "001.jpg"
    content = path.read_bytes()
    source = open_source(tmp_path)
    path.unlink()
    monkeypatch.setattr(
        "keras_convnext.classification.scoring.refuse_broken",
        lambda *_: path.write_bytes(content),
    )
    with pytest.raises(DataError, match=rf"{path}; No such file or directory Received: {tmp_path}"):
        evaluate(model_of(2), source, batch_size=2)


def test_shards_that_shrink_are_named(tmp_path):
    path = tmp_path / "a.tfrecord"
    write_tfrecords(path, [example(encoded_image(i), 0) for i in range(300)])
    source = open_source(path, classes=["a"])

    def progress(done, total):
        if done == 2:
            path.write_bytes(path.read_bytes()[:2000])

    with pytest.raises(DataError, match=f"truncated while in use. Received: {path}"):
        evaluate(model_of(1), source, batch_size=2, progress=progress)


def test_prediction_reports_the_file_and_goes_on(tmp_path):
    write_folder(tmp_path, {"a": 4})
    paths = sorted((tmp_path / "a").iterdir())
    predictions = predict_files(model_of(2), paths, batch_size=2)
    next(predictions)
    paths[2].unlink()
    errors = [prediction.error for prediction in predictions]
    assert errors == [None, f"There is no such file. Received: {paths[2]}", None]


def test_a_sheet_is_drawn_without_what_went_away(tmp_path):
    path = tmp_path / "gone.png"
    prediction = Prediction(path, (Label("", "everything", 1.0),))
    draw_predictions([prediction], tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").height > PHOTO_HEIGHT
