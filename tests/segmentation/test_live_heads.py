"""UperNet of the published sizes beside mmsegmentation's, which runs here.

Slow, and skipped without a module `openmmlab` that runs mmsegmentation on a CPU; see
`make_golden_arrays.py`. The backend is that of KERAS_BACKEND.
"""

import gc

import keras
import numpy as np
import pytest
import torch

from keras_convnext.segmentation import UperNet
from keras_convnext.variants import VARIANTS

pytestmark = pytest.mark.slow
SIZES = (33, 47), (161, 225), (512, 512)


@pytest.mark.parametrize("name", ["convnext_tiny", "convnext_base"])
def test_logits_of_both_heads(name, tmp_path):
    openmmlab = pytest.importorskip("openmmlab")
    variant = VARIANTS[name]
    theirs = openmmlab.upernet(variant.depths, variant.dims)
    openmmlab.randomize(theirs, seed=0)
    torch.save({"meta": {}, "state_dict": theirs.state_dict()}, tmp_path / "upernet.pth")
    ours = UperNet(
        name,
        weights=tmp_path / "upernet.pth",
        include_preprocessing=False,
        classifier_activation=None,
    )
    layers = [ours.get_layer(each).output for each in ("classifier", "auxiliary_classifier")]
    both = keras.Model(ours.input, layers)
    for size in SIZES:
        pixels = np.random.default_rng(0).normal(size=(1, *size, 3)).astype("float32")
        with torch.no_grad():
            maps = theirs.backbone(torch.from_numpy(pixels).permute(0, 3, 1, 2))
            heads = theirs.decode_head(maps), theirs.auxiliary_head(maps)
        for found, expected in zip(both.predict(pixels, verbose=0), heads, strict=True):
            expected = expected.permute(0, 2, 3, 1).numpy()
            assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
        gc.collect()
