"""Whatever is done to a file, its reader reads it or refuses it, and does nothing else.

A thousandth of what `pytest -m slow tests/pretrained/test_fuzzed_files.py -rP` runs, which takes
some minutes; KERAS_CONVNEXT_FUZZ_FILES says how many files it makes of each kind.
"""

import os
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from mutations import KINDS, archives, index, mutated, safe_file, shards

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.placeholder import Placeholder
from keras_convnext.pretrained.safetensors_file import SafeTensor
from keras_convnext.pretrained.stored_tensor import StoredTensor
from keras_convnext.pretrained.weight_files import read

MANY = int(os.environ.get("KERAS_CONVNEXT_FUZZ_FILES", 20_000))
MAX_SECONDS = 1.0
# What may be asked of the file at once, and what its description, here of some KB, may become.
MAX_MEMORY = 4 << 20

_watched = None  # a list of what the interpreter was made to do, while a file is read


def _hook(event, arguments):
    if _watched is not None:
        _watched.append((event, arguments))


sys.addaudithook(_hook)  # for good: a hook cannot be removed


def is_reading(event, arguments, path):
    """Whether a file was opened that stands where the path does, and to read it."""
    return (
        event == "open"
        and Path(str(arguments[0])).parent == path.parent
        and not arguments[2] & os.O_ACCMODE
    )


def read_all(value, depth=0):
    if isinstance(value, StoredTensor | SafeTensor):
        array = value.read()
        assert array.shape == value.shape
        if array.size < 1 << 16:  # of one number, any shape can be made
            assert b"".join(piece.tobytes() for piece in value.pieces(7)) == array.tobytes()
    elif isinstance(value, dict | list | tuple) and depth < 8:
        if isinstance(value, Placeholder):
            assert repr(value).isprintable()
            read_all(value.attributes, depth + 1)
        for item in value.values() if isinstance(value, dict) else value:
            read_all(item, depth + 1)


def fuzz(kind, seeds, folder):
    """Reads the mutated files of some seeds, and returns what came of them."""
    global _watched
    for name, content in shards().items():
        (folder / name).write_bytes(content)
    path = folder / "x"
    # What is imported late is imported now; of old names in zips and of protocol 0 there are few.
    for encoding in ("cp437", "raw_unicode_escape"):
        "".encode(encoding)
    for content in (safe_file(), archives()[0], index()):
        path.write_bytes(content)
        read_all(read(path))
    outcomes, slowest, largest = Counter(), 0.0, 0
    tracemalloc.start()
    try:
        for seed in seeds:
            path.write_bytes(mutated(kind, seed))
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            events, began, told = [], time.process_time(), None
            _watched = events
            try:
                read_all(read(path))
            except CheckpointError as error:
                told = str(error)
            finally:
                _watched = None
            slowest = max(slowest, time.process_time() - began)
            largest = max(largest, tracemalloc.get_traced_memory()[1] - before)
            deeds = [event for event in events if not is_reading(*event, path)]
            assert not deeds, (kind, seed)
            assert told is None or told.count(str(path)) < 2, (kind, seed)
            assert told is None or (told.isprintable() and len(told) < 1000), (kind, seed)
            assert slowest < MAX_SECONDS, (kind, seed)
            assert largest < MAX_MEMORY, (kind, seed)
            outcomes["read" if told is None else "refused"] += 1
    finally:
        tracemalloc.stop()
    return outcomes, slowest, largest


@pytest.mark.parametrize("kind", KINDS)
def test_random_damage_is_read_or_refused(kind, tmp_path):
    outcomes, _, _ = fuzz(kind, range(200), tmp_path)
    assert outcomes.keys() == {"read", "refused"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_much_random_damage_is_read_or_refused(kind, tmp_path):
    outcomes, slowest, largest = fuzz(kind, range(1000, 1000 + MANY), tmp_path)
    print(
        f"{kind}: {outcomes['read']} read, {outcomes['refused']} refused, "
        f"slowest {1000 * slowest:.0f} ms, at most {largest / 2**20:.1f} MiB"
    )


def test_the_watch_sees_what_a_reader_does(tmp_path):
    """Else the tests above would find nothing."""
    global _watched
    path, events = tmp_path / "x", []
    path.write_text("")
    _watched = events
    try:
        path.read_text()
        reading = len(events)
        eval("0")
        path.write_text("")
        os.system("true")
    finally:
        _watched = None
    assert all(is_reading(*event, path) for event in events[:reading])
    assert {"exec", "open", "os.system"} <= {
        event for event, arguments in events if not is_reading(event, arguments, path)
    }
