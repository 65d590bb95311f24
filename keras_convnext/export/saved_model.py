"""Writes a network as a SavedModel, for TensorFlow Serving or TensorFlow without Keras."""

from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf

from keras_convnext.data.decoding import (
    begins,
    has_few_scans,
    has_modest_chunks,
    number,
    turned_upright,
)
from keras_convnext.data.images import evaluation_image
from keras_convnext.export.served import DETECTIONS
from keras_convnext.export.warm_up import write_warm_up
from keras_convnext.pictures import MOST_SCANS

TOP = 5  # classes that `serve_bytes` returns
MOST_PIXELS = 89_478_485  # in an image to decode: Pillow's limit
MOST_PIXELS_OF_REQUEST = 2**28  # in all images of a request: 22 photographs of 12 megapixels
READS_WEBP = hasattr(tf.io, "decode_webp")  # TensorFlow 2.19 does not
_FORMATS = "JPEG, PNG, GIF" + (", BMP or WebP without transparency" if READS_WEBP else " or BMP")
UNREADABLE = (
    f"Unsupported (not {_FORMATS}), damaged, larger than {MOST_PIXELS:,} pixels, of more than "
    f"{MOST_SCANS} scans, or beyond the limit of {MOST_PIXELS_OF_REQUEST:,} pixels per request"
)


