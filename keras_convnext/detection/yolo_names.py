"""Reads `data.yaml` of Ultralytics' datasets, without a YAML library.

The file may come from a stranger. Of YAML, only what such files are made of is understood: `names:`
with a list in brackets or in lines, or with numbered lines, and the folders of the splits. Other
names are refused.
"""

import re
from pathlib import Path

from keras_convnext.data.errors import DataError
from keras_convnext.printable import printable

_LARGEST = 2**20  # bytes
_LINE = re.compile(r"\s+(?:-\s+|(?P<number>\d{1,6})\s*:\s+)(?P<name>.+)|-\s+(?P<own>.+)")


def names_in_yaml(path: str | Path) -> tuple[str, ...]:
    """Returns the names of the classes, in their order.

    Raises:
        DataError: If the file is too large, not UTF-8 text, or has no such names.
    """
    path = Path(path)
    lines = _lines_of(path)
    for index, line in enumerate(lines):
        if match := re.match(r"names\s*:\s*(.*)", line):
            return _names(_without_comment(match[1]), lines, index, path)
    raise DataError(f"There is no line `names:` in this file. Received: {printable(path)}")


def values_in_yaml(path: Path) -> dict[str, list[str]]:
    """Returns the folders or files that the keys `path`, `train`, `val` and `test` name.

    Raises:
        DataError: If the file is too large or not UTF-8 text.
    """
    lines = _lines_of(path)
    found = {}
    for index, line in enumerate(lines):
        match = re.match(r"(path|train|val|valid|validation|test)\s*:(?:\s+(.*)|$)", line)
        if not match:
            continue
        rest = _without_comment(match[2] or "")
        if rest.startswith("["):
            values = [_unquoted(each) for each in rest.strip("[]").split(",")]
        elif rest:
            values = [_unquoted(rest)]
        else:
            values = []
            for each in lines[index + 1 :]:
                item = re.fullmatch(r"\s*-\s+(.+)", each.split(" #")[0].rstrip())
                if not item:
                    break
                values.append(_unquoted(item[1]))
        found[match[1]] = [each for each in values if each and each not in ("null", "~")]
    return found


def _lines_of(path: Path) -> list[str]:
    if path.stat().st_size > _LARGEST:
        raise DataError(f"A list of classes has at most 1 MB. Received: {printable(path)}")
    try:
        return path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(
            f"The file is not UTF-8 text: {error}. Received: {printable(path)}"
        ) from error


def _names(rest: str, lines: list[str], index: int, path: Path) -> tuple[str, ...]:
    if rest:
        while rest.startswith(("[", "{")) and not rest.endswith(("]", "}")):
            index += 1
            if index == len(lines):
                raise _broken(path, index, "the list does not end")
            rest += " " + _without_comment(lines[index])
        if not (rest.startswith("[") and rest.endswith("]")):
            raise _broken(path, index + 1, f"not a list: {rest[:40]}")
        inside = rest[1:-1].strip().removesuffix(",")
        return tuple(_unquoted(each) for each in inside.split(",")) if inside else ()
    names: list[str] = []
    for number, line in enumerate(lines[index + 1 :], index + 2):
        text = _without_comment(line)
        if not text:
            continue
        match = _LINE.fullmatch(line.split(" #")[0].rstrip())
        if not match:
            if line[0].isspace():
                raise _broken(path, number, f"not a name: {text[:40]}")
            break  # the next key
        if match["number"] is not None and int(match["number"]) != len(names):
            raise _broken(path, number, f"class {len(names)} is missing before it")
        names.append(_unquoted(match["name"] or match["own"]))
    if not names:
        raise _broken(path, index + 1, "no names follow")
    return tuple(names)


def _without_comment(text: str) -> str:
    return re.split(r"(?:^|\s)#", text)[0].strip()


def _unquoted(name: str) -> str:
    name = name.strip()
    return name[1:-1] if len(name) > 1 and name[0] == name[-1] and name[0] in "'\"" else name


def _broken(path: Path, line: int, reason: str) -> DataError:
    return DataError(f"Line {line}: {printable(reason)} (file: {printable(path)})")
