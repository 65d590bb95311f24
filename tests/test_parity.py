"""The same numbers as independent PyTorch networks, on random weights that all count."""

import keras
import numpy as np
import pytest
import torch
import torch_reference
from test_complexity import PUBLISHED_PARAMETERS

import keras_convnext
from keras_convnext.builders import BUILDERS
from keras_convnext.variants import VARIANTS

TOLERANCE = 1e-5  # of the largest value, in float32

FAST = {"convnext_atto", "convnext_cifar", "convnextv2_atto"}


SIZES = {
    "convnext_cifar": [(32, 32), (40, 33)],
    "convnextv2_atto": [(97, 130)],
    "convnext_tiny": [(224, 224), (384, 384), (224, 323)],
    "convnextv2_tiny": [(224, 224), (384, 384), (224, 323)],
    "convnext_base": [(224, 224), (384, 384), (323, 224)],
}


def cases():
    # pretrained/test_timm_stems.py compares those with overlapping patches.
    for name in (name for name in BUILDERS if VARIANTS[name].overlap is None):
        yield pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow])


def relative_error(ours, theirs):
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def channels_last(tensor):
    return tensor.movedim(1, -1).numpy()


@pytest.mark.parametrize("name", list(cases()))
@torch.no_grad()
def test_logits_features_and_maps_equal_pytorch(name, tmp_path):
    reference = torch_reference.randomize(torch_reference.network(name))
    checkpoint = torch_reference.save(reference, tmp_path / "checkpoint.pth")
    from_timm = None
    if "isotropic" not in name and "cifar" not in name:
        from_timm = torch_reference.timm_model(name, reference.state_dict())

    model = BUILDERS[name](
        weights=checkpoint, input_shape=(None, None, 3), classifier_activation=None
    )
    assert model.count_params() == sum(p.numel() for p in reference.parameters())
    assert model.count_params() == PUBLISHED_PARAMETERS.get(name, model.count_params())
    inspected = {"logits": model.output, "features": model.get_layer("norm").output}
    if "isotropic" not in name:
        inspected |= keras_convnext.pyramid_features(model)(model.input)
    else:
        inspected["P4"] = model.get_layer("avg_pool").input
    inspected = keras.Model(model.input, inspected)

    for size in SIZES.get(name, [(224, 224)]):
        pixels = np.random.default_rng(0).integers(0, 256, (1, *size, 3)).astype("float32")
        normalized = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        image = torch.tensor(normalized, dtype=torch.float32).movedim(-1, 1)
        ours = inspected.predict(pixels, verbose=0)
        expected = {"logits": reference(image), "features": reference.features(image)}
        maps = reference.maps(image)
        level = int(np.log2(VARIANTS[name].patch_size))
        expected |= {f"P{level + i}": m for i, m in enumerate(maps)}
        assert ours.keys() == expected.keys()
        for output, theirs in expected.items():
            theirs = channels_last(theirs) if theirs.ndim == 4 else theirs.numpy()
            assert relative_error(ours[output], theirs) < TOLERANCE, (size, output)
        if from_timm:
            assert relative_error(ours["logits"], from_timm(image).numpy()) < TOLERANCE, size
