"""Depthwise convolutions in a LiteRT file, which are shared out to smaller ones."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from keras_convnext import ConvNeXt
from keras_convnext.export import fuse
from keras_convnext.export.litert import _MOST_TAPS, _shared_rows, write_litert


@pytest.mark.parametrize("size", range(1, 33, 2))
def test_each_row_is_in_one_convolution(size):
    shared = list(_shared_rows(size))
    rows = [row for chosen, _ in shared for row in chosen]
    assert sorted(rows) == list(range(size))
    for chosen, dilation in shared:
        assert set(np.diff(chosen)) <= {dilation}
        assert chosen[0] + chosen[-1] == size - 1  # about the middle
    if size <= _MOST_TAPS // 2:
        assert max(len(chosen) * size for chosen, _ in shared) <= _MOST_TAPS


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize(("kernel_size", "parts"), [(3, 1), (5, 1), (7, 3), (9, 5), (13, 1)])
def test_they_add_up_to_the_whole(kernel_size, parts, dtype, tmp_path):
    keras.utils.set_random_seed(1)
    model = ConvNeXt(
        (1,), (32,), kernel_size=kernel_size, include_top=False, input_shape=(64, 48, 3),
        layer_scale_init_value=0.3,
    )  # fmt: skip
    random = np.random.default_rng(0)
    model.set_weights([random.normal(w, 0.3).astype("float32") for w in model.get_weights()])
    pixels = random.uniform(0, 255, (2, 64, 48, 3)).astype("float32")
    fused = fuse(model)
    network = keras.Model(fused.input, {"features": fused.output})
    write_litert(network, tmp_path / "model.tflite", dtype=dtype, samples=[pixels])

    interpreter = Interpreter(str(tmp_path / "model.tflite"))
    operations = [operation["op_name"] for operation in interpreter._get_ops_details()]
    assert operations.count("DEPTHWISE_CONV_2D") == parts
    found = interpreter.get_signature_runner()(pixels=pixels)["features"]
    expected = model.predict(pixels, verbose=0)
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error < {"float32": 1e-5, "int8": 0.1}[dtype]
