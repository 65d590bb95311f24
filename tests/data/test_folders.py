"""Class folders as people have them."""

import os
import unicodedata
from pathlib import Path

import pytest
from data_on_disk import encoded_image, write_folder
from PIL import Image

from keras_convnext.data.checks import check_images
from keras_convnext.data.errors import DataError, DataWarning
from keras_convnext.data.sources import open_source

NAMES = ["two words", "a[1]*?", 'it\'s "quoted"', "50% off", "日本 🍣", "n" * 255, "-x"]
NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def rows(source):
    return [(encoded, int(label)) for encoded, label, _ in source.records(shuffled=False)]


def test_classes_and_files_of_any_name_are_read(tmp_path):
    write_folder(tmp_path / "data [new]", dict.fromkeys(NAMES, 1))
    for name in NAMES:
        file = tmp_path / "data [new]" / name / "000.jpg"
        file.rename(file.with_name(f"{name[:200]}.JPEG"))
    source = open_source(tmp_path / "data [new]")
    assert source.classes == tuple(sorted(NAMES))
    for index, (encoded, label) in enumerate(rows(source)):
        assert Path(source.name_of(index)).read_bytes() == encoded.numpy()
        assert label == index


def test_what_systems_leave_is_no_class(tmp_path):
    write_folder(tmp_path, {"a": 1, "b": 1, "__MACOSX": 1, ".ipynb_checkpoints": 1, "@eaDir": 1})
    (tmp_path / "a" / "._000.jpg").write_bytes(b"x")
    (tmp_path / "a" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    source = open_source(tmp_path)
    assert (source.classes, source.size) == (("a", "b"), 2)


def test_a_folder_of_other_files_is_no_class_and_an_empty_one_is(tmp_path):
    write_folder(tmp_path / "train", {"a": 1, "b": 1, "empty": 0, "checkpoints/last": 0, "logs": 0})
    write_folder(tmp_path / "val", {"a": 1, "logs": 0})
    for place in ("train/checkpoints/last/state.index", "train/logs/log.csv", "val/logs/log.csv"):
        (tmp_path / place).write_text("x")
    with pytest.warns(DataWarning, match=r"folders without images: .*train/checkpoints and 1"):
        source = open_source(tmp_path, "train")
    assert source.classes == ("a", "b", "empty")
    with pytest.raises(DataError, match="'empty' has 0 images"):
        check_images(source)
    with pytest.warns(DataWarning, match="val/logs"):
        assert open_source(tmp_path, "validation").classes == source.classes


def test_combining_accents_are_the_same_class(tmp_path):
    write_folder(tmp_path / "train", {NFC: 2, "tea": 2})
    write_folder(tmp_path / "val", {NFD: 1, "tea": 1})
    training, validation = (open_source(tmp_path, split) for split in ("train", "val"))
    assert training.classes == validation.classes == (NFC, "tea")
    assert NFD in validation.name_of(0)
    assert [label for _, label in rows(validation)] == [0, 1]


def test_two_folders_of_one_name_are_refused(tmp_path):
    write_folder(tmp_path, {NFC: 1, NFD: 1})
    if len(os.listdir(tmp_path)) == 1:
        pytest.skip("the file system takes them for the same")
    with pytest.raises(DataError, match="Two folders have the same name"):
        open_source(tmp_path)


@pytest.mark.parametrize("name", [b"a\nb", b"\xff"])
def test_a_class_whose_name_is_no_line_is_refused(name, tmp_path):
    write_folder(tmp_path, {os.fsdecode(name): 1, "b": 1})
    with pytest.raises(DataError, match=r"text on one line. Rename.*(\\n|\\udcff)"):
        open_source(tmp_path)


def test_links_are_followed_and_loops_end(tmp_path):
    write_folder(tmp_path / "data", {"a": 2, "b": 1})
    write_folder(tmp_path / "elsewhere", {"c": 3})
    (tmp_path / "data" / "c").symlink_to(tmp_path / "elsewhere" / "c")
    (tmp_path / "data" / "a" / "all").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "b" / "here").symlink_to(tmp_path / "data" / "b")
    with pytest.warns(DataWarning, match=r"Skipped links .*data/a/all and 1 others"):
        source = open_source(tmp_path / "data")
    assert (source.classes, source.counts().tolist()) == (("a", "b", "c"), [2, 1, 3])
    (tmp_path / "data" / "b" / "x.jpg").symlink_to(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"broken link.*b/x\.jpg"):
        open_source(tmp_path / "data")


@pytest.mark.parametrize("split", ["", "train"])
def test_links_that_are_no_classes_are_skipped_with_a_notice(split, tmp_path):
    data = write_folder(tmp_path / "data" / split, {"a": 2, "b": 1})
    targets = {"itself": data / "itself", "up": tmp_path, "root": "/", "here": data, "gone": "gone"}
    for name, target in targets.items():
        (data / name).symlink_to(target)
    (data / "readme").symlink_to(data / "a" / "000.jpg")
    with pytest.warns(DataWarning, match=r"Skipped links .*gone and 4 others"):
        source = open_source(tmp_path / "data")
    assert (source.classes, source.counts().tolist()) == (("a", "b"), [2, 1])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_devices_are_not_opened(tmp_path):
    write_folder(tmp_path, {"a": 1, "b": 1})
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    os.mkfifo(tmp_path / "classes.txt")
    os.mkfifo(tmp_path / "x.tfrecord")
    (tmp_path / "b" / "link.jpg").symlink_to(tmp_path / "a" / "pipe.jpg")
    (tmp_path / "b" / "zeros.jpg").symlink_to("/dev/zero")
    (tmp_path / "a" / "itself.jpg").symlink_to(tmp_path / "a" / "itself.jpg")
    with pytest.warns(DataWarning, match=r"Skipped links .*a/itself\.jpg"):
        source = open_source(tmp_path)
    assert source.counts().tolist() == [1, 1]
    (tmp_path / "table.csv").write_text("path,label\na/pipe.jpg,a\n")
    with pytest.raises(DataError, match=r"do not exist.*a/pipe\.jpg"):
        open_source(tmp_path / "table.csv")


def test_all_formats_are_images_and_heic_is_asked_for_its_package(tmp_path, monkeypatch):
    write_folder(tmp_path, {"a": 1, "b": 1})
    for suffix in ("webp", "tif", "avif", "jp2", "ppm", "PNG"):
        Image.new("RGB", (20, 20)).save(tmp_path / "a" / f"x.{suffix}")
    source = open_source(tmp_path)
    assert source.counts().tolist() == [7, 1]
    check_images(source)
    (tmp_path / "b" / "x.HEIC").write_bytes(b"x")
    monkeypatch.setattr("keras_convnext.data.folders.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install pillow-heif. Received: .*b/x\.HEIC"):
        open_source(tmp_path)


def test_images_without_folders_have_no_labels(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded_image(1))
    with pytest.raises(
        DataError, match=r"no labels: 1 are directly in the folder, such as 'a.jpg'"
    ):
        open_source(tmp_path)


def test_an_archive_unpacked_into_a_folder_of_its_name_is_noticed(tmp_path):
    write_folder(tmp_path / "photos", {"a": 1, "b": 1})
    with pytest.raises(
        DataError, match=f"class folders, such as 'a', are one level deeper. Pass {tmp_path}/photos"
    ):
        open_source(tmp_path)
    write_folder(tmp_path / "photos", {".": 1})
    assert open_source(tmp_path).classes == ("photos",)
