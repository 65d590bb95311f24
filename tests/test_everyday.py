"""Everything on the page "Everyday Keras", on three backends, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "everyday.md"


def test_the_page_has_the_words_that_people_search_for():
    headings = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("## ")]
    for words in (
        "freeze", "unfreeze", "fine-tune", "out of memory", "oom", "multi-label", "mixed precision",
        "lora", "quantization", "custom training loops", "jit_compile", "callbacks", "several gpus",
        "class weights", "regression", "channels", "larger images", "ensembles", "embeddings",
        "grad-cam", "reproducible", "deployment", "discriminative learning rates",
    ):  # fmt: skip
        assert any(words in heading.lower() for heading in headings), words


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_the_page_runs(backend, tmp_path):
    pytest.importorskip(backend)
    cache = tmp_path / "cache"
    cache.mkdir()
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "run_page.py", PAGE],
        cwd=tmp_path,
        env=os.environ
        | {"KERAS_BACKEND": backend, "KERAS_CONVNEXT_CACHE": str(cache), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ran ") > 20
