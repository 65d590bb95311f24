"""What a run trains on: formats, and files that go away meanwhile."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy_runs
from demo.bad_uploads import png_of
from PIL import Image

from keras_convnext.classification import task
from keras_convnext.data.errors import DataError
from keras_convnext.data.sources import open_source
from keras_convnext.memory_errors import OutOfMemoryError
from keras_convnext.training import journal

pytestmark = pytest.mark.usefixtures("toy")


def test_a_run_trains_on_formats_that_tensorflow_decodes_and_others(tmp_path):
    data = toy_runs.make_pictures(tmp_path / "data", 8, 2, extension="webp")
    for path in (data / "train").glob("*/*[02468].webp"):
        Image.open(path).save(path.with_suffix(".tif"))
        path.unlink()
    model = toy_runs.toy_train(data, tmp_path / "run", epochs=1)
    assert np.isfinite(model.get_weights()[0]).all()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "disappeared or cannot be read: {path}. No such file"),
        pytest.param(
            b"\xff\xd8\xff?", "An image is broken: {path}. Not an image", marks=pytest.mark.slow
        ),
        pytest.param(
            png_of(30_000, 30_000), "An image is broken: {path}. The image has more than .* bomb",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["disappeared", "no image", "too large"],
)  # fmt: skip
def test_a_picture_that_goes_away_during_a_run_is_named(tmp_path, monkeypatch, content, said):
    data = toy_runs.make_pictures(tmp_path / "data", 40, 2)
    source = open_source(data, "train")
    path = Path(source.name_of(source.order(0, 1)[-3]))  # toward the end of the second epoch
    original = journal.Journal.on_train_batch_end

    def end(self, batch, logs=None):
        original(self, batch, logs)
        if self.progress.updates == 2:
            path.unlink()
            if content:
                path.write_bytes(content)

    monkeypatch.setattr(journal.Journal, "on_train_batch_end", end)
    # The first epoch may come to it too, after the change.
    with pytest.raises(DataError, match=said.format(path=path)):
        toy_runs.toy_train(data, tmp_path / "run", epochs=3, seed=0)


def too_much():
    return tf.reduce_sum(tf.random.normal((2**22, 2**22)))


def refused():
    """An operation that fails as one does for which there is no memory, at once."""

    def fail():
        raise MemoryError("OOM when allocating tensor")

    return tf.ensure_shape(tf.py_function(fail, [], tf.float32), ())


@pytest.mark.parametrize(
    "allocated",
    [pytest.param(too_much, marks=pytest.mark.slow), refused],  # TensorFlow waits ten seconds
)
def test_out_of_memory_says_what_to_set_and_searches_for_no_broken_picture(
    allocated, tmp_path, monkeypatch
):
    def needing_too_much(self, targets, outputs):
        return allocated() + tf.reduce_sum(outputs, axis=-1)

    data = toy_runs.make_pictures(tmp_path / "data", 40, 2)
    monkeypatch.setattr(keras.losses.CategoricalCrossentropy, "call", needing_too_much)
    monkeypatch.setattr(task, "refuse_broken", lambda *_: pytest.fail("searched"))
    with pytest.raises(OutOfMemoryError, match=r"of toy .* --set device_batch=8 \([\d.]+ GiB\)"):
        toy_runs.toy_train(data, tmp_path / "run")
