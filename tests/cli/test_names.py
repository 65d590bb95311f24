"""Names are data: printed whole, in one line, and never obeyed."""

import json
import re
import shutil
from pathlib import Path

import pytest
from test_cli import run

from keras_convnext.cli.photographs import DEMONSTRATION
from keras_convnext.cli.terminal import note, write, write_table
from keras_convnext.printable import printable

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "cat.jpg"
NAMES = [
    "[red]x[bold].jpg",
    "%s %d {0} {self}.jpg",
    "\x1b[31m\x1b]0;title\x07\r.jpg",
    f"{'long' * 30}.jpg",
    "two  spaces 'and' \"quotes\".jpg",
    "\U0001f408\u200d\u2b1b e\u0301 \u9ed2\u732b.jpg",
    "\u202egpj.exe.jpg",
    "line\nbreak.jpg",
    ":smile: \\[bold].jpg",
    "-dash.jpg",
]
DANGEROUS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(params=["40", pytest.param("80", marks=pytest.mark.slow), ""])
def columns(request, monkeypatch):
    monkeypatch.setenv("COLUMNS", request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for name in NAMES:
        shutil.copy(PHOTO, folder / name)
    (folder / "damaged\x1b[2J.jpg").write_bytes(b"none")
    return folder


@pytest.mark.usefixtures("columns")
def test_predict_prints_every_name_in_a_line(folder):
    result = run("predict", folder, "--top", 1)
    assert result.exit_code == 1
    assert not DANGEROUS.search(result.output)
    lines = result.stdout.splitlines()
    for name in NAMES:
        assert printable(folder / name) in lines
    about, error = result.stderr.splitlines()
    assert about == DEMONSTRATION
    assert "damaged\\x1b[2J.jpg" in error
    found = json.loads(run("predict", folder, "--top", 1, "--json").stdout)
    assert {Path(entry["file"]).name for entry in found} >= set(NAMES)


@pytest.mark.usefixtures("columns")
@pytest.mark.parametrize("name", NAMES)
def test_identify_and_errors_print_a_name_in_a_line(name, tmp_path):
    weights = tmp_path / name.replace(".jpg", ".safetensors")
    shutil.copy(PHOTO.parents[2] / "weights" / "cifar10" / "convnext_cifar_32.safetensors", weights)
    result = run("identify", weights)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[0] == printable(weights)
    arguments = {
        "identify": ["identify", tmp_path / f"no {name}"],
        "info": ["info", f"x{name}"],
        "recipes": ["recipes", f"x{name}"],
        "cache": ["cache", "remove", f"x{name}"],
        "list": ["list", f"x{name}"],
        "plan": ["plan", "--recipe", f"x{name}", "--model", "convnext_tiny", "--device-type", "a"],
    }
    for command, given in arguments.items():
        result = run(*given)
        assert result.exit_code == 2, command
        assert result.stdout == ""
        assert not DANGEROUS.search(result.stderr), command
        first = result.stderr.splitlines()[0]
        # A superfluous argument is escaped by Click, which does it another way.
        assert command == "list" or printable(given[2 if command == "plan" else -1]) in first


def test_results_of_any_width_are_printed_whole(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    write_table(("file", "MB"), [(name, "1") for name in NAMES], ["MB"])
    note("x" * 200)
    write("y" * 200)
    printed = capsys.readouterr()
    assert printed.err == "x" * 200 + "\n"
    for name in NAMES:
        assert any(line.startswith(printable(name)) for line in printed.out.splitlines())


def test_names_that_are_no_text_are_shown_escaped():
    assert printable("a\udcffb") == "a\\udcffb"
    assert printable("caf\u00e9 \u9ed2") == "caf\u00e9 \u9ed2"
