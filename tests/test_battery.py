"""Every check of the battery for the toy twin of every network, on this backend and the others."""

import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest
from battery import BACKEND, CHECKS, Twin, twin_row
from other_backends import environment

from keras_convnext.builders import BUILDERS
from keras_convnext.variants import VARIANTS

# What every twin is put through. All else is slow for one that differs from another in name alone.
QUICK = {"fused", "gradients", "parity", "shapes_and_dtypes", "training_flag_and_drop_path"}


@pytest.fixture(scope="session")
def twin_of(tmp_path_factory):
    """The twin of a network: one that is kept, since all of its checks come in a row."""
    return lru_cache(maxsize=1)(lambda name: Twin(name, tmp_path_factory.mktemp("twin")))


def cases():
    """Each network and check.

    The CIFAR network comes last: what only it has, its patches, the quick checks see.
    """
    seen = set()
    for name in sorted(BUILDERS, key=lambda name: name == "convnext_cifar"):
        row = twin_row(VARIANTS[name])
        structure = {row._replace(name="", size=0)}
        if BACKEND != "tensorflow":  # each part is seen once, in whichever combination
            structure = {("isotropic", row.isotropic), ("layer scale", row.layer_scale)}
        for check in CHECKS:
            is_slow = structure <= seen and check not in QUICK
            marks = [pytest.mark.slow] if is_slow else []
            yield pytest.param(name, check, marks=marks, id=f"{name}-{check}")
        seen |= structure


@pytest.mark.usefixtures("no_garbage_collection")
@pytest.mark.parametrize(("name", "check"), list(cases()))
def test_network(name, check, twin_of, tmp_path):
    CHECKS[check](twin_of(name), tmp_path)


@pytest.mark.parametrize(
    "selected", ["not slow", pytest.param("slow", marks=pytest.mark.slow)], ids=["", "slow"]
)
@pytest.mark.parametrize("backend", sorted({"jax", "tensorflow", "torch"} - {BACKEND}))
def test_networks_on_another_backend(backend, selected, tmp_path):
    pytest.importorskip(backend)
    cache = {  # of the minutes of compilation after which these networks run for seconds
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    road = Path(__file__).parent / "roadmap" / "test_steps_against_torch.py"
    tests = f"{__file__}::test_network", str(road)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", selected, *tests],
        env={**environment(backend), **cache}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-10_000:]
