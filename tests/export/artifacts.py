"""Networks to export, and programs that run them without Keras or this package."""

import subprocess
import sys

import numpy as np
from test_fusing import isotropic, randomize
from test_parity import relative_error

import keras_convnext

# Complete programs that run an artifact in a process with only its runtime.
PROGRAMS = {
    "saved_model": """
import tensorflow as tf
serve = (loaded := tf.saved_model.load(folder + "/1")).signatures["serving_default"]
logits = serve(pixels=tf.constant(pixels))["logits"].numpy()
""",
    "onnx": """
import onnx, onnxruntime
onnx.checker.check_model(folder + "/model.onnx", full_check=True)
session = onnxruntime.InferenceSession(folder + "/model.onnx")
logits = session.run(["logits"], {"pixels": pixels})[0]
""",
    "litert": """
from ai_edge_litert.interpreter import Interpreter
runner = Interpreter(folder + "/model.tflite").get_signature_runner("serving_default")
logits = runner(pixels=pixels)["logits"]
""",
    "openvino": """
import openvino
compiled = openvino.Core().compile_model(
    folder + "/model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
)
logits = compiled([pixels])["logits"]
""",
}
_PROGRAM = """
import sys
sys.modules["keras"] = sys.modules["keras_convnext"] = sys.modules["openvino_telemetry"] = None
import numpy as np
for folder in sys.argv[1:]:
    pixels = np.load(folder + ".pixels.npy")
    {program}
    np.save(folder + ".logits.npy", logits)
"""


def logits_elsewhere(name, pixels):
    """Computes the logits of artifacts in one new process, since each takes seconds to start.

    Args:
        name: str. The format.
        pixels: dict. The images for each folder of an artifact.

    Returns:
        A dict of the logits by folder.
    """
    for folder, asked in pixels.items():
        np.save(f"{folder}.pixels.npy", asked)
    program = _PROGRAM.format(program=PROGRAMS[name].strip().replace("\n", "\n    "))
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, pixels)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return {folder: np.load(f"{folder}.logits.npy") for folder in pixels}


def hierarchical(**options):
    return keras_convnext.ConvNeXt(
        (1, 2, 1, 1),
        (16, 24, 32, 40),
        **{"layer_scale_init_value": 0.3, "classes": 7, "input_shape": (64, 64, 3), **options},
    )


def networks():
    return {"hierarchical": randomize(hierarchical()), "isotropic": randomize(isotropic())}


def images(number, size, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (number, size, size, 3))
    return noise.astype("uint8")


def live_logits(model, pixels):
    import keras

    head = keras.Model(model.input, model.get_layer("head").output)
    return np.asarray(head(np.asarray(pixels, "float32")))


def error_of(logits, model, pixels):
    return relative_error(logits, live_logits(model, pixels))
