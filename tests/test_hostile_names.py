"""Names of files, classes, layers, runs and columns are text in every output."""

import ast
import io
import re
import shutil
import unicodedata
import warnings
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import pytest
from data_on_disk import write_folder
from matplotlib.figure import Figure
from matplotlib.text import Text
from test_cli import run
from training import toy_runs

import keras_convnext
from keras_convnext import export, saliency
from keras_convnext.classification import draw_confusion, evaluate
from keras_convnext.classification.planning import plan
from keras_convnext.classification.prediction import (
    Label,
    Prediction,
    draw_predictions,
)
from keras_convnext.classification.recipes import RECIPES
from keras_convnext.classification.settings import recipe_for
from keras_convnext.data.errors import DataError
from keras_convnext.data.sources import open_source
from keras_convnext.demo import answers, page
from keras_convnext.demo.lanes import Lanes
from keras_convnext.demo.uploads import Space, Upload, Uploads
from keras_convnext.export.exporting import ExportError
from keras_convnext.picture_files import find_images
from keras_convnext.preprocessing import class_names, load_image
from keras_convnext.pretrained.errors import DownloadError
from keras_convnext.pretrained.record import recorded_names
from keras_convnext.printable import printable

ROOT = Path(__file__).parents[1]
PHOTO = ROOT / "examples" / "photos" / "cat.jpg"
SHIPPED = ROOT / "weights" / "cifar10" / "convnext_cifar_32.safetensors"
# Escape codes, an override of direction, a formula, invisible characters, mathtext and markup.
LINE = "=\x1b]0;t\x07\x1b[31m\u202ea\u2066b\u200b\ufeff\u00ad$x^$[red]<b>:smile:"
NAME = f"{LINE}\r\n\u2028\x85z"
SHOWN = printable(NAME)


def is_text(shown):
    """Whether a text has only characters that are shown, in any number of lines."""
    return not any(
        unicodedata.category(each) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        for each in shown.replace("\n", "")
    )


def test_what_is_not_seen_is_escaped_and_the_rest_is_not():
    assert is_text(SHOWN)
    assert "\n" not in SHOWN
    assert SHOWN.startswith(r"=\x1b]0;t\x07\x1b[31m\u202ea\u2066b\u200b\ufeff\xad$x^$[red]<b>")
    assert printable(SHOWN) == SHOWN
    words = "\u0646\u200c\u0647 \U0001f408\u200d\u2b1b e\u0301 \u9ed2 a\u00a0b\ue000"  # joiners
    assert printable(words) == words


@contextmanager
def warned():
    """Checks the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert all(is_text(str(each.message)) for each in caught)


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A folder with photographs, weights, data and a table, all with this name."""
    folder = tmp_path_factory.mktemp("named") / NAME
    (folder / "photos").mkdir(parents=True)
    shutil.copy(PHOTO, folder / "photos" / f"{NAME}.jpg")
    (folder / "photos" / f"{NAME}.png").write_bytes(b"none")
    (folder / "photos" / NAME).symlink_to(folder / "photos")
    shutil.copy(SHIPPED, folder / f"{NAME}.safetensors")
    (folder / "classes.txt").write_text("\n".join(f"{LINE}{i}" for i in range(10)))
    write_folder(folder / "data", {f"class {i}": 1 for i in range(10)})
    write_folder(folder / "named classes", {NAME: 1, "b": 1})
    (folder / "empty" / NAME).mkdir(parents=True)
    (folder / "damaged").write_bytes(b"none")
    (folder / "table.csv").write_text(f'path,"{NAME}"\na.jpg,b\n')
    (folder / "labels.csv").write_text(f'path,label\n"photos/{NAME}.jpg","{NAME}"\n', newline="")
    return folder


