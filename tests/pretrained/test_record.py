"""What a `.keras` file records of its task."""

import json
import shutil
import zipfile
from pathlib import Path

import keras
import pytest
from typer.testing import CliRunner

import keras_convnext
from keras_convnext import cli
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.record import Record, add_record, read_record, recorded_names
from keras_convnext.tasks import task_of_file

RECORD = Record("classification", ("ape", "bee", "cat"), {"size": 32, "crop": 0.875})


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "plain.keras"
    keras_convnext.ConvNeXt((1, 1), (8, 16), classes=3, input_shape=(32, 32, 3)).save(path)
    return path


@pytest.fixture
def recorded(plain, tmp_path):
    path = shutil.copy(plain, tmp_path / "recorded.keras")
    add_record(path, RECORD)
    return path


def test_a_record_is_read_and_keras_ignores_it(plain, recorded):
    assert read_record(recorded) == RECORD
    assert recorded_names(recorded) == RECORD.classes
    assert read_record(plain) == read_record(plain.with_name("x.pth")) == Record()
    assert keras.models.load_model(recorded).output_shape == (None, 3)
    assert keras_convnext.load_model(recorded).output_shape == (None, 3)
    assert task_of_file(recorded) is task_of_file(plain) is keras_convnext.classification


def test_identify_shows_it(recorded):
    found = keras_convnext.identify(recorded)
    assert (found.task, found.class_names, found.preprocessing) == tuple(RECORD)
    printed = CliRunner().invoke(cli.app, ["identify", str(recorded)]).stdout
    for line in ("classification", "ape, bee, cat", "size 32, crop 0.875"):
        assert line in printed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "not a JSON object"),
        (b"{}", "damaged"),
        (json.dumps({"task": 1, "classes": [], "preprocessing": {}}).encode(), "damaged"),
        (json.dumps({"task": "a", "classes": [1], "preprocessing": {}}).encode(), "damaged"),
        (json.dumps({"task": "a", "classes": "ab", "preprocessing": {}}).encode(), "damaged"),
        (json.dumps({"task": "a", "classes": [], "preprocessing": 3}).encode(), "damaged"),
        (b" " * (2**23 + 1), "larger than 8 MiB|far more bytes"),
    ],
)
def test_a_damaged_record_is_refused(plain, tmp_path, content, message):
    path = shutil.copy(plain, tmp_path / "damaged.keras")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("keras_convnext.json", content)
    with pytest.raises(CheckpointError, match=message):
        read_record(path)


def test_a_file_of_another_task_is_refused(plain, tmp_path):
    path = shutil.copy(plain, tmp_path / "future.keras")
    add_record(path, RECORD._replace(task="telepathy\x1b[31m"))
    picture = Path(__file__).parents[2] / "examples" / "photos" / "cat.jpg"
    result = CliRunner().invoke(cli.app, ["predict", str(picture), "--weights", str(path)])
    assert result.exit_code == 2
    assert "Upgrade keras_convnext" in result.stderr
    with pytest.raises(CheckpointError, match=r"telepathy\\x1b.*Upgrade.*classification"):
        task_of_file(path)
