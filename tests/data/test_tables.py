"""CSV files of paths and labels, and what else people name as data."""

import tarfile
import zipfile

import pytest
from data_on_disk import encoded_image, write_folder

from keras_convnext.data.errors import DataError, NoSuchSplitError
from keras_convnext.data.sources import open_source


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path, {"x": 4})
    return tmp_path


def table(folder, text, name="labels.csv", encoding="utf-8"):
    (folder / name).write_text(text, encoding)
    return folder / name


def rows(source):
    found = source.records(shuffled=False).as_numpy_iterator()
    return [(encoded, int(label)) for encoded, label, _ in found]


@pytest.mark.parametrize(
    ("name", "encoding", "text"),
    [
        ("a.csv", "utf-8", "path,label\nx/000.jpg,dog\nx/001.jpg,cat\n"),
        ("a.CSV", "utf-8-sig", "Label;File\r\ndog;x/000.jpg\r\ncat;x/001.jpg\r\n"),
        ("a.tsv", "utf-8", "filename\tn\tclass\nx/000.jpg\t1\tdog\nx/001.jpg\t2\tcat\n\n"),
    ],
)
def test_paths_and_labels(folder, name, encoding, text):
    source = open_source(table(folder, text, name, encoding))
    assert (source.classes, source.split) == (("cat", "dog"), "train")
    assert rows(source) == [(encoded_image(0), 1), (encoded_image(1), 0)]
    assert source.counts().tolist() == [1, 1]
    assert source.name_of(1) == f"{folder}/x/001.jpg"


def test_numbers_are_sorted_as_numbers_and_may_be_named(folder):
    text = "image,label\nx/000.jpg,10\nx/001.jpg,9\nx/002.jpg,2\n"
    source = open_source(table(folder, text))
    assert source.classes == ("2", "9", "10")
    assert [label for _, label in rows(source)] == [2, 1, 0]
    assert open_source(table(folder, text), classes=["10", "9", "2", "1"]).classes[3] == "1"


def test_splits_have_the_classes_of_training(folder):
    text = "path,label,split\nx/000.jpg,a,train\nx/001.jpg,b,train\nx/002.jpg,b,val\n"
    source = open_source(table(folder, text), "validation")
    assert (source.classes, rows(source)) == (("a", "b"), [(encoded_image(2), 1)])
    with pytest.raises(DataError, match="'val' has the class 'c', which is not one of the 2"):
        open_source(table(folder, text + "x/003.jpg,c,val\n"), "validation")
    with pytest.raises(NoSuchSplitError):
        open_source(table(folder, "path,label\nx/000.jpg,a\n"), "validation")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("img,label\n", "lists no images"),
        ("", "must have a header"),
        ("x/000.jpg\n", "must have a header"),
        ("x/000.jpg,a\n", "a column with one of.*Received: x/000.jpg, a in"),
        ("path,label\nx/000.jpg,a,b\n", "Row 2 has 3 fields, but the header has 2"),
        ("path,label\nx/9.jpg,a\nx/8.jpg,a\n", r"do not exist .*x/9\.jpg, and 1 others"),
        ("path,label\na\0b,a\n", "do not exist|Not a CSV"),
    ],
)
def test_what_is_wrong_is_said(folder, text, said):
    with pytest.raises(DataError, match=rf"(?s){said}.*labels\.csv"):
        open_source(table(folder, text))


def test_other_encodings_are_refused(folder):
    with pytest.raises(DataError, match="UTF-8 text"):
        open_source(table(folder, "path,label\nx/000.jpg,café\n", encoding="latin-1"))


def test_archives_and_pictures_are_explained(folder):
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        archive.write(folder / "x" / "000.jpg")
    with tarfile.open(folder / "photos.tar.gz", "w:gz") as archive:
        archive.add(folder / "x" / "000.jpg")
    for name in ("photos.zip", "photos.tar.gz", "*.zip"):
        with pytest.raises(
            DataError, match=r"This is an archive. Unpack it, and pass the folder\."
        ):
            open_source(folder / name)
    for name in ("x/000.jpg", "x/*.jpg"):
        with pytest.raises(DataError, match=r"A single image has no label.*CSV file"):
            open_source(folder / name)
    with pytest.raises(DataError, match=r"For a list of files, .*CSV file.*of type list"):
        open_source([folder / "x" / "000.jpg"])
    with pytest.raises(DataError, match="no such file or folder"):
        open_source(folder / ("n" * 300))


@pytest.mark.parametrize("row", ["x/000.jpg,", ",dog", "x/000.jpg,  "])
def test_a_row_without_a_path_or_a_label(folder, row):
    with pytest.raises(DataError, match="Row 3 has no path or no label"):
        open_source(table(folder, f"path,label\nx/001.jpg,cat\n{row}\n"))


@pytest.mark.parametrize("name", ["train.txt", "coco.json", "x.jsonl", "d.parquet", "m.KERAS"])
def test_a_file_that_is_no_shard_is_not_read_as_one(folder, name):
    with pytest.raises(DataError, match=r"neither an image nor a shard.*CSV file"):
        open_source(table(folder, "x/000.jpg 0", name))
