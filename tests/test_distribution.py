"""Batches and weights split over devices by `keras.distribution`, under JAX on simulated ones."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from other_backends import environment

TRAINED = """
import json
import keras, numpy as np
import keras_convnext
from keras import distribution

devices = distribution.list_devices()
mesh = distribution.DeviceMesh((4, 2), ("batch", "model"), devices)
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

# The program of the page, with a smaller network.
keras_convnext.ConvNeXtCifar = lambda weights, classes: keras_convnext.ConvNeXt(
    (1, 1), (8, 16), classes=classes, input_shape=(32, 32, 3)
)
page = {}
exec(PROGRAM, page)
found["page"] = {
    variable.path: [list(variable.shape), list(variable.value.addressable_shards[0].data.shape)]
    for variable in page["model"].get_layer("stages_1_blocks_0").weights
    if variable.value.addressable_shards[0].data.shape != variable.shape
}
print(json.dumps(found))
"""


def test_losses_are_those_of_one_device():
    pytest.importorskip("jax")
    page = (Path(__file__).parents[1] / "docs" / "scaling.md").read_text("utf-8")
    (program,) = re.findall(r"^```py\n(.*?)^```$", page, re.M | re.S)
    (flags,) = re.findall(r"^export KERAS_BACKEND=jax XLA_FLAGS=(.*)$", page, re.M)
    result = subprocess.run(
        [sys.executable, "-c", TRAINED.replace("PROGRAM", repr(program))],
        capture_output=True, text=True, env=environment("jax", flags),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    found = json.loads(result.stdout.splitlines()[-1])
    expected = found["one device"]["losses"]
    assert expected[-1] < expected[0]
    for name in ("data", "model"):
        assert found[name]["losses"] == pytest.approx(expected, rel=1e-6)
    assert {path.partition("/")[2]: shapes for path, shapes in found["page"].items()} == {
        "pwconv1/kernel": [[16, 64], [16, 32]],
        "pwconv1/bias": [[64], [32]],
        "pwconv2/kernel": [[64, 16], [32, 16]],
    }
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
