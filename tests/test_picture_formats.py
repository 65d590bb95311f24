"""Every kind of file has the same pixels, or the same message, wherever it is read."""

from contextlib import nullcontext

import numpy as np
import pytest
import tensorflow as tf
from pictures_of_every_kind import PHOTO, SIDES, encoded, exif, kinds, not_pictures
from PIL import Image

from keras_convnext.classification.prediction import predict_files
from keras_convnext.data.checks import refuse_broken
from keras_convnext.data.errors import DataError
from keras_convnext.data.images import evaluation_image, training_crop
from keras_convnext.data.sources import open_source
from keras_convnext.demo.answers import Classifier, UploadError, answer
from keras_convnext.export.saved_model import READS_WEBP, decode
from keras_convnext.preprocessing import ImageError, ImageWarning, load_image

KINDS = kinds()
NOT_PICTURES = not_pictures()
SIZE = 48


@pytest.fixture(scope="module")
def in_a_run():
    """What evaluation and training make of each: one graph for all, as tracing takes seconds."""

    def both(data):
        crop = training_crop(data, (1, 2), SIZE, (1.0, 1.0), (0.01, 100.0))
        return evaluation_image(data, SIZE), crop

    files = [data for data, _ in KINDS.values()]
    with pytest.warns(ImageWarning):
        found = list(tf.data.Dataset.from_tensor_slices(files).map(both))
    return dict(zip(KINDS, found))


@pytest.mark.filterwarnings("ignore::keras_convnext.pictures.ImageWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_has_the_pixels_of_python(kind, in_a_run):
    expected = load_image(PHOTO.resize(SIDES), SIZE).astype(int)
    in_python = load_image(KINDS[kind][0], SIZE).astype(int)
    if "orientation" not in kind:  # nor black, nor a negative
        gray = expected.mean(axis=2) - in_python.mean(axis=2)
        assert np.abs(gray).mean() < (45 if "1 bit" in kind else 12)
    image, crop = in_a_run[kind]
    difference = np.abs(image.numpy() - in_python)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01
    assert crop.numpy().mean() == pytest.approx(in_python.mean(), abs=15)


@pytest.mark.filterwarnings("ignore::keras_convnext.pictures.ImageWarning")
def test_a_saved_model_has_the_pixels_of_python_or_says_that_it_has_none():
    images, readable = decode(tf.constant([data for data, _ in KINDS.values()]), SIZE)
    found = {kind: bool(is_readable) for kind, is_readable in zip(KINDS, readable)}
    assert found == {
        kind: is_readable and (READS_WEBP or not kind.startswith("webp"))
        for kind, (_, is_readable) in KINDS.items()
    }
    for kind, image in zip(KINDS, images.numpy()):
        if found[kind]:
            difference = np.abs(image - load_image(KINDS[kind][0], SIZE).astype(int))
            assert difference.max() <= (3 if "cmyk" in kind else 1), kind


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_has_the_pixels_of_python_and_tells_the_notice(kind, tmp_path):
    asked = []
    classifier = Classifier(
        lambda pixels: asked.append(pixels) or np.ones((1, 2)), SIZE, ["a", "b"]
    )
    (tmp_path / "upload").write_bytes(KINDS[kind][0])
    found = answer(classifier, tmp_path / "upload")
    with pytest.warns(ImageWarning) if kind[0] == "!" else nullcontext() as warned:
        pixels = load_image(tmp_path / "upload", SIZE)
    np.testing.assert_array_equal(asked[0][0], pixels)
    assert bool(found.notice) == (kind[0] == "!")
    if warned:
        assert str(warned[0].message) == f"{found.notice} Received: {tmp_path}/upload"


@pytest.mark.parametrize("kind", NOT_PICTURES)
def test_what_is_no_picture_gets_the_same_message_everywhere(kind, tmp_path):
    data, said = NOT_PICTURES[kind]
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "b.jpg"
    path.write_bytes(b"something")
    source = open_source(tmp_path)
    path.write_bytes(data)
    with pytest.raises(ImageError, match=said) as caught:
        load_image(path)
    message = str(caught.value)
    assert message.endswith(f"Received: {path}")
    (prediction,) = predict_files(OneClass(), [path])
    assert prediction.error == message
    with pytest.raises(UploadError) as refused:
        answer(Classifier(None, SIZE, []), path)
    if data:
        assert str(refused.value) == message.replace(str(path), path.name)
    with pytest.raises(DataError) as broken:
        refuse_broken(source, [0])
    assert str(path) in str(broken.value)
    assert message.removesuffix(f" Received: {path}") in str(broken.value)


class OneClass:
    input_shape, output_shape = (None, SIZE, SIZE, 3), (None, 1)


def test_orientation_is_found_behind_the_pixels_of_a_png():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 200, 3)).astype("u1"))
    data = encoded(image, "PNG", exif=exif(8))
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    last = len(data) - 12
    moved = data[:start] + data[end:last] + data[start:end] + data[last:]
    turned = load_image(image.transpose(Image.Transpose.ROTATE_90), SIZE)
    np.testing.assert_array_equal(load_image(moved, SIZE), turned)
    assert np.abs(evaluation_image(tf.constant(moved), SIZE) - turned.astype(int)).max() <= 1
