import os

import pytest
import tensorflow as tf
from data_on_disk import write_folder

from keras_convnext.data import checks
from keras_convnext.data.checks import check_images, is_of_input, reason_of, refuse_broken
from keras_convnext.data.errors import DataError
from keras_convnext.data.images import evaluation_image
from keras_convnext.data.sources import open_source


def test_good_images_pass(tmp_path):
    check_images(open_source(write_folder(tmp_path, {"a": 2, "b": 3})), least=2)


def test_a_class_with_one_image_is_named(tmp_path):
    source = open_source(write_folder(tmp_path, {"a": 2, "b": 1, "c": 0}))
    with pytest.raises(
        DataError, match=r"'b' has 1 images, but at least 2 are needed, and 1 others"
    ):
        check_images(source, least=2)
    with pytest.raises(DataError, match=r"'c' has 0 images, but at least 1 are needed\."):
        check_images(source)


@pytest.mark.parametrize("limit", [None, 9])
def test_a_broken_image_is_named(tmp_path, limit):
    write_folder(tmp_path, {"a": 5, "b": 4})
    path = tmp_path / "b" / "002.jpg"
    path.write_bytes(path.read_bytes()[:-100])
    source = open_source(tmp_path)
    with pytest.raises(DataError, match=f"An image is broken: {path}"):
        check_images(source, limit=limit)
    check_images(source, limit=2)
    refuse_broken(source, [0, 6, 8])
    path.unlink()
    with pytest.raises(DataError, match=f"disappeared or cannot be read: {path}. No such file"):
        refuse_broken(source, [7])


def error_of(function, *elements):
    """What a dataset raises that maps a function over some elements."""
    with pytest.raises((tf.errors.OpError, UnicodeDecodeError)) as caught:
        list(tf.data.Dataset.from_tensor_slices(list(elements)).map(function))
    return caught.value


def read(path):
    return evaluation_image(tf.io.read_file(path), 32)


def test_errors_of_reading_and_decoding_are_of_the_input(tmp_path):
    unreadable = os.path.join(os.fsencode(tmp_path), b"caf\xe9.jpg")
    assert is_of_input(error_of(lambda data: evaluation_image(data, 32), b"\xff\xd8\xff?"))
    assert is_of_input(error_of(read, str(tmp_path / "none.jpg")))
    missing = error_of(read, unreadable)  # which TensorFlow cannot even say
    assert is_of_input(missing)
    assert reason_of(missing).endswith("caf\\xe9.jpg; No such file or directory")


def test_errors_of_networks_and_devices_are_not_of_the_input():
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        tf.linalg.matmul(tf.ones((2, 3)), tf.ones((2, 3)))
    assert not is_of_input(caught.value)


def test_an_image_is_not_broken_because_memory_is_exhausted(tmp_path, monkeypatch):
    def exhausted(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    source = open_source(write_folder(tmp_path, {"a": 1}))
    monkeypatch.setattr(checks, "decode_window", exhausted)
    with pytest.raises(tf.errors.ResourceExhaustedError):
        refuse_broken(source, [0])
    monkeypatch.setattr(source, "load", exhausted)
    with pytest.raises(tf.errors.ResourceExhaustedError):
        refuse_broken(source, [0])