COMMANDS = {
    "predict": "predict {0}/photos --weights {0}/{1}.safetensors --picture {0}/{1}.png",
    "predict as JSON": "predict {0}/photos --weights {0}/{1}.safetensors --json",
    "predict, a pattern": "predict {0}/photos/nothing*{1}",
    "predict, missing": "predict {0}/{1}",
    "identify": "identify {0}/{1}.safetensors {0}/damaged {0}/{1}",
    "convert": "convert {0}/{1}.safetensors {0}/{1}.pth --names",
    "convert, to no format": "convert {0}/{1}.safetensors {0}/{1}",
    "convert, to no layout": "convert {0}/{1}.safetensors {0}/{1}.pth --layout {1}",
    "verify": "verify {0}/{1}.safetensors",
    "verify, missing": "verify {0}/{1}",
    "evaluate": "evaluate {0}/data --weights {0}/{1}.safetensors --confusion {0}/{1}.png",
    "evaluate, a class": "evaluate {0}/named",
    "evaluate, missing": "evaluate {0}/{1} --weights {0}/{1}.safetensors",
    "evaluate, a split": "evaluate {0}/data --weights {0}/{1}.safetensors --split {1}",
    "evaluate, a column": "evaluate {0}/table.csv --weights {0}/{1}.safetensors",
    "evaluate, a label": "evaluate {0}/labels.csv --weights {0}/{1}.safetensors",
    "export": "export {0}/{1}.onnx --weights {0}/{1}.safetensors --format onnx --photos {0}/data",
    "export, not empty": "export {0}/data --weights {0}/{1}.safetensors",
    "export, to no format": "export {0}/{1} --weights {0}/{1}.safetensors --format {1}",
    "demo": "demo --artifact {0}/{1}",
    "info": "info {1}",
    "list": "list {1}",
    "list a field": "list --{1}",
    "recipes": "recipes {1}",
    "recipes, a network": "recipes cifar10 --model {1}",
    "plan": "plan --recipe {1} --model convnext_tiny --device-type a100-80gb",
    "plan, a device": "plan --recipe cifar10 --model convnext_tiny --device-type {1}",
    "download": "download convnext_tiny {1}",
    "cache": "cache remove {1}",
    "train, a recipe": "train --recipe {1} --model convnext_cifar --data {0} --output {0}/new",
    "train, a setting": "train --recipe cifar10 --model convnext_cifar --data {0} --output {0}/new "
    "--set {1}=1",
    "train, a value": "train --recipe cifar10 --model convnext_cifar --data {0} --output {0}/new "
    "--set epochs={1}",
    "train, data": "train --recipe cifar10 --model convnext_cifar --data {0}/{1} --output {0}/new",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_show_a_name_as_text(command, named):
    arguments = [part.format(named, NAME) for part in COMMANDS[command].split(" ")]
    with warned():
        result = run(*arguments)
    assert result.exit_code in (0, 1, 2), result.stderr
    assert is_text(result.stdout)
    assert is_text(result.stderr)
    assert "Traceback" not in result.stderr
    if result.exit_code:
        assert result.stderr.count("\n") < 15


def texts_of(monkeypatch):
    """Collects the texts of the figures that are written."""
    texts = []
    save = Figure.savefig

    def record(figure, *arguments, **options):
        texts.extend(figure.findobj(Text))
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", record)
    return texts


def test_a_run_of_this_name_shows_it_as_text(monkeypatch, tmp_path):
    toy_runs.register(monkeypatch)
    texts = texts_of(monkeypatch)
    data = toy_runs.make_pictures(tmp_path / NAME / "data", 8, 2)
    settings = {**toy_runs.SETTINGS, "epochs": 1}
    options = [
        "train", "--recipe=cifar10", "--model=toy", f"--data={data}",
        f"--output={tmp_path / NAME / 'run'}", *(f"--set={k}={v}" for k, v in settings.items()),
    ]  # fmt: skip
    trained = run(*options)
    assert trained.exit_code == 0, trained.stderr
    state = max((tmp_path / NAME / "run" / "checkpoints").iterdir())
    (state.parent / "update-000000009.safetensors").write_bytes(b"damaged")
    resumed, other = run(*options), run(*options, "--set=seed=1")
    assert resumed.exit_code == 0
    assert "Using the previous state" in resumed.stderr
    assert "run with other settings" in other.stderr
    for result in (trained, resumed, other):
        assert is_text(result.stdout + result.stderr)
    title = next(text for text in texts if SHOWN in text.get_text())
    assert not title.get_parse_math()
    assert all(is_text(text.get_text()) for text in texts)
    header, row = (tmp_path / NAME / "run" / "log.csv").read_text().splitlines()
    assert all(name.isidentifier() for name in header.split(","))
    assert all(re.fullmatch(r"[-+.\de]+", number) for number in row.split(","))
    for file in ("run.json", "log.csv"):
        assert is_text((tmp_path / NAME / "run" / file).read_text())
    with pytest.raises(DataError, match="one line"):
        open_source(write_folder(tmp_path / "classes", {NAME: 1, "b": 1}))


def test_pictures_show_names_as_text(monkeypatch, tmp_path):
    texts = texts_of(monkeypatch)
    draw_confusion({(0, 1): 1}, [NAME, "b"], tmp_path / "confusion.png")
    shown = [text for text in texts if text.get_text() == f"{SHOWN[:23]}…"]
    assert len(shown) >= 2  # on both axes
    assert not any(text.get_parse_math() for text in shown)
    assert all(is_text(text.get_text()) for text in texts)
    drawn = []
    draw_text = "PIL.ImageDraw.ImageDraw.text"
    monkeypatch.setattr(draw_text, lambda self, place, text, *_, **__: drawn.append(text))
    labels = (Label("", NAME, 0.5), Label("", "x" * 10**6, 0.2))
    draw_predictions([Prediction(tmp_path / NAME, labels)], tmp_path / "sheet.png", NAME)
    assert len(drawn) > 4
    assert all(is_text(text) and "\n" not in text for text in drawn)


def test_the_page_shows_names_as_text(tmp_path):
    classifier = answers.Classifier(
        lambda pixels: np.array([[0.25, 0.75]]), 32, ["a", NAME], least_probability=0.9
    )
    shutil.copy(PHOTO, tmp_path / NAME)
    assert list(answers.answer(classifier, tmp_path / NAME).labels) == [SHOWN, "a"]
    for data in (PHOTO.read_bytes(), b"none"):
        uploads = Uploads()
        token = uploads.add(Upload(io.BytesIO(data), printable(NAME), Space(uploads)))
        *_, line = page.respond(Lanes(classifier), uploads, token)
        assert is_text(line)
        assert "<b>" not in line


def test_the_heading_of_the_page_shows_names_as_text():
    pytest.importorskip("gradio")
    classifier = answers.Classifier(lambda pixels: np.ones((1, 1)), 32, ["a"])
    made = page.demo_page(classifier, title=NAME, note=NAME)
    heading = next(
        part["props"] for part in made.config["components"]
        if part["props"].get("elem_id") == "heading"
    )  # fmt: skip
    assert is_text(heading["value"])
    assert "<b>" not in heading["value"]


@pytest.fixture(scope="module")
def model():
    """A network and a layer with this name, as far as Keras allows."""
    name = NAME.replace("/", "")
    built = keras_convnext.ConvNeXtIsotropic(1, 3, classes=3, input_shape=(64, 64, 3), name=name)
    hidden = keras.layers.Dense(3, name=f"{name} dense")(built.output)
    return keras.Model(built.input, hidden, name=name)


def plain_model():
    image = keras.Input((8, 8, 3), name="image")
    flat = keras.layers.Flatten(name=f"{NAME} flat")(image)
    return keras.Model(image, keras.layers.Dense(2, name=f"{NAME} dense")(flat), name=NAME)


FUNCTIONS = {
    "load_image": lambda folder, _: load_image(folder / NAME),
    "load_image, damaged": lambda folder, _: load_image(folder / "photos" / f"{NAME}.png"),
    "find_images": lambda folder, _: find_images([folder / NAME]),
    "find_images, none": lambda folder, _: find_images([folder / "empty" / NAME]),
    "load_model": lambda folder, _: keras_convnext.load_model(folder / f"no {NAME}.pth"),
    "load_model, damaged": lambda folder, _: keras_convnext.load_model(folder / "damaged"),
    "load_model, a network": lambda folder, _: keras_convnext.load_model("imagenet", NAME),
    "load_checkpoint": lambda folder, model: keras_convnext.load_checkpoint(
        model, folder / f"{NAME}.safetensors"
    ),
    "identify": lambda folder, _: keras_convnext.identify(folder / NAME),
    "verify": lambda folder, _: keras_convnext.verify("convnext_tiny", folder / NAME),
    "convert": lambda folder, _: keras_convnext.convert(folder / f"{NAME}.safetensors", NAME),
    "save_checkpoint": lambda folder, model: keras_convnext.save_checkpoint(
        model, folder / "x.pth", layout=NAME
    ),
    "save_checkpoint, layers": lambda folder, _: keras_convnext.save_checkpoint(
        plain_model(), folder / "x.pth"
    ),
    "download_weights": lambda *_: keras_convnext.download_weights("convnext_tiny", NAME),
    "download_weights, a network": lambda *_: keras_convnext.download_weights(NAME),
    "a builder": lambda folder, _: keras_convnext.ConvNeXtTiny(weights=f"{folder}/{NAME}.pth"),
    "a builder, a tag": lambda *_: keras_convnext.ConvNeXtTiny(weights=NAME),
    "pyramid_features": lambda _, model: keras_convnext.pyramid_features(model),
    "enable_lora": lambda *_: keras_convnext.enable_lora(plain_model()),
    "from_keras_applications": lambda *_: keras_convnext.from_keras_applications(plain_model()),
    "grad_cam": lambda *_: saliency.grad_cam(plain_model(), np.zeros((1, 8, 8, 3))),
    "fuse": lambda *_: export.fuse(plain_model()),
    "export": lambda folder, _: export.export(plain_model(), folder / "new", "onnx"),
    "Artifact": lambda folder, _: export.Artifact(folder / NAME),
    "evaluate": lambda folder, _: evaluate(plain_model(), folder / NAME),
    "evaluate, classes": lambda folder, _: evaluate(plain_model(), folder / "data"),
    "open_source": lambda folder, _: open_source(folder / "named classes"),
    "open_source, a split": lambda folder, _: open_source(folder / "data", NAME),
    "recipe_for": lambda *_: recipe_for(NAME, "convnext_tiny"),
    "recipe_for, a network": lambda *_: recipe_for("cifar10", NAME, {"drop_path_rate": 0.1}),
    "plan": lambda *_: plan(RECIPES["cifar10"].recipe, "convnext_tiny", 1000, 1, NAME),
    "DownloadError": lambda *_: (_ for _ in ()).throw(DownloadError(f"{LINE}\n{LINE}")),
    "ExportError": lambda *_: (_ for _ in ()).throw(ExportError(NAME)),
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_errors_of_functions_show_a_name_as_text(function, named, model):
    with pytest.raises((ValueError, OSError, RuntimeError)) as caught, warned():
        FUNCTIONS[function](named, model)
    assert is_text(str(caught.value))
    assert type(caught.value).__name__ != "UnicodeDecodeError"


def test_a_link_in_a_folder_of_this_name_is_told_as_text(named):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(find_images([named / "photos"])) == 2
    (told,) = caught
    assert is_text(str(told.message))


def test_a_list_of_classes_beside_a_checkpoint_is_text_of_a_modest_size(tmp_path):
    listed = tmp_path / "classes.txt"
    listed.write_bytes("\ufeffone\r\ntwo\r\n".encode())
    assert class_names(2, recorded_names(tmp_path / "x.pth")) == (("", "one"), ("", "two"))
    listed.write_bytes(b"\xffone\ntwo\n")
    with pytest.raises(ValueError, match=f"not UTF-8 text.*Received: {listed}"):
        class_names(2, recorded_names(tmp_path / "x.pth"))
    with listed.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match=f"at most 16 MB.*Received: {listed}"):
        class_names(2, recorded_names(tmp_path / "x.pth"))


RISKY = {"name", "path", "folder", "output", "target", "source", "weights", "model", "recipe"}
SAFE = {  # names in our own tables, types, and names that are escaped already
    "builders.py: variant.name", "settings.py: name", "settings.py: model",
    "planning.py: device.name", "served.py: layer.dtype_policy.name",
    "torch_writer.py: tensor.dtype.name", "pictures.py: name",
}  # fmt: skip


def test_messages_with_names_escape_them():
    """In errors of Python's own classes, which do not escape their messages."""
    missing = []
    for file in (ROOT / "keras_convnext").rglob("*.py"):
        if "cli" in file.parts:  # `note` escapes what it prints
            continue
        for call in ast.walk(ast.parse(file.read_text("utf-8"))):
            is_error = isinstance(call, ast.Call) and ast.unparse(call.func) in (
                "ValueError", "TypeError", "OSError", "RuntimeError", "FileNotFoundError",
                "FileExistsError",
            )  # fmt: skip
            for field in ast.walk(call) if is_error else ():
                if isinstance(field, ast.FormattedValue) and field.conversion == -1:
                    shown = ast.unparse(field.value)
                    if re.split(r"\W+", shown)[-1] in RISKY:
                        missing.append(f"{file.name}: {shown}")
    assert set(missing) <= SAFE
