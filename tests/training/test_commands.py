import json
import re
import shutil

import pytest
import toy_runs
from PIL import Image
from typer.testing import CliRunner

from keras_convnext import cli

pytestmark = pytest.mark.usefixtures("toy")

SETTINGS = [f"--set={key}={value}" for key, value in toy_runs.SETTINGS.items()]


def command(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def train(data, output, *more):
    options = ("--recipe=cifar10", "--model=toy", f"--data={data}", f"--output={output}")
    return command("train", *options, *SETTINGS, *more)


def test_train_then_evaluate_what_it_kept(pictures, tmp_path):
    trained = train(pictures, tmp_path / "run", "--set", "save_updates=5")
    assert trained.exit_code == 0, trained.stderr
    lines = re.findall(r"epoch +(\d)/2  loss [\d.]+  val_loss [\d.]+  val_accuracy", trained.stderr)
    assert lines == ["1", "2"]
    assert Image.open(tmp_path / "run" / "run.png").size == (1320, 396)
    assert any((tmp_path / "run" / "tensorboard").iterdir())
    result = command(
        "evaluate", pictures, "--weights", tmp_path / "run" / "best.keras", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    rows = (tmp_path / "run" / "log.csv").read_text().splitlines()
    column = rows[0].split(",").index("val_accuracy")
    best = max(float(row.split(",")[column]) for row in rows[1:])
    assert found["images"] == 24
    assert found["top1"] == pytest.approx(best)
    assert "top-1" in command("evaluate", pictures, "--weights", tmp_path / "run/best.keras").stdout


def with_an_empty_folder(data):
    shutil.rmtree(data)
    data.mkdir()


def with_a_class_of_one_image(data):
    for path in sorted((data / "train" / "red").iterdir())[1:]:
        path.unlink()


def with_an_empty_file(data):
    (data / "train" / "red" / "005.jpg").write_bytes(b"")


def with_a_damaged_file(data):
    path = data / "train" / "red" / "007.jpg"
    path.write_bytes(path.read_bytes()[:60])


def with_a_class_to_validate_alone(data):
    (data / "test" / "violet").mkdir()
    Image.new("RGB", (8, 8)).save(data / "test" / "violet" / "1.jpg")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (with_an_empty_folder, r"contains no images"),
        (with_a_class_of_one_image, r"'red' has 1 images, but at least 2 are needed"),
        (with_an_empty_file, r"005\.jpg"),
        (with_a_damaged_file, r"007\.jpg"),
        (with_a_class_to_validate_alone, r"violet"),
    ],
)
def test_data_with_something_wrong_is_refused_before_the_run(pictures, tmp_path, spoil, message):
    data = shutil.copytree(pictures, tmp_path / "data")
    spoil(data)
    result = train(data, tmp_path / "run")
    assert result.exit_code == 2
    assert re.search(message, result.stderr), result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "learning_rates=1"], "did you mean learning_rate"),
        (["--set", "epochs"], "KEY=VALUE"),
        (["--set", "epochs=0"], "positive integer"),
    ],
)
def test_a_wrong_setting_is_told(pictures, tmp_path, arguments, message):
    options = [option for option in SETTINGS if "epochs" not in option]
    result = command(
        "train", "--recipe=cifar10", "--model=toy", f"--data={pictures}",
        f"--output={tmp_path / 'run'}", *options, *arguments,
    )  # fmt: skip
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_data_set_that_does_not_exist_is_told(tmp_path):
    result = train("cifar11", tmp_path / "run")
    assert result.exit_code == 2
    assert "cifar10" in result.stderr


def test_a_loss_that_is_no_number_has_an_exit_code_of_its_own(pictures, tmp_path):
    options = [option for option in SETTINGS if "learning_rate" not in option]
    result = command(
        "train", "--recipe=cifar10", "--model=toy", f"--data={pictures}",
        f"--output={tmp_path / 'run'}", *options, "--set=learning_rate=1e20",
    )  # fmt: skip
    assert result.exit_code == 1
    assert "lower learning_rate" in result.stderr
