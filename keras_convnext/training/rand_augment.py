"""RandAugment as the official code runs it: timm's, with operations that grow with the magnitude.

References:
    - "RandAugment: Practical automated data augmentation", Cubuk et al., arXiv 1909.13719.
    - timm, data/auto_augment.py, `rand_augment_transform`.
"""

from collections.abc import Callable
from functools import cache
from string import ascii_lowercase
from typing import NamedTuple

import tensorflow as tf

from keras_convnext.training import operations

HIGHEST = 10.0  # magnitude


class Config(NamedTuple):
    """What a string such as "rand-m9-mstd0.5-inc1" says."""

    magnitude: float = HIGHEST
    layers: int = 2
    deviation: float = 0.0
    increasing: bool = False
    probability: float = 0.5


class Operation(NamedTuple):
    """A row of the table: what is done, and how strongly at a level in 0..1 and a sign of 1 or -1.

    `strength` is that of "inc1", `plain_strength` that of "inc0". None is an operation without one.
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
    """Distorts an image by a few operations drawn from fifteen.

    Each layer draws an operation, with replacement, applies it with the probability of the config,
    at a magnitude that is normally distributed and clipped to 0..10, and where an operation goes
    two ways, in either. Geometric operations interpolate bicubically and fill with the mean colour.

    Example:

    ```python
    image = rand_augment(image, seed=(1, 2), config="rand-m9-mstd0.5-inc1")
    ```

    Args:
        image: uint8 tensor (H, W, 3). RGB in 0..255, at least 3 x 3 pixels.
        seed: int tensor (2,). The same seed draws the same operations.
        config: str. timm's notation: "rand", then in any order "m" the magnitude, "n" the number of
            layers, "mstd" the magnitude's standard deviation, "inc" 1 for operations that distort
            more at a larger magnitude, "p" the probability of each layer. What is left out is m10,
            n2, mstd0, inc0, p0.5. Defaults to that of the paper, "rand-m9-mstd0.5-inc1".

    Returns:
        uint8 tensor (H, W, 3).

    Raises:
        ValueError: If the config has a part that is not known, or out of its range.
    """
    parsed = parse_config(config)
    for index, magnitude, sign in zip(*map(tf.unstack, draw(seed, parsed))):
        image = apply_operation(image, index, magnitude, sign, parsed.increasing)
    return image


def draw(seed: tf.Tensor, config: Config) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Draws what happens to one image.

    Returns:
        For each layer: int32, the index in `OPERATIONS`, or -1 where the layer is not applied;
        float32, the magnitude in 0..10; float32, the sign.
    """
    # One draw for all, as each costs as much as hundreds of numbers.
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
    """Applies one row of `OPERATIONS`, or none if the index is -1; only that one is computed.

    Args:
        image: uint8 tensor (H, W, 3).
        index: int32 tensor (). The row, or -1.
        magnitude: float32 tensor (). In 0..10.
        sign: float32 tensor (). 1 or -1.
        increasing: bool. Which of the two columns of strengths holds. Defaults to True.

    Returns:
        uint8 tensor (H, W, 3).
    """
    # In double precision, see `operations`.
    level = tf.cast(magnitude, tf.float64) / HIGHEST
    inputs = [tf.convert_to_tensor(image), level, tf.cast(sign, tf.float64)]
    chosen = tf.convert_to_tensor(index) + 1
    if tf.executing_eagerly():
        return _branches(increasing)[int(chosen)](*inputs)
    # `tf.switch_case` would write out all the branches in the graph, two thousand nodes for two
    # layers, and to skip those takes as long as an operation.
    functions = _traced_branches(inputs[0].shape, increasing)
    (result,) = tf.raw_ops.StatelessCase(
        branch_index=chosen, input=inputs, Tout=[tf.uint8], branches=functions
    )
    return tf.ensure_shape(result, inputs[0].shape)


def _branches(increasing: bool) -> list[Callable[..., tf.Tensor]]:
    """Returns what is done to an image at a level and a sign: nothing, or one of `OPERATIONS`."""

    def branch(row: Operation) -> Callable[..., tf.Tensor]:
        strength = row.strength if increasing else row.plain_strength
        arguments = () if strength is None else (strength,)
        return lambda image, *draws: row.apply(image, *(argument(*draws) for argument in arguments))

    return [lambda image, *_: tf.identity(image), *(branch(row) for row in OPERATIONS)]


@cache
def _traced_branches(shape: tf.TensorShape, increasing: bool) -> list[Callable[..., tf.Tensor]]:
    specs = tf.TensorSpec(shape, tf.uint8), *[tf.TensorSpec((), tf.float64)] * 2
    with tf.init_scope():  # they outlive the graph that asks for them first
        return [
            tf.function(branch, autograph=False).get_concrete_function(*specs)
            for branch in _branches(increasing)
        ]


def parse_config(config: str) -> Config:
    """Reads a string such as "rand-m9-mstd0.5-inc1".

    Raises:
        ValueError: As `rand_augment` does.
    """
    name, *parts = config.split("-")
    if name != "rand":
        raise ValueError(f'A RandAugment config begins with "rand". Received: {config!r}')
    known = {
        "m": ("magnitude", float, lambda value: 0 <= value <= HIGHEST, "from 0 to 10"),
        "n": ("layers", int, lambda value: value >= 0, "a whole number from 0 up"),
        # timm takes a deviation past 100 to mean a uniform magnitude, which no recipe here does.
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
                f"RandAugment knows of {', '.join(known)}, each with a number after it. "
                f"Received: {part!r} in {config!r}"
            )
        field, kind, allowed, range_ = known[key]
        if field in fields:
            raise ValueError(f"RandAugment's {key} is given twice. Received: {config!r}")
        try:
            value = kind(number)
        except ValueError:
            value = None
        if value is None or not allowed(value):
            raise ValueError(f"RandAugment's {key} is {range_}. Received: {part!r} in {config!r}")
        fields[field] = bool(value) if field == "increasing" else value
    return Config(**fields)
