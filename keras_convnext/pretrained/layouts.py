"""How other programs name and shape the tensors of a ConvNeXt: one table a layout.

A row pairs a layer of ours with a module of theirs and the kind of both; `{s}` is the stage, `{b}`
the block. A kind says, for each variable, the last part of their key and the order of axes that
turns their tensor into ours. Tables are read left to right to write a file, right to left to read.
"""

import re
from typing import NamedTuple

# kind: {our variable: (their parameter, axes of theirs in the order of ours)}
KINDS = {
    "conv":   {"kernel": ("weight", (2, 3, 1, 0)), "bias": ("bias", (0,))},  # OIHW -> HWIO
    "dwconv": {"kernel": ("weight", (2, 3, 0, 1)), "bias": ("bias", (0,))},  # C1HW -> HWC1
    "linear": {"kernel": ("weight", (1, 0)),       "bias": ("bias", (0,))},  # OI -> IO
    "norm":   {"gamma":  ("weight", (0,)),         "beta": ("bias", (0,))},
    "scale":  {"gamma":  ("gamma", (0,))},
}  # fmt: skip


class Place(NamedTuple):
    """A variable of ours."""

    layer: str
    variable: str


class Row(NamedTuple):
    """A layer of ours, the module of theirs, and the kind of both."""

    ours: str
    theirs: str
    kind: str


# facebookresearch/ConvNeXt, models/convnext.py
OFFICIAL = (
    Row("stem_conv",                          "downsample_layers.0.0",   "conv"),
    Row("stem_norm",                          "downsample_layers.0.1",   "norm"),
    Row("downsample_{s}_norm",                "downsample_layers.{s}.0", "norm"),
    Row("downsample_{s}_conv",                "downsample_layers.{s}.1", "conv"),
    Row("stages_{s}_blocks_{b}_dwconv",       "stages.{s}.{b}.dwconv",   "dwconv"),
    Row("stages_{s}_blocks_{b}_norm",         "stages.{s}.{b}.norm",     "norm"),
    Row("stages_{s}_blocks_{b}_pwconv1",      "stages.{s}.{b}.pwconv1",  "linear"),
    Row("stages_{s}_blocks_{b}_pwconv2",      "stages.{s}.{b}.pwconv2",  "linear"),
    Row("stages_{s}_blocks_{b}_layer_scale",  "stages.{s}.{b}",          "scale"),
    Row("norm",                               "norm",                    "norm"),
    Row("head",                               "head",                    "linear"),
)  # fmt: skip

# facebookresearch/ConvNeXt, models/convnext_isotropic.py
OFFICIAL_ISOTROPIC = (
    Row("stem_conv",               "stem",               "conv"),
    Row("blocks_{b}_dwconv",       "blocks.{b}.dwconv",  "dwconv"),
    Row("blocks_{b}_norm",         "blocks.{b}.norm",    "norm"),
    Row("blocks_{b}_pwconv1",      "blocks.{b}.pwconv1", "linear"),
    Row("blocks_{b}_pwconv2",      "blocks.{b}.pwconv2", "linear"),
    Row("blocks_{b}_layer_scale",  "blocks.{b}",         "scale"),
    Row("norm",                    "norm",               "norm"),
    Row("head",                    "head",               "linear"),
)  # fmt: skip


# What tells patch and channels, and the number of classes.
STEM_KERNEL = Place("stem_conv", "kernel")
HEAD_KERNEL = Place("head", "kernel")

LAYOUTS = {"official": OFFICIAL, "official isotropic": OFFICIAL_ISOTROPIC}


def key_of(place: Place, layout: tuple[Row, ...]) -> tuple[str, tuple[int, ...]] | None:
    """Returns their key for a variable of ours and the axes that turn it into ours, if any."""
    for row in layout:
        numbers = _numbers(row.ours, place.layer)
        if numbers is not None and place.variable in KINDS[row.kind]:
            parameter, axes = KINDS[row.kind][place.variable]
            return f"{row.theirs.format(**numbers)}.{parameter}", axes
    return None


def place_of(key: str, layout: tuple[Row, ...]) -> tuple[Place, tuple[int, ...]] | None:
    """Returns our variable for a key of theirs and the axes that turn it into ours, if any."""
    for row in layout:
        for variable, (parameter, axes) in KINDS[row.kind].items():
            numbers = _numbers(f"{row.theirs}.{parameter}", key)
            if numbers is not None:
                return Place(row.ours.format(**numbers), variable), axes
    return None


def _numbers(pattern: str, name: str) -> dict[str, str] | None:
    """The numbers that `name` has in the places of `{s}` and `{b}`, if it is of this pattern."""
    regex = re.sub(r"\\{(\w)\\}", r"(?P<\1>0|[1-9][0-9]*)", re.escape(pattern))
    match = re.fullmatch(regex, name)
    return match and match.groupdict()
