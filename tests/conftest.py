import gc
import os
import sys
import tarfile
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Two tests run at a time, with a core each: threads that spin while they wait would take the other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
# JAX takes seconds to compile what runs for milliseconds here.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import keras_convnext  # noqa: F401  (before TensorFlow, whose kernels it selects)

# Without this package, which OpenVINO does not need, importing OpenVINO uses no network.
sys.modules["openvino_telemetry"] = None

SAMPLES = Path(__file__).parents[2] / "shared" / "data" / "imagenet_samples.tar"


def pytest_collection_finish():
    """Exempts what is imported by now from the garbage collection, and lets it run less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 50)


@pytest.fixture
def no_garbage_collection(monkeypatch):
    """Disables the garbage collection after each quantized layer, which takes half a second."""
    monkeypatch.setattr(gc, "collect", lambda generation=2: 0)


@pytest.fixture(scope="session")
def imagenet_jpegs():
    """Contents of full-size ImageNet photographs. Skips the test without them."""
    if not SAMPLES.is_file():
        pytest.skip(f"needs {SAMPLES.name} in a folder next to the repository")
    with tarfile.open(SAMPLES) as archive:
        members = sorted((m for m in archive if m.isfile()), key=lambda member: member.name)
        return [archive.extractfile(member).read() for member in members]
