"""Checks for every network on every backend, on a toy twin of its row in `VARIANTS`.

New rows are checked automatically. A check is a function of a `Twin` and an empty folder.
"""

import copy
import pickle
import re
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec

import keras
import numpy as np
import pytest
import torch
import torch_reference
from keras import ops

import keras_convnext
from keras_convnext import block, builders
from keras_convnext.export import Artifact, fuse
from keras_convnext.export.formats import FORMATS
from keras_convnext.normalization import IMAGENET
from keras_convnext.trunks import trunk_of
from keras_convnext.variants import VARIANTS

TOLERANCE = 1e-5  # of the largest value, in float32
ROUNDING = {"float16": 2**-11, "bfloat16": 2**-8}  # half a unit in the last place, near 1
QUANTIZED = {"int8": 0.02, "int4": 0.3}  # tolerance of each mode
if not hasattr(keras.quantizers, "pack_int4"):  # before Keras 3.11
    del QUANTIZED["int4"]
CLASSES = 5
BACKEND = keras.config.backend()


def twin_row(row):
    """Returns the row of a toy with the same structure: at most two stages of few narrow blocks.

    The depthwise kernels are small, because JAX compiles one term for each of their positions.
    """
    depths = tuple(1 + (depth == max(row.depths)) for depth in row.depths[-2:])
    dims = (8, 16)[: len(depths)]
    return row._replace(
        depths=depths, dims=dims, kernel_size=3, hidden=row.hidden and 12, overlap=row.overlap and 8
    )


class Twin:
    """The toy of a row, with random weights that all affect the output.

    Args:
        name: str. A key of `VARIANTS`.
        folder: path. Folder for its checkpoint.
    """

    def __init__(self, name, folder):
        row = self.variant = twin_row(VARIANTS[name])
        structure = {
            "classes": CLASSES,
            "gamma": row.layer_scale is not None,
            "patch_size": row.patch_size,
            "kernel_size": row.kernel_size,
        }
        if row.isotropic:
            reference = torch_reference.Isotropic(*row.depths, *row.dims, **structure)
        else:
            structure |= {"grn": row.grn, "epsilon": row.epsilon, "hidden": row.hidden}
            reference = torch_reference.Hierarchical(row.depths, row.dims, **structure)
        self.reference = torch_reference.randomize(reference)
        self.checkpoint = torch_reference.save(self.reference, folder / f"{name}.pth")
        # Odd sides, so that the stem and the downsampling drop rows and columns.
        self.pixels = random(4, 45, 67, 3, scale=255)
        self.labels = np.arange(4) % CLASSES

    def build(self, **options):
        """Builds the network with the reference's weights; by default it returns logits."""
        defaults = {
            "weights": self.checkpoint,
            "input_shape": (None, None, 3),
            "classes": CLASSES,
            "classifier_activation": None,
        }
        return builders._builder(self.variant)(**{**defaults, **options})

    def clone(self, **options):
        """Clones `model` with its weights. `options` are passed to `keras.models.clone_model`."""
        clone = keras.models.clone_model(self.model, **options)
        clone.set_weights(self.model.get_weights())
        return clone

    @cached_property
    def model(self):
        """A shared network that checks must not change. To change one, call `build`."""
        return self.build()

    @cached_property
    def logits(self):
        """The output of `model` for `pixels`."""
        return array(self.model(self.pixels))


def check_shapes_and_dtypes(twin, folder):
    row, (samples, height, width, _) = twin.variant, twin.pixels.shape
    sides = height // row.stride, width // row.stride
    expected = {
        (True, None): (CLASSES,),
        (False, None): (*sides, row.dims[-1]),
        (False, "avg"): (row.dims[-1],),
        (False, "max"): (row.dims[-1],),
    }
    for (top, pooling), shape in expected.items():
        model = twin.build(include_top=top, pooling=pooling)
        assert_shape_and_dtype(model(twin.pixels), (samples, *shape))
        assert model.output_shape == (None, *(shape if top or pooling else (None, None, shape[-1])))
        assert model.compute_output_shape(twin.pixels.shape) == (samples, *shape)

    fixed = twin.build(input_shape=twin.pixels.shape[1:], classifier_activation="softmax")
    layers = [layer for layer in fixed.layers if not isinstance(layer, keras.layers.InputLayer)]
    maps = keras.Model(fixed.input, [layer.output for layer in layers])(twin.pixels)
    for layer, found in zip(layers, maps, strict=True):
        assert_shape_and_dtype(found, (samples, *layer.output.shape[1:]))
    np.testing.assert_allclose(array(maps[-1]).sum(-1), 1, rtol=1e-6)
    with pytest.raises(ValueError, match="too small"):
        twin.model(twin.pixels[:, : row.stride - 1])


