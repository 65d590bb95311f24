from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import keras_convnext
from keras_convnext.classification.prediction import (
    CARD_WIDTH,
    Label,
    Prediction,
    draw_predictions,
    predict_files,
)
from keras_convnext.picture_files import find_images
from keras_convnext.preprocessing import class_labels, load_image

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


@pytest.fixture
def folder(tmp_path):
    """Nested folders of five small images, one of them damaged, and a text file."""
    for index, name in enumerate(["b.png", "a.jpg", "deep/c.JPEG", "deep/er/d.webp"]):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60 + index, 50), (40 * index, 80, 120)).save(path)
    (tmp_path / "photos" / "damaged.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


def toy(**options):
    return keras_convnext.ConvNeXt((1, 1), (4, 8), **{"input_shape": (64, 64, 3), **options})


def test_folders_are_searched_in_order_and_files_taken_as_they_are(folder):
    found = find_images([folder / "notes.txt", str(folder)])
    names = [str(path.relative_to(folder)) for path in found]
    expected = ["notes.txt", "a.jpg", "b.png", "damaged.jpg", "deep/c.JPEG", "deep/er/d.webp"]
    assert names == expected


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg"):
        find_images([tmp_path / "nowhere.jpg"])
    with pytest.raises(FileNotFoundError, match="no images"):
        find_images([tmp_path])


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_predictions_are_those_of_the_model_and_damage_is_reported(folder, batch_size):
    model = toy(classes=1000)
    paths = find_images([folder])
    predictions = list(predict_files(model, paths, top=3, batch_size=batch_size))
    assert [prediction.path for prediction in predictions] == paths
    for path, labels, error, *_ in predictions:
        if path.name == "damaged.jpg":
            assert labels == ()
            assert "damaged.jpg" in error
            continue
        assert error is None
        scores = model.predict(load_image(path, 64)[None], verbose=0)[0]
        best = np.argsort(-scores)[:3]
        names = class_labels(1000)
        assert [label[:2] for label in labels] == [names[index] for index in best]
        np.testing.assert_allclose([label.probability for label in labels], scores[best], rtol=1e-4)


@pytest.mark.parametrize(("beside_the_best", "flagged"), [(1e-4, True), (-1e-4, False)])
def test_a_picture_is_of_none_of_the_classes_if_even_the_best_is_improbable(
    folder, beside_the_best, flagged
):
    model = toy(classes=3)
    path = folder / "a.jpg"
    best = model.predict(load_image(path, 64)[None], verbose=0).max()
    paths = [path, folder / "damaged.jpg"]
    for top in (1, 3):
        found = predict_files(model, paths, top, least_probability=best + beside_the_best)
        assert [each.none_of_these for each in found] == [flagged, False]
    assert not next(predict_files(model, paths)).none_of_these


def test_a_batch_of_damaged_files_is_no_trouble(folder):
    damaged = folder / "damaged.jpg"
    predictions = list(predict_files(toy(), [damaged, damaged], batch_size=2))
    assert [bool(prediction.error) for prediction in predictions] == [True, True]


def test_classes_without_names_are_numbered(folder):
    (prediction,) = predict_files(toy(classes=3), [folder / "a.jpg"])
    assert sorted(label.name for label in prediction.labels) == ["class 0", "class 1", "class 2"]


def test_a_model_for_any_size_is_given_224(folder):
    model = toy(input_shape=(None, None, 3))
    (prediction,) = predict_files(model, [PHOTOS / "cat.jpg"], top=1)
    scores = model.predict(load_image(PHOTOS / "cat.jpg", 224)[None], verbose=0)[0]
    assert prediction.labels[0].probability == pytest.approx(scores.max(), rel=1e-4)


def test_a_model_of_one_channel_sees_photographs_in_gray(folder):
    image = keras.Input((8, 8, 1))
    mean = keras.layers.GlobalAveragePooling2D()(image)
    model = keras.Model(image, keras.layers.Rescaling(1 / 255)(mean))
    found = [each for each in predict_files(model, find_images([folder])) if not each.error]
    for prediction in found:
        pixels = load_image(prediction.path, 8)
        luma = pixels @ np.array([0.299, 0.587, 0.114])
        assert prediction.labels[0].probability == pytest.approx(luma.mean() / 255, abs=0.004)
    assert found


@pytest.mark.parametrize("shape", [(8, 8, 4), (8, 16, 3)], ids=str)
def test_a_model_of_other_images_is_refused(folder, shape):
    image = keras.Input(shape)
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(image))
    with pytest.raises(ValueError, match="cropped to squares"):
        next(predict_files(model, find_images([folder])))


def test_the_picture_shows_photographs_bars_and_reasons(tmp_path):
    red = tmp_path / "red.png"
    Image.new("RGB", (400, 300), "#ff0000").save(red)
    labels = (Label("n01", "everything", 1.0), Label("n02", "a name that is far " * 9, 0.0))
    predictions = [Prediction(red, labels), Prediction(tmp_path / "gone.png", (), "damaged")]
    draw_predictions(predictions, tmp_path / "sheet.png", caption="a caption")
    draw_predictions(predictions, tmp_path / "bare.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    assert sheet.shape[0] > np.asarray(Image.open(tmp_path / "bare.png")).shape[0]

    def columns(color):
        return np.flatnonzero((sheet == color).all(-1).any(0))

    assert len(columns((255, 0, 0))) == CARD_WIDTH
    assert len(columns((0xBC, 0xD7, 0xF5))) == pytest.approx(CARD_WIDTH, abs=1)
    assert columns((0xA3, 0x3B, 0x2A)).min() > columns((255, 0, 0)).max()


def test_the_picture_tells_what_is_none_of_the_classes(tmp_path):
    red = tmp_path / "red.png"
    Image.new("RGB", (400, 300), "#ff0000").save(red)
    likely = Prediction(red, (Label("", "ship", 0.9),))
    unlikely = Prediction(red, (Label("", "ship", 0.6),), none_of_these=True)

    def colors(*predictions):
        draw_predictions(predictions, tmp_path / "sheet.png")
        sheet = Image.open(tmp_path / "sheet.png").convert("RGB")
        return sheet.height, {color for _, color in sheet.getcolors(1 << 20)}

    bar, unlikely_bar, warning = (0xBC, 0xD7, 0xF5), (0xE4, 0xE7, 0xEB), (0xA3, 0x3B, 0x2A)
    height, seen = colors(likely)
    assert bar in seen
    assert not {unlikely_bar, warning} & seen
    higher, seen = colors(unlikely)
    assert {unlikely_bar, warning} < seen
    assert bar not in seen
    assert higher > height
    assert {bar, unlikely_bar, warning} < colors(likely, unlikely)[1]


def test_no_photographs_make_an_empty_picture(tmp_path):
    draw_predictions([], tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").size[0] > CARD_WIDTH
