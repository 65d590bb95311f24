"""The environment of a process that runs tests on another backend."""

import os

# Under JAX compiling takes most of the time, and half as long with XLA's older code generator.
_QUICK = "--xla_cpu_use_fusion_emitters=false"


def environment(backend, *flags):
    """Returns the environment of this process with another backend; `flags` are more of XLA's."""
    changed = {"KERAS_BACKEND": backend}
    if backend == "jax":
        changed["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), _QUICK, *flags))
    return {**os.environ, **changed}
