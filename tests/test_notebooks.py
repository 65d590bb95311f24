"""The notebooks of `examples/`, from top to bottom, with smaller sizes and the same code."""

import shutil
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

EXAMPLES = Path(__file__).parent.parent / "examples"
SMALL = {
    "export_and_serve": {"REQUESTS": 2},
    "fine_tune": {"TRAINED_ON": 96, "EPOCHS": 3},
    "higher_resolution": {"EPOCHS": 3, "SIZES": (48,)},
    "search": {"QUERIES": 2, "NEIGHBOURS": 3},
    "torch_and_back": {"STEPS": 1},
    "what_it_looks_at": {"NOISE_IMAGES": 2},
}

ANY_TORCHVISION = "import torch_reference; torch_reference.declare_torchvision_operators()"


def read(name):
    return nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_all_are_run():
    assert {path.stem for path in EXAMPLES.glob("*.ipynb")} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_it_runs_from_top_to_bottom(name, tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    folder = shutil.copytree(
        EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("output")
    )
    notebook = read(name)
    parameters = code_cells(notebook)[0]
    assert parameters.metadata.tags == ["parameters"]
    said = dict(line.split(" = ") for line in parameters.source.splitlines())
    assert set(said) == set(SMALL[name])
    parameters.source = "\n".join(f"{key} = {value}" for key, value in SMALL[name].items())
    if name == "torch_and_back":
        notebook.cells.insert(0, nbformat.v4.new_code_cell(ANY_TORCHVISION))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
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