def check_sizes_of_images_and_batches(twin, folder):
    side = twin.variant.min_size
    pixels = random(1, side, 2 * side, 3, scale=255)
    fixed = twin.build(input_shape=pixels.shape[1:])
    assert_close(compute(twin.model, pixels), compute(fixed, pixels))
    predicted = twin.model.predict(twin.pixels, batch_size=3, verbose=0)  # 3 and 1
    assert_close(predicted, twin.logits)


def check_copies(twin, folder):
    model = twin.build(drop_path_rate=0.3, remat=True)
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")
    weights = model.get_weights()
    copies = {
        ".keras": keras.models.load_model(folder / "model.keras"),
        ".weights.h5": twin.build(weights=None, drop_path_rate=0.3, remat=True),
        "clone_model": keras.models.clone_model(model),
        "from_config": keras.Model.from_config(model.get_config()),
        "deepcopy": copy.deepcopy(model),
        "pickle": pickle.loads(pickle.dumps(model)),
    }
    copies[".weights.h5"].load_weights(folder / "model.weights.h5")
    for way in ("clone_model", "from_config"):
        copies[way].set_weights(weights)
    for way, again in copies.items():
        assert again.to_json() == model.to_json(), way
        for mine, theirs in zip(blocks_of(again), blocks_of(model), strict=True):
            assert state_of(mine) == state_of(theirs), way
        assert_close(compute(again, twin.pixels), twin.logits, what=way)
        again.set_weights([np.zeros_like(weight) for weight in weights])
        for mine, weight in zip(model.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(mine, weight, f"shares weights with its {way}")


def check_gradients(twin, folder):
    """The gradients of all weights equal PyTorch's."""
    factors = random(*twin.logits.shape)
    _, gradients = loss_and_gradients(twin.model, twin.pixels, factors)
    carrier = twin.build()  # holds gradients as weights, to save them under official names
    carrier.set_weights([array(gradient) for gradient in gradients])
    found = official_weights(carrier, folder)

    twin.reference.zero_grad()
    (twin.reference(normalized(twin.pixels)) * torch.tensor(factors)).sum().backward()
    expected = {name: weight.grad for name, weight in twin.reference.named_parameters()}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert_close(found[name], gradient, 10 * TOLERANCE, name)


def check_fit(twin, folder):
    """Training changes every weight, and all numbers stay finite."""
    model = twin.build()
    before = model.get_weights()
    loss = fit(model, twin)
    assert np.isfinite(loss).all()
    for variable, was, now in zip(model.weights, before, model.get_weights(), strict=True):
        assert np.isfinite(now).all(), variable.path
        assert (was != now).any(), variable.path


def check_training_flag_and_drop_path(twin, folder):
    assert_close(twin.model(twin.pixels, training=True), twin.logits)  # nothing to drop
    model = twin.build(drop_path_rate=0.5)
    assert_close(model(twin.pixels), twin.logits)
    assert_close(model(twin.pixels, training=False), twin.logits)
    rates = [layer.drop_path.rate for layer in blocks_of(model)]
    np.testing.assert_allclose(rates, np.linspace(0, 0.5, sum(twin.variant.depths)))

    last = blocks_of(model)[-1]
    x = random(16, 3, 3, last.dim)
    branch = array(last(x)) - x
    drawn = []
    for _ in range(2):
        keras.utils.set_random_seed(1)
        same = block.Block.from_config(last.get_config())
        same.build(x.shape)
        same.set_weights(last.get_weights())
        drawn.append([array(same(x, training=True)) - x for _ in range(2)])
    for first, second in zip(*drawn):
        np.testing.assert_array_equal(first, second)
    assert (drawn[0][0] != drawn[0][1]).any(), "the draw is the same at each call"
    dropped = (drawn[0][0] == 0).all(axis=(1, 2, 3))
    assert dropped.any()
    assert not dropped.all()
    assert_close(drawn[0][0][~dropped], 2 * branch[~dropped], 10 * TOLERANCE)


def check_precision(twin, folder):
    for name in ("mixed_float16", "mixed_bfloat16", "float16", "bfloat16"):
        half = name.removeprefix("mixed_")
        with dtype_policy(name):
            model = twin.build()
        assert_precision(model, twin, half)
        stored = "float32" if name.startswith("mixed_") else half
        for variable in model.weights:
            is_gamma = variable.path.endswith("gamma") and not re.search("norm|grn", variable.path)
            assert variable.dtype == ("float32" if is_gamma else stored), variable.path


def check_policies_of_single_layers(twin, folder):
    last = blocks_of(twin.model)[-1].name
    half = keras.DTypePolicy("mixed_bfloat16")
    with dtype_policy(keras.dtype_policies.DTypePolicyMap("float32", {f"{last}.*": half})):
        by_map = twin.build()

    def with_half_of_the_last(layer):
        changed = {"dtype": half} if layer.name == last else {}
        return type(layer).from_config({**layer.get_config(), **changed})

    by_config = twin.clone(clone_function=with_half_of_the_last)
    for model in (by_map, by_config):
        model.save(folder / "model.keras")
        for same in (model, keras.models.load_model(folder / "model.keras")):
            for layer in same.layers:
                dtype = "bfloat16" if layer.name == last else "float32"
                for part in layer._flatten_layers():
                    assert part.compute_dtype == dtype, (layer.name, part.name)
            assert_precision(same, twin, "bfloat16")


def check_quantization(twin, folder):
    for mode, tolerance in QUANTIZED.items():
        fused = fuse(twin.model)
        fused.quantize(mode)
        model = twin.clone()  # like a loaded model
        model.quantize(mode)
        for quantized in (model, fused):
            dense = [
                layer
                for layer in quantized._flatten_layers()
                if isinstance(layer, keras.layers.Dense)
            ]
            heads = 1 + (twin.variant.hidden is not None)
            assert len(dense) == 2 * sum(twin.variant.depths) + heads
            assert {layer.quantization_mode for layer in dense} == {mode}
            assert {layer._kernel.dtype for layer in dense} == {"int8"}  # int4 is packed in pairs
            logits = array(compute(quantized, twin.pixels))
            assert_close(logits, twin.logits, tolerance, mode)
            quantized.save(folder / f"{mode}.keras")
            again = keras.models.load_model(folder / f"{mode}.keras")
            assert_close(compute(again, twin.pixels), logits, what=mode)
        with pytest.raises(ValueError, match="quantize"):
            fuse(model)
        if BACKEND == "tensorflow":
            for format in FORMATS:
                with pytest.raises(ValueError, match="quantize"):
                    keras_convnext.export.export(model, folder / format, format, size=64)
                assert not (folder / format).exists()


def check_lora(twin, folder):
    model = twin.build()
    keras_convnext.enable_lora(model, rank=2)
    assert_close(model(twin.pixels), twin.logits)
    trained = {variable.path for variable in model.trainable_variables}
    expected = {"head/kernel", "head/bias"}
    expected |= {"pre_logits/kernel", "pre_logits/bias"} if twin.variant.hidden else set()
    for name in (layer.name for layer in blocks_of(model)):
        expected |= {f"{name}/gamma"} if twin.variant.layer_scale else set()
        expected |= {f"{name}/grn/gamma", f"{name}/grn/beta"} if twin.variant.grn else set()
        for dense in ("pwconv1", "pwconv2"):
            for variable in ("lora_kernel_a", "lora_kernel_b", "bias"):
                expected.add(f"{name}/{dense}/{variable}")
    assert trained == expected

    before = model.get_weights()
    fit(model, twin)
    for variable, was, now in zip(model.weights, before, model.get_weights(), strict=True):
        assert (was == now).all() != (variable.path in trained), variable.path
    logits = array(compute(model, twin.pixels))
    assert relative_error(logits, twin.logits) > 1e-2

    model.save(folder / "lora.keras")
    model.save_weights(folder / "lora.weights.h5")
    keras_convnext.save_checkpoint(model, folder / "lora.safetensors", "official")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    plain = twin.build(weights=None)
    plain.load_weights(folder / "lora.weights.h5")
    merged = {
        "clone_model": clone,
        "load_model": keras.models.load_model(folder / "lora.keras"),
        "load_weights": plain,
        "save_checkpoint": twin.build(weights=folder / "lora.safetensors"),
        "fuse": fuse(model),
    }
    for way, again in merged.items():
        assert_close(compute(again, twin.pixels), logits, what=way)
    for way in ("clone_model", "load_model"):
        assert {variable.path for variable in merged[way].trainable_variables} == trained, way


def check_remat(twin, folder):
    """Gradients and losses equal those without remat, with the same draws of drop path.

    With JAX only `fit` is compiled, with PyTorch nothing.
    """
    factors, found, fitted = random(*twin.logits.shape), {}, {}

    def rewind():
        for seed, value in zip(model.non_trainable_variables, seeds, strict=True):
            seed.assign(value)

    for remat in (False, True):
        keras.utils.set_random_seed(2)
        model = twin.build(drop_path_rate=0.5, remat=remat)
        seeds = [ops.copy(seed) for seed in model.non_trainable_variables]
        for compiled in (False, True) if remat and BACKEND == "tensorflow" else (False,):
            rewind()
            with counted_remats() as count:
                found[remat, compiled] = loss_and_gradients(
                    model, twin.pixels, factors, compiled, training=True
                )
            assert len(count) == sum(twin.variant.depths) * remat
        rewind()
        fitted[remat] = fit(model, twin), model.get_weights()

    assert relative_error(array(found[False, False][0]), (twin.logits * factors).sum()) > 1e-3
    for way, (loss, gradients) in found.items():
        assert_close(loss, found[False, False][0], what=way)
        for mine, theirs in zip(gradients, found[False, False][1], strict=True):
            assert_close(mine, theirs, 10 * TOLERANCE, way)
    assert_close(fitted[True][0], fitted[False][0])
    for mine, theirs in zip(fitted[True][1], fitted[False][1], strict=True):
        assert_close(mine, theirs, 10 * TOLERANCE)


def check_two_trunks_in_one_model(twin, folder):
    image = keras.Input((None, None, 3))
    trunks = [
        twin.build(name=name, input_tensor=image, include_top=False, pooling="avg")
        for name in ("left", "right")
    ]
    joint = keras.Model(image, [trunk.output for trunk in trunks])
    names = [layer.name for layer in joint.layers]
    assert len(set(names)) == len(names)
    assert len({variable.path for variable in joint.weights}) == len(joint.weights)
    joint.save(folder / "joint.keras")
    again = keras.models.load_model(folder / "joint.keras")
    with torch.no_grad():
        features = twin.reference.features(normalized(twin.pixels))
    for output in (*joint(twin.pixels), *again(twin.pixels)):
        assert_close(output, features)


def check_fused(twin, folder):
    inspected = inspecting(twin.model, twin.variant)
    fused = fuse(inspected)
    assert fused.count_params() < inspected.count_params()
    found, expected = fused(twin.pixels), inspected(twin.pixels)
    assert found.keys() == expected.keys()
    for output, value in expected.items():
        assert_close(found[output], value, what=output)


def check_parity(twin, folder):
    found = inspecting(twin.model, twin.variant)(twin.pixels)
    image = normalized(twin.pixels)
    with torch.no_grad():
        expected = {"logits": twin.reference(image), "features": twin.reference.features(image)}
        maps = twin.reference.maps(image)
        largest = twin.reference.norm(maps[-1].amax((2, 3)))
    for name, value in zip(levels(twin.variant), maps, strict=True):
        expected[name] = value.movedim(1, -1)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(found[name], value, what=name)
    for pooling, value in (("avg", expected["features"]), ("max", largest)):
        trunk = twin.build(include_top=False, pooling=pooling)
        assert_close(trunk(twin.pixels), value, what=pooling)


def check_export(twin, folder):
    if BACKEND == "tensorflow":
        model = twin.build(classifier_activation="softmax")
        probabilities = model(twin.pixels)
        for format in FORMATS:
            keras_convnext.export.export(model, folder / format, format, size=64)
            served = Artifact(folder / format)(twin.pixels)
            assert_close(served["probabilities"], probabilities, FORMATS[format].tolerance, format)
        return

    pixels = twin.pixels
    model = twin.build(input_shape=pixels.shape[1:])
    if BACKEND == "jax":
        import tensorflow as tf

        model.export(folder / "saved_model", format="tf_saved_model", verbose=False)
        loaded = tf.saved_model.load(str(folder / "saved_model"))
        assert_close(loaded.serve(pixels), twin.logits)
    elif find_spec("keras.src.export.torch"):  # since Keras 3.15
        batch = {0: torch.export.Dim("batch", min=1, max=8)}
        model.export(folder / "model.pt2", format="torch", verbose=False, dynamic_shapes=batch)
        served = torch.export.load(folder / "model.pt2").module()(torch.tensor(pixels))
        assert_close(served, twin.logits)


CHECKS = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}


