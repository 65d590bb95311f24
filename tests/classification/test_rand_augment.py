"""What RandAugment draws, and its config strings."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_convnext.classification.rand_augment import (
    OPERATIONS,
    Config,
    apply_operation,
    draw,
    parse_config,
    rand_augment,
)

PHOTOGRAPH = Path(__file__).parents[2] / "examples" / "photos" / "cat.jpg"
PAPER = Config(magnitude=9, layers=2, deviation=0.5, increasing=True, probability=0.5)


def draws(config, count):
    dataset = tf.data.Dataset.range(count).map(lambda i: draw(tf.stack([11, i]), config))
    return [part.numpy() for part in dataset.batch(count).get_single_element()]


def test_draws_of_the_paper():
    count = 3000
    choices, magnitudes, signs = draws(PAPER, count)
    assert choices.shape == magnitudes.shape == signs.shape == (count, 2)
    applied = choices >= 0
    # Four standard errors everywhere.
    assert abs(applied.mean() - 0.5) < 4 * 0.5 / np.sqrt(2 * count)
    frequency = np.bincount(choices[applied], minlength=len(OPERATIONS)) / applied.sum()
    assert len(frequency) == 15
    assert np.abs(frequency - 1 / 15).max() < 4 * np.sqrt(1 / 15 / applied.sum())
    # With replacement, and independent of the other layer, of the magnitude and of the sign.
    both = applied.all(1)
    assert abs(both.mean() - 0.25) < 4 * 0.44 / np.sqrt(count)
    same = (choices[both, 0] == choices[both, 1]).mean()
    assert abs(same - 1 / 15) < 4 * np.sqrt(1 / 15 / both.sum())
    assert set(np.unique(signs)) == {-1, 1}
    assert abs(signs.mean()) < 4 / np.sqrt(2 * count)
    assert abs(signs[applied].mean()) < 4 / np.sqrt(count)
    assert magnitudes.max() == 10
    assert abs(np.median(magnitudes) - 9) < 4 * 0.5 * 1.25 / np.sqrt(2 * count)
    assert abs((magnitudes < 8.5).mean() - 0.1587) < 4 * 0.366 / np.sqrt(2 * count)
    assert abs((magnitudes == 10).mean() - 0.0228) < 4 * 0.149 / np.sqrt(2 * count)
    assert abs(np.corrcoef(magnitudes.T)[0, 1]) < 4 / np.sqrt(count)


def test_draws_of_another_config():
    choices, magnitudes, _ = draws(Config(magnitude=4, layers=3, probability=1.0), 50)
    assert choices.shape == (50, 3)
    assert (choices >= 0).all()
    assert (magnitudes == 4).all()


def test_is_its_draws_one_after_the_other():
    image = tf.constant(np.asarray(Image.open(PHOTOGRAPH).resize((64, 48))))
    augment = tf.function(lambda image, seed: rand_augment(image, seed))
    apply = tf.function(apply_operation)
    changed = 0
    for number in range(24):
        seed = tf.constant([number, 3])
        expected = image
        for arguments in zip(*draw(seed, PAPER)):
            expected = apply(expected, *arguments)
        ours = augment(image, seed)
        assert np.array_equal(ours, expected)
        assert np.array_equal(ours, augment(image, seed))
        changed += not np.array_equal(ours, image)
    assert 10 <= changed <= 23  # three of four are, on average


def test_a_graph_holds_operations_as_functions():
    # Written out, all of them would be gone through for every image.
    def nodes(config):
        augment = tf.function(lambda image, seed: rand_augment(image, seed, config))
        specs = tf.TensorSpec((32, 32, 3), tf.uint8), tf.TensorSpec((2,), tf.int32)
        return augment.get_concrete_function(*specs).graph.as_graph_def().node

    cases = [node for node in nodes("rand-n3") if node.op.endswith("Case")]
    assert len(cases) == 3
    assert not any(node.attr["_lower_using_switch_merge"].b for node in cases)
    assert len(nodes("rand-n3")) - len(nodes("rand-n2")) < 20


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("rand-m9-mstd0.5-inc1", PAPER),
        ("rand-inc1-mstd0.5-p0.5-n2-m9", PAPER),
        ("rand", Config(10, 2, 0, False, 0.5)),
        ("rand-m7.5-n0-p1", Config(7.5, 0, 0, False, 1)),
    ],
)
def test_config(text, config):
    assert parse_config(text) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("augmix-m3", "begin with \"rand\". Received: rand_augment='augmix-m3'"),
        ("rand-x3", "m, n, mstd, inc, p, .* Received: 'x3' in 'rand-x3'"),
        ("rand-m", "m must be from 0 to 10. Received: 'm' in 'rand-m'"),
        ("rand-m11", "m must be from 0 to 10. Received: 'm11'"),
        ("rand-n1.5", "n must be an integer of at least 0. Received: 'n1.5'"),
        ("rand-inc2", "inc must be 0 or 1"),
        ("rand-p2", "p must be from 0 to 1"),
        ("rand-mstd101", "mstd must be from 0 to 100"),
        ("rand-m9-m8", "m must not be given twice"),
        ("rand--m9", "Received: '' in 'rand--m9'"),
    ],
)
def test_config_refusals(text, message):
    with pytest.raises(ValueError, match=message):
        parse_config(text)
