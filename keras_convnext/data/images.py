"""From the bytes of a file to a square of pixels, inside `tf.data`, equal to Pillow's.

A picture is decoded as Pillow decodes it, and a JPEG only where it is looked at. It is resized as
Pillow does: bicubic, antialiased, along one axis, rounded to whole levels of grey, then along the
other. The order matters by some levels at sharp edges, and is Pillow 13's: along the rows first,
unless much more height than width goes. (Before, it was always the rows.)
"""

import math

import tensorflow as tf

from keras_convnext.data.decoding import Decoder, Placement, decode_by_pillow, decode_window
from keras_convnext.preprocessing import CROPPED_SHARE, WARP_FROM

TRIES = 10  # boxes that are drawn until one lies within the image


def training_crop(
    encoded: tf.Tensor,
    seed: tf.Tensor,
    size: int,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> tf.Tensor:
    """Decodes a random box of an image and resizes it to a square.

    The box is that of torchvision's `RandomResizedCrop`: its share of the area is uniform in
    `scale`, its width to height log-uniform in `ratio`, its place uniform. Up to ten boxes are
    drawn until one fits, after that the largest central one of an allowed ratio is taken.

    Example:

    ```python
    image = training_crop(tf.io.read_file("cat.jpg"), seed=(1, 2), size=224)
    ```

    Args:
        encoded: string tensor (). The bytes of a file of any format that `load_image` reads, with
            the same pixels: upright, in RGB, of an animation the first frame. JPEG and PNG are the
            fastest.
        seed: int tensor (2,). The same seed draws the same box.
        size: int. Side of the square, in pixels.
        scale: pair of floats. Smallest and largest share of the area. Defaults to (0.08, 1.0).
        ratio: pair of floats. Smallest and largest width to height. Defaults to (3/4, 4/3).

    Returns:
        uint8 tensor (size, size, 3), RGB in 0..255.

    Raises:
        ValueError: If a range is empty or reaches past what is possible.

    References:
        torchvision, `transforms.RandomResizedCrop`; facebookresearch/ConvNeXt, datasets.py.
    """
    _check_size(size)
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(f"scale is two shares of the area, rising, in (0, 1]. Received: {scale}")
    if not 0 < ratio[0] <= ratio[1]:
        raise ValueError(f"ratio is two widths to height, rising, above 0. Received: {ratio}")

    def crop(height: tf.Tensor, width: tf.Tensor) -> Placement:
        return _warped(random_box(height, width, seed, scale, ratio), size)

    return _resize(*decode_window(encoded, crop), size)


def evaluation_image(
    encoded: tf.Tensor, size: int = 224, other: Decoder = decode_by_pillow
) -> tf.Tensor:
    """Decodes an image as the published evaluation feeds it to the network.

    The rule of `preprocessing.load_image`: below 384 px the short side is resized to `size / 0.875`
    and the centre cropped, from 384 px on the whole image is warped to the square. Only what is
    seen in the crop is decoded and resized.

    Example:

    ```python
    files = tf.data.Dataset.list_files("photographs/*.jpg")
    images = files.map(tf.io.read_file).map(evaluation_image).batch(64)
    ```

    Args:
        encoded: string tensor (). The bytes of a file, as `training_crop` takes them.
        size: int. Side of the square, in pixels. Defaults to 224.
        other: function of `encoded`. Decodes what TensorFlow does not decode as Pillow does, as
            uint8 (H, W, 3). Defaults to Pillow, which cannot be saved with a graph.

    Returns:
        uint8 tensor (size, size, 3), RGB in 0..255, within 1 grey level of `load_image`.

    References:
        facebookresearch/ConvNeXt, datasets.py, `build_transform`.
    """
    _check_size(size)

    def seen(height: tf.Tensor, width: tf.Tensor) -> Placement:
        if size >= WARP_FROM:
            return _warped(tf.stack([0, 0, height, width]), size)
        return _central(height, width, size)

    return _resize(*decode_window(encoded, seen, other), size)


def random_box(
    height: tf.Tensor,
    width: tf.Tensor,
    seed: tf.Tensor,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tf.Tensor:
    """Draws the box of `training_crop` in an image of `height` x `width` pixels.

    Returns:
        int32 tensor (4,): top, left, height, width.
    """
    image_height, image_width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    draws = tf.random.stateless_uniform((4, TRIES), seed, alg="philox")
    areas = (scale[0] + (scale[1] - scale[0]) * draws[0]) * image_height * image_width
    logs = math.log(ratio[0]), math.log(ratio[1])
    aspects = tf.exp(logs[0] + (logs[1] - logs[0]) * draws[1])
    widths, heights = tf.round(tf.sqrt(areas * aspects)), tf.round(tf.sqrt(areas / aspects))
    fits = (widths <= image_width) & (heights <= image_height)
    tops = tf.floor(draws[2] * (image_height - heights + 1))
    lefts = tf.floor(draws[3] * (image_width - widths + 1))
    boxes = tf.stack([tops, lefts, heights, widths], axis=1)  # (TRIES, 4)

    central_width = tf.minimum(image_width, tf.round(image_height * ratio[1]))
    central_height = tf.minimum(image_height, tf.round(image_width / ratio[0]))
    central = tf.stack(
        [
            (image_height - central_height) // 2,
            (image_width - central_width) // 2,
            central_height,
            central_width,
        ]
    )
    first = tf.argmax(tf.cast(fits, tf.int32), output_type=tf.int32)
    return tf.cast(tf.where(tf.reduce_any(fits), boxes[first], central), tf.int32)


def _warped(box: tf.Tensor, size: int) -> Placement:
    sides = box[2:]
    shrinkage = tf.cast(sides - size, tf.int64)
    return Placement(box, size / tf.cast(sides, tf.float32), tf.zeros((2,)), shrinkage)


def _central(height: tf.Tensor, width: tf.Tensor, size: int) -> Placement:
    sides = tf.stack([height, width])
    # As in `load_image`: the long side is cut to whole pixels, the offsets are rounded. Resized, a
    # thin picture is longer than 32 bits count.
    longest = tf.cast(sides, tf.int64)
    resized = int(size / CROPPED_SHARE) * longest // tf.reduce_min(longest)
    corner = tf.round((tf.cast(resized, tf.float64) - size) / 2)
    step = tf.cast(sides, tf.float64) / tf.cast(resized, tf.float64)  # between neighbours
    reach = 2 * tf.maximum(step, 1) + 1  # of the bicubic kernel
    start = tf.maximum(tf.cast(tf.floor(corner * step - reach), tf.int32), 0)
    end = tf.minimum(tf.cast(tf.math.ceil((corner + size) * step + reach), tf.int32), sides)
    window = tf.concat([start, end - start], 0)
    translation = tf.cast(start, tf.float64) / step - corner
    scale = tf.cast(1 / step, tf.float32)
    return Placement(window, scale, tf.cast(translation, tf.float32), longest - resized)


def _resize(window: tf.Tensor, placement: Placement, size: int) -> tf.Tensor:
    """Resizes (H, W, 3) to (size, size, 3)."""
    _, (down, right), (top, left), (height_off, width_off) = (
        tf.unstack(field) for field in placement
    )

    lines = tf.reshape(window, (tf.shape(window)[0], -1))

    def rows_first() -> tf.Tensor:
        return _resize_columns(_resize_rows(lines, right, left, size), down, top, size)

    def columns_first() -> tf.Tensor:
        return _resize_rows(_resize_columns(lines, down, top, size), right, left, size)

    much_height_goes = (height_off > 0) & (height_off > 2 * width_off)
    lines = tf.cond(much_height_goes, columns_first, rows_first)
    return tf.reshape(lines, (size, size, 3))


def _resize_rows(
    lines: tf.Tensor, scale: tf.Tensor, translation: tf.Tensor, size: int
) -> tf.Tensor:
    """Resizes the width of (H, 3 W).

    The channels come apart in between: to transpose single numbers takes half the time, or less,
    of transposing pixels of three.
    """
    height = tf.shape(lines)[0]
    columns = tf.reshape(tf.transpose(lines), (-1, 3 * height))  # (W, 3 H)
    columns = _resize_columns(columns, scale, translation, size)
    return tf.transpose(tf.reshape(columns, (3 * size, height)))


def _resize_columns(
    lines: tf.Tensor, scale: tf.Tensor, translation: tf.Tensor, size: int
) -> tf.Tensor:
    """Resizes the height of (H, N).

    A row of numbers is given as one pixel of many channels: the kernel adds those up several times
    as fast as pixels of three.
    """
    line = tf.raw_ops.ScaleAndTranslate(
        images=lines[None, None],
        size=(1, size),
        scale=tf.stack([1.0, scale]),
        translation=tf.stack([0.0, translation]),
        kernel_type="keyscubic",
        antialias=True,
    )
    return _nearest_levels(line[0, 0])


def _nearest_levels(pixels: tf.Tensor) -> tf.Tensor:
    """Rounds float32 to uint8, halves away from 0, and takes what lies outside as 0 or 255.

    As a scaling by 1: that is one pass over the numbers, where to add, clip and cast is four.
    """
    quantized = tf.raw_ops.QuantizeV2(
        input=pixels,
        min_range=0.0,
        max_range=255.0,
        T=tf.quint8,
        mode="SCALED",
        round_mode="HALF_AWAY_FROM_ZERO",
    )
    return tf.bitcast(quantized.output, tf.uint8)


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"size is a number of pixels from 1 up. Received: size={size}")
