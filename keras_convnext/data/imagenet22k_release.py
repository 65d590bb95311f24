"""The files of the ImageNet-22K release, packed or unpacked, class by class."""

import re
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from etils import epath

from keras_convnext.data.errors import DataError
from keras_convnext.preprocessing import class_labels

_WHOLE = ("fall11_whole.tar", "winter21_whole.tar")
_FOLDERS = ("imagenet22k", "fall11_whole", "winter21_whole")
_WNID, _WNID_TAR = re.compile(r"n\d{8}"), re.compile(r"n\d{8}\.tar")
_BLOCK = 512  # bytes, the block size of tar files


class ClassFiles(NamedTuple):
    """The images of one class: a folder, a tar file, or a tar file inside another.

    Args:
        wnid: str. WordNet identifier of the class.
        path: str. Path of the folder or tar file.
        offset: int or None. Offset of the class's tar in the file in bytes; None for a folder.
        size: int. Size of the class's tar in bytes.
    """

    wnid: str
    path: str
    offset: int | None = None
    size: int = 0

    def read(self) -> Iterator[tuple[str, bytes]]:
        """Yields the name and the contents of each file.

        Raises:
            DataError: If the tar file is damaged.
        """
        path = epath.Path(self.path)
        if self.offset is None:
            for file in sorted(path.iterdir()):
                if not file.name.startswith("."):
                    yield file.name, file.read_bytes()
            return
        with path.open("rb") as file:
            for member in _members(file, self.offset, f"{self.path} ({self.wnid})"):
                if member.offset_data + member.size > self.offset + self.size:
                    raise DataError(f"A tar file is truncated. Received: {self}")
                file.seek(member.offset_data)
                yield member.name.rpartition("/")[2], file.read(member.size)


def find_release(manual: epath.PathLike) -> tuple[str, list[ClassFiles]]:
    """Finds the release in a folder: one tar of tars, one tar per class, or one folder per class.

    Returns:
        The name of the release, and its classes in order.

    Raises:
        DataError: If the release is missing, exists in two forms, or contains an unknown class.
    """
    manual = epath.Path(manual)
    for folder in (*(manual / name for name in _FOLDERS), manual):
        if not folder.is_dir():
            continue
        entries = sorted(folder.iterdir())
        wholes = [entry for entry in entries if entry.name in _WHOLE]
        folders = [entry for entry in entries if _WNID.fullmatch(entry.name)]
        tars = [entry for entry in entries if _WNID_TAR.fullmatch(entry.name)]
        forms = [form[-1] for form in (wholes[:-1], wholes, tars, folders) if form]
        if len(forms) > 1:
            raise DataError(
                "The release exists in several forms. Remove all but one. Received: "
                + ", ".join(map(str, forms))
            )
        if forms:
            if wholes:
                classes = _classes_of_whole(wholes[0])
            else:
                classes = [_class_of(entry) for entry in tars + folders]
            return (wholes or [folder])[0].name, _in_order(classes)
    raise DataError(
        f"ImageNet-22K was not found: the folder must contain {' or '.join(_WHOLE)}, or tar files "
        f"or folders with names like n00004475. Received: {manual}"
    )


def _class_of(entry: epath.Path) -> ClassFiles:
    if entry.name.endswith(".tar"):
        return ClassFiles(entry.name.removesuffix(".tar"), str(entry), 0, entry.stat().length)
    return ClassFiles(entry.name, str(entry))


def _classes_of_whole(whole: epath.Path) -> list[ClassFiles]:
    classes = []
    with whole.open("rb") as file:
        for member in _members(file, 0, str(whole)):
            name = member.name.rpartition("/")[2]
            if not name.endswith(".tar"):
                raise DataError(
                    f"The archive must contain one tar file per class. Received: {member.name} in "
                    f"{whole}"
                )
            name = name.removesuffix(".tar")
            classes.append(ClassFiles(name, str(whole), member.offset_data, member.size))
    return classes


def _in_order(classes: list[ClassFiles]) -> list[ClassFiles]:
    order = {wnid: i for i, (wnid, _) in enumerate(class_labels(21841))}
    for each in classes:
        if each.wnid not in order:
            raise DataError(
                f"{each.wnid} is not one of the 21,841 classes of ImageNet-22K. "
                f"Received: {each.path}"
            )
    return sorted(classes, key=lambda each: order[each.wnid])


def _members(file: BinaryIO, offset: int, name: str) -> Iterator[tarfile.TarInfo]:
    """Yields the files of the tar file at an offset in another file."""
    file.seek(offset)
    end = offset
    try:
        # Only the headers are read.
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
                if member.isfile():
                    yield member
    except tarfile.TarError as error:
        raise DataError(f"A tar file is damaged: {error}. Received: {name}") from error
    # `tarfile` treats unreadable data as the end of the archive.
    file.seek(end)
    if file.read(_BLOCK).strip(b"\0"):
        raise DataError(f"A tar file is damaged at byte {end:,}. Received: {name}")
