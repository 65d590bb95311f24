from pathlib import Path

import numpy as np
import pytest
from data_on_disk import encoded_image, example, write_folder, write_tfrecords

from keras_convnext.data.checks import check_images
from keras_convnext.data.errors import DataError
from keras_convnext.data.held_out import hold_out
from keras_convnext.data.sources import open_source

COUNTS = {"ant": 2, "bee": 10, "cow": 31}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return open_source(write_folder(tmp_path_factory.mktemp("photos"), COUNTS))


def rows(source):
    return [
        (encoded, int(label))
        for encoded, label, _ in source.records(shuffled=False).as_numpy_iterator()
    ]


@pytest.mark.parametrize("share", [0.2, 0.01, 0.99])
def test_each_class_is_shared_out_and_no_image_is_in_both(folder, share):
    training, validation = hold_out(folder, share, seed=3)
    assert sorted(rows(training) + rows(validation)) == sorted(rows(folder))
    held = np.bincount([label for _, label in rows(validation)], minlength=3)
    assert held.tolist() == {0.2: [1, 2, 6], 0.01: [1, 1, 1], 0.99: [1, 9, 30]}[share]
    assert training.classes == validation.classes == folder.classes
    assert (training.split, validation.split) == ("train", "validation")


def test_each_class_of_a_table_is_shared_out_in_any_order_of_its_rows(folder, tmp_path):
    paths = [folder.name_of(index) for index in range(folder.size)]
    shuffled = np.random.default_rng(0).permutation(folder.size)
    lines = [f"{paths[index]},{Path(paths[index]).parent.name}" for index in shuffled]
    (tmp_path / "photos.csv").write_text("\n".join(["path,label", *lines]))
    training, validation = hold_out(open_source(tmp_path / "photos.csv"), 0.2, seed=3)
    assert sorted(rows(training) + rows(validation)) == sorted(rows(folder))
    held = np.bincount([label for _, label in rows(validation)], minlength=3)
    assert held.tolist() == [1, 2, 6]


def test_the_seed_says_which(folder):
    held = [rows(hold_out(folder, 0.2, seed)[1]) for seed in (0, 0, 1)]
    assert held[0] == held[1]
    assert held[0] != held[2]


def test_shuffled_epochs_and_single_images_are_those_of_the_part(folder):
    _, validation = hold_out(folder, 0.2, seed=0)
    expected = rows(validation)
    order = validation.order(7, 1)
    found = [(encoded, label) for encoded, label, _ in validation.records(7, 1).as_numpy_iterator()]
    assert found == [expected[index] for index in order]
    assert validation.example(4) == expected[4]
    assert validation.name_of(4).startswith(folder.name)


def test_of_records_whose_labels_are_not_known_the_share_is_of_all(tmp_path):
    records = [example(encoded_image(index), index % 2) for index in range(10)]
    write_tfrecords(tmp_path / "a.tfrecord", records)
    source = open_source(tmp_path / "a.tfrecord", classes=["a", "b"])
    training, validation = hold_out(source, 0.3, seed=0)
    assert (training.size, validation.size) == (7, 3)
    assert sorted(rows(training) + rows(validation)) == sorted(rows(source))
    check_images(validation)


def test_one_image_cannot_be_shared_out(tmp_path):
    write_tfrecords(tmp_path / "a.tfrecord", [example(encoded_image(1), 0)])
    source = open_source(tmp_path / "a.tfrecord", classes=["a"])
    with pytest.raises(DataError, match="A single image"):
        hold_out(source, 0.2, seed=0)
