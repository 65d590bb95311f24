"""Builds ConvNeXt in each library, with random weights, logits and no stochastic depth.

Each function takes a case and a folder for files, and contains its own imports.
"""

import os

CLASSES = 1000


def name_of(case):
    """Returns the name of a network in this package and in timm; V2's cases begin with "v2_"."""
    return f"convnext{'' if case.network.startswith('v2_') else '_'}{case.network}"


def _keras_policy(case):
    import keras

    keras.config.set_dtype_policy("mixed_bfloat16" if case.dtype == "bfloat16" else "float32")


def keras_convnext(case, folder, **options):
    from keras_convnext.builders import BUILDERS

    _keras_policy(case)
    return BUILDERS[name_of(case)](
        weights=None, input_shape=case.input_shape, classifier_activation=None, **options
    )


def rematerialized(case, folder):
    return keras_convnext(case, folder, remat=True)


def fused(case, folder):
    from keras_convnext.export import fuse

    return fuse(keras_convnext(case, folder))


def keras_applications(case, folder):
    import keras

    _keras_policy(case)
    return getattr(keras.applications, f"ConvNeXt{case.network.title()}")(
        weights=None, input_shape=case.input_shape, classifier_activation=None
    )


def kimm(case, folder):
    import kimm

    _keras_policy(case)
    return getattr(kimm.models, f"ConvNeXt{case.network.title()}")(
        weights=None, input_shape=case.input_shape, classifier_activation=None
    )


def kecam(case, folder):
    from keras_cv_attention_models import convnext

    return getattr(convnext, f"ConvNeXt{case.network.title()}")(
        pretrained=None, input_shape=case.input_shape, classifier_activation=None,
        drop_connect_rate=0,
    )  # fmt: skip


def timm(case, folder):
    import timm
    import torch

    # On a GPU: matrix products in TF32, which is JAX' default.
    torch.set_float32_matmul_precision("high")
    model = timm.create_model(name_of(case), num_classes=CLASSES)
    if torch.cuda.is_available():
        model = model.to("cuda", memory_format=torch.channels_last)
    return model


def exported_to(name):
    """Returns a function that exports a network to a format of this package."""

    def write(case, folder):
        from keras_convnext.export import export
        from keras_convnext.shipped import shipped

        network = keras_convnext(case._replace(dtype="float32"), folder)
        photographs = shipped("examples/photos")  # to calibrate int8
        export(network, os.path.join(folder, name), name, dtype=case.dtype, images=photographs)

    return write


def saved_model(case, folder):
    import tensorflow as tf

    loaded = tf.saved_model.load(os.path.join(folder, "saved_model", "1"))
    serve = loaded.signatures["serving_default"]
    # The signature does not keep the loaded object alive.
    return lambda image, kept=loaded: serve(pixels=image)["logits"]


def our_onnx(case, folder):
    import onnxruntime

    session = onnxruntime.InferenceSession(
        os.path.join(folder, "onnx", "model.onnx"), providers=["CPUExecutionProvider"]
    )
    return lambda image: session.run(["logits"], {"pixels": image})[0]


def our_openvino(case, folder):
    import openvino

    model = openvino.Core().read_model(os.path.join(folder, "openvino", "model.xml"))
    model.reshape([case.batch, *case.input_shape])  # static shapes, as in timm's file
    compiled = _compiled_by_openvino(model, case)
    return lambda image: compiled(image)["logits"]


def our_litert(case, folder):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(
        os.path.join(folder, "litert", "model.tflite"), num_threads=os.cpu_count()
    )
    runner = interpreter.get_signature_runner()
    return lambda image: runner(pixels=image)["logits"]


def write_onnx(case, folder):
    import torch

    image = torch.zeros(case.batch, 3, case.size, case.size)
    torch.onnx.export(
        timm(case, folder).eval(), (image,), os.path.join(folder, "timm.onnx"), dynamo=True
    )


def onnx_runtime(case, folder):
    import onnxruntime

    session = onnxruntime.InferenceSession(
        os.path.join(folder, "timm.onnx"), providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image})[0]


def openvino(case, folder):
    compiled = _compiled_by_openvino(os.path.join(folder, "timm.onnx"), case)
    return lambda image: compiled(image)[0]


def _compiled_by_openvino(model, case):
    import openvino

    # By default it computes in bfloat16 if the processor supports it.
    hint = "bf16" if case.dtype == "bfloat16" else "f32"
    return openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})


def matrix_side(case, folder):
    """Returns the side of the square matrix to multiply, large enough for the peak rate."""
    if case.size < 128:
        return 512
    return 4096 if case.batch < 64 else 8192
