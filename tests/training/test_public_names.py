import keras
import pytest

import keras_convnext
from keras_convnext import training


def test_what_takes_tensorflow_is_imported_when_it_is_asked_for():
    assert keras_convnext.training is training
    found = {name: getattr(training, name) for name in training.__all__}
    assert found["train"].__module__ == "keras_convnext.training.run"
    with pytest.raises(AttributeError, match="no attribute 'tarin'"):
        training.tarin  # noqa: B018


@pytest.mark.parametrize("name", ["train", "Interrupted", "NonFiniteLossError"])
def test_another_backend_is_asked_for_tensorflow(name, monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(ImportError, match=r"set KERAS_BACKEND=tensorflow.*Received: .*jax"):
        training.__getattr__(name)  # what was asked for before is found without it
