"""The export formats: how each is written, and run in its runtime."""

import importlib.util
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_convnext.export.served import OUTPUTS, with_outputs

Run = Callable[[np.ndarray], dict[str, np.ndarray]]


class Order(NamedTuple):
    """The arguments for writing an artifact.

    Args:
        network: keras.Model. As returned by `served_network`.
        folder: path. Output folder.
        pixels: str. Type of the input, "float32" or "uint8".
        dtype: str. Type of the stored weights.
        size: int or pair of int. Side of the square that an encoded image is cropped to, or height
            and width.
        names: sequence of str. Class names.
        samples: iterable of arrays (N, H, W, 3). Pixels for the calibration of "int8".
    """

    network: keras.Model
    folder: Path
    pixels: str
    dtype: str
    size: int | tuple[int, int]
    names: Sequence[str]
    samples: Iterable[np.ndarray] = ()


class Format(NamedTuple):
    """An export format.

    Args:
        file: str. Name of the file or folder to load.
        dtypes: tuple of str. Supported types of the stored weights.
        tolerance: float. Allowed difference of float32 logits from Keras', relative to the largest.
        packages: tuple of str. Modules needed to write and run it.
        write: callable. Takes an Order.
        load: callable. Takes the file and the dtype, and returns a function from pixels
            (N, H, W, 3) to a dict of arrays.
    """

    file: str
    dtypes: tuple[str, ...]
    tolerance: float
    packages: tuple[str, ...]
    write: Callable[[Order], None]
    load: Callable[[Path, str], Run]


def missing_packages(chosen: Format) -> list[str]:
    """Returns the modules of a format that are not installed."""
    return [name for name in chosen.packages if importlib.util.find_spec(name) is None]


def _write_onnx(order: Order) -> None:
    import onnx

    from keras_convnext.export.onnx_detectors import DetectorWriter
    from keras_convnext.export.onnx_graph import Writer, onnx_graph
    from keras_convnext.export.onnx_rotated import RotatedWriter

    path = order.folder / FORMATS["onnx"].file
    network = with_outputs(order.network, *OUTPUTS)
    kept = "float32" if order.dtype == "int8" else order.dtype
    writer = DetectorWriter if "boxes" in network.output else Writer
    if "boxes" in network.output and "labels" not in network.output:  # before suppression
        writer = RotatedWriter
    graph = onnx_graph(network, order.pixels, kept, writer)
    if order.dtype == "int8":
        _quantize_onnx(graph, path, order.samples)
    else:
        onnx.save(graph, path)


def _quantize_onnx(graph: object, path: Path, samples: Iterable[np.ndarray]) -> None:
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.samples = iter(samples)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(({"pixels": sample} for sample in self.samples), None)

    quantization.quantize_static(
        graph,
        path,
        Reader(),
        op_types_to_quantize=["Conv", "MatMul", "Gemm"],  # norms and GELU stay in float32
        per_channel=True,
        # Seven-bit weights: processors without VNNI add pairs of products in 16 bits, with
        # saturation.
        reduce_range=True,
        weight_type=quantization.QuantType.QInt8,
        activation_type=quantization.QuantType.QUInt8,
    )


def _load_onnx(path: Path, dtype: str) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda pixels: dict(zip(names, session.run(names, {"pixels": pixels})))


def _write_openvino(order: Order) -> None:
    import openvino

    # OpenVINO files cannot store bfloat16: the weights are float16, and computed in bfloat16.
    half = order.dtype in ("float16", "bfloat16")
    _write_onnx(order._replace(dtype="float32") if half else order)
    onnx_file = order.folder / FORMATS["onnx"].file
    # Not openvino.convert_model, which reports each call to a server of OpenVINO's publisher.
    model = openvino.Core().read_model(onnx_file)
    openvino.save_model(model, order.folder / FORMATS["openvino"].file, compress_to_fp16=half)
    del model  # it holds the file open
    onnx_file.unlink()


def _load_openvino(path: Path, dtype: str) -> Run:
    import openvino

    # By default OpenVINO computes in bfloat16 on processors that support it, whatever the file.
    settings = {"INFERENCE_PRECISION_HINT": "bf16" if dtype == "bfloat16" else "f32"}
    core = openvino.Core()
    model = core.read_model(path)
    names = [output.any_name for output in model.outputs]  # compiled ones have several names
    compiled = core.compile_model(model, "CPU", settings)

    def run(pixels: np.ndarray) -> dict[str, np.ndarray]:
        found = compiled([pixels])
        return {name: found[number] for number, name in enumerate(names)}

    return run


def _write_litert(order: Order) -> None:
    from keras_convnext.export.litert import write_litert

    write_litert(
        with_outputs(order.network, *OUTPUTS),
        order.folder / FORMATS["litert"].file,
        order.pixels,
        order.dtype,
        order.samples,
    )


def _load_litert(path: Path, dtype: str) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=os.cpu_count())  # the default is one thread
    runner = interpreter.get_signature_runner("serving_default")
    return lambda pixels: runner(pixels=pixels)


def _write_saved_model(order: Order) -> None:
    from keras_convnext.export.saved_model import write_saved_model

    write_saved_model(
        order.network,
        order.folder / FORMATS["saved_model"].file,
        order.pixels,
        order.dtype,
        order.size,
        order.names,
    )


def _load_saved_model(path: Path, dtype: str) -> Run:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))

    def run(pixels: np.ndarray) -> dict[str, np.ndarray]:
        # Through `loaded`, since a signature alone does not keep its variables alive.
        found = loaded.signatures["serving_default"](pixels=tf.constant(pixels))
        return {name: value.numpy() for name, value in found.items()}

    return run


FORMATS = {
    "saved_model": Format(
        "1", ("float32", "float16", "bfloat16"), 1e-5, (), _write_saved_model, _load_saved_model
    ),
    "onnx": Format(
        "model.onnx",
        ("float32", "float16", "bfloat16", "int8"),
        1e-4,
        ("onnx", "onnxruntime"),
        _write_onnx,
        _load_onnx,
    ),
    "litert": Format(
        "model.tflite",
        ("float32", "float16", "int8"),
        1e-4,
        ("ai_edge_litert", "ai_edge_quantizer"),
        _write_litert,
        _load_litert,
    ),
    "openvino": Format(
        "model.xml",
        ("float32", "float16", "bfloat16", "int8"),
        1e-4,
        ("onnx", "onnxruntime", "openvino"),
        _write_openvino,
        _load_openvino,
    ),
}
