"""The plan of masked pre-training: weights, operations and memory by hand and as measured."""

import pytest
from run_on_two_devices import TOY, register

from keras_convnext import pretraining
from keras_convnext.complexity import parts
from keras_convnext.pretraining.network import autoencoder, trunk_for
from keras_convnext.pretraining.planning import cost_of
from keras_convnext.training.devices import DEVICES
from keras_convnext.variants import VARIANTS


@pytest.mark.parametrize("depth", [1, 2])
def test_weights_are_those_of_the_network(depth):
    with pytest.MonkeyPatch.context() as patch:
        register(patch)
        settings = {"size": 16, "patch": 4, "decoder_width": 16, "decoder_depth": depth}
        recipe = pretraining.recipe_for("pretrain_small", TOY.name, settings)
        network = autoencoder(trunk_for(TOY.name, 16), 16, depth)
        for device in ("cpu-core", "a100-80gb"):
            found = cost_of(recipe, TOY.name, DEVICES[device]).parameters
            assert found == network.count_params()


def test_a_cpu_computes_the_pointwise_layers_of_19_of_49_patches():
    recipe = pretraining.recipe_for("fcmae", "convnextv2_tiny")
    variant = VARIANTS["convnextv2_tiny"]
    dense = sum(part.macs for part in parts(variant)[:-1])
    decoder = 49 * (768 * 512 + 49 * 512 + 8 * 512**2 + 512 * 3072)
    found = pretraining.plan(recipe, "convnextv2_tiny", None, 64, "a100-80gb")
    assert found.flops_per_image == 6 * (dense + decoder)
    assert (found.images, found.updates_per_epoch, found.size) == (1_281_167, 312, 224)
    pointwise = 8 * sum(
        depth * (56 >> stage) ** 2 * dim**2
        for stage, (depth, dim) in enumerate(zip(variant.depths, variant.dims))
    )
    cpu = pretraining.plan(recipe, "convnextv2_tiny", None, 2, "cpu-core")
    assert cpu.flops_per_image == pytest.approx(6 * (dense + decoder - pointwise * 30 / 49))


# Peaks of TensorFlow's allocator in steps on a CPU, in MB: network, batch, whether with the
# operations of `tensorflow_cpu`, measured.
MEASURED = [
    ("convnextv2_cifar", 64, True, 297.4),
    ("convnextv2_cifar", 64, False, 989.0),
    ("convnextv2_atto", 8, True, 234.5),
]


@pytest.mark.parametrize(("model", "batch", "fused", "measured"), MEASURED)
def test_memory_is_that_of_measured_steps(model, batch, fused, measured):
    recipe = pretraining.recipe_for("pretrain_small", model, {"batch_size": batch})
    device = DEVICES["cpu-core"]._replace(is_gpu=not fused)
    memory = cost_of(recipe, model, device).memory(recipe, batch, 1, device)
    assert (memory.total - memory.workspace) / 1e6 == pytest.approx(measured, rel=0.15)


def test_the_number_of_own_images_is_needed():
    recipe = pretraining.recipe_for("pretrain_small", "convnextv2_nano")
    with pytest.raises(ValueError, match="--images"):
        pretraining.plan(recipe, "convnextv2_nano", None, 1, "cpu-core")
    with pytest.raises(ValueError, match="did you mean cpu-core"):
        pretraining.plan(recipe, "convnextv2_nano", 1000, 1, "cpu-cor")
