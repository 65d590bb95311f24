"""Small datasets in all supported formats."""

import io

import numpy as np
import tensorflow as tf
from PIL import Image


def encoded_image(value, size=(24, 16), mode="RGB", file_format="JPEG"):
    """Returns the contents of a single-colored image file."""
    depth = len(Image.new(mode, (1, 1)).getbands())
    color = value if depth == 1 else tuple((value + 40 * i) % 256 for i in range(depth))
    file = io.BytesIO()
    Image.new(mode, size, color).save(file, file_format)
    return file.getvalue()


def write_folder(root, images):
    """Writes a folder per class, from {class: number of images}. File names are `00i.jpg`."""
    for name, number in images.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(number):
            (root / name / f"{i:03}.jpg").write_bytes(encoded_image(i))
    return root


def example(image, label, image_key="image", label_key="label", **others):
    features = {image_key: _bytes(image), label_key: _int64(label)}
    features |= {key: _bytes(value) for key, value in others.items()}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write_tfrecords(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def write_array_records(path, records):
    from array_record.python.array_record_module import ArrayRecordWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()


def shard_names(stem, number):
    return [f"{stem}-{i:05}-of-{number:05}" for i in range(number)]


def write_shards(folder, stem, records, write, number=3):
    for name, some in zip(
        shard_names(stem, number), np.array_split(np.arange(len(records)), number)
    ):
        write(folder / name, [records[i] for i in some])


def _bytes(value):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _int64(value):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
