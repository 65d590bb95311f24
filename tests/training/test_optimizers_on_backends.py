"""The tests of the optimizers on JAX and on PyTorch, in processes of their own."""

import subprocess
import sys
from pathlib import Path

import pytest
from other_backends import environment

HERE = Path(__file__).parent


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_optimizers_pass_their_tests_on(backend):
    pytest.importorskip(backend)
    files = [str(HERE / name) for name in ("test_optimizer.py", "test_muon.py")]
    # conftest.py imports what runs on TensorFlow alone.
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "--noconftest", "-p", "no:cacheprovider",
         *files],
        cwd=HERE.parents[1],
        env=environment(backend), capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
