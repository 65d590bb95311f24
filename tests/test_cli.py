import json
import re
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
import torch_reference
from PIL import Image
from typer.testing import CliRunner

import keras_convnext
from keras_convnext import cli

ROOT = Path(__file__).parent.parent
PHOTOS = ROOT / "examples" / "photos"
SHIPPED_WEIGHTS = ROOT / "weights" / "cifar10" / "convnext_cifar_32.safetensors"


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    reference = torch_reference.randomize(torch_reference.network("convnext_atto", classes=1000))
    return torch_reference.save(reference, tmp_path_factory.mktemp("weights") / "atto.pth")


def test_list_names_every_variant_with_its_size():
    printed = run("list").stdout
    for line in ("convnext_tiny", "28,589,128", "4.46", "convnext_isotropic_large", "305,942,504"):
        assert line in printed


def test_info_shows_each_stage():
    printed = run("info", "convnext_base", "--size", "384").stdout
    for cell in ("stage 3", "12 x 12 x 1024", "88,591,464", "45.1"):
        assert cell in printed
    assert "convnext_cifar, 32 px" in run("info", "convnext_cifar").stdout


def test_predict_recognizes_the_network_of_a_checkpoint(checkpoint, tmp_path):
    picture = tmp_path / "out.png"
    result = run(
        "predict", PHOTOS, "--weights", checkpoint, "--json", "--top", 2, "--picture", picture
    )
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert [Path(entry["file"]).name for entry in found] == [
        "cat.jpg",
        "dog.jpg",
        "espresso.jpg",
        "horse.jpg",
        "kingfisher.jpg",
        "rocket.jpg",
    ]
    model = keras_convnext.ConvNeXtAtto(weights=checkpoint)
    images = keras_convnext.preprocessing.load_images([entry["file"] for entry in found])
    decode = keras_convnext.preprocessing.decode_predictions
    for entry, labels in zip(found, decode(model.predict(images, verbose=0), top=2)):
        assert entry["error"] is None
        assert entry["none_of_these"] is False  # nothing was measured for this checkpoint
        assert [(label["wnid"], label["name"]) for label in entry["predictions"]] == [
            label[:2] for label in labels
        ]
    assert Image.open(picture).size[0] > 900
    assert "mean nothing" not in result.stderr
    assert "A demo" not in result.stderr


def test_predict_without_a_choice_takes_what_comes_with_the_package():
    result = run("predict", PHOTOS / "cat.jpg", "--json")
    assert result.exit_code == 0
    assert "mean nothing" not in result.stderr
    labels = json.loads(result.stdout)[0]["predictions"]
    classes = (Path(keras_convnext.__file__).parents[1] / "weights/cifar10/classes.txt").read_text()
    assert {label["name"] for label in labels} < set(classes.split())
    assert run("predict", PHOTOS / "cat.jpg", "--json", "--model", "convnext_cifar").stdout == (
        result.stdout
    )


def test_the_photographs_of_the_readme_are_recognized_or_none_of_the_classes(tmp_path):
    picture = tmp_path / "predictions.png"
    result = run("predict", PHOTOS, "--top", 1, "--picture", picture)
    answers = {}
    for block in result.stdout.strip().split("\n\n"):
        path, *lines = block.splitlines()
        answers[Path(path).stem] = [re.sub(r"^ *[0-9.]+%  ", "", line) for line in lines]
    assert answers == {
        "cat": ["cat"],
        "dog": ["dog"],
        "espresso": ["none of its classes; closest:", "automobile"],
        "horse": ["horse"],
        "kingfisher": ["bird"],
        "rocket": ["none of its classes; closest:", "ship"],
    }
    about = "A demo: 10 classes at 32 px. For 1,000: --model convnext_tiny --weights imagenet"
    assert about in result.stderr.splitlines()
    assert len(about) == 80
    assert b"\xa3\x3b\x2a" in Image.open(picture).convert("RGB").tobytes()
    found = json.loads(run("predict", PHOTOS, "--json").stdout)
    assert [Path(each["file"]).stem for each in found if each["none_of_these"]] == [
        "espresso",
        "rocket",
    ]


def test_a_copy_of_the_shipped_weights_is_known_at_its_own_size_alone(tmp_path):
    copy = shutil.copy(SHIPPED_WEIGHTS, tmp_path / "mine.safetensors")
    photo, said = PHOTOS / "rocket.jpg", "none of its classes"
    assert said in run("predict", photo, "--weights", copy).stdout
    assert said not in run("predict", photo, "--weights", copy, "--size", 64).stdout
    keras_convnext.convert(copy, tmp_path / "other.safetensors")
    assert said not in run("predict", photo, "--weights", tmp_path / "other.safetensors").stdout


