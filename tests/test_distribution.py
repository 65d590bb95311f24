"""Batches and weights split over devices by `keras.distribution`, under JAX on simulated ones."""

import json
import subprocess
import sys

import pytest
from other_backends import environment

TRAINED = """
import json
import keras, numpy as np
import keras_convnext
from keras import distribution

devices = distribution.list_devices()
mesh = distribution.DeviceMesh((2, 2), ("batch", "model"), devices)
layouts = keras_convnext.layout_map(mesh)
found = {}
for name, chosen in {
    "one device": None,
    "data": distribution.DataParallel(devices=devices),
    "model": distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch"),
}.items():
    distribution.set_distribution(chosen)
    keras.utils.set_random_seed(0)
    model = keras_convnext.ConvNeXt(
        (1,), (8,), classes=3, input_shape=(32, 32, 3), layer_scale_init_value=0.3
    )
    model.compile(keras_convnext.training.AdamW(1e-3), "sparse_categorical_crossentropy")
    pixels = np.random.default_rng(0).uniform(0, 255, (16, 32, 32, 3)).astype("float32")
    history = model.fit(
        pixels, np.arange(16) % 3, batch_size=8, epochs=3, shuffle=False, verbose=0
    ).history
    shards = {
        variable.path: list(variable.value.addressable_shards[0].data.shape)
        for variable in model.get_layer("stages_0_blocks_0").weights
    }
    found[name] = {"losses": history["loss"], "shards": shards}
print(json.dumps(found))
"""


def test_losses_are_those_of_one_device():
    pytest.importorskip("jax")
    flags = "--xla_force_host_platform_device_count=4"
    result = subprocess.run(
        [sys.executable, "-c", TRAINED], capture_output=True, text=True,
        env=environment("jax", flags),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    found = json.loads(result.stdout.splitlines()[-1])
    expected = found["one device"]["losses"]
    assert expected[-1] < expected[0]
    for name in ("data", "model"):
        assert found[name]["losses"] == pytest.approx(expected, rel=1e-6)
    split = {
        path.partition("/")[2]: shape
        for path, shape in found["model"]["shards"].items()
        if shape != found["data"]["shards"][path]
    }
    assert split == {"pwconv1/kernel": [8, 16], "pwconv1/bias": [16], "pwconv2/kernel": [16, 8]}


def test_an_axis_that_the_mesh_has_not_is_refused():
    import keras

    import keras_convnext

    mesh = keras.distribution.DeviceMesh((1,), ("batch",), ["cpu:0"])
    with pytest.raises(ValueError, match="Received: axis=model"):
        keras_convnext.layout_map(mesh)
