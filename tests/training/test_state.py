"""Files of a run that are damaged, or that somebody else wrote."""

import keras
import numpy as np
import pytest
import toy_runs
from safetensors.numpy import load_file, save_file

from keras_convnext.training.state import Progress, restore_state, save_state, state_of


@pytest.fixture(scope="module")
def model():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture
def saved(model, tmp_path):
    row = {"epoch": 1, "loss": 0.5}
    return save_state(tmp_path, state_of(model), Progress(7, [row], {"": 0.25}))


def test_a_state_comes_back(model, saved):
    assert restore_state(saved, model) == Progress(7, [{"epoch": 1, "loss": 0.5}], {"": 0.25})


WRONG = {
    "none": None,
    "empty": "",
    "a list": "[]",
    "deep": "[" * 100_000,
    "a field missing": '{"updates": 7, "rows": []}',
    "a field too many": '{"updates": 7, "rows": [], "best": {}, "more": 1}',
    **{
        f"updates {value}": f'{{"updates": {value}, "rows": [], "best": {{}}}}'
        for value in ('"3"', "-7", "1e99", "8", "true", "null", "7.0")
    },
    "rows of text": '{"updates": 7, "rows": [{"loss": "low"}], "best": {}}',
    "rows a dict": '{"updates": 7, "rows": {}, "best": {}}',
    "rows of other names": '{"updates": 7, "rows": [{"epoch": 1, "=1+1": 2}], "best": {}}',
    "rows without an epoch": '{"updates": 7, "rows": [{"loss": 1}], "best": {}}',
    "unequal rows": '{"updates": 7, "rows": [{"epoch": 1, "x": 1}, {"epoch": 2}], "best": {}}',
    "best of text": '{"updates": 7, "rows": [], "best": {"": "good"}}',
}


@pytest.mark.parametrize("progress", WRONG.values(), ids=WRONG)
def test_a_state_with_a_wrong_progress_changes_nothing(model, saved, progress):
    values = {name: np.full_like(value, 9) for name, value in load_file(saved).items()}
    save_file(values, saved, {} if progress is None else {"progress": progress})
    before = state_of(model)
    with pytest.raises(ValueError, match=f"{saved.name}"):
        restore_state(saved, model)
    after = state_of(model)
    assert all(np.array_equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "3", '{"recipe": 5}', '{"model": 1}', "[" * 100_000]
)
def test_a_damaged_description_of_a_run_is_named(tmp_path, monkeypatch, text):
    toy_runs.register(monkeypatch)
    data = toy_runs.make_pictures(tmp_path / "data", train_images=8)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text(text)
    with pytest.raises(ValueError, match=r"is damaged.*run\.json"):
        toy_runs.toy_train(data, folder)
