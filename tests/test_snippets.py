"""The code that pages show, as it stands there, with random weights in place of published ones."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch_reference
import typer
from typer.testing import CliRunner

import keras_convnext
from keras_convnext import builders, classification, cli
from keras_convnext.variants import VARIANTS

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", *(f"docs/{name}.md" for name in ("training", "scaling", "export", "files")))
WITHOUT_COMMANDS = (
    "docs/speed.md",
    *(f"docs/coming_from_{name}.md" for name in ("keras_applications", "timm", "kimm")),
)
# What trains or evaluates networks of millions on data that nobody has here, or does not end, is
# run by the tests of these commands; that it could start is seen from here.
PARSED_ONLY = ("train", "evaluate", "demo")
DENSE = {  # networks whose weights are not here
    "upernet_convnext_tiny", "mask_rcnn_convnext_tiny", "rotated_retinanet_convnext_tiny",
}  # fmt: skip
OFFICIAL = "convnext_tiny_22k_224.pth"
SMALL = {
    "epochs": 1, "warmup_epochs": 0.5, "frozen_epochs": 0, "batch_size": 4, "device_batch": 4,
    "size": 32,
}  # fmt: skip


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text("utf-8"), re.M | re.S)


def commands(page):
    """The arguments of each `keras-convnext`, without what comes before it on its line."""
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    marked = [line.partition("keras-convnext ")[2] for line in lines]
    return [shlex.split(line, comments=True) for line in marked if line]


@pytest.fixture(scope="module", autouse=True)
def small_network():
    """One narrow block per stage: most of the time is spent compiling and training."""
    tiny = VARIANTS["convnext_tiny"]._replace(depths=(1, 1, 1, 1), dims=(8, 16, 32, 64))
    build = builders._builder(tiny)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, tiny.name, tiny)
        patch.setitem(builders.BUILDERS, tiny.name, build)
        patch.setattr(keras_convnext, "ConvNeXtTiny", build)
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """What the cache holds once weights were fetched and ported."""
    folder = tmp_path_factory.mktemp("cache")
    for stem, options in {
        "convnext_tiny_1k_224_ema": {},
        "convnext_tiny_22k_224": {"classes": 21841},
        "convnext_tiny.dinov3_lvd1689m": {"include_top": False, "pooling": "avg"},
    }.items():
        model = keras_convnext.ConvNeXtTiny(weights=None, **options)
        keras_convnext.save_checkpoint(model, folder / f"{stem}.weights.h5")
    keras_convnext.convert(folder / "convnext_tiny_22k_224.weights.h5", folder / OFFICIAL)
    repository, commit = folder / "hub" / "timm--convnext_tiny.in12k_ft_in1k", "0" * 40
    for name in ("refs", commit):
        (repository / name).mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    model = keras_convnext.ConvNeXtTiny(weights=None)
    keras_convnext.save_checkpoint(model, repository / commit / "model.safetensors", "timm")
    return folder


@pytest.fixture
def desk(cache, tmp_path, monkeypatch):
    """A folder with what the snippets name: photographs, and a few of them in class folders."""
    shutil.copytree(ROOT / "examples" / "photos", tmp_path / "examples" / "photos")
    for photo in (ROOT / "examples" / "photos").glob("*.jpg"):
        shutil.copy(photo, tmp_path)
        for split in ("train", "val"):
            for number in range(3):
                target = tmp_path / "photos" / split / photo.stem / f"{number}.jpg"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(photo, target)
    shutil.copy(cache / OFFICIAL, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_CONVNEXT_CACHE", str(cache))
    return tmp_path


@pytest.mark.example
@pytest.mark.usefixtures("no_garbage_collection")
@pytest.mark.parametrize("page", PAGES + WITHOUT_COMMANDS)
def test_the_python_runs_from_top_to_bottom(page, desk, monkeypatch, capsys):
    def shorter(recipe, model, data, output, settings=None, **options):
        return train(recipe, model, data, output, {**(settings or {}), **SMALL}, **options)

    if "import timm" in "".join(blocks(page, "python")):
        torch_reference.declare_torchvision_operators()
    train = classification.train
    monkeypatch.setattr(classification, "train", shorter)
    names = {}
    for number, block in enumerate(blocks(page, "python")):
        with np.errstate(all="ignore"):
            exec(compile(block, f"{page}, snippet {number}", "exec"), names)
    assert ("%  " in capsys.readouterr().out) == (page == "README.md")


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_run(page, desk):
    (desk / "run").mkdir()  # as `train` leaves it
    keras_convnext.ConvNeXtCifar(weights="cifar10").save(desk / "run" / "best.keras")
    assert commands(page)
    for name, *arguments in commands(page):
        command = typer.main.get_command(cli.app).commands[name]
        command.make_context(name, list(arguments))
        if name not in PARSED_ONLY and not DENSE & set(arguments):
            result = CliRunner().invoke(cli.app, [name, *arguments])
            assert result.exit_code == 0, (name, arguments, result.output, result.exception)
