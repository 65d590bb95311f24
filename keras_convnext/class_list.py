"""Reads lists of class names, such as `classes.txt`, which may come from strangers."""

from pathlib import Path

from keras_convnext.printable import PrintableError

_LARGEST = 16 * 2**20  # bytes; ImageNet's 21,841 names take 1 MB


class ClassListError(PrintableError):
    """A file is not a list of class names."""


def read_class_list(path: Path) -> list[str]:
    """Returns the lines of a list of class names.

    Raises:
        ClassListError: If the file is too large, or not UTF-8 text.
    """
    size = path.stat().st_size
    if size > _LARGEST:
        raise ClassListError(
            f"A list of classes has at most {_LARGEST >> 20} MB, and this file has "
            f"{size >> 20:,} MB. Received: {path}"
        )
    try:
        return path.read_text("utf-8-sig").splitlines()  # Windows writes a signature
    except UnicodeDecodeError as error:
        raise ClassListError(
            f"The list of classes is not UTF-8 text: {error}. Received: {path}"
        ) from error
