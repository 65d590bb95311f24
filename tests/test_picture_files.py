"""Folders as people have them."""

import os
import unicodedata
from pathlib import Path

import pytest
from pictures_of_every_kind import PHOTO
from PIL import Image

from keras_convnext.picture_files import find_images, kinds_of_files, walk_pictures
from keras_convnext.pictures import ImageError, ImageWarning
from keras_convnext.preprocessing import load_image

NAMES = [
    "upper.JPG", "two words.png", "a[1].jpg", "it's \"quoted\".png", "50% off {x}.png",
    "日本 🍣.jpg", unicodedata.normalize("NFC", "é.png"), unicodedata.normalize("NFD", "è.png"),
    "n" * 240 + ".webp", "-dash.gif", "photo.heic", "a.b.tiff", "[red]bold.png",
]  # fmt: skip
NOT = [
    ".DS_Store", "._upper.JPG", ".hidden/a.jpg", "Thumbs.db", "desktop.ini", "__MACOSX/._a.jpg",
    "__MACOSX/a.jpg", "notes.txt", "jpg", "photo.jpg.part", "@eaDir/a.jpg",
]  # fmt: skip


def fill(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def found(folder):
    return {os.path.relpath(entry.path, folder) for entry in walk_pictures(folder)}


@pytest.fixture
def folder(tmp_path):
    fill(tmp_path / "photos [2024]", NAMES + NOT)
    return tmp_path / "photos [2024]"


def test_pictures_are_found_by_any_name_and_what_systems_leave_is_not(folder):
    assert found(folder) == set(NAMES)
    assert find_images([folder]) == sorted(folder / name for name in NAMES)
    assert find_images(folder) == sorted(folder / name for name in NAMES)


def test_links_are_followed_once_and_loops_end(folder, tmp_path):
    fill(tmp_path / "elsewhere", ["inside.jpg", "deep/er.jpg"])
    for name in ("link", "link again"):
        (folder / name).symlink_to(tmp_path / "elsewhere")
    (folder / "up").symlink_to(tmp_path)
    (folder / "here").symlink_to(folder)
    (tmp_path / "elsewhere" / "back").symlink_to(folder)
    (folder / "itself.jpg").symlink_to(folder / "itself.jpg")
    (folder / "nothing.jpg").symlink_to(tmp_path / "nothing.jpg")
    (folder / "file.jpg").symlink_to(tmp_path / "elsewhere" / "inside.jpg")
    pictures = {name.split("/", 1)[-1] for name in found(folder)}
    expected = {"inside.jpg", "deep/er.jpg", "nothing.jpg", "file.jpg"}
    assert pictures == expected | set(NAMES)
    assert len(found(folder)) == len(expected) + len(NAMES)
    with pytest.warns(ImageWarning, match=r"Skipped links .*: .* and 4 others") as warned:
        assert len(find_images([folder])) == len(expected) + len(NAMES)
    assert len(warned) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_that_nobody_writes_to_is_no_picture(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    fill(tmp_path, ["a.jpg"])
    for name, target in (("link.jpg", tmp_path / "pipe.jpg"), ("zeros.jpg", "/dev/zero")):
        (tmp_path / name).symlink_to(target)
    assert found(tmp_path) == {"a.jpg"}
    for name in ("pipe.jpg", "link.jpg", "zeros.jpg"):
        for read in (load_image, lambda path: find_images([path])):
            with pytest.raises(ImageError, match=f"a pipe or a device.*{name}"):
                read(tmp_path / name)


def test_a_file_that_is_named_is_taken_whatever_its_name(tmp_path):
    PHOTO.resize((40, 40)).save(tmp_path / "photo", "PNG")
    assert find_images([str(tmp_path / "photo")]) == [tmp_path / "photo"]
    assert Image.open(tmp_path / "photo").size == (40, 40)


@pytest.mark.parametrize("name", ["gone", "n" * 300, "a/" * 3000])
def test_what_is_not_there_is_said(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        find_images([tmp_path / name])


def test_a_folder_of_other_files_says_of_which(tmp_path):
    fill(tmp_path, ["a.txt", "b.TXT", "c.xml", "d"])
    with pytest.raises(FileNotFoundError, match=r"but 4 files \(.txt, .xml, no suffix\). Received"):
        find_images([tmp_path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="but no files"):
        find_images([tmp_path / "empty"])
    assert kinds_of_files(["a.a", "a.b", "a.c", "a.d"]) == "4 files (.a, .b, .c, ...)"


def test_paths_of_a_walk_begin_as_the_folder_is_given(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert {Path(entry.path).parts[0] for entry in walk_pictures(folder.name)} == {folder.name}
