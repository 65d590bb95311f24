import gc
import os
import tarfile
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_convnext  # noqa: F401  (before TensorFlow, as its kernels are chosen by that)

SAMPLES = Path(__file__).parents[2] / "shared" / "data" / "imagenet_samples.tar"


@pytest.fixture
def no_garbage_collection(monkeypatch):
    """Keras collects garbage after each layer that it quantizes, which takes half a second each."""
    monkeypatch.setattr(gc, "collect", lambda generation=2: 0)


@pytest.fixture(scope="session")
def imagenet_jpegs():
    """The bytes of full-size ImageNet photographs, where they are at hand."""
    if not SAMPLES.is_file():
        pytest.skip(f"needs {SAMPLES.name} in the folder beside the repository")
    with tarfile.open(SAMPLES) as archive:
        members = sorted((m for m in archive if m.isfile()), key=lambda member: member.name)
        return [archive.extractfile(member).read() for member in members]
