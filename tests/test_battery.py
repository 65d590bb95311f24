"""Every check of the battery for the toy twin of every network, on this backend and the others."""

from functools import lru_cache
from pathlib import Path

import pytest
from battery import BACKEND, CHECKS, Twin, twin_row
from other_backends import assert_tests_pass

from keras_convnext.builders import BUILDERS
from keras_convnext.variants import VARIANTS

# The checks of every structure; the others are slow where another network has the same parts.
QUICK = {"fused", "gradients", "parity", "shapes_and_dtypes", "training_flag_and_drop_path"}
OF_V2 = {"export", "remat"} if BACKEND == "tensorflow" else set()  # which the blocks of V2 change


@pytest.fixture(scope="session")
def twin_of(tmp_path_factory):
    """The twin of a network: one that is kept, since all of its checks come in a row."""
    return lru_cache(maxsize=1)(lambda name: Twin(name, tmp_path_factory.mktemp("twin")))


def parts_of(row):
    """Returns the parts that each check sees at least once; other backends see one network."""
    if BACKEND != "tensorflow":
        return {"any"}
    return {("isotropic", row.isotropic), ("layer scale", row.layer_scale is not None)}


def cases():
    """Yields each network and check, slow if it repeats another's; parity is checked for all.

    The CIFAR network comes last: the quick checks see what only it has, its patches.
    """
    structures, seen = set(), set()
    for name in sorted(BUILDERS, key=lambda name: name == "convnext_cifar"):
        row = twin_row(VARIANTS[name])
        if row.overlap is not None:  # pretrained/test_timm_stems.py checks these
            continue
        structure = "V2" if row.grn else row._replace(name="", size=0, epsilon=0, hidden=None)
        for check in CHECKS:
            quick = QUICK | OF_V2 if row.grn else QUICK
            is_repeated = structure in structures or check not in quick
            is_slow = check != "parity" and is_repeated and parts_of(row) <= seen
            marks = [pytest.mark.slow] if is_slow else []
            yield pytest.param(name, check, marks=marks, id=f"{name}-{check}")
        structures.add(structure)
        seen |= parts_of(row)


@pytest.mark.usefixtures("no_garbage_collection")
@pytest.mark.parametrize(("name", "check"), list(cases()))
def test_network(name, check, twin_of, tmp_path):
    CHECKS[check](twin_of(name), tmp_path)


@pytest.mark.parametrize(
    "selected", ["not slow", pytest.param("slow", marks=pytest.mark.slow)], ids=["", "slow"]
)
@pytest.mark.parametrize("backend", sorted({"jax", "tensorflow", "torch"} - {BACKEND}))
def test_networks_on_another_backend(backend, selected, tmp_path):
    cache = {  # of the minutes of compilation after which these networks run for seconds
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    road = Path(__file__).parent / "roadmap" / "test_steps_against_torch.py"
    tests = f"{__file__}::test_network", str(road)
    assert_tests_pass(backend, *tests, selected=selected, **cache)
