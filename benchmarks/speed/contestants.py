"""The contestants, one row each, and the cases."""

from collections.abc import Callable
from typing import Any, NamedTuple

import networks as n
import ways as w


class Case(NamedTuple):
    network: str  # tiny, v2_tiny ...
    size: int  # side of the images, in pixels
    batch: int
    mode: str  # inference or training
    dtype: str = "float32"  # of the arithmetic; with bfloat16, weights stay in float32

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return (self.size, self.size, 3)

    def __str__(self) -> str:
        return f"{self.mode}, {self.network}, {self.size} px, batch {self.batch}, {self.dtype}"


class Stack(NamedTuple):
    modules: tuple[str, ...]  # imported first, in this order; the import is timed
    environment: dict[str, str] = {}  # noqa: RUF012


class Contestant(NamedTuple):
    library: str
    way: str
    stack: Stack
    network: Callable[[Case, str], Any]  # takes the case and a folder for files
    step: Callable[[Any, Case], Callable[[], Any]]  # takes network and case; its result is timed
    dtypes: tuple[str, ...] = ("float32", "bfloat16")

    @property
    def name(self) -> str:
        return f"{self.library} {self.way}"


OURS, APPLICATIONS, MATRIX = "keras_convnext", "keras.applications", "matrix product"

KERAS_TF = Stack(("tensorflow", "keras"))
# Ours is imported before TensorFlow, to enable its oneDNN kernels on CPUs without AVX-512. For
# serving a SavedModel, the variable is set instead.
OURS_TF = Stack(("keras_convnext.builders",))
SERVING_TF = Stack(("tensorflow",), {"TF_ENABLE_ONEDNN_OPTS": "1"})
KIMM_TF = Stack(("tensorflow", "keras", "kimm"))
KECAM_TF = Stack(
    ("tensorflow", "tf_keras", "keras_cv_attention_models"), {"TF_USE_LEGACY_KERAS": "1"}
)
NUMPY, TORCH, JAX = Stack(("numpy",)), Stack(("torch",)), Stack(("jax",))
TIMM = Stack(("torch", "any_torchvision", "timm"))
ORT, OPENVINO = Stack(("onnxruntime",)), Stack(("openvino",))
LITERT = Stack(("ai_edge_litert.interpreter",))
OURS_JAX = Stack(("jax", "keras", "keras_convnext.builders"), {"KERAS_BACKEND": "jax"})
OURS_TORCH = Stack(("torch", "keras", "keras_convnext.builders"), {"KERAS_BACKEND": "torch"})
KERAS_JAX, KERAS_TORCH = (stack._replace(modules=stack.modules[:2]) for stack in
                          (OURS_JAX, OURS_TORCH))  # fmt: skip

F32, INT8 = ("float32",), ("float32", "int8")
ALL = ("float32", "bfloat16", "int8")

C = Contestant
MATRICES = (
    C(MATRIX, "NumPy",      NUMPY, n.matrix_side, w.numpy_product, F32),
    C(MATRIX, "TensorFlow", SERVING_TF, n.matrix_side, w.tensorflow_product),
    C(MATRIX, "PyTorch",    TORCH, n.matrix_side, w.torch_product),
)  # fmt: skip
GPU_MATRICES = (
    C(MATRIX, "JAX",        JAX,   n.matrix_side, w.jax_product),
    C(MATRIX, "PyTorch",    TORCH, n.matrix_side, w.torch_product),
)  # fmt: skip