def random(*shape, scale=1.0):
    return scale * np.random.default_rng(0).random(shape, "float32")


def array(tensor):
    return ops.convert_to_numpy(tensor).astype("float32")


def relative_error(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


def assert_close(found, expected, tolerance=TOLERANCE, what=""):
    found, expected = array(found), array(expected)
    assert found.shape == expected.shape, what
    assert relative_error(found, expected) < tolerance, what


def assert_shape_and_dtype(tensor, shape):
    assert tuple(tensor.shape) == shape
    assert keras.backend.standardize_dtype(tensor.dtype) == "float32"


def assert_precision(model, twin, half):
    logits = compute(model, twin.pixels)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    error = relative_error(array(logits), twin.logits)
    assert 0 < error < 8 * ROUNDING[half], half


@contextmanager
def dtype_policy(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextmanager
def counted_remats():
    count, remat = [], block.remat
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block, "remat", lambda function: count.append(function) or remat(function))
        yield count


def state_of(layer):
    """Returns the actual configuration and weight paths of a block."""
    parts = {part.path for part in layer._flatten_layers()}
    return layer.dwconv.kernel_size, layer.drop_path.rate, layer.remat, layer.stddev, parts


def blocks_of(model):
    return [layer for layer in model.layers if isinstance(layer, block.Block)]


def levels(variant):
    """Returns the names of the feature maps of the stages: `Pn` has stride 2**n."""
    first = variant.patch_size.bit_length() - 1
    return [f"P{first + stage}" for stage in range(len(variant.dims))]


def inspecting(model, variant):
    """Returns a network with features and feature maps as additional outputs."""
    layers = trunk_of(model).layers
    outputs = {"logits": model.output, "features": layers["norm"].output}
    if variant.isotropic:
        outputs[levels(variant)[0]] = layers["avg_pool"].input
    else:
        outputs |= keras_convnext.pyramid_features(model).output
    return keras.Model(model.input, outputs)


def normalized(pixels):
    """Converts pixels in 0..255 to the reference's input."""
    image = (pixels / 255 - IMAGENET.mean) / IMAGENET.std
    return torch.tensor(image, dtype=torch.float32).movedim(-1, 1)


def official_weights(model, folder):
    """Returns the weights of a network by their official names."""
    keras_convnext.save_checkpoint(model, folder / "weights.pth")
    return torch.load(folder / "weights.pth", weights_only=True)["model"]


def fit(model, twin):
    """Trains for two steps, and returns the loss."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    history = model.fit(twin.pixels, twin.labels, batch_size=2, epochs=1, shuffle=False, verbose=0)
    return history.history["loss"]


def compute(model, pixels):
    """Returns the outputs of a model, compiled as a whole under JAX.

    In eager mode, JAX compiles each of hundreds of operations, which takes longer.
    """
    if BACKEND != "jax":
        return model(pixels)
    import jax

    trained, frozen = (
        [weight.value for weight in weights]
        for weights in (model.trainable_variables, model.non_trainable_variables)
    )
    return jax.jit(model.stateless_call)(trained, frozen, pixels)[0]


def loss_and_gradients(model, pixels, factors, compiled=False, training=False):
    """Returns the sum of outputs times factors, and its gradients for the trainable variables.

    `compiled` is only used with TensorFlow.
    """
    if BACKEND == "tensorflow":
        import tensorflow as tf

        def loss_and_its_gradients():
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(model(pixels, training=training) * factors)
            return loss, tape.gradient(loss, [weight.value for weight in model.trainable_weights])

        function = loss_and_its_gradients
        return tf.function(function)() if compiled else function()
    if BACKEND == "jax":
        import jax

        frozen = [weight.value for weight in model.non_trainable_variables]

        def loss_of(trained):
            outputs, _ = model.stateless_call(trained, frozen, pixels, training=training)
            return ops.sum(outputs * factors)

        return jax.jit(jax.value_and_grad(loss_of))(
            [weight.value for weight in model.trainable_variables]
        )
    model.zero_grad()
    loss = (model(pixels, training=training) * torch.tensor(factors)).sum()
    loss.backward()
    return loss, [weight.value.grad.clone() for weight in model.trainable_variables]
