"""The notebooks of `examples/`, from top to bottom, with smaller sizes and the same code."""

import json
import os
import shutil
from itertools import groupby, islice
from pathlib import Path
from zipfile import ZipFile

import pytest
from forked import Forked

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

EXAMPLES = Path(__file__).parent.parent / "examples"
SMALL = {
    "confidence": {"TARGET": 0.9, "BINS": 5},
    "count_ships": {"TILES": 16, "UPDATES": 4},
    "detect_own_objects": {"IMAGES": 20, "EPOCHS": 1},
    "export_and_serve": {"REQUESTS": 2},
    "fine_tune": {"TRAINED_ON": 40, "EPOCHS": 2},
    "pretrain_unlabelled": {"PICTURES": 100, "EPOCHS": 1, "LABELED_EPOCHS": 1},
    "roadmap": {
        "STEP": '"downsampling"', "OFF": '{"gelu": False}', "REGIME": '"cifar"', "RUNS": 1,
    },
    "search": {"QUERIES": 2, "NEIGHBORS": 3},
    "segment_own_masks": {"IMAGES": 20, "EPOCHS": 1},
    "torch_and_back": {"STEPS": 1},
    "what_it_looks_at": {"NOISE_IMAGES": 2},
}  # fmt: skip

# What goes before the first cell: it makes parts of other packages small, or work at all.
BEFORE = {
    "fine_tune": """
from sklearn import datasets
digits = datasets.load_digits()
digits.images, digits.target = digits.images[:80], digits.target[:80]
datasets.load_digits = lambda: digits
""",
    "torch_and_back": """
import functools, torch_reference
torch_reference.declare_torchvision_operators()
import transformers
transformers.ConvNextConfig = functools.partial(
    transformers.ConvNextConfig, hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1]
)
""",
}
CELLS = """
import json, os, sys
os.chdir(sys.argv[2])
for number, cell in enumerate(json.loads(sys.argv[1])):
    exec(compile(cell, f"cell {number}", "exec"))
"""
PICTURES = 6  # of each class and split, of the 50 in the archive of the examples


def read(name):
    return nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)


def small_archive(source, target):
    """Copies the first pictures of each class."""
    with ZipFile(source) as archive, ZipFile(target, "w") as small:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        for _, of_class in groupby(names, lambda name: Path(name).parent):
            for name in islice(of_class, PICTURES):
                small.writestr(name, archive.read(name))


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_all_are_run():
    assert {path.stem for path in EXAMPLES.glob("*.ipynb")} == set(SMALL)


@pytest.fixture
def small(request, tmp_path):
    """A notebook with smaller sizes, and a folder with the files that it needs."""
    pytest.importorskip("sklearn")
    name = request.param
    folder = shutil.copytree(
        EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("output", "*.zip")
    )
    small_archive(EXAMPLES / "cifar10_sample.zip", folder / "cifar10_sample.zip")
    notebook = read(name)
    parameters = code_cells(notebook)[0]
    assert parameters.metadata.tags == ["parameters"]
    said = dict(line.split(" = ") for line in parameters.source.splitlines())
    assert set(said) == set(SMALL[name])
    parameters.source = "\n".join(f"{key} = {value}" for key, value in SMALL[name].items())
    if name in BEFORE:
        notebook.cells.insert(0, nbformat.v4.new_code_cell(BEFORE[name]))
    return notebook, folder


# They compile for long: the updates of three networks, and those of a detector.
_LONG = ("pretrain_unlabelled", "count_ships")
NOTEBOOKS = [
    pytest.param(name, marks=pytest.mark.slow if name in _LONG else pytest.mark.example)
    for name in SMALL
]


@pytest.mark.parametrize("small", NOTEBOOKS, indirect=True)
def test_its_code_runs_from_top_to_bottom(small):
    """Without a kernel, which takes seconds to start and import."""
    notebook, folder = small
    cells = json.dumps([cell.source for cell in code_cells(notebook)])
    done = Forked(CELLS, cells, folder, MPLBACKEND="agg").wait()
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("small", SMALL, indirect=True)
def test_it_runs_in_a_kernel(small, monkeypatch):
    notebook, folder = small
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": folder}}).execute()


@pytest.mark.parametrize("name", SMALL)
def test_it_is_kept_with_its_outputs_and_nothing_of_the_machine_that_ran_it(name):
    notebook = read(name)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert outputs
    assert {output.output_type for output in outputs} <= {
        "stream",
        "display_data",
        "execute_result",
    }
    assert "stderr" not in {output.get("name") for output in outputs}
    text = (EXAMPLES / f"{name}.ipynb").read_text()
    assert str(Path.home()) not in text
    assert "site-packages" not in text
    assert len(text) < 1.5e6
