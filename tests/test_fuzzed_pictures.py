"""Whatever is done to a picture file, each entry point reads it or refuses it with its own error.

A small part of what `pytest -m slow -n 0 tests/test_fuzzed_pictures.py -rP` runs, which takes some
minutes; KERAS_CONVNEXT_FUZZ_PICTURES is the number of files for each entry point.
"""

import functools
import os
import re
import time
import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from damaged_pictures import damaged, pictures
from PIL import Image

from keras_convnext.classification.prediction import predict_files
from keras_convnext.data.checks import refuse_broken
from keras_convnext.data.errors import DataError
from keras_convnext.data.images import evaluation_image, training_crop
from keras_convnext.data.tables import TableSource
from keras_convnext.demo import answers, decoder
from keras_convnext.export import saved_model
from keras_convnext.pictures import ImageError, ImageWarning
from keras_convnext.preprocessing import load_image

MANY = int(os.environ.get("KERAS_CONVNEXT_FUZZ_PICTURES", 20_000))
BATCH = 20  # files that are read together
MOST_SECONDS = 4.0  # of processor time for a batch
MOST_MEMORY = 200  # MB for a batch
MOST_PIXELS = 400_000  # so that the largest picture takes a moment
SIZE = 32
CLASSES = [("", "a"), ("", "b")]


@pytest.fixture(autouse=True)
def limits(monkeypatch):
    """Lowers the limits of pixels."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", MOST_PIXELS // 2)
    monkeypatch.setattr(decoder, "MOST_PIXELS", MOST_PIXELS)
    monkeypatch.setattr(saved_model, "MOST_PIXELS", MOST_PIXELS)
    monkeypatch.setattr(saved_model, "MOST_PIXELS_OF_REQUEST", BATCH * MOST_PIXELS)


def check_pixels(pixels):
    assert pixels.shape == (SIZE, SIZE, 3)
    assert pixels.dtype == np.uint8


def check_message(message, name):
    assert message.isprintable()
    assert len(message) < 600 + len(name)
    assert message.count(name) == 1, message


def load_all():
    """Returns the function for `load_image`."""

    def read(paths):
        for path in paths:
            try:
                check_pixels(load_image(path, SIZE))
                yield True
            except ImageError as error:
                check_message(str(error), str(path))
                yield False

    return read


def classify(pixels):
    for each in pixels:
        check_pixels(each)
    return np.full((len(pixels), 2), 0.5, np.float32)


def predict_all():
    """Returns the function for `predict_files`, with a network that does nothing."""
    network = SimpleNamespace(input_shape=(None, SIZE, SIZE, 3), predict_on_batch=classify)

    def read(paths):
        for found in predict_files(network, paths, names=CLASSES):
            if found.error:
                check_message(found.error, str(found.path))
            yield not found.error

    return read


def upload_all():
    """Returns the function for the web page."""
    classifier = answers.Classifier(classify, SIZE, ["a", "b"])

    def read(paths):
        for path in paths:
            try:
                assert answers.answer(classifier, path).labels
                yield True
            except decoder.UploadError as error:
                check_message(str(error), path.name)
                yield False

    return read


def train_all():
    """Returns the function for the input of training and evaluation."""

    @tf.autograph.experimental.do_not_convert
    def prepare(encoded, label, position):
        return training_crop(encoded, tf.stack([label, position]), SIZE), evaluation_image(
            encoded, SIZE
        )

    @functools.cache
    def opened(*paths):
        source = TableSource("data", "train", ["a"], list(map(str, paths)), np.zeros(len(paths)))
        return source, source.records(shuffled=False).map(prepare)

    def read(paths):
        source, dataset = opened(*paths)
        images = iter(dataset)
        for index, path in enumerate(paths):
            try:
                for pixels in next(images):
                    check_pixels(pixels.numpy())
                yield True
            except tf.errors.InvalidArgumentError:
                with pytest.raises(DataError) as caught:
                    refuse_broken(source, [index])
                check_message(str(caught.value), str(path))
                yield False

    return read


def serve_all():
    """Returns the function for a SavedModel."""
    decode = tf.function(
        lambda images: saved_model.decode(images, SIZE),
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )

    def read(paths):
        squares, readable = decode(tf.constant([path.read_bytes() for path in paths]))
        for pixels, is_readable in zip(squares.numpy(), readable.numpy()):
            check_pixels(pixels)
            assert is_readable or not pixels.any()
            yield bool(is_readable)

    return read


WAYS = {
    "load_image": load_all,
    "predict": predict_all,
    "demo": upload_all,
    "training": train_all,
    "SavedModel": serve_all,
}


def peak_memory():
    """Returns the peak of the process's memory since the last call, in MB, where it is known."""
    try:
        status = Path("/proc/self/status").read_text()
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def fuzz(way, seeds, folder):
    """Reads the damaged pictures of some seeds, and returns what came of them."""
    read = WAYS[way]()
    outcomes, slowest, largest = Counter(), 0.0, 0.0
    paths = [folder / f"{number}.jpg" for number in range(BATCH)]
    originals = list(pictures().values())
    for path, data in zip(paths, originals):
        path.write_bytes(data)
    list(read(paths))  # imports and traces what is needed
    for first in range(seeds.start, seeds.stop, BATCH):
        for number, path in enumerate(paths):
            path.write_bytes(damaged(first + number)[1])
        peak_memory()
        before, start = peak_memory(), time.process_time()
        found = list(read(paths))
        slowest = max(slowest, time.process_time() - start)
        largest = max(largest, peak_memory() - before)
        assert len(found) == BATCH, (way, first)
        assert slowest < MOST_SECONDS, (way, first)
        assert largest < MOST_MEMORY, (way, first)
        outcomes.update(found)
    return outcomes, slowest, largest


def check_fuzzed(way, seeds, folder, capfd):
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        outcomes, slowest, largest = fuzz(way, seeds, folder)
    assert {each.category for each in warned} <= {ImageWarning}
    printed = capfd.readouterr()
    assert not printed.out
    # The decoders written in C print their own messages, which the command line hides.
    assert not re.search(r"Traceback|\w(Error|Warning):|\x1b", printed.err)
    assert outcomes.keys() == {True, False}
    return (
        f"{way}: {outcomes[True]:,} read, {outcomes[False]:,} refused, at most {slowest:.1f} s and "
        f"{largest:.0f} MB for {BATCH} files"
    )


@pytest.mark.parametrize("way", WAYS)
def test_damaged_pictures_are_read_or_refused(way, tmp_path, capfd):
    check_fuzzed(way, range(200), tmp_path, capfd)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_many_damaged_pictures_are_read_or_refused(way, tmp_path, capfd):
    start = 1000 * (1 + list(WAYS).index(way) * MANY)  # every way has its own files
    print(check_fuzzed(way, range(start, start + MANY), tmp_path, capfd))


def test_undamaged_pictures_are_read(tmp_path):
    for name, data in pictures().items():
        (tmp_path / "x").write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImageWarning)
            assert load_image(tmp_path / "x", SIZE).any(), name
