"""A network as a SavedModel, which TensorFlow Serving serves and TensorFlow loads without Keras."""

from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf

from keras_convnext.data.images import evaluation_image
from keras_convnext.export.warm_up import write_warm_up

TOP = 5  # classes that `serve_bytes` names
MOST_PIXELS = 89_478_485  # of an image to decode: Pillow's limit
UNREADABLE = f"Not an image, a damaged one, or one of more than {MOST_PIXELS:,} pixels"


def write_saved_model(
    network: keras.Model,
    path: Path,
    pixels: str,
    dtype: str,
    size: int | tuple[int, int],
    names: Sequence[str],
) -> None:
    """Writes a network as a SavedModel with up to three signatures.

    - `serving_default`: `pixels` (N, H, W, C) in 0..255; to `probabilities` and `logits`,
      (N, classes).
    - `serve_bytes`: `images` (N,), the bytes of JPEG, PNG, GIF or BMP files, which it decodes,
      resizes and crops by the published rule; to `class_ids`, `names` and `probabilities`, (N, 5),
      the most probable first, and `errors` (N,), empty where all went well. An image that cannot
      be read has -1, "" and 0. Only if the network takes square images in RGB.
    - `features`: `pixels`; to `features`, what the classifier sees, (N, C), and the maps at the
      ends of the stages, `P2` to `P5`, as far as the network has such.

    Args:
        network: keras.Model. As `served_network` makes it.
        path: path. The folder to write, named by a number as TensorFlow Serving wants versions.
        pixels: str. What `pixels` are, "float32" or "uint8".
        dtype: str. What the weights are kept in, "float32", "float16" or "bfloat16"; they are
            computed with in float32.
        size: int or pair of int. Side of the square that an encoded image is cropped to, or height
            and width of the images.
        names: sequence of str. The classes.
    """
    module = _Module(network, pixels, dtype, size, names)
    tf.saved_model.save(module, str(path), module.served)
    *sides, channels = network.input.shape[1:]
    sides = [side or size for side in sides]
    write_warm_up(path, pixels, (*sides, channels), "serve_bytes" in module.served)


class _Module(tf.Module):
    def __init__(
        self,
        network: keras.Model,
        pixels: str,
        dtype: str,
        size: int | tuple[int, int],
        names: Sequence[str],
    ) -> None:
        super().__init__()
        trained, fixed = network.trainable_variables, network.non_trainable_variables
        self.kept = [_kept(variable, dtype) for variable in (*trained, *fixed)]
        names = tf.constant([*names, ""])  # the last for images that cannot be read
        top = min(TOP, len(names) - 1)
        side = size if isinstance(size, int) else 0  # without squares there are no such requests
        spec = tf.TensorSpec(network.input.shape, pixels, name="pixels")

        def infer(x: tf.Tensor) -> dict[str, tf.Tensor]:
            weights = [tf.cast(w, v.dtype) for w, v in zip(self.kept, (*trained, *fixed))]
            variables = weights[: len(trained)], weights[len(trained) :]
            return network.stateless_call(*variables, tf.cast(x, tf.float32), training=False)[0]

        @tf.function(input_signature=[spec], autograph=False)
        def serve_pixels(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
            found = infer(pixels)
            return {name: found[name] for name in ("probabilities", "logits")}

        @tf.function(input_signature=[spec], autograph=False)
        def serve_features(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
            found = infer(pixels)
            return {name: found[name] for name in found if name not in ("probabilities", "logits")}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "images")], autograph=False)
        def serve_bytes(images: tf.Tensor) -> dict[str, tf.Tensor]:
            squares, readable = decode(images, side)
            count = tf.size(readable)
            # oneDNN's convolution of no image has the channels of its input.
            squares = tf.pad(squares, [[0, tf.cast(count == 0, tf.int32)], [0, 0], [0, 0], [0, 0]])
            best = tf.math.top_k(infer(squares)["probabilities"][:count], top)
            seen = readable[:, None]
            return {
                "class_ids": (ids := tf.where(seen, best.indices, -1)),
                "names": tf.gather(names, tf.where(seen, ids, len(names) - 1)),
                "probabilities": tf.where(seen, best.values, 0.0),
                "errors": tf.where(readable, "", UNREADABLE),
            }

        self.served = {"serving_default": serve_pixels}
        if network.output.keys() - {"probabilities", "logits"}:
            self.served["features"] = serve_features
        if side and network.input.shape[-1] == 3:
            self.served["serve_bytes"] = serve_bytes


def _kept(variable: keras.Variable, dtype: str) -> tf.Variable:
    """A variable of an artifact, in the dtype of its weights unless it counts something."""
    is_float = "float" in variable.dtype
    return tf.Variable(tf.cast(variable.value, dtype if is_float else variable.dtype), False)


def decode(images: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes a batch of files, of which some may be none, within a graph.

    Args:
        images: string tensor (N,).
        size: int. Side of the squares, in pixels.

    Returns:
        uint8 tensor (N, size, size, 3), zero where an image cannot be read, and bool tensor (N,),
        which of them can.
    """

    def read(index: tf.Tensor, encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.control_dependencies([_assert_not_huge(encoded)]):
            return index, evaluation_image(encoded, size)

    # A dataset is the one place in a graph where an error can be left behind.
    numbered = tf.data.Dataset.from_tensor_slices(images).enumerate(1)
    read_ones = numbered.map(read, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
    none = (tf.zeros((), tf.int64), tf.zeros((size, size, 3), tf.uint8))  # or it could be empty
    count = tf.size(images, tf.int64)
    batch = tf.data.Dataset.from_tensors(none).concatenate(read_ones).batch(count + 1)
    indices, squares = batch.get_single_element()
    places = indices[1:, None] - 1
    shape = tf.stack([count, size, size, 3])
    readable = tf.scatter_nd(places, tf.ones_like(indices[1:]), count[None]) > 0
    return tf.scatter_nd(places, squares[1:], tf.cast(shape, tf.int64)), readable


def _assert_not_huge(encoded: tf.Tensor) -> tf.Operation:
    """Fails at an image whose header tells more pixels than anybody photographs."""

    def number(start: int, length: int, little_endian: bool) -> tf.Tensor:
        digits = tf.io.decode_raw(tf.strings.substr(encoded, start, length), tf.uint8)
        digits = digits[::-1] if little_endian else digits
        return tf.reduce_sum(tf.cast(digits, tf.float32) * 256.0 ** tf.range(length - 1.0, -1, -1))

    def of_jpeg() -> tf.Tensor:
        return tf.reduce_prod(tf.cast(tf.io.extract_jpeg_shape(encoded)[:2], tf.float32))

    def begins(magic: bytes) -> tf.Tensor:
        return tf.strings.substr(encoded, 0, len(magic)) == magic

    pixels = tf.case(
        [
            (tf.io.is_jpeg(encoded), of_jpeg),
            (begins(b"\x89PNG"), lambda: number(16, 4, False) * number(20, 4, False)),
            (begins(b"GIF8"), lambda: number(6, 2, True) * number(8, 2, True)),
        ],
        default=lambda: tf.zeros(()),  # a BMP has the bytes of its pixels
    )
    return tf.debugging.Assert(pixels <= MOST_PIXELS, [pixels])
