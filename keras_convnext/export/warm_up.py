"""Warm-up requests for TensorFlow Serving.

They are records of `PredictionLog` (tensorflow/serving, apis/prediction_log.proto). The package
with the generated code requires gRPC and its own version of TensorFlow, so the few fields that are
needed are encoded by hand.
"""

from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from keras_convnext.shipped import shipped


def write_warm_up(saved_model: Path, pixels: str, shape: Sequence[int], takes_bytes: bool) -> None:
    """Adds one warm-up request for each classifying signature of a SavedModel.

    Args:
        saved_model: path. Folder of the SavedModel.
        pixels: str. Type of its input.
        shape: tuple (height, width, channels). Shape of an image.
        takes_bytes: bool. Whether it has the signature `serve_bytes`.
    """
    requests = {"serving_default": {"pixels": tf.zeros((1, *shape), pixels)}}
    if takes_bytes:
        photograph = (shipped("examples/photos") / "cat.jpg").read_bytes()
        requests["serve_bytes"] = {"images": tf.constant([photograph])}
    path = saved_model / "assets.extra" / "tf_serving_warmup_requests"
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests.items():
            writer.write(_prediction_log(signature, inputs))


def _prediction_log(signature: str, inputs: dict[str, tf.Tensor]) -> bytes:
    model_spec = _field(3, signature.encode())  # ModelSpec.signature_name
    tensors = {name: tf.make_tensor_proto(tensor) for name, tensor in inputs.items()}
    entries = b"".join(
        _field(2, _field(1, name.encode()) + _field(2, tensor.SerializeToString()))
        for name, tensor in tensors.items()
    )  # PredictRequest.inputs, a map: key 1, value 2
    request = _field(1, model_spec) + entries  # PredictRequest.model_spec
    return _field(6, _field(1, request))  # PredictionLog.predict_log, PredictLog.request


def _field(number: int, content: bytes) -> bytes:
    """Encodes a protocol buffer field of bytes: tag, length, content."""
    tag, length, varint = number << 3 | 2, len(content), bytearray()
    while length > 127:
        varint.append(length & 127 | 128)
        length >>= 7
    return bytes([tag, *varint, length]) + content
