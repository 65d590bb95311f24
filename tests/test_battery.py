"""Every check of the battery for the toy twin of every network, on this backend and the others."""

import gc
import os
import subprocess
import sys
from functools import lru_cache

import pytest
from battery import BACKEND, CHECKS, Twin

from keras_convnext.builders import BUILDERS


@pytest.fixture(scope="session")
def twin_of(tmp_path_factory):
    """The twin of a network: one that is kept, since all of its checks come in a row."""
    gc.freeze()  # under PyTorch, Keras collects garbage at each layer that it quantizes
    return lru_cache(maxsize=1)(lambda name: Twin(name, tmp_path_factory.mktemp("twin")))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", BUILDERS)
def test_network(name, check, twin_of, tmp_path):
    CHECKS[check](twin_of(name), tmp_path)


@pytest.mark.parametrize("backend", sorted({"jax", "tensorflow", "torch"} - {BACKEND}))
def test_networks_on_another_backend(backend, tmp_path):
    pytest.importorskip(backend)
    # XLA compiles for minutes what runs for seconds.
    quick = {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-q", __file__, "-k", "test_network["],
        env={**os.environ, **quick, "KERAS_BACKEND": backend}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-10_000:]
