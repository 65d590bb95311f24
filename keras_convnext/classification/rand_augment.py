"""RandAugment as in the official code: timm's version with "increasing" operations.

References:
    - "RandAugment: Practical automated data augmentation", Cubuk et al., arXiv 1909.13719.
    - timm, data/auto_augment.py, `rand_augment_transform`.
"""

from collections.abc import Callable
from functools import cache
from string import ascii_lowercase
from typing import NamedTuple

import tensorflow as tf

from keras_convnext.classification import operations

HIGHEST = 10.0  # magnitude


class Config(NamedTuple):
    """A parsed configuration such as "rand-m9-mstd0.5-inc1"."""

    magnitude: float = HIGHEST
    layers: int = 2
    deviation: float = 0.0
    increasing: bool = False
    probability: float = 0.5


class Operation(NamedTuple):
    """A row of the table: an operation, and its strength as a function of level and sign.

    The level is in 0..1, the sign is 1 or -1. `strength` is used with "inc1", `plain_strength` with
    "inc0". Both are None for an operation without a strength.
    """

    name: str
    apply: Callable[..., tf.Tensor]
    strength: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None
    plain_strength: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None


def _signed(most: float) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    return lambda level, sign: sign * level * most


def _whole(most: float) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    return lambda level, _: tf.floor(level * most)


def _whole_falling(most: float) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    return lambda level, _: most - tf.floor(level * most)


