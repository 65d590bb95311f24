import itertools

import numpy as np
import pytest
from data_on_disk import example, write_folder, write_tfrecords

from keras_convnext.data.errors import DataError
from keras_convnext.data.sources import open_source


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A hundred and one records, some chunks and a rest; image i is the text of its number."""
    path = tmp_path_factory.mktemp("records") / "a.tfrecord"
    write_tfrecords(path, [example(b"%d" % i, i % 3) for i in range(101)])
    return open_source(path, classes=["a", "b", "c"])


def images(dataset):
    return [int(encoded) for encoded, *_ in dataset.as_numpy_iterator()]


def test_an_epoch_has_each_image_once_with_its_label(source):
    rows = list(source.records(seed=5, epoch=2).as_numpy_iterator())
    assert sorted(int(encoded) for encoded, _, _ in rows) == list(range(101))
    assert all(label == int(encoded) % 3 for encoded, label, _ in rows)
    assert [position for *_, position in rows] == list(range(101))
    assert source.size == len(source.records()) == 101


def test_nothing_is_tuned_that_the_end_could_wait_for(source):
    for dataset in (source.records(), source.stream(0), source.records().batch(2).prefetch(1)):
        assert dataset.options().autotune.enabled is False


def test_the_order_is_that_of_seed_and_epoch_alone(source):
    order = images(source.records(seed=5, epoch=2))
    images(source.records(seed=5, epoch=3).take(7))
    assert images(source.records(seed=5, epoch=2)) == order
    assert images(source.records(seed=5, epoch=2, batch=8)) == order
    assert source.order(5, 2).dtype == np.int32
    assert source.order(5, 2).tolist() == order
    for other in ({"seed": 6, "epoch": 2}, {"seed": 5, "epoch": 3}, {"seed": 2, "epoch": 5}):
        assert images(source.records(**other)) != order


def test_unshuffled_the_order_is_that_of_the_storage(source):
    assert images(source.records(seed=5, epoch=2, shuffled=False)) == list(range(101))


@pytest.mark.parametrize("first", [1, 40, 100, 101, 500])
def test_a_resumed_epoch_is_the_rest_of_it(source, first):
    whole = list(source.records(seed=5, epoch=2).as_numpy_iterator())
    assert list(source.records(seed=5, epoch=2, first=first).as_numpy_iterator()) == whole[first:]


@pytest.mark.parametrize(("workers", "first"), [(2, 0), (4, 0), (4, 24), (8, 96)])
def test_workers_share_each_global_batch(source, workers, first):
    alone = images(source.records(seed=1, first=first))
    shared = [
        images(source.records(seed=1, first=first, shard=(worker, workers), batch=8))
        for worker in range(workers)
    ]
    share = 8 // workers
    together = []
    for step in range(len(alone) // 8 + 1):
        for worker in shared:
            together += worker[step * share : (step + 1) * share]
    assert together == alone


def test_the_stream_is_epoch_after_epoch_in_whole_batches(source):
    rows = list(source.stream(seed=5, batch=8).take(200).as_numpy_iterator())
    expected = [
        (epoch, position, source.order(5, epoch)[position])
        for epoch, position in itertools.product(range(3), range(96))
    ]
    assert [(epoch, at, int(encoded)) for encoded, _, epoch, at in rows] == expected[:200]


def test_a_stream_that_drops_nothing_lets_batches_straddle_epochs(source):
    rows = source.stream(seed=5, batch=8, drop_remainder=False).take(120).as_numpy_iterator()
    assert [(epoch, at) for *_, epoch, at in rows] == (
        [(0, at) for at in range(101)] + [(1, at) for at in range(19)]
    )


@pytest.mark.parametrize("drop_remainder", [True, False])
def test_a_stream_resumes_and_is_shared(source, drop_remainder):
    kwargs = {"seed": 5, "batch": 8, "drop_remainder": drop_remainder}
    whole = images(source.stream(**kwargs).take(400))
    assert images(source.stream(first=208, **kwargs).take(192)) == whole[208:]
    for worker in range(2):
        mine = images(source.stream(first=208, shard=(worker, 2), **kwargs).take(96))
        assert mine == [
            image
            for step in range(24)
            for image in whole[208 + 8 * step + 4 * worker : 208 + 8 * step + 4 * worker + 4]
        ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"shard": (2, 2), "batch": 8},
        {"shard": (0, 3), "batch": 8},
        {"shard": (0, 2), "batch": 8, "first": 4},
        {"first": -1},
        {"batch": 0},
    ],
)
def test_shares_that_do_not_fit_are_refused(source, wrong):
    with pytest.raises(ValueError, match="Received: first="):
        source.records(**wrong)
    with pytest.raises(ValueError, match="Received: first="):
        source.stream(seed=0, **wrong)


def test_a_batch_larger_than_the_data_is_refused(source):
    with pytest.raises(DataError, match=r"101 images.*Received: batch=102"):
        source.stream(seed=0, batch=102)
    assert len(images(source.stream(seed=0, batch=102, drop_remainder=False).take(204))) == 204


def test_orders_of_large_data_are_cheap_to_hold(tmp_path):
    source = open_source(write_folder(tmp_path / "photos", {"a": 2, "b": 2}))
    for epoch in range(5):
        source.order(0, epoch)
    assert len(source._orders) == 2
