import keras
import pytest

import keras_convnext
from keras_convnext import classification, training


def test_what_takes_tensorflow_is_imported_when_it_is_asked_for():
    assert keras_convnext.training is training
    for package, name, module in (
        (training, "fit", "training.engine"),
        (classification, "train", "classification.task"),
    ):
        found = {each: getattr(package, each) for each in package.__all__}
        assert found[name].__module__ == f"keras_convnext.{module}"
    with pytest.raises(AttributeError, match="no attribute 'fti'"):
        training.fti  # noqa: B018


@pytest.mark.parametrize(
    ("package", "name"),
    [
        (training, "fit"), (training, "Interrupted"), (training, "NonFiniteLossError"),
        (training, "LostMachineError"),
        (classification, "train"), (classification, "ClassificationTask"),
    ],
)  # fmt: skip
def test_another_backend_is_asked_for_tensorflow(package, name, monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(ImportError, match=r"set KERAS_BACKEND=tensorflow.*Received: .*jax"):
        package.__getattr__(name)  # what was asked for before is found without it