def test_predict_with_random_weights_says_so():
    result = run("predict", PHOTOS / "cat.jpg", "--model", "convnext_atto")
    assert result.exit_code == 0
    assert "convnext_atto_random.pth" in result.stderr
    assert "labels mean nothing" in result.stderr
    assert result.stdout.count("%") == 5


def test_predict_loads_what_keras_saved(checkpoint, tmp_path):
    model = keras_convnext.ConvNeXtAtto(weights=checkpoint)
    model.save(tmp_path / "atto.keras")
    model.save_weights(tmp_path / "atto.weights.h5")
    expected = run("predict", PHOTOS, "--weights", checkpoint).stdout
    assert run("predict", PHOTOS, "--weights", tmp_path / "atto.keras").stdout == expected
    assert run("predict", PHOTOS, "--weights", tmp_path / "atto.weights.h5").stdout == expected


def test_a_corrupt_image_in_a_folder_is_skipped_and_the_exit_code_says_so(checkpoint, tmp_path):
    (tmp_path / "a.jpg").write_bytes((PHOTOS / "cat.jpg").read_bytes())
    (tmp_path / "b.jpg").write_bytes((PHOTOS / "cat.jpg").read_bytes()[:3000])
    result = run("predict", tmp_path, "--weights", checkpoint, "--json")
    assert result.exit_code == 1
    good, bad = json.loads(result.stdout)
    assert len(good["predictions"]) == 5
    assert bad["predictions"] == []
    assert "b.jpg" in bad["error"]
    assert "b.jpg" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["info", "convnext_huge"], "convnext_xlarge"),
        (["predict", "x.jpg", "--model", "resnet50"], "convnext_tiny"),
        (["predict", "x.jpg", "--top", "0"], "--top"),
        (["predict"], "Missing argument"),
        (["predict", "x.jpg", "--picture", "x.xyz"], "must end in .png"),
        (["evaluate", "x", "--weights", "x", "--confusion", "x"], "must end in .png"),
    ],
    ids=["info", "model", "top", "none", "picture", "confusion"],
)
def test_wrong_usage_is_explained(arguments, said):
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_help_names_the_commands():
    printed = run("--help").stdout
    for command in ("list", "info", "predict"):
        assert command in printed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([str(PHOTOS), "--weights", "page.pth"], "page.pth"), (["nowhere.jpg"], "nowhere.jpg")],
    ids=["weights", "photograph"],
)
def test_errors_are_a_line_not_a_traceback(arguments, said, tmp_path, monkeypatch, capsys):
    (tmp_path / "page.pth").write_text("<html>404</html>")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["keras-convnext", "predict", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    last = printed.err.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert said in last


def test_convert_writes_another_layout_and_shows_what_went_where(checkpoint, tmp_path):
    target = tmp_path / "timm.safetensors"
    result = run("convert", checkpoint, target, "--layout", "timm_conv_mlp", "--names")
    assert result.exit_code == 0
    assert "3,695,520 parameters" in result.stderr
    for cell in ("stages_0_blocks_0/pwconv1", "160 x 40 x 1 x 1", "stages.3.blocks.1.mlp.fc2"):
        assert cell in result.stdout.replace("\n", "")
    found = keras_convnext.identify(target)
    assert (found.variant.name, found.classes) == ("convnext_atto", 1000)


def test_convert_writes_what_keras_applications_loads_and_shows_its_names(checkpoint, tmp_path):
    target = tmp_path / "x.weights.h5"
    result = run("convert", checkpoint, target, "--layout", "keras_applications", "--names")
    assert result.exit_code == 0
    assert "convnext_atto_stage_0_block_0_pointwise_conv_1.0" in result.stdout.replace("\n", "")
    found = keras_convnext.identify(target)
    assert (found.variant.name, found.classes) == ("convnext_atto", 1000)


def test_identify_prints_all_that_is_found(checkpoint, tmp_path):
    printed = run("identify", checkpoint).stdout.splitlines()
    assert printed[0] == str(checkpoint)
    told = dict(line.split(maxsplit=1) for line in printed if len(line.split()) == 2)
    assert (told["model"], told["classes"]) == ("convnext_atto", "1,000")
    found = keras_convnext.identify(checkpoint)._asdict()
    (told,) = json.loads(run("identify", checkpoint, "--json").stdout)
    assert told["depths"] == [2, 2, 6, 2]
    assert {name for name in found if name != "variant"} < set(told)
    (tmp_path / "damaged.pth").write_bytes(b"none")
    result = run("identify", checkpoint, tmp_path / "damaged.pth")
    assert result.exit_code == 1
    assert "damaged.pth" in result.stderr
    assert "convnext_atto" in result.stdout


def test_predict_takes_patterns_and_several_files(tmp_path):
    for name in ("a.jpg", "b.jpg", "c.png"):
        (tmp_path / name).write_bytes((PHOTOS / "cat.jpg").read_bytes())
    result = run("predict", tmp_path / "*.jpg", tmp_path / "c.png", "--json", "--top", 1)
    names = [Path(entry["file"]).name for entry in json.loads(result.stdout)]
    assert names == ["a.jpg", "b.jpg", "c.png"]
    result = run("predict", tmp_path / "*.gif")
    assert result.exit_code == 2
    assert "*.gif" in result.stderr


def test_predict_says_what_does_not_fit_photographs(tmp_path):
    network = keras_convnext.ConvNeXt
    options = {"input_shape": (32, 32, 3)}
    trunk = network((1, 1), (8, 16), include_top=False, pooling="avg", **options)
    dense = keras.layers.Dense
    cases = {
        "nested": (keras.Sequential([keras.Input((32, 32, 3)), trunk, dense(2)]), 0, "class 1"),
        "gray": (network((1, 1), (8, 16), input_shape=(32, 32, 1), classes=2), 0, "class 1"),
        "four": (
            network((1, 1), (8, 16), input_shape=(32, 32, 4), classes=2),
            2,
            "1 or 3 channels",
        ),
        "features": (trunk, 2, "no classifier"),
        "maps": (network((1, 1), (8, 16), include_top=False, **options), 2, "no classifier"),
        "text": (keras.Sequential([keras.Input((8,)), dense(2)]), 2, "one image"),
    }
    for name, (model, code, told) in cases.items():
        model.save(tmp_path / f"{name}.keras")
        result = run("predict", PHOTOS / "cat.jpg", "--weights", tmp_path / f"{name}.keras")
        assert (result.exit_code, told in result.output) == (code, True), (name, result.output)
        assert len(result.stderr.splitlines()) == (code > 0)


def test_a_file_that_keras_cannot_load_is_a_line(tmp_path):
    (tmp_path / "x.keras").write_bytes(b"PK\x03\x04 none")
    result = run("predict", PHOTOS / "cat.jpg", "--weights", tmp_path / "x.keras")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "x.keras" in line


def test_one_recipe_is_shown_in_full():
    printed = run("recipes", "imagenet1k").stdout
    for part in ("0.5 (convnext_base)", "rand-m9-mstd0.5-inc1", "128, 64 (convnext_large)"):
        assert part in printed
    shown = json.loads(run("recipes", "imagenet1k", "--model", "convnext_base", "--json").stdout)
    assert shown["network.drop_path_rate"] == 0.5
    assert "did you mean" in run("recipes", "imagenet2k", "--model", "convnext_base").stderr


def test_which_weights_of_a_file_are_meant_is_told_to_every_command(tmp_path):
    model = keras_convnext.ConvNeXt((1, 1), (8, 16), classes=3, input_shape=(32, 32, 3))
    keras_convnext.save_checkpoint(model, tmp_path / "one.pth")
    weights = torch.load(tmp_path / "one.pth", weights_only=True)["model"]
    other = {name: torch.zeros_like(value) for name, value in weights.items()}
    both = {f"{part}.{name}": value for part, state in {"one": weights, "two": other}.items()
            for name, value in state.items()}  # fmt: skip
    torch.save({"first": other, "second": both | {"queue": torch.zeros(3)}}, tmp_path / "file.pth")
    chosen = ("--entry", "second", "--prefix", "one.", "--ignore", "queue")
    file = tmp_path / "file.pth"
    refused = run("identify", file, "--entry", "second")
    assert refused.exit_code == 2
    assert "prefix" in refused.stderr
    (found,) = json.loads(run("identify", file, *chosen, "--json").stdout)
    assert (found["classes"], found["prefix"], found["entry"]) == (3, "one.", "second")
    for command in (
        ("predict", PHOTOS / "cat.jpg", "--weights", file, "--size", 32),
        ("convert", file, tmp_path / "copy.safetensors"),
        ("verify", file),
        ("export", tmp_path / "out", "--weights", file, "--size", 32),
    ):
        result = run(*command, *chosen)
        assert result.exit_code == 0, (command[0], result.output)
    copy = keras_convnext.load_model(tmp_path / "copy.safetensors", input_shape=(32, 32, 3))
    np.testing.assert_array_equal(copy.get_weights()[-2], model.get_weights()[-2])
