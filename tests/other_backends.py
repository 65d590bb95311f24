"""Runs tests on another backend, in a process of its own."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest

# Under JAX compiling takes most of the time, and half as long with XLA's older code generator. JAX
# 0.6 knows this flag; 0.4.34 aborts at it.
_QUICK = "--xla_cpu_use_fusion_emitters=false"


def environment(backend, *flags):
    """Returns the environment of this process with another backend; `flags` are more of XLA's."""
    changed = {"KERAS_BACKEND": backend}
    if backend == "jax":
        quick = (_QUICK,) if _jax_version() >= (0, 6) else ()
        changed["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *quick, *flags))
    return {**os.environ, **changed}


def _jax_version():
    try:
        return tuple(int(part) for part in version("jax").split(".")[:2])
    except PackageNotFoundError:
        return ()


def assert_tests_pass(backend, *tests, selected="slow or not slow", **more):
    """Runs tests of the selected marks; `more` are variables of their environment."""
    pytest.importorskip(backend)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", selected, *tests],
        env={**environment(backend), **more}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-10_000:]