def _away_from_1(level: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    return tf.maximum(1 + sign * level * 0.9, 0.1)


def _from_0_1_to_1_9(level: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    return level * 1.8 + 0.1


# In timm's order.
OPERATIONS = (
    Operation("AutoContrast", operations.auto_contrast),
    Operation("Equalize", operations.equalize),
    Operation("Invert", operations.invert),
    Operation("Rotate", operations.rotate, _signed(30), _signed(30)),  # degrees
    Operation("Posterize", operations.posterize, _whole_falling(4), _whole(4)),  # bits
    Operation("Solarize", operations.solarize, _whole_falling(256), _whole(256)),  # threshold
    Operation("SolarizeAdd", operations.solarize_add, _whole(110), _whole(110)),
    Operation("Color", operations.color, _away_from_1, _from_0_1_to_1_9),
    Operation("Contrast", operations.contrast, _away_from_1, _from_0_1_to_1_9),
    Operation("Brightness", operations.brightness, _away_from_1, _from_0_1_to_1_9),
    Operation("Sharpness", operations.sharpness, _away_from_1, _from_0_1_to_1_9),
    Operation("ShearX", operations.shear_x, _signed(0.3), _signed(0.3)),
    Operation("ShearY", operations.shear_y, _signed(0.3), _signed(0.3)),
    Operation("TranslateXRel", operations.translate_x, _signed(0.45), _signed(0.45)),
    Operation("TranslateYRel", operations.translate_y, _signed(0.45), _signed(0.45)),
)


def rand_augment(
    image: tf.Tensor, seed: tf.Tensor, config: str = "rand-m9-mstd0.5-inc1"
) -> tf.Tensor:
    """Applies a few random operations, out of fifteen, to an image.

    Each layer draws an operation with replacement, and applies it with the configured probability.
    The magnitude is normally distributed and clipped to 0..10; the sign of signed operations is
    random. Geometric operations interpolate bicubically and fill with the mean color.

    Example:

    ```python
    image = rand_augment(image, seed=(1, 2), config="rand-m9-mstd0.5-inc1")
    ```

    Args:
        image: uint8 tensor (H, W, 3). RGB in 0..255, at least 3 x 3 pixels.
        seed: int tensor (2,). The same seed draws the same operations.
        config: str. timm's notation: "rand", followed in any order by "m" (magnitude), "n" (number
            of layers), "mstd" (standard deviation of the magnitude), "inc" (1 if all operations
            become stronger with the magnitude) and "p" (probability of each layer). Missing parts
            are m10, n2, mstd0, inc0 and p0.5. Defaults to that of the paper,
            "rand-m9-mstd0.5-inc1".

    Returns:
        uint8 tensor (H, W, 3).

    Raises:
        ValueError: If a part of `config` is unknown or out of range.
    """
    parsed = parse_config(config)
    for index, magnitude, sign in zip(*map(tf.unstack, draw(seed, parsed))):
        image = apply_operation(image, index, magnitude, sign, parsed.increasing)
    return image


def draw(seed: tf.Tensor, config: Config) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Draws the operations for one image.

    Returns:
        For each layer: int32, the index in `OPERATIONS`, or -1 if the layer is not applied;
        float32, the magnitude in 0..10; float32, the sign.
    """
    # All numbers at once, because a call costs as much as hundreds of numbers.
    which, whether, two_ways, strength = tf.unstack(
        tf.random.stateless_uniform((4, config.layers), seed, alg="philox")
    )
    choices = tf.cast(which * len(OPERATIONS), tf.int32)
    choices = tf.where(whether < config.probability, choices, -1)
    magnitudes = tf.fill((config.layers,), float(config.magnitude))
    if config.deviation:
        magnitudes += config.deviation * tf.math.ndtri(strength)
    magnitudes = tf.clip_by_value(magnitudes, 0, HIGHEST)
    return choices, magnitudes, tf.where(two_ways < 0.5, -1.0, 1.0)


def apply_operation(
    image: tf.Tensor,
    index: tf.Tensor,
    magnitude: tf.Tensor,
    sign: tf.Tensor,
    increasing: bool = True,
) -> tf.Tensor:
    """Applies one row of `OPERATIONS`, or none if the index is -1, without computing the others.

    Args:
        image: uint8 tensor (H, W, 3). RGB in 0..255.
        index: int32 tensor (). The row, or -1.
        magnitude: float32 tensor (). In 0..10.
        sign: float32 tensor (). 1 or -1.
        increasing: bool. Whether to use `strength` instead of `plain_strength`. Defaults to True.

    Returns:
        uint8 tensor (H, W, 3).
    """
    # In double precision; see `operations`.
    level = tf.cast(magnitude, tf.float64) / HIGHEST
    inputs = [tf.convert_to_tensor(image), level, tf.cast(sign, tf.float64)]
    chosen = tf.convert_to_tensor(index) + 1
    if tf.executing_eagerly():
        return _branches(increasing)[int(chosen)](*inputs)
    # `tf.switch_case` would inline all branches, two thousand nodes for two layers, and skipping
    # these takes as long as an operation.
    functions = _traced_branches(inputs[0].shape, increasing)
    (result,) = tf.raw_ops.StatelessCase(
        branch_index=chosen, input=inputs, Tout=[tf.uint8], branches=functions
    )
    return tf.ensure_shape(result, inputs[0].shape)


def _branches(increasing: bool) -> list[Callable[..., tf.Tensor]]:
    """Returns functions of image, level and sign: the identity, then one per `OPERATIONS` row."""

    def branch(row: Operation) -> Callable[..., tf.Tensor]:
        strength = row.strength if increasing else row.plain_strength
        arguments = () if strength is None else (strength,)
        return lambda image, *draws: row.apply(image, *(argument(*draws) for argument in arguments))

    return [lambda image, *_: tf.identity(image), *(branch(row) for row in OPERATIONS)]


@cache
def _traced_branches(shape: tf.TensorShape, increasing: bool) -> list[Callable[..., tf.Tensor]]:
    specs = tf.TensorSpec(shape, tf.uint8), *[tf.TensorSpec((), tf.float64)] * 2
    with tf.init_scope():  # they outlive the graph that traces them first
        return [
            tf.function(branch, autograph=False).get_concrete_function(*specs)
            for branch in _branches(increasing)
        ]


def parse_config(config: str) -> Config:
    """Parses a configuration such as "rand-m9-mstd0.5-inc1".

    Raises:
        ValueError: As in `rand_augment`.
    """
    name, *parts = config.split("-")
    if name != "rand":
        raise ValueError(
            f'A RandAugment config must begin with "rand". Received: rand_augment={config!r}'
        )
    known = {
        "m": ("magnitude", float, lambda value: 0 <= value <= HIGHEST, "from 0 to 10"),
        "n": ("layers", int, lambda value: value >= 0, "an integer of at least 0"),
        # In timm, a deviation above 100 means a uniform magnitude, which no recipe here uses.
        "mstd": ("deviation", float, lambda value: 0 <= value <= 100, "from 0 to 100"),
        "inc": ("increasing", int, lambda value: value in (0, 1), "0 or 1"),
        "p": ("probability", float, lambda value: 0 <= value <= 1, "from 0 to 1"),
    }
    fields = {}
    for part in parts:
        number = part.lstrip(ascii_lowercase)
        key = part.removesuffix(number)
        if key not in known:
            raise ValueError(
                f"The parts of a RandAugment config are {', '.join(known)}, each followed by a "
                f"number. Received: {part!r} in {config!r}"
            )
        field, kind, allowed, range_ = known[key]
        if field in fields:
            raise ValueError(
                f"RandAugment's {key} must not be given twice. Received: rand_augment={config!r}"
            )
        try:
            value = kind(number)
        except ValueError:
            value = None
        if value is None or not allowed(value):
            raise ValueError(
                f"RandAugment's {key} must be {range_}. Received: {part!r} in {config!r}"
            )
        fields[field] = bool(value) if field == "increasing" else value
    return Config(**fields)
