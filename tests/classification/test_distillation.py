"""The loss of distillation equals that of a step written by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_convnext
from keras_convnext.classification.distillation import distilled, open_teacher
from keras_convnext.classification.losses import objective
from keras_convnext.training.fitted import FittedModel


def classifier(classes=4, activation="softmax", seed=1):
    keras.utils.set_random_seed(seed)
    model = keras_convnext.ConvNeXt(
        (1, 1), (8, 16), patch_size=2, classes=classes, input_shape=(16, 16, 3),
        classifier_activation=activation, head_init_scale=20.0,
    )  # fmt: skip
    return model


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("activation", "weight", "temperature"),
    [
        ("softmax", 0.3, 4.0),
        (None, 0.3, 4.0),
        ("softmax", 1.0, 1.0),
        pytest.param(None, 1.0, 1.0, marks=pytest.mark.slow),
        pytest.param("softmax", 0.0, 2.0, marks=pytest.mark.slow),
        pytest.param(None, 0.0, 2.0, marks=pytest.mark.slow),
    ],
)
def test_a_step_is_that_written_by_hand(activation, weight, temperature):
    teacher, student = classifier(activation=activation), classifier(activation=None, seed=2)
    images = np.random.default_rng(3).uniform(0, 255, (6, 16, 16, 3)).astype("float32")
    targets = np.random.default_rng(4).dirichlet(np.ones(4), 6).astype("float32")
    outputs = np.asarray(teacher(images), np.float64)
    taught = log_softmax((outputs if activation is None else np.log(outputs)) / temperature)
    logits = np.asarray(student(images), np.float64)
    entropy = -(targets * log_softmax(logits)).sum(axis=1).mean()
    learned = log_softmax(logits / temperature)
    divergence = (np.exp(taught) * (taught - learned)).sum(axis=1).mean()
    expected = (1 - weight) * entropy + weight * temperature**2 * divergence

    own = objective(4)
    fitted = FittedModel(student.inputs, student.outputs)
    fitted.combine = distilled(teacher, weight, temperature)
    fitted.compile(keras.optimizers.SGD(0.1), own.loss, run_eagerly=True)
    before = [np.array(value) for value in teacher.get_weights()]
    with tf.GradientTape() as tape:
        loss = fitted.compute_loss(images, targets, student(images))
    gradients = tape.gradient(loss, student.trainable_variables)
    start = student.get_weights()
    measured = fitted.train_on_batch(images, targets)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(np.ravel(measured)[0]) == pytest.approx(expected, rel=1e-5)
    for old, new, gradient in zip(start, student.get_weights(), gradients):
        np.testing.assert_allclose(new, old - 0.1 * gradient, rtol=1e-5, atol=1e-6)
    for value, old in zip(teacher.get_weights(), before):
        np.testing.assert_array_equal(value, old)
    # Without a teacher in the evaluation.
    plain = fitted.compute_loss(images, targets, logits.astype("float32"), training=False)
    assert float(plain) == pytest.approx(entropy, rel=1e-5)


def test_a_teacher_of_something_else_is_refused():
    with pytest.raises(ValueError, match=r"RGB images of 32 px.*4 classes.*input shape"):
        open_teacher(classifier(), 32, 4)
    with pytest.raises(ValueError, match=r"return 5 classes"):
        open_teacher(classifier(), 16, 5)
    assert open_teacher(classifier(), 16, 4).name == "convnext"
