"""The ways to run a network: each takes a network and a case, and returns a step.

A step has no arguments, blocks until the work is done, and returns logits or a training loss. If it
runs several batches, its attribute `batches` is their number. Images are converted to the library's
format in advance; only `train_on_batch` on a CPU takes NumPy arrays, as in typical code.
"""

import contextlib

import numpy as np

LEARNING_RATE, WEIGHT_DECAY = 1e-3, 0.05
PREDICTED_BATCHES = 8


def pixels(case):
    """Returns images for Keras models: 0..255, channels last."""
    shape = (case.batch, *case.input_shape)
    return np.random.default_rng(0).uniform(0, 255, shape).astype("float32")


def normalized(case):
    """Returns images for timm's networks: normalized, channels first."""
    return np.ascontiguousarray(pixels(case).transpose(0, 3, 1, 2) / 128 - 1)


def labels(case):
    return np.arange(case.batch, dtype="int32")


# Keras, on any backend


def _several_batches(case):
    """Returns several batches for one call, as Keras' pipeline takes half a second per call."""
    return np.concatenate([pixels(case)] * PREDICTED_BATCHES)


def _predict(model, case, x, **options):
    def step():
        return model.predict(x, verbose=0, **options)[: case.batch]

    step.batches = PREDICTED_BATCHES
    return step


def predict(model, case):
    """Predicts from a dataset without autotuning.

    With autotuning, as for arrays, TensorFlow often waits at the end for the tuning thread, up to
    the duration of the call.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    batches = tf.data.Dataset.from_tensor_slices(_several_batches(case)).batch(case.batch)
    return _predict(model, case, batches.prefetch(1).with_options(options))


def predict_array(model, case):
    """Predicts from an array, with TensorFlow's autotuning and its possible delay."""
    return _predict(model, case, _several_batches(case), batch_size=case.batch)


def _train(keras, model, case, put=np.asarray, adamw=None, **options):
    model.compile(
        (adamw or keras.optimizers.AdamW)(LEARNING_RATE, weight_decay=WEIGHT_DECAY),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **options,
    )
    # As in `fit`. Otherwise the first call creates the variables in the graph, and traces twice.
    model.optimizer.build(model.trainable_variables)
    x, y = put(pixels(case)), put(labels(case))
    return lambda: model.train_on_batch(x, y)


def train_on_batch(model, case):
    import keras

    return _train(keras, model, case)


def train_as_recipes(model, case):
    """Uses this package's AdamW, which matches PyTorch's, instead of Keras'."""
    import keras

    from keras_convnext.training import AdamW

    return _train(keras, model, case, adamw=AdamW)


def train_without_xla(model, case):
    import keras

    return _train(keras, model, case, jit_compile=False)


def keras_2_fit(model, case):
    import tf_keras

    return _train(tf_keras, model, case)


def train_on_device(model, case):
    """The batch is already on the device, as for timm."""
    import keras

    return _train(keras, model, case, put=keras.ops.convert_to_tensor)


# TensorFlow


def call(model, case):
    import tensorflow as tf

    x = tf.constant(pixels(case))
    return lambda: model(x).numpy()


def tf_function(model, case):
    import tensorflow as tf

    x = tf.constant(pixels(case))
    function = tf.function(lambda x: model(x, training=False))
    return lambda: function(x).numpy()


# JAX


def jax_jit(model, case):
    import jax

    x = jax.numpy.asarray(pixels(case))
    variables = [
        [variable.value for variable in some]
        for some in (model.trainable_variables, model.non_trainable_variables)
    ]
    forward = jax.jit(lambda variables, x: model.stateless_call(*variables, x, training=False)[0])
    return lambda: jax.block_until_ready(forward(variables, x))


# PyTorch: timm's networks, and Keras' on its PyTorch backend


def _device():
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _synchronized(step):
    import torch

    def run():
        result = step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return result

    return run


def _precision(case):
    """Mixed precision as in Keras: float32 weights, computation in half precision."""
    import torch

    if case.dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(_device().type, getattr(torch, case.dtype))


def torch_call(model, case):
    import torch

    x = torch.from_numpy(pixels(case)).to(_device())
    return _synchronized(torch.no_grad()(lambda: model(x, training=False)))


def torch_compiled(model, case):
    import torch

    compiled = torch.compile(lambda x: model(x, training=False))
    return torch_call(lambda x, training: compiled(x), case)


def timm_call(model, case):
    import torch

    model.eval()
    x = torch.from_numpy(normalized(case)).to(_device())
    if x.is_cuda:
        x = x.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def step():
        with _precision(case):
            return model(x)

    return _synchronized(step)


def timm_compiled(model, case):
    import torch

    return timm_call(torch.compile(model.eval()), case)


def timm_fit(model, case):
    import torch

    model.train()
    x = torch.from_numpy(normalized(case)).to(_device())
    if x.is_cuda:
        x = x.to(memory_format=torch.channels_last)
    y = torch.from_numpy(labels(case)).long().to(_device())
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)

    def step():
        with _precision(case):
            loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return _synchronized(step)


def timm_fit_compiled(model, case):
    import torch

    return timm_fit(torch.compile(model), case)


# Runtimes that take NumPy arrays


def runtime(network, case):
    x = normalized(case)
    return lambda: network(x)


def our_runtime(network, case):
    x = pixels(case)
    return lambda: network(x)


# Matrix products, as the upper limit


def numpy_product(side, case):
    a = np.random.default_rng(0).random((side, side), "float32")
    return lambda: a @ a


def tensorflow_product(side, case):
    import tensorflow as tf

    a = tf.cast(tf.random.uniform((side, side)), case.dtype)
    return lambda: tf.matmul(a, a).numpy()


def torch_product(side, case):
    import torch

    torch.set_float32_matmul_precision("high")
    a = torch.rand(side, side, device=_device(), dtype=getattr(torch, case.dtype))
    return _synchronized(lambda: a @ a)


def jax_product(side, case):
    import jax

    a = jax.random.uniform(jax.random.key(0), (side, side), case.dtype)
    return lambda: jax.block_until_ready(a @ a)
