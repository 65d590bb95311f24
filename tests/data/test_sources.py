import io
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from data_on_disk import (
    encoded_image,
    example,
    shard_names,
    write_array_records,
    write_folder,
    write_shards,
    write_tfrecords,
)

from keras_convnext.data.errors import DataError
from keras_convnext.data.sources import open_source

WRITERS = {"tfrecord": write_tfrecords, "array_record": write_array_records}


def rows(source, **kwargs):
    return list(source.records(shuffled=False, **kwargs).as_numpy_iterator())


def labels(source):
    return [int(label) for _, label, _ in rows(source)]


# Folders


def test_a_folder_of_class_folders(tmp_path):
    write_folder(tmp_path / "photos", {"dog": 3, "cat": 2})
    (tmp_path / "photos" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "photos" / "cat" / ".hidden.jpg").write_text("no image either")
    source = open_source(tmp_path / "photos")
    assert (source.classes, source.size, source.split) == (("cat", "dog"), 5, "train")
    assert labels(source) == [0, 0, 1, 1, 1]
    assert [encoded for encoded, *_ in rows(source)] == [encoded_image(i) for i in (0, 1, 0, 1, 2)]
    assert source.name_of(3) == str(tmp_path / "photos" / "dog" / "001.jpg")
    assert source.counts().tolist() == [2, 3]


def test_names_of_any_alphabet_and_folders_in_folders(tmp_path):
    write_folder(tmp_path / "a" / "été", {"inside": 2})
    write_folder(tmp_path / "a", {"猫": 1})
    source = open_source(tmp_path / "a")
    assert source.classes == ("été", "猫")
    assert [Path(source.name_of(i)).read_bytes() for i in range(3)] == [
        row[0] for row in rows(source)
    ]
    assert labels(source) == [0, 0, 1]


@pytest.mark.parametrize(
    ("folders", "asked", "found"),
    [
        (("train", "val"), "train", "train"),
        (("train", "val"), "validation", "val"),
        (("train", "val"), None, "val"),
        (("train", "test"), "validation", "test"),
        (("train", "test", "validation"), "val", "validation"),
        (("train", "valid", "test"), "test", "test"),
    ],
)
def test_splits_go_by_several_names(tmp_path, folders, asked, found):
    for name in folders:
        write_folder(tmp_path / name, {"a": 1, "b": 1})
    assert open_source(tmp_path, asked).split == found


def test_a_folder_without_splits_trains_and_does_not_validate(tmp_path):
    write_folder(tmp_path / "photos", {"a": 1})
    assert open_source(tmp_path / "photos", "train").size == 1
    with pytest.raises(DataError, match=r"Available: 'train'. Received: split='validation'"):
        open_source(tmp_path / "photos", "validation")
    write_folder(tmp_path / "val", {"a": 1})
    assert open_source(tmp_path / "val", "validation").split == "validation"


def test_classes_of_validation_are_those_of_training(tmp_path):
    write_folder(tmp_path / "train", {"a": 1, "b": 1, "c": 1})
    write_folder(tmp_path / "val", {"c": 2})
    source = open_source(tmp_path, "validation")
    assert (source.classes, labels(source)) == (("a", "b", "c"), [2, 2])
    write_folder(tmp_path / "val", {"d": 1})
    with pytest.raises(DataError, match=r"The class 'd' in .*val is missing from .*train"):
        open_source(tmp_path, "validation")


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(DataError, match=f"The folder contains no images.*Received: {tmp_path}"):
        open_source(tmp_path)
    write_folder(tmp_path / "train", {"a": 0})
    with pytest.raises(DataError, match="There are no images"):
        open_source(tmp_path)


def test_an_image_file_of_no_bytes_is_refused(tmp_path):
    write_folder(tmp_path, {"a": 2, "b": 2})
    for name in ("a", "b"):
        (tmp_path / name / "zero.jpg").touch()
    with pytest.raises(DataError, match=rf"file is empty: {tmp_path}/a/zero.jpg, and 1 others"):
        open_source(tmp_path)


# Shards


def records(number=20, first=0, classes=4):
    return [example(encoded_image(i), i % classes + first) for i in range(number)]


@pytest.mark.parametrize("kind", WRITERS)
def test_shards_of_both_kinds(tmp_path, kind):
    write_shards(tmp_path, f"some-train.{kind}", records(), WRITERS[kind])
    write_shards(tmp_path, f"some-val.{kind}", records(7), WRITERS[kind])
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    source = open_source(tmp_path, "train")
    assert (source.size, source.classes, source.split) == (20, ("a", "b", "c", "d"), "train")
    assert [row[0] for row in rows(source)] == [encoded_image(i) for i in range(20)]
    assert labels(source) == [i % 4 for i in range(20)]
    name = shard_names(f"some-train.{kind}", 3)[2]
    assert source.name_of(19) == f"{tmp_path / name}, record 5"
    assert open_source(tmp_path, "validation").size == 7
    assert open_source(f"{tmp_path}/some-val*").size == 7


