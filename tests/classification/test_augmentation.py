"""The whole training image: its steps, their seeds, and the same bits everywhere."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from torch_reference import declare_torchvision_operators

from keras_convnext.classification.augmentation import jitter, training_image
from keras_convnext.classification.erasing import random_erasing
from keras_convnext.classification.rand_augment import rand_augment
from keras_convnext.data.images import training_crop

declare_torchvision_operators()
from torchvision.transforms import functional  # noqa: E402

PHOTOGRAPHS = sorted((Path(__file__).parents[2] / "examples" / "photos").glob("*.jpg"))
DATA = [path.read_bytes() for path in PHOTOGRAPHS]
PLAIN = {"horizontal_flip": 0.0, "rand_augment": None, "random_erasing": 0.0}


@pytest.mark.parametrize("files", [DATA[:3], pytest.param(DATA[3:], marks=pytest.mark.slow)])
@pytest.mark.parametrize("options", [{}, {"rand_augment": None, "color_jitter": 0.4}])
def test_same_seed_same_bits(options, files):
    def example(number, data):
        return training_image(data, tf.stack([8, number]), 64, **options)

    data = files * 2
    dataset = tf.data.Dataset.from_tensor_slices(data).enumerate()
    runs = [
        list(dataset.map(example, num_parallel_calls=parallel).as_numpy_iterator())
        for parallel in (None, 4)
    ]
    eager = [example(tf.constant(i, tf.int64), file).numpy() for i, file in enumerate(data)]
    for first, second, third in zip(*runs, eager):
        assert first.dtype == np.float32
        assert np.array_equal(first, second)
        assert np.array_equal(first, third)
    assert len({image.tobytes() for image in eager}) == len(eager)


def test_static_shape():
    mapped = tf.data.Dataset.from_tensor_slices(DATA).map(lambda x: training_image(x, (1, 2), 48))
    assert mapped.element_spec == tf.TensorSpec((48, 48, 3), tf.float32)


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_is_its_steps_one_after_the_other(dtype):
    for number in range(6):
        seed = tf.constant([number, 6], dtype)
        seeds = tf.random.split(seed, 4)
        image = training_crop(DATA[0], seeds[0], 64)
        image = rand_augment(image, seeds[2], "rand-m5-n3-inc1-p1")
        image = random_erasing(tf.cast(image, tf.float32), seeds[3], 1.0)
        ours = training_image(
            DATA[0], seed, 64, horizontal_flip=0.0, rand_augment="rand-m5-n3-inc1-p1",
            random_erasing=1.0,
        )  # fmt: skip
        assert np.array_equal(ours, image)


def test_flips_half():
    count, flipped = 400, 0
    seeds = tf.stack([tf.range(count), tf.fill((count,), 2)], 1)
    options = {**PLAIN, "scale": (1.0, 1.0), "ratio": (0.1, 10.0)}

    def pair(seed):
        plain = training_image(DATA[0], seed, 16, **options)
        return plain, training_image(DATA[0], seed, 16, **{**options, "horizontal_flip": 0.5})

    for plain, other in tf.data.Dataset.from_tensor_slices(seeds).map(pair).as_numpy_iterator():
        mirrored = np.array_equal(other, plain[:, ::-1])
        assert mirrored != np.array_equal(other, plain)
        flipped += mirrored
    assert abs(flipped / count - 0.5) < 4 * 0.5 / np.sqrt(count)


def test_jitter_is_torchvisions():
    image = Image.open(PHOTOGRAPHS[1]).resize((50, 40))
    adjust = (functional.adjust_brightness, functional.adjust_contrast,
              functional.adjust_saturation)  # fmt: skip
    first = set()
    for number in range(20):
        seed = tf.constant([number, 7])
        factors, order = tf.random.stateless_uniform((2, 3), seed, alg="philox").numpy()
        expected = image
        for which in np.argsort(order):
            expected = adjust[which](expected, 0.6 + 0.8 * factors[which])
        first.add(np.argsort(order)[0])
        difference = np.asarray(expected).astype(int) - jitter(np.asarray(image), seed, 0.4).numpy()
        assert np.abs(difference).max() <= 2
        assert (difference != 0).mean() < 0.01
    assert first == {0, 1, 2}


def test_rand_augment_goes_before_jitter():
    ours = training_image(DATA[0], (1, 2), 32, color_jitter=0.4)
    assert np.array_equal(ours, training_image(DATA[0], (1, 2), 32))


def test_refusals():
    with pytest.raises(ValueError, match="must begin with"):
        training_image(DATA[0], (1, 2), 32, rand_augment="augmix-m3")
    with pytest.raises(ValueError, match=r"at least 0\. Received: color_jitter=-1"):
        training_image(DATA[0], (1, 2), 32, rand_augment=None, color_jitter=-1)
