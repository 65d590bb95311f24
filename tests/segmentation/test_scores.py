"""Scores of segmentation, and prediction in windows, against direct computations and PyTorch."""

import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix

from keras_convnext.resizing import resized_linearly, scaled_size
from keras_convnext.segmentation.scores import Counts, count, scores_of
from keras_convnext.segmentation.windows import class_map, mean_logits, starts

RANDOM = np.random.default_rng(0)


def test_scores_follow_from_the_confusion_matrix():
    labels = RANDOM.integers(0, 5, (2, 40, 30))
    labels[labels == 3] = 255  # nothing has class 3, but it is predicted
    predictions = RANDOM.integers(0, 4, (2, 40, 30))  # class 4 is never predicted
    counts = Counts.none(6)  # class 5 does not occur
    for prediction, label in zip(predictions, labels):
        counts += count(prediction, label, 6)
    found = scores_of(counts)

    scored = labels != 255
    matrix = confusion_matrix(labels[scored], predictions[scored], labels=range(6))
    right = np.diag(matrix)
    for index in range(5):
        union = matrix[index].sum() + matrix[:, index].sum() - right[index]
        assert found.ious[index] == pytest.approx(right[index] / union)
    assert np.isnan(found.ious[5])
    assert found.mean_iou == pytest.approx(np.mean(found.ious[:5]))
    assert found.pixel_accuracy == pytest.approx(right.sum() / matrix.sum())
    of_classes = [right[index] / matrix[index].sum() for index in (0, 1, 2, 4)]
    assert found.class_accuracy == pytest.approx(np.mean(of_classes))
    assert np.isnan([found.accuracies[3], found.accuracies[5]]).all()


def test_what_cannot_be_scored_is_refused():
    zeros = np.zeros((2, 2), int)
    with pytest.raises(ValueError, match=r"same size. Received: \(2, 2\) and \(1, 2\)"):
        count(zeros, zeros[:1], 3)
    with pytest.raises(ValueError, match=r"label must be in 0..2. Received: 7 to 7"):
        count(zeros, zeros + 7, 3)
    with pytest.raises(ValueError, match=r"predicted class must be in 0..2. Received: 3 to 3"):
        count(zeros + 3, zeros, 3)
    with pytest.raises(ValueError, match="nothing to score"):
        scores_of(count(zeros, zeros + 255, 3))


@pytest.mark.parametrize(
    ("side", "expected"),
    [(512, [0]), (300, [0]), (513, [0, 1]), (853, [0, 341]), (1000, [0, 341, 488])],
)
def test_the_last_window_ends_with_the_image(side, expected):
    assert starts(side, 512, 341) == expected


def logits_of(images):
    """A network whose answer depends on the window: it adds its mean."""
    pixels = images @ np.array([[1.0, -1, 0.5], [0.3, 2, -1], [-1, 0, 1]])
    return (pixels + images.mean()).astype("float32")


@pytest.mark.parametrize("size", [(21, 30), (16, 16), (9, 40), (50, 7)])
@pytest.mark.parametrize("scale", [1, 1.7, 0.4])
def test_windows_are_averaged_and_resized_as_in_mmsegmentation(size, scale):
    crop, stride = 16, 11
    image = RANDOM.normal(size=(*size, 3))
    sums, counts = np.zeros((*size, 3)), np.zeros((*size, 1))
    for top in starts(size[0], crop, stride):
        for left in starts(size[1], crop, stride):
            own = slice(top, top + crop), slice(left, left + crop)
            sums[own] += logits_of(image[None][(0, *own)][None])[0]
            counts[own] += 1
    whole = sums / counts
    bands = list(mean_logits(image, logits_of, crop, stride))
    np.testing.assert_allclose(np.concatenate(bands), whole, atol=1e-5)

    target = tuple(round(side * scale) for side in size)
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(np.concatenate(bands)).permute(2, 0, 1)[None],
        size=target, mode="bilinear", align_corners=False,
    )[0].permute(1, 2, 0).numpy()  # fmt: skip
    found = class_map(iter(bands), size[0], target)
    assert found.shape == target
    best_two = np.sort(resized, axis=-1)[..., -2:]
    clear = best_two[..., 1] - best_two[..., 0] > 1e-5
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], resized.argmax(-1)[clear])


def test_memory_does_not_grow_with_the_height():
    image = np.zeros((8000, 32, 3), np.uint8)
    tracemalloc.start()
    found = class_map(mean_logits(image, logits_of, 32, 16), len(image), (8000, 32))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.shape == (8000, 32)
    assert peak < 2 * found.nbytes  # all logits would take three times as much


@pytest.mark.parametrize(
    ("size", "expected"),
    [((600, 800), (512, 683)), ((480, 5000), (197, 2048)), ((100, 90), (569, 512))],
)
def test_images_are_scaled_as_by_mmcv(size, expected):
    assert scaled_size(size, (2048, 512)) == expected


def test_an_image_is_resized_as_pytorch_does():
    image = RANDOM.integers(0, 256, (20, 31, 3), dtype=np.uint8)
    for size in ((33, 47), (11, 60)):
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(image).permute(2, 0, 1)[None].float(), size=size, mode="bilinear"
        )[0].permute(1, 2, 0).numpy()  # fmt: skip
        np.testing.assert_allclose(resized_linearly(image, size), expected, atol=0.501)