def write_saved_model(
    network: keras.Model,
    path: Path,
    pixels: str,
    dtype: str,
    size: int | tuple[int, int],
    names: Sequence[str],
) -> None:
    """Writes a network as a SavedModel with up to three signatures.

    - `serving_default` takes `pixels` (N, H, W, C) in 0..255, and returns `probabilities` and
      `logits` (N, classes); of a segmenter, `classes` (N, H, W) and `logits` (N, H, W, classes);
      of a detector, the arrays that the detector returns.
    - `serve_bytes` takes `images` (N,), the bytes of JPEG, PNG, GIF or BMP files, and of WebP if
      TensorFlow has `tf.io.decode_webp`. It decodes them, applies the EXIF orientation, and resizes
      and crops them as in the published evaluation. It returns `class_ids`, `names` and
      `probabilities` (N, 5), the most probable first, and `errors` (N,), empty for valid images.
      For an unreadable image the others are -1, "" and 0. Exists only if the network is a
      classifier of square RGB images.
    - `features` takes `pixels`, and returns `features` (N, C), the input of the classifier, and the
      feature maps of the stages, `P2` to `P5`, if the network has them.

    Args:
        network: keras.Model. As returned by `served_network`.
        path: path. Output folder. Its name is a number, the version for TensorFlow Serving.
        pixels: str. Type of `pixels`, "float32" or "uint8".
        dtype: str. Type of the stored weights, "float32", "float16" or "bfloat16". The network
            computes in float32.
        size: int or pair of int. Side of the square that an encoded image is cropped to, or height
            and width of the images.
        names: sequence of str. Class names.
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
        names = tf.constant([*names, ""])  # the last is for unreadable images
        top = min(TOP, len(names) - 1)
        side = size if isinstance(size, int) else 0  # `serve_bytes` needs square images
        answers = {"probabilities", "classes", "logits", *DETECTIONS}
        spec = tf.TensorSpec(network.input.shape, pixels, name="pixels")

        def infer(x: tf.Tensor) -> dict[str, tf.Tensor]:
            weights = [tf.cast(w, v.dtype) for w, v in zip(self.kept, (*trained, *fixed))]
            variables = weights[: len(trained)], weights[len(trained) :]
            return network.stateless_call(*variables, tf.cast(x, tf.float32), training=False)[0]

        @tf.function(input_signature=[spec], autograph=False)
        def serve_pixels(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
            found = infer(pixels)
            return {name: found[name] for name in found if name in answers}

        @tf.function(input_signature=[spec], autograph=False)
        def serve_features(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
            found = infer(pixels)
            return {name: found[name] for name in found if name not in answers}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "images")], autograph=False)
        def serve_bytes(images: tf.Tensor) -> dict[str, tf.Tensor]:
            squares, readable = decode(images, side)
            count = tf.size(readable)
            # With an empty batch, oneDNN's convolution would return the channels of its input.
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
        if network.output.keys() - answers:
            self.served["features"] = serve_features
        if side and network.input.shape[-1] == 3 and "probabilities" in network.output:
            self.served["serve_bytes"] = serve_bytes


def _kept(variable: keras.Variable, dtype: str) -> tf.Variable:
    """Creates a variable of an artifact, in `dtype` unless it is an integer."""
    is_float = "float" in variable.dtype
    return tf.Variable(tf.cast(variable.value, dtype if is_float else variable.dtype), False)


def decode(images: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes a batch of image files in a graph. Some may be unreadable.

    Args:
        images: string tensor (N,). Contents of the files.
        size: int. Side of the squares, in pixels.

    Returns:
        uint8 tensor (N, size, size, 3), zero for unreadable images, and bool tensor (N,), True for
        readable ones.
    """

    def counted(index: tf.Tensor, encoded: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return index, encoded, _pixels_of(encoded)

    def with_total(
        total: tf.Tensor, image: tuple[tf.Tensor, ...]
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        index, encoded, pixels = image
        return total + pixels, (index, encoded, total + pixels)

    def read(index: tf.Tensor, encoded: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        is_small = total <= MOST_PIXELS_OF_REQUEST
        with tf.control_dependencies([tf.debugging.Assert(is_small, [total])]):
            return index, evaluation_image(encoded, size, _decode_whole)

    # Only a dataset can ignore errors in a graph.
    numbered = tf.data.Dataset.from_tensor_slices(images).enumerate(1)
    modest = numbered.map(counted).ignore_errors()
    totals = modest.scan(tf.zeros((), tf.float64), with_total)
    read_ones = totals.map(read, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
    # The first element keeps the batch from being empty.
    none = (tf.zeros((), tf.int64), tf.zeros((size, size, 3), tf.uint8))
    count = tf.size(images, tf.int64)
    batch = tf.data.Dataset.from_tensors(none).concatenate(read_ones).batch(count + 1)
    indices, squares = batch.get_single_element()
    places = indices[1:, None] - 1
    shape = tf.stack([count, size, size, 3])
    readable = tf.scatter_nd(places, tf.ones_like(indices[1:]), count[None]) > 0
    return tf.scatter_nd(places, squares[1:], tf.cast(shape, tf.int64)), readable


def _decode_whole(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes images that are neither a plain JPEG nor a plain PNG, without Python."""
    # TensorFlow decodes the palette indices of a BMP as gray levels.
    palette = begins(encoded, b"BM") & (number(encoded, 28, 2, little_endian=True) < 24)
    with tf.control_dependencies([tf.debugging.Assert(~palette, ["a BMP with a palette"])]):
        pixels = tf.cond(
            tf.io.is_jpeg(encoded),
            lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE"),
            lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
        )
    # Only the upper 8 of 16 bits are kept, which are almost black if a file uses the lower 12.
    dark = begins(encoded, b"\x89PNG") & (number(encoded, 24, 1) > 8)
    dark &= (tf.reduce_max(pixels) > 0) & (tf.reduce_max(pixels) < 16)
    with tf.control_dependencies([tf.debugging.Assert(~dark, ["12 bits in 16"])]):
        return turned_upright(tf.identity(pixels), encoded)


def _pixels_of(encoded: tf.Tensor) -> tf.Tensor:
    """Reads the number of pixels from the header of an image. Fails above `MOST_PIXELS`."""

    def of_jpeg() -> tf.Tensor:
        few = tf.debugging.Assert(has_few_scans(encoded), ["too many scans"])
        with tf.control_dependencies([few]):
            return tf.reduce_prod(tf.cast(tf.io.extract_jpeg_shape(encoded)[:2], tf.float64))

    def of_png() -> tf.Tensor:
        modest = tf.debugging.Assert(has_modest_chunks(encoded), ["a huge chunk"])
        with tf.control_dependencies([modest]):
            return product(16, 20, 4)

    def product(width: int, height: int, length: int, little_endian: bool = False) -> tf.Tensor:
        sides = (number(encoded, start, length, little_endian) for start in (width, height))
        return tf.reduce_prod(tf.stack(list(sides)))

    pixels = tf.case(
        [
            (tf.io.is_jpeg(encoded), of_jpeg),
            (begins(encoded, b"\x89PNG"), of_png),
            (begins(encoded, b"GIF8"), lambda: product(6, 8, 2, little_endian=True)),
            (begins(encoded, b"RIFF"), lambda: _pixels_of_webp(encoded)),
        ],
        # Only BMPs with three bytes per pixel are decoded.
        default=lambda: tf.cast(tf.strings.length(encoded), tf.float64) / 3,
    )
    with tf.control_dependencies([tf.debugging.Assert(pixels <= MOST_PIXELS, [pixels])]):
        return tf.identity(pixels)


def _pixels_of_webp(encoded: tf.Tensor) -> tf.Tensor:
    """Reads the number of pixels of a WebP: of its canvas, or of its only image."""

    def sides(start: int, bits: int) -> tf.Tensor:
        both = number(encoded, start, 4 if bits == 14 else 6, little_endian=True)
        return (both % 2**bits + 1) * (both // 2**bits % 2**bits + 1)

    kind = tf.strings.substr(encoded, 12, 4)
    return tf.case(
        [
            (kind == b"VP8X", lambda: sides(24, 24)),
            (kind == b"VP8L", lambda: sides(21, 14)),
        ],
        default=lambda: (
            (number(encoded, 26, 2, True) % 2**14) * (number(encoded, 28, 2, True) % 2**14)
        ),
    )
