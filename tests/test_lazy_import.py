"""`import keras_convnext` takes nothing heavy, and Keras finds our classes all the same."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import keras_convnext
from keras_convnext import training
from keras_convnext.serialization import REGISTERED

PACKAGE = Path(keras_convnext.__file__).parent
HEAVY = "{'keras', 'tensorflow', 'jax', 'torch', 'numpy', 'h5py', 'PIL'} & set(sys.modules)"


def python(script, *arguments, backend="jax"):
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "KERAS_BACKEND": backend}, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip


def test_the_import_takes_nothing_heavy():
    script = f"import sys, keras_convnext, os; print({HEAVY}, os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    assert python(script) == "set() 1"


def test_what_needs_no_network_imports_no_backend():
    script = (
        "import sys, keras_convnext as kc; kc.list_weights, kc.identify, kc.classification.plan; "
        "import keras_convnext.complexity, keras_convnext.classification.recipes; "
        "print({'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules))"
    )
    assert python(script) == "set()"


def test_the_command_starts_without_what_only_some_commands_need():
    script = f"import sys, keras_convnext.cli; print({HEAVY}, 'requests' in sys.modules)"
    assert python(script) == "set() False"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    model = keras_convnext.ConvNeXt((1, 1), (8, 16), classes=3, input_shape=(32, 32, 3))
    schedule = training.WarmupCosine(1e-3, 100, 10)
    for name in ("AdamW", "Muon"):
        optimizer = training.LossScaleOptimizer(getattr(training, name)(schedule))
        model.compile(optimizer, "sparse_categorical_crossentropy")
        model.save(folder / f"{name}.keras")
    keras_convnext.export.fuse(model).save(folder / "fused.keras")
    return folder


@pytest.mark.parametrize(
    "imports",
    [
        "import keras, keras_convnext",
        pytest.param("import keras_convnext, keras", marks=pytest.mark.slow),
        "from keras_convnext.layers import DropPath; import keras",
    ],
)
def test_keras_loads_a_model_in_any_order_of_imports(imports, saved):
    script = (
        f"{imports}\n"
        "import pathlib, sys\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    model = keras.models.load_model(path)\n"
        "    optimizer = getattr(model, 'optimizer', None)\n"
        "    inner = getattr(optimizer, 'inner_optimizer', None)\n"
        "    print(path.name, type(inner).__name__)\n"
        "print('tensorflow' in sys.modules)"
    )
    lines = python(script, saved).splitlines()
    assert lines == ["AdamW.keras AdamW", "Muon.keras Muon", "fused.keras NoneType", "False"]


def test_threads_find_the_same():
    script = (
        "import keras_convnext as kc\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(8) as threads:\n"
        "    found = list(threads.map(lambda name: getattr(kc, name), ['Block', 'ConvNeXtAtto', "
        "'training', 'saliency'] * 4))\n"
        "print(len({id(value) for value in found}))"
    )
    assert python(script) == "4"


def test_all_that_is_registered_is_known_before_it_is_imported():
    decorated = r"^@(?:_register|keras\.saving\.register_keras_serializable\(.*)\nclass (\w+)"
    found = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): tuple(sorted(names))
        for path in PACKAGE.rglob("*.py")
        if (names := re.findall(decorated, path.read_text("utf-8"), re.MULTILINE))
    }
    del found["hub"]  # needs keras-hub, and registers its classes when its users import it
    assert found == REGISTERED


def test_keras_has_the_classes_themselves():
    for module, names in REGISTERED.items():
        for name in names:
            own = getattr(importlib.import_module(f"keras_convnext.{module}"), name)
            assert keras.saving.get_registered_object(f"keras_convnext>{name}") is own


@pytest.mark.parametrize("package", [keras_convnext, training], ids=lambda p: p.__name__)
def test_editors_and_python_see_the_same_names(package):
    statements = ast.parse(Path(package.__file__).read_text("utf-8")).body
    (typed,) = (
        node for node in statements if isinstance(node, ast.If) and "CHECK" in ast.dump(node.test)
        and any(isinstance(child, ast.ImportFrom) for child in node.body)
    )  # fmt: skip
    seen = {
        alias.name: f"{node.module.removeprefix(package.__name__).lstrip('.')}"
        for node in typed.body
        for alias in node.names
    }
    given = {name: module for module, names in package._NAMES.items() for name in names}
    assert {name: module for name, module in seen.items() if module} == given
    assert set(seen) == set(package.__all__) <= set(dir(package))
    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'ConvNextTiny'"):
        package.ConvNextTiny  # noqa: B018
