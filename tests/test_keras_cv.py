"""A trunk in the tasks of keras-cv: run in an environment of its own, with keras-cv 0.9."""

import numpy as np
import pytest

import keras_convnext

keras_cv = pytest.importorskip("keras_cv")

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype("float32")


@pytest.fixture
def trunk():
    trunk = keras_convnext.ConvNeXt((1, 1, 1, 1), (8, 16, 24, 32), include_top=False)
    trunk.pyramid_level_inputs = {f"P{stage + 2}": f"stages_{stage}_blocks_0" for stage in range(4)}
    return trunk


def test_a_classifier_takes_a_trunk(trunk):
    model = keras_cv.models.ImageClassifier(trunk, num_classes=3)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(IMAGES, np.array([0, 1]), verbose=0)
    assert model.predict(IMAGES, verbose=0).shape == (2, 3)


def test_a_detector_takes_a_trunk(trunk):
    model = keras_cv.models.RetinaNet(num_classes=3, bounding_box_format="xywh", backbone=trunk)
    model.compile(optimizer="adam", box_loss="smoothl1", classification_loss="focal")
    labels = {"boxes": np.array([[[1.0, 1, 20, 20]]] * 2), "classes": np.zeros((2, 1))}
    model.fit(IMAGES, labels, verbose=0)
    assert {"boxes", "classes"} <= set(model.predict(IMAGES, verbose=0))


def test_a_segmenter_takes_a_trunk(trunk):
    model = keras_cv.models.DeepLabV3Plus(num_classes=3, backbone=trunk)
    model.compile("adam", "categorical_crossentropy")
    model.fit(IMAGES, np.zeros((2, 64, 64, 3)), verbose=0)
    assert model.predict(IMAGES, verbose=0).shape == (2, 64, 64, 3)
