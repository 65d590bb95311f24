"""The same numbers on JAX and on PyTorch, in processes where TensorFlow cannot be imported."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_reference
from other_backends import environment
from test_parity import TOLERANCE, channels_last, relative_error

from keras_convnext.variants import VARIANTS

SIDES = {"convnext_cifar": 32, "convnext_atto": 96}  # px; 224 for the others


@pytest.mark.parametrize("backend", ["jax", "torch"])
@pytest.mark.parametrize(
    "names",
    [
        ("convnext_cifar",),
        pytest.param(("convnext_atto",), marks=pytest.mark.slow),
        pytest.param(("convnext_tiny", "convnext_isotropic_small"), marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
@torch.no_grad()
def test_backend_gives_the_same_without_tensorflow(names, backend, tmp_path):
    pytest.importorskip(backend)
    side = SIDES.get(names[0], 224)
    pixels = np.random.default_rng(1).integers(0, 256, (2, side, side, 3)).astype("float32")
    np.save(tmp_path / "pixels.npy", pixels)
    references = {}
    for name in names:
        references[name] = torch_reference.randomize(torch_reference.network(name))
        torch_reference.save(references[name], tmp_path / f"{name}.pth")

    script = Path(__file__).parent / "run_on_backend.py"
    result = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        env=environment(backend), capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr

    normalized = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    image = torch.tensor(normalized, dtype=torch.float32).movedim(-1, 1)
    for name, reference in references.items():
        expected = {"logits": reference(image), "features": reference.features(image)}
        if "isotropic" not in name:
            first = VARIANTS[name].patch_size.bit_length() - 1
            expected |= {f"P{first + i}": m for i, m in enumerate(reference.maps(image))}
        with np.load(tmp_path / f"{name}.npz") as found:
            assert sorted(found) == sorted(expected)
            for output, theirs in expected.items():
                theirs = channels_last(theirs) if theirs.ndim == 4 else theirs.numpy()
                assert relative_error(found[output], theirs) < TOLERANCE, (name, output)


def test_the_package_adds_little_to_the_import_of_keras():
    """No timing, which the machine would decide: nothing heavy comes in that Keras did not need."""
    listing = (
        "import sys, keras; before = set(sys.modules); from keras_convnext import *; "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True
    )
    added = set(result.stdout.split()) - set(sys.stdlib_module_names)
    assert {name for name in added if not name.startswith("_")} <= {
        "keras_convnext",
        "PIL",
        "rich",
        "safetensors",
    }
