"""A hash of a model, to notice that an interrupted evaluation belongs to another one."""

import hashlib
import json
from collections.abc import Sequence

import keras
import numpy as np


def model_digest(model: keras.Model, names: Sequence[str] | None) -> str:
    """Returns a hash of what the outputs of a model depend on: weights, precision and classes."""
    digest = hashlib.sha256()
    described = [model.input_shape, model.output_shape, model.compute_dtype, names and list(names)]
    digest.update(json.dumps(described).encode("utf-8", "surrogatepass"))
    for weight in model.weights:
        value = np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
        digest.update(f"{value.shape} {value.dtype}".encode())
        digest.update(value.view(np.uint8).data if value.ndim else value.tobytes())
    return digest.hexdigest()
