"""Measures how fast images are read from folders and from shards, and what opening them costs.

Command: `python benchmarks/storage.py SCRATCH [--images 20000] [--kilobytes 110]`. Takes about ten
minutes, and three gigabytes in the folder SCRATCH, which are deleted afterwards. Writes the same
images as a folder of class folders, as TFRecord shards and as ArrayRecord shards, and reads them in
the order of training without decoding them, first from the disk and then from the page cache.
`--records 14197122` also opens shards with as many records as ImageNet-22K, of a few bytes each:
this takes processor time and memory, but no waiting for a disk. Every figure is that of a new
process. Writes `benchmarks/results/storage.json`, or the file of `--results`.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from machine import Load, description

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

RESULTS = Path(__file__).parent / "results" / "storage.json"
LIBRARIES = ("keras-convnext", "tensorflow", "array-record", "numpy")
KINDS = ("folder", "tfrecord", "array_record")
CLASSES = 100
SIDES = (500, 375)  # px, as a typical image of ImageNet
BATCH = 256


def pictures(kilobytes: int) -> list[bytes]:
    """Returns different JPEGs of about this size."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    found = []
    for _ in range(16):
        pixels = generator.normal(128, 40, (SIDES[1], SIDES[0], 3)).clip(0, 255).astype("uint8")
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=75)
        # Readers see only bytes: zeros after the end of a JPEG adjust its size.
        found.append(file.getvalue()[: kilobytes * 1024].ljust(kilobytes * 1024, b"\0"))
    return found


def write(folder: Path, kind: str, images: list[bytes], count: int, shards: int) -> None:
    """Writes `count` images of `CLASSES` classes."""
    if kind == "folder":
        for index in range(count):
            path = folder / "train" / f"{index % CLASSES:03d}" / f"{index:08d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(images[index % len(images)])
        return
    folder.mkdir(parents=True)
    (folder / "classes.txt").write_text("".join(f"{each:03d}\n" for each in range(CLASSES)))
    for shard in range(shards):
        path = folder / f"images-train.{kind}-{shard:05d}-of-{shards:05d}"
        _write_shard(path, kind, images, range(shard, count, shards))


def _write_shard(path: Path, kind: str, images: list[bytes], indices: range) -> None:
    import tensorflow as tf

    def record(index: int) -> bytes:
        image = tf.train.BytesList(value=[images[index % len(images)]])
        label = tf.train.Int64List(value=[index % CLASSES])
        features = {
            "image": tf.train.Feature(bytes_list=image),
            "label": tf.train.Feature(int64_list=label),
        }
        return bytes(
            tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
        )

    distinct = len(images) * CLASSES
    records = {index % distinct: record(index) for index in indices[:distinct]}
    if kind == "tfrecord":
        with tf.io.TFRecordWriter(str(path)) as writer:
            for index in indices:
                writer.write(records[index % distinct])
        return
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    for index in indices:
        writer.write(records[index % distinct])
    writer.close()


def files_of(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def evict(folder: Path) -> None:
    """Removes the files from the page cache."""
    for path in files_of(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(folder: Path, reads: bool) -> dict[str, Any]:
    """Opens the images, and reads all of them twice."""
    from keras_convnext.data.sources import open_source

    warm_up = open_source(folder, "train")  # imports, and the first graphs
    del warm_up
    figures: dict[str, Any] = {}
    for state in ("disk", "cache"):
        if state == "disk":
            evict(folder)
        resident, clock, cpu = _resident(), time.perf_counter(), time.process_time()
        source = open_source(folder, "train")
        figures[f"open_{state}"] = {
            "seconds": round(time.perf_counter() - clock, 3),
            "cpu_seconds": round(time.process_time() - cpu, 3),
            "megabytes": round((_resident() - resident) / 2**20, 1),
        }
    began = time.perf_counter()
    source.order(0, 0)
    figures["shuffle_seconds"] = round(time.perf_counter() - began, 3)
    for state in ("disk", "cache") if reads else ():
        if state == "disk":
            evict(folder)
        clock, cpu = time.perf_counter(), time.process_time()
        size = sum(
            sum(map(len, batch[0].numpy())) for batch in source.records(epoch=1).batch(BATCH)
        )
        seconds = time.perf_counter() - clock
        figures[f"read_{state}"] = {
            "images_per_second": round(source.size / seconds),
            "megabytes_per_second": round(size / seconds / 1e6),
            "cpu_microseconds_per_image": round((time.process_time() - cpu) / source.size * 1e6),
        }
    return figures


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def in_new_process(folder: Path, reads: bool) -> dict[str, Any]:
    command = [sys.executable, __file__, str(folder), "--measure", *(["--reads"] * reads)]
    printed = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout
    return dict(json.loads(printed.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scratch", type=Path, help="folder on the disk to measure")
    parser.add_argument("--images", type=int, default=20_000, help="default 20000")
    parser.add_argument("--kilobytes", type=int, default=110, help="per image (default 110)")
    parser.add_argument("--shards", type=int, default=16, help="default 16")
    parser.add_argument("--records", type=int, default=0, help="tiny records to open")
    parser.add_argument("--results", type=Path, default=RESULTS, help="output file")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--reads", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.scratch, options.reads)))
        return
    load, measured, opened = Load(), {}, {}
    images = pictures(options.kilobytes)
    folder = options.scratch / "images_to_read"
    try:
        for kind in KINDS:
            write(folder, kind, images, options.images, options.shards)
            measured[kind] = in_new_process(folder, reads=True)
            shutil.rmtree(folder)
            print(kind, json.dumps(measured[kind]), flush=True)
        for kind in KINDS[1:] if options.records else ():
            write(folder, kind, [b"image"], options.records, 1024)
            opened[kind] = in_new_process(folder, reads=False)
            shutil.rmtree(folder)
            print(kind, json.dumps(opened[kind]), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    figures = {
        "machine": {**description(LIBRARIES), **load.so_far()},
        "images": options.images,
        "kilobytes": options.kilobytes,
        "shards": options.shards,
        "kinds": measured,
        "tiny_records": options.records,
        "opened_tiny_records": opened,
    }
    options.results.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