def test_shards_in_a_folder_for_each_split(tmp_path):
    for split in ("train", "validation"):
        write_shards(tmp_path / split, "part.tfrecord", records(), write_tfrecords)
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\n")
    source = open_source(tmp_path, "validation")
    assert (source.split, source.classes[3]) == ("validation", "d")
    assert "/validation/part" in source.name_of(0)


def classic(number=12, first=1, **kwargs):
    """As the ImageNet scripts write them: labels from 1, WordNet identifiers beside."""
    wnids = (b"n01440764", b"n01443537", b"n01484850")
    keys = {"image_key": "image/encoded", "label_key": "image/class/label"}
    return [
        example(encoded_image(i), i % 3 + first, **keys, **{"image/class/synset": wnids[i % 3]})
        for i in range(number)
    ]


def test_the_classic_imagenet_shards_count_from_1(tmp_path):
    write_shards(tmp_path, "validation", classic(), write_tfrecords)
    source = open_source(tmp_path, "validation")
    assert (len(source.classes), source.classes[0]) == (1000, "n01440764")
    assert labels(source) == [i % 3 for i in range(12)]


def test_a_shifted_label_is_noticed_by_the_wordnet_identifier(tmp_path):
    write_shards(tmp_path, "train", classic(first=0), write_tfrecords)
    with pytest.raises(DataError, match=r"Label 0 is class n01440764.*Pass first_label="):
        open_source(tmp_path)
    assert labels(open_source(tmp_path, first_label=0)) == [i % 3 for i in range(12)]


def test_a_list_with_numbers_says_where_labels_begin(tmp_path):
    keys = {"image_key": "image/encoded", "label_key": "image/class/label"}
    flowers = [example(encoded_image(i), i % 2, **keys) for i in range(6)]
    write_shards(tmp_path, "flowers_train.tfrecord", flowers, write_tfrecords)
    (tmp_path / "labels.txt").write_text("0:daisy\n1:tulip\n")
    source = open_source(tmp_path)
    assert (source.classes, labels(source)) == (("daisy", "tulip"), [0, 1] * 3)
    (tmp_path / "labels.txt").write_text("0:daisy\n2:tulip\n")
    with pytest.raises(DataError, match="must be consecutive"):
        open_source(tmp_path)


def test_classes_without_names_are_asked_for(tmp_path):
    write_shards(tmp_path, "a.tfrecord", records(), write_tfrecords)
    with pytest.raises(DataError, match=r"Put a classes\.txt"):
        open_source(tmp_path)
    assert open_source(tmp_path, classes=list("abcd")).classes == ("a", "b", "c", "d")


@pytest.mark.parametrize("kind", WRITERS)
def test_a_label_outside_the_list_is_refused(tmp_path, kind):
    write_shards(tmp_path, f"a.{kind}", records(12), WRITERS[kind])
    source = open_source(tmp_path, classes=["a", "b", "c"])
    with pytest.raises(
        tf.errors.OpError, match=r"are 0 to 2. Received: 3 in .*00000-of-00003, record 3"
    ):
        rows(source)
    # The first record of each file is looked at on opening.
    write_shards(tmp_path, f"a.{kind}", records(20), WRITERS[kind])
    with pytest.raises(DataError, match=r"are 0 to 2. Received: 3 in .*00001-of-00003, record 0"):
        open_source(tmp_path, classes=["a", "b", "c"])


def test_shards_that_are_missing_are_named(tmp_path):
    write_shards(tmp_path, "a.tfrecord", records(), write_tfrecords)
    (tmp_path / "a.tfrecord-00001-of-00003").unlink()
    with pytest.raises(DataError, match=r"1 of 3 shards.*a\.tfrecord-00001-of-00003"):
        open_source(tmp_path, classes=list("abcd"))


