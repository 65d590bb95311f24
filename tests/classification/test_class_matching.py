from types import SimpleNamespace

import numpy as np
import pytest

from keras_convnext.classification.class_matching import outputs_of_classes
from keras_convnext.data.errors import DataError, DataWarning
from keras_convnext.preprocessing import class_labels


def matched(data, outputs, names=None):
    source = SimpleNamespace(name="photos", classes=tuple(data))
    return outputs_of_classes(source, outputs, names).tolist()


def test_classes_are_matched_by_name_and_otherwise_in_order():
    assert matched("abc", 3) == [0, 1, 2]
    assert matched("abc", 3, "cab") == [1, 2, 0]
    assert matched("abc", 2, "ca") == [1, -1, 0]
    assert matched("ab", 3, "cab") == [1, 2]
    assert matched(["a", "a", "b"], 3, ["a", "a", "b"]) == [0, 1, 2]
    assert matched(["a", "b"], 3, ["a", "a", "b"]) == [-1, 2]  # which "a" is unknown


@pytest.mark.parametrize("outputs", [1000, 21841])
def test_imagenet_models_are_known_by_their_number_of_classes(outputs):
    wnids = [wnid for wnid, _ in class_labels(1000)]
    known = [wnid for wnid, _ in class_labels(outputs)]
    found = np.array(matched(wnids, outputs))
    missing = [] if outputs == 1000 else ["n04399382"]
    assert [wnids[index] for index in np.flatnonzero(found < 0)] == missing
    assert [known[output] for output in found if output >= 0] == [
        wnid for wnid in wnids if wnid not in missing
    ]
    # A list of other names, such as English ones, does not hide the identifiers.
    assert matched(wnids[5:8], 1000, [name for _, name in class_labels(1000)]) == [5, 6, 7]
    assert matched(map(str, range(1000)), 1000) == list(range(1000))


def test_an_order_that_may_be_another_one_is_a_warning():
    with pytest.warns(DataWarning, match=r"such as '0', is named like .*'ant': .* in order"):
        assert matched(["0", "1"], 2, ["ant", "bee"]) == [0, 1]


def test_refusals():
    with pytest.raises(DataError, match=r"has 2 classes, such as 'ant', but .* 3, such as '0'"):
        matched("012", 2, ["ant", "bee"])
    with pytest.raises(DataError, match="has 2 classes with unknown names, but the data has 3"):
        matched("012", 2)
    with pytest.raises(ValueError, match="Received: 3 classes"):
        matched("ab", 2, "abc")