# Keras 3 uses XLA by default in `predict` and `fit`, which is slow at depthwise convolutions on a
# CPU: tf.function and "without XLA" show the full speed of the other Keras libraries.
CONTESTANTS = {
    ("cpu", "inference"): (
        C(OURS,           "predict",        OURS_TF,     n.keras_convnext,     w.predict),
        C(OURS,           "predict, array", OURS_TF,     n.keras_convnext,     w.predict_array),
        C(OURS,           "tf.function",    OURS_TF,     n.keras_convnext,     w.tf_function),
        C(OURS,           "model(x)",       OURS_TF,     n.keras_convnext,     w.call),
        C(OURS,           "fused",          OURS_TF,     n.fused,              w.tf_function),
        C(OURS,           "fused predict",  OURS_TF,     n.fused,              w.predict),
        C(OURS,           "SavedModel",     SERVING_TF,  n.saved_model,        w.call, F32),
        C(OURS,           "ONNX Runtime",   ORT,         n.our_onnx,           w.our_runtime, INT8),
        C(OURS,           "OpenVINO",       OPENVINO,    n.our_openvino,       w.our_runtime, ALL),
        C(OURS,           "LiteRT",         LITERT,      n.our_litert,         w.our_runtime, INT8),
        C(APPLICATIONS,   "predict",        KERAS_TF,    n.keras_applications, w.predict),
        C(APPLICATIONS,   "tf.function",    KERAS_TF,    n.keras_applications, w.tf_function),
        C(APPLICATIONS,   "model(x)",       KERAS_TF,    n.keras_applications, w.call),
        C("kimm",         "predict",        KIMM_TF,     n.kimm,               w.predict),
        C("kimm",         "tf.function",    KIMM_TF,     n.kimm,               w.tf_function),
        C("kecam",        "predict",        KECAM_TF,    n.kecam,              w.predict, F32),
        C("kecam",        "tf.function",    KECAM_TF,    n.kecam,              w.tf_function, F32),
        C("timm",         "eager",          TIMM,        n.timm,               w.timm_call),
        C("timm",         "torch.compile",  TIMM,        n.timm,               w.timm_compiled),
        C("ONNX Runtime", "from timm",      ORT,         n.onnx_runtime,       w.runtime, F32),
        C("OpenVINO",     "from timm",      OPENVINO,    n.openvino,           w.runtime),
        *MATRICES,
    ),
    ("cpu", "training"): (
        C(OURS,           "train_on_batch", OURS_TF,     n.keras_convnext,     w.train_on_batch),
        C(OURS,           "own AdamW",      OURS_TF,     n.keras_convnext,     w.train_as_recipes),
        C(OURS,           "remat=True",     OURS_TF,     n.rematerialized,     w.train_on_batch),
        C(APPLICATIONS,   "train_on_batch", KERAS_TF,    n.keras_applications, w.train_on_batch),
        C(APPLICATIONS,   "without XLA",    KERAS_TF,    n.keras_applications, w.train_without_xla),
        C("kimm",         "train_on_batch", KIMM_TF,     n.kimm,               w.train_on_batch),
        C("kimm",         "without XLA",    KIMM_TF,     n.kimm,               w.train_without_xla),
        C("kecam",        "train_on_batch", KECAM_TF,    n.kecam,              w.keras_2_fit, F32),
        C("timm",         "eager",          TIMM,        n.timm,               w.timm_fit),
        C("timm",         "torch.compile",  TIMM,        n.timm,               w.timm_fit_compiled),
        *MATRICES,
    ),
    ("gpu", "inference"): (
        C(OURS,           "JAX",            OURS_JAX,    n.keras_convnext,     w.jax_jit),
        C(OURS,           "PyTorch",        OURS_TORCH,  n.keras_convnext,     w.torch_call),
        C(OURS,           "torch.compile",  OURS_TORCH,  n.keras_convnext,     w.torch_compiled),
        C(APPLICATIONS,   "JAX",            KERAS_JAX,   n.keras_applications, w.jax_jit),
        C(APPLICATIONS,   "PyTorch",        KERAS_TORCH, n.keras_applications, w.torch_call),
        C("timm",         "eager",          TIMM,        n.timm,               w.timm_call),
        C("timm",         "torch.compile",  TIMM,        n.timm,               w.timm_compiled),
        *GPU_MATRICES,
    ),
    ("gpu", "training"): (
        C(OURS,           "JAX",            OURS_JAX,    n.keras_convnext,     w.train_on_device),
        C(OURS,           "PyTorch",        OURS_TORCH,  n.keras_convnext,     w.train_on_device),
        C(APPLICATIONS,   "JAX",            KERAS_JAX,   n.keras_applications, w.train_on_device),
        C(APPLICATIONS,   "PyTorch",        KERAS_TORCH, n.keras_applications, w.train_on_device),
        C("timm",         "eager",          TIMM,        n.timm,               w.timm_fit),
        C("timm",         "torch.compile",  TIMM,        n.timm,               w.timm_fit_compiled),
        *GPU_MATRICES,
    ),
}  # fmt: skip

# Functions that write the files of a network, in a process that is not measured.
WRITERS = {
    n.saved_model: (OURS_TF, n.exported_to("saved_model")),
    n.our_onnx: (OURS_TF, n.exported_to("onnx")),
    n.our_openvino: (OURS_TF, n.exported_to("openvino")),
    n.our_litert: (OURS_TF, n.exported_to("litert")),
    n.onnx_runtime: (TIMM, n.write_onnx),
    n.openvino: (TIMM, n.write_onnx),
}
