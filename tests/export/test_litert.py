"""Depthwise convolutions in a LiteRT file, which are shared out to smaller ones."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from keras_convnext import ConvNeXt
from keras_convnext.export import fuse
from keras_convnext.export.litert import _MOST_TAPS, _shared_rows, write_litert


@pytest.mark.parametrize("size", [1, 3, 5, 7, 9, 31])
def test_the_parts_have_each_row_once(size):
    kernel = np.random.default_rng(0).normal(size=(size, size, 4, 1))
    total = np.zeros_like(kernel)
    for part, dilation in _shared_rows(kernel, 56):
        reach = (len(part) - 1) * dilation // 2
        total[size // 2 - reach : size // 2 + reach + 1 : dilation] += part
        assert part[..., 0, 0].size <= _MOST_TAPS or size > 7
    np.testing.assert_array_equal(total, kernel)


SHAPES = [  # size of the kernel, height and width of the map, convolutions
    (3, 4, 4, 1), (5, 4, 4, 1), (9, 16, 4, 1), (7, 3, 12, 1), (7, 1, 1, 1), (7, None, 8, 1),
    (7, 4, 12, 3), (7, 16, 12, 3), (7, 5, 1, 3), (7, 16, 2, 3), (7, 14, 14, 3),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kernel_size", "height", "width", "parts", "dtype"),
    [(*shape, dtype) for shape in SHAPES for dtype in ("float32", "int8")
     if None not in shape or dtype == "float32"],
)  # fmt: skip
def test_they_add_up_to_the_whole(kernel_size, height, width, parts, dtype, tmp_path):
    keras.utils.set_random_seed(1)
    sides = height and 4 * height, 4 * width
    model = ConvNeXt(
        (1,), (32,), kernel_size=kernel_size, include_top=False, input_shape=(*sides, 3),
        layer_scale_init_value=0.3,
    )  # fmt: skip
    random = np.random.default_rng(0)
    model.set_weights([random.normal(w, 0.3).astype("float32") for w in model.get_weights()])
    pixels = random.uniform(0, 255, (2, sides[0] or 24, sides[1], 3)).astype("float32")
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
