import pytest
from data_on_disk import write_folder

from keras_convnext.data.checks import check_images, refuse_broken
from keras_convnext.data.errors import DataError
from keras_convnext.data.sources import open_source


def test_good_images_pass(tmp_path):
    check_images(open_source(write_folder(tmp_path, {"a": 2, "b": 3})), least=2)


def test_a_class_with_one_image_is_named(tmp_path):
    source = open_source(write_folder(tmp_path, {"a": 2, "b": 1, "c": 0}))
    with pytest.raises(
        DataError, match=r"'b' has 1 images, but at least 2 are needed, and 1 others"
    ):
        check_images(source, least=2)
    with pytest.raises(DataError, match=r"'c' has 0 images, but at least 1 are needed\."):
        check_images(source)


@pytest.mark.parametrize("limit", [None, 9])
def test_a_broken_image_is_named(tmp_path, limit):
    write_folder(tmp_path, {"a": 5, "b": 4})
    path = tmp_path / "b" / "002.jpg"
    path.write_bytes(path.read_bytes()[:-100])
    source = open_source(tmp_path)
    with pytest.raises(DataError, match=f"An image is broken: {path}"):
        check_images(source, limit=limit)
    check_images(source, limit=2)
    refuse_broken(source, [0, 6, 8])
    path.unlink()
    with pytest.raises(DataError, match=f"disappeared or cannot be read: {path}. No such file"):
        refuse_broken(source, [7])
