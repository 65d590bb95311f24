"""The batches of a run: which images are mixed with which."""

import numpy as np
import pytest
from data_on_disk import write_folder

from keras_convnext.classification.input import training_batches
from keras_convnext.classification.settings import recipe_for
from keras_convnext.data.sources import open_source
from keras_convnext.training.layout import Layout, shares

# Plain images of a few pixels, so that targets show who was mixed with whom.
SETTINGS = {
    "size": 16, "rand_augment": None, "random_erasing": 0.0, "drop_path_rate": 0.0,
    "label_smoothing": 0.0, "warmup_epochs": 0, "mixup": 1.0, "cutmix": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder in which each image is a class."""
    root = tmp_path_factory.mktemp("pictures")
    return open_source(write_folder(root, {f"{index:03d}": 1 for index in range(140)}))


def batches_of(source, devices=1, process=(0, 1), first=0, updates=1, **own):
    """The images and targets of some updates of a process."""
    recipe = recipe_for("imagenet1k", "convnext_cifar", {**SETTINGS, **own})
    index, processes = process
    each, accumulated = shares(
        recipe.batch.batch_size, devices * processes, recipe.batch.device_batch
    )
    layout = Layout(index, processes, devices, each, accumulated)
    batches = training_batches(source, recipe, layout, first).take(updates * accumulated)
    images, targets = zip(*batches.as_numpy_iterator())
    assert {len(batch) for batch in images} == {devices * each}
    return np.concatenate(images), np.concatenate(targets)


def assert_equal(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("batch", [33, 65, 99, 126, 129, 130])
def test_every_image_of_any_batch_is_mixed(source, batch):
    _, targets = batches_of(source, batch_size=batch)
    assert len(targets) == batch
    np.testing.assert_array_equal((targets > 0).sum(axis=1), 2)
    # Each has its partner in the same batch: a class is the target of two images.
    assert set((targets > 0).sum(axis=0)) == {0, 2}
    draws = targets[:128].max(axis=1)
    np.testing.assert_allclose(draws, draws[0], rtol=1e-6)


def test_a_group_shares_a_draw_and_groups_differ(source):
    _, targets = batches_of(source, batch_size=12, mixing_batch=5)
    draws = np.max(targets, axis=1)
    for group in (draws[:5], draws[5:10], draws[10:]):
        np.testing.assert_allclose(group, group[0], rtol=1e-6)
    assert len({round(float(draws[first]), 5) for first in (0, 5, 10)}) == 3


OTHERS = [(1, 12), (2, 18), (4, 3)]  # devices and their batch


@pytest.mark.parametrize(
    ("mixing_batch", "others"),
    [
        (6, OTHERS[:1]),
        (7, OTHERS[1:2]),
        (8, OTHERS),
        (128, OTHERS[2:]),
        pytest.param(6, OTHERS[1:], marks=pytest.mark.slow),
        pytest.param(7, OTHERS[::2], marks=pytest.mark.slow),
        pytest.param(128, OTHERS[:2], marks=pytest.mark.slow),
    ],
)
def test_the_number_of_devices_and_their_batch_change_nothing(source, mixing_batch, others):
    own = {"batch_size": 36, "mixing_batch": mixing_batch}
    expected = batches_of(source, device_batch=128, updates=2, **own)
    for devices, device_batch in others:
        found = batches_of(source, devices, device_batch=device_batch, updates=2, **own)
        assert_equal(found, expected)
    resumed = batches_of(source, first=1, **own)
    assert_equal(resumed, [both[36:] for both in expected])


def test_machines_see_the_same_if_the_groups_divide_their_images(source):
    own = {"batch_size": 36, "mixing_batch": 6}
    expected = batches_of(source, **own)
    parts = [batches_of(source, process=(index, 2), **own) for index in (0, 1)]
    assert_equal([np.concatenate(pair) for pair in zip(*parts)], expected)


def test_one_image_for_each_machine_is_refused(source):
    with pytest.raises(ValueError, match="with 1 images per update and machine"):
        batches_of(source, process=(0, 2), batch_size=2)
    images, _ = batches_of(source, process=(0, 2), batch_size=2, mixup=0.0)
    assert len(images) == 1
