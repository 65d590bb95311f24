"""Random erasing: how often, how large, where, and with what noise."""

import math

import numpy as np
import tensorflow as tf

from keras_convnext.classification.erasing import erased_box, random_erasing

HEIGHT, WIDTH = 120, 80


def boxes(count):
    dataset = tf.data.Dataset.range(count).map(
        lambda i: erased_box(tf.constant((HEIGHT, WIDTH)), tf.stack([5, i]))
    )
    return dataset.batch(count).get_single_element().numpy()


def reference_box(generator):
    """timm's rule, drawn by NumPy."""
    for _ in range(10):
        area = generator.uniform(0.02, 1 / 3) * HEIGHT * WIDTH
        aspect = math.exp(generator.uniform(math.log(0.3), math.log(1 / 0.3)))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if width < WIDTH and height < HEIGHT:
            top = generator.integers(0, HEIGHT - height + 1)
            return top, generator.integers(0, WIDTH - width + 1), height, width
    raise AssertionError("ten draws that do not fit are not to be seen here")


def test_probability():
    count = 2000
    image = tf.fill((8, 8, 3), 1000.0)
    dataset = tf.data.Dataset.range(count).map(
        lambda i: tf.reduce_any(random_erasing(image, tf.stack([5, i])) != 1000)
    )
    erased = dataset.batch(count).get_single_element().numpy()
    assert abs(erased.mean() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / count)


def test_boxes():
    count = 2000
    ours = boxes(count)
    assert (ours[:, 2:] > 0).all()
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= (HEIGHT, WIDTH)).all()
    theirs = np.array([reference_box(np.random.default_rng(i)) for i in range(count)])
    features = [np.column_stack([b, b[:, 2] * b[:, 3], np.log(b[:, 2] / b[:, 3])])
                for b in (ours, theirs)]  # fmt: skip
    for our, their in zip(features[0].T, features[1].T):
        error = 4 * np.hypot(our.std(), their.std()) / math.sqrt(count)
        assert abs(our.mean() - their.mean()) < error
        assert abs(our.std() - their.std()) < error


def test_erases_its_box_and_nothing_else():
    image = tf.fill((HEIGHT, WIDTH, 3), 1000.0)
    for number in range(8):
        seed = tf.constant([number, 2])
        top, left, height, width = erased_box(
            tf.shape(image)[:2], tf.random.split(seed, 3)[1]
        ).numpy()
        erased = random_erasing(image, seed, 1.0).numpy()
        inside = np.zeros((HEIGHT, WIDTH, 1), bool)
        inside[top : top + height, left : left + width] = True
        assert np.array_equal(erased != 1000, np.broadcast_to(inside, erased.shape))


def test_noise_is_standard_normal_once_it_is_normalized():
    image = tf.fill((400, 400, 3), 1e6)
    noise = random_erasing(image, (3, 4), 1.0).numpy()
    noise = noise[noise[..., 0] < 1e5]
    normalized = (noise / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    assert len(noise) > 3000
    assert np.abs(normalized.mean(0)).max() < 4 / math.sqrt(len(noise))
    assert np.abs(normalized.std(0) - 1).max() < 4 / math.sqrt(2 * len(noise))
    assert np.abs(np.corrcoef(normalized.T) - np.eye(3)).max() < 5 / math.sqrt(len(noise))
    assert noise.min() < 0  # it is not clipped


def test_never():
    image = tf.random.stateless_uniform((32, 32, 3), (1, 2))
    for number in range(5):
        assert np.array_equal(random_erasing(image, (number, 1), 0.0), image)


def test_nothing_fits():
    # Boxes of a third to thrice as high as wide, but the image is only a pixel wide.
    image = tf.zeros((500, 1, 3))
    assert np.array_equal(random_erasing(image, (1, 2), 1.0), image)