def test_more_shards_may_be_open_than_the_shell_allows(tmp_path):
    resource = pytest.importorskip("resource")
    write_shards(tmp_path, "a.array_record", records(), write_array_records)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        open_source(tmp_path, classes=list("abcd"))
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (515, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("kind", WRITERS)
def test_files_that_are_no_records_are_named(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    path.write_bytes(np.random.default_rng(0).bytes(999))
    with pytest.raises(DataError, match=rf"Received: {path}"):
        open_source(path, classes=["a"])


def test_a_file_whose_name_is_not_a_shards_is_read_as_tfrecords(tmp_path):
    path = tmp_path / "notes.records"
    path.write_text("no records")
    with pytest.raises(DataError, match=rf"not a TFRecord file. Received: {path}"):
        open_source(path, classes=["a"])


def test_a_tfrecord_file_that_is_cut_off_is_named(tmp_path):
    path = tmp_path / "a.tfrecord"
    write_tfrecords(path, records())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"Record 19 ends after the end of the file"):
        open_source(path, classes=list("abcd"))


def damaged(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_damaged_length_is_named_when_the_file_is_opened(tmp_path):
    path = tmp_path / "a.tfrecord"
    write_tfrecords(path, records())
    second = 12 + int.from_bytes(path.read_bytes()[:8], "little") + 4
    damaged(path, second)
    with pytest.raises(DataError, match=rf"checksum of record 1, at byte {second:,}, .*{path}"):
        open_source(path, classes=list("abcd"))


def test_a_damaged_record_is_named_when_it_is_read(tmp_path):
    path = tmp_path / "a.tfrecord"
    write_tfrecords(path, records())
    damaged(path, path.stat().st_size - 30)
    source = open_source(path, classes=list("abcd"))
    with pytest.raises(DataError, match=rf"checksum of record 19, .* is damaged.*{path}"):
        source.find(np.array([19]))


def test_zeros_are_no_records_however_many(tmp_path):
    path = tmp_path / "a.tfrecord"
    with path.open("wb") as file:
        file.truncate(2**33)  # sparse: takes no space
    with pytest.raises(DataError, match="checksum of record 0, at byte 0"):
        open_source(path, classes=["a"])


def test_a_name_of_a_billion_shards_costs_nothing(tmp_path):
    write_tfrecords(tmp_path / "train-00000-of-999999999", records())
    with pytest.raises(DataError, match=r"999,999,998 of .*train-000000001-of-999999999"):
        open_source(tmp_path, classes=list("abcd"))


def test_a_list_of_classes_is_text_of_a_modest_size(tmp_path):
    write_tfrecords(tmp_path / "a.tfrecord", records())
    listed = tmp_path / "classes.txt"
    listed.write_bytes("caf\xe9\n".encode("latin-1"))
    with pytest.raises(DataError, match=rf"not UTF-8 text.*Received: {listed}"):
        open_source(tmp_path)
    with listed.open("wb") as file:
        file.truncate(2**25)
    with pytest.raises(DataError, match=r"at most 16 MB, and this file has 32 MB"):
        open_source(tmp_path)


def test_records_of_something_else_are_refused(tmp_path):
    write_tfrecords(tmp_path / "a.tfrecord", [example(b"x", 1, "picture", "label")])
    with pytest.raises(DataError, match=r"Received: label, picture in"):
        open_source(tmp_path, classes=["a"])
    write_tfrecords(tmp_path / "a.tfrecord", [b"\xff\xff"])
    with pytest.raises(DataError, match=r"must be tf\.train\.Examples"):
        open_source(tmp_path, classes=["a"])


# Names


def test_a_name_that_is_nothing_says_what_was_tried(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imagenet2013").mkdir()
    with pytest.raises(DataError) as caught:
        open_source("imagenet2102")
    for part in (f"{tmp_path}/imagenet2102", "imagenet2012", f"{tmp_path}/imagenet2013"):
        assert part in str(caught.value)
    with pytest.raises(
        DataError, match=r"no such file or folder. Similar names: .*/imagenet2013\."
    ):
        open_source("./imagenet2014")
    with pytest.raises(DataError, match=rf"Similar names: none. Received: {tmp_path}/a/photos"):
        open_source(tmp_path / "a" / "photos")
    with pytest.raises(DataError, match=r"There is no file or folder .*Received: photos/of a"):
        open_source("photos/of a cat")
    with pytest.raises(DataError, match=r"99\.0\.0"):
        open_source("tfds:cifar10:99.0.0")


def test_without_tensorflow_datasets_it_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r'dataset names.*pip install "keras-convnext\[train\]"'):
        open_source("cifar10")


def test_tensorflow_datasets_that_could_not_be_imported_is_not_trusted(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", ModuleType("tensorflow_datasets"))
    with pytest.raises(ImportError, match=r'has logged.*pip install "tensorflow-metadata<1\.18"'):
        open_source("cifar10")


class SmallFlowers(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=["daisy", "tulip"]),
            "name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(10), "test": self._generate_examples(4)}

    def _generate_examples(self, number):
        for i in range(number):
            file = io.BytesIO(encoded_image(i))
            yield i, {"image": file, "label": i % 2, "name": str(i)}


@pytest.mark.parametrize("kind", WRITERS)
def test_datasets_of_tensorflow_datasets(tmp_path, kind):
    builder = SmallFlowers(data_dir=tmp_path, file_format=kind)
    builder.download_and_prepare()
    source = open_source(builder.data_dir, "train")
    assert (source.size, source.classes) == (10, ("daisy", "tulip"))
    numbers = {encoded_image(i): i for i in range(10)}
    found = [numbers[encoded] for encoded, *_ in rows(source)]
    assert sorted(found) == list(range(10))
    assert labels(source) == [i % 2 for i in found]
    assert open_source(builder.data_dir, "validation").split == "test"
    part = open_source(builder.data_dir, "train[2:5]")
    assert [numbers[encoded] for encoded, *_ in rows(part)] == found[2:5]
    assert "train" in part.name_of(0)
    assert part.name_of(0).endswith("record 2")
    with pytest.raises(DataError, match="Available: 'train', 'test'"):
        open_source(builder.data_dir, "held out")


def test_a_dataset_is_prepared_when_it_is_opened_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tfds, "builder", partial(tfds.builder, data_dir=tmp_path))
    assert open_source("small_flowers", "train").size == 10
    assert open_source("tfds:small_flowers:1.0.0", "test").size == 4
    assert next((tmp_path / "small_flowers").rglob("*.array_record*"))
