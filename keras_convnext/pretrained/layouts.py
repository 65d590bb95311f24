"""How other programs name and shape the tensors of a ConvNeXt: one table a layout.

A row pairs a layer of ours with a module of theirs and the kind of both; `{s}` is the stage, `{b}`
the block. A kind says, for each variable, the last part of their key, the order of axes that turns
their tensor into ours, and how many axes of length 1 they put behind it. The tables are read left
to right to write a file, right to left to read one.
"""

import re
from functools import cache
from typing import NamedTuple

# kind: {our variable: (their parameter, axes of theirs in the order of ours, axes of 1 behind)}
KINDS = {
    "conv":    {"kernel": ("weight", (2, 3, 1, 0), 0), "bias": ("bias", (0,), 0)},  # OIHW -> HWIO
    "dwconv":  {"kernel": ("weight", (2, 3, 0, 1), 0), "bias": ("bias", (0,), 0)},  # C1HW -> HWC1
    "linear":  {"kernel": ("weight", (1, 0), 0),       "bias": ("bias", (0,), 0)},  # OI -> IO
    "conv1x1": {"kernel": ("weight", (1, 0), 2),       "bias": ("bias", (0,), 0)},  # OI11 -> IO
    "norm":    {"gamma": ("weight", (0,), 0),          "beta": ("bias", (0,), 0)},
    "gamma":   {"gamma": ("gamma", (0,), 0)},
    "scale11": {"gamma": ("layer_scale", (0,), 2)},
    "scale":   {"gamma": ("layer_scale_parameter", (0,), 0)},
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


class Form(NamedTuple):
    """How they keep one variable of ours.

    Args:
        key: str. Its name there.
        axes: tuple of int. The axes of theirs in the order of ours.
        ones: int. How many axes of length 1 come after those.
    """

    key: str
    axes: tuple[int, ...]
    ones: int


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
    Row("stages_{s}_blocks_{b}_layer_scale",  "stages.{s}.{b}",          "gamma"),
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
    Row("blocks_{b}_layer_scale",  "blocks.{b}",         "gamma"),
    Row("norm",                    "norm",               "norm"),
    Row("head",                    "head",               "linear"),
)  # fmt: skip

# open-mmlab/mmpretrain, mmpretrain/models/backbones/convnext.py
OPENMMLAB = (
    Row("stem_conv",                          "backbone.downsample_layers.0.0",          "conv"),
    Row("stem_norm",                          "backbone.downsample_layers.0.1",          "norm"),
    Row("downsample_{s}_norm",                "backbone.downsample_layers.{s}.0",        "norm"),
    Row("downsample_{s}_conv",                "backbone.downsample_layers.{s}.1",        "conv"),
    Row("stages_{s}_blocks_{b}_dwconv",       "backbone.stages.{s}.{b}.depthwise_conv",  "dwconv"),
    Row("stages_{s}_blocks_{b}_norm",         "backbone.stages.{s}.{b}.norm",            "norm"),
    Row("stages_{s}_blocks_{b}_pwconv1",      "backbone.stages.{s}.{b}.pointwise_conv1", "linear"),
    Row("stages_{s}_blocks_{b}_pwconv2",      "backbone.stages.{s}.{b}.pointwise_conv2", "linear"),
    Row("stages_{s}_blocks_{b}_layer_scale",  "backbone.stages.{s}.{b}",                 "gamma"),
    Row("norm",                               "backbone.norm3",                          "norm"),
    Row("head",                               "head.fc",                                 "linear"),
)  # fmt: skip

# huggingface/pytorch-image-models, timm/models/convnext.py
TIMM = (
    Row("stem_conv",                          "stem.0",                         "conv"),
    Row("stem_norm",                          "stem.1",                         "norm"),
    Row("downsample_{s}_norm",                "stages.{s}.downsample.0",        "norm"),
    Row("downsample_{s}_conv",                "stages.{s}.downsample.1",        "conv"),
    Row("stages_{s}_blocks_{b}_dwconv",       "stages.{s}.blocks.{b}.conv_dw",  "dwconv"),
    Row("stages_{s}_blocks_{b}_norm",         "stages.{s}.blocks.{b}.norm",     "norm"),
    Row("stages_{s}_blocks_{b}_pwconv1",      "stages.{s}.blocks.{b}.mlp.fc1",  "linear"),
    Row("stages_{s}_blocks_{b}_pwconv2",      "stages.{s}.blocks.{b}.mlp.fc2",  "linear"),
    Row("stages_{s}_blocks_{b}_layer_scale",  "stages.{s}.blocks.{b}",          "gamma"),
    Row("norm",                               "head.norm",                      "norm"),
    Row("head",                               "head.fc",                        "linear"),
)  # fmt: skip

# The same with `conv_mlp`, which timm's atto, femto, pico and nano have.
TIMM_CONV_MLP = tuple(
    row._replace(kind="conv1x1") if ".mlp." in row.theirs else row for row in TIMM
)

# huggingface/transformers, models/convnext/modeling_convnext.py
_STAGE = "convnext.encoder.stages.{s}"
TRANSFORMERS = (
    Row("stem_conv",                          "convnext.embeddings.patch_embeddings",    "conv"),
    Row("stem_norm",                          "convnext.embeddings.layernorm",           "norm"),
    Row("downsample_{s}_norm",                f"{_STAGE}.downsampling_layer.0",          "norm"),
    Row("downsample_{s}_conv",                f"{_STAGE}.downsampling_layer.1",          "conv"),
    Row("stages_{s}_blocks_{b}_dwconv",       f"{_STAGE}.layers.{{b}}.dwconv",           "dwconv"),
    Row("stages_{s}_blocks_{b}_norm",         f"{_STAGE}.layers.{{b}}.layernorm",        "norm"),
    Row("stages_{s}_blocks_{b}_pwconv1",      f"{_STAGE}.layers.{{b}}.pwconv1",          "linear"),
    Row("stages_{s}_blocks_{b}_pwconv2",      f"{_STAGE}.layers.{{b}}.pwconv2",          "linear"),
    Row("stages_{s}_blocks_{b}_layer_scale",  f"{_STAGE}.layers.{{b}}",                  "scale"),
    Row("norm",                               "convnext.layernorm",                      "norm"),
    Row("head",                               "classifier",                              "linear"),
)  # fmt: skip

# huggingface/transformers, models/dinov3_convnext/modeling_dinov3_convnext.py: a trunk and its norm
DINOV3 = (
    Row("stem_conv",                          "stages.0.downsample_layers.0",            "conv"),
    Row("stem_norm",                          "stages.0.downsample_layers.1",            "norm"),
    Row("downsample_{s}_norm",                "stages.{s}.downsample_layers.0",          "norm"),
    Row("downsample_{s}_conv",                "stages.{s}.downsample_layers.1",          "conv"),
    Row("stages_{s}_blocks_{b}_dwconv",       "stages.{s}.layers.{b}.depthwise_conv",    "dwconv"),
    Row("stages_{s}_blocks_{b}_norm",         "stages.{s}.layers.{b}.layer_norm",        "norm"),
    Row("stages_{s}_blocks_{b}_pwconv1",      "stages.{s}.layers.{b}.pointwise_conv1",   "linear"),
    Row("stages_{s}_blocks_{b}_pwconv2",      "stages.{s}.layers.{b}.pointwise_conv2",   "linear"),
    Row("stages_{s}_blocks_{b}_layer_scale",  "stages.{s}.layers.{b}",                   "gamma"),
    Row("norm",                               "layer_norm",                              "norm"),
)  # fmt: skip

# pytorch/vision, torchvision/models/convnext.py: stages at the odd features, downsampling between
TORCHVISION = (
    Row("stem_conv",                          "features.0.0",                   "conv"),
    Row("stem_norm",                          "features.0.1",                   "norm"),
    Row("downsample_{s}_norm",                "features.{2s}.0",                "norm"),
    Row("downsample_{s}_conv",                "features.{2s}.1",                "conv"),
    Row("stages_{s}_blocks_{b}_dwconv",       "features.{2s+1}.{b}.block.0",    "dwconv"),
    Row("stages_{s}_blocks_{b}_norm",         "features.{2s+1}.{b}.block.2",    "norm"),
    Row("stages_{s}_blocks_{b}_pwconv1",      "features.{2s+1}.{b}.block.3",    "linear"),
    Row("stages_{s}_blocks_{b}_pwconv2",      "features.{2s+1}.{b}.block.5",    "linear"),
    Row("stages_{s}_blocks_{b}_layer_scale",  "features.{2s+1}.{b}",            "scale11"),
    Row("norm",                               "classifier.0",                   "norm"),
    Row("head",                               "classifier.2",                   "linear"),
)  # fmt: skip

LAYOUTS = {
    "official": OFFICIAL,
    "official_isotropic": OFFICIAL_ISOTROPIC,
    "openmmlab": OPENMMLAB,
    "timm": TIMM,
    "timm_conv_mlp": TIMM_CONV_MLP,
    "transformers": TRANSFORMERS,
    "dinov3": DINOV3,
    "torchvision": TORCHVISION,
}

# The entry of a `.pth` file that the dict of tensors stands under, where it is not the file.
ENTRIES = {"official": "model", "official_isotropic": "model", "openmmlab": "state_dict"}

# What wrappers put before every key, and may leave out: DDP, torch.compile, a detector, a trainer.
WRAPPERS = ("module.", "_orig_mod.", "backbone.", "model.", "convnext.")

# What tells patch and channels, and the number of classes.
STEM_KERNEL = Place("stem_conv", "kernel")
HEAD_KERNEL = Place("head", "kernel")

# A number in a pattern as it is written there: {factor * number + offset}.
_NUMBERS = {"{s}": ("s", 1, 0), "{2s}": ("s", 2, 0), "{2s+1}": ("s", 2, 1), "{b}": ("b", 1, 0)}


def form_of(place: Place, layout: tuple[Row, ...]) -> Form | None:
    """Returns how they keep a variable of ours, if they do."""
    for row in layout:
        numbers = _read(row.ours, place.layer)
        if numbers is not None and place.variable in KINDS[row.kind]:
            parameter, axes, ones = KINDS[row.kind][place.variable]
            return Form(f"{_written(row.theirs, numbers)}.{parameter}", axes, ones)
    return None


def place_of(key: str, layout: tuple[Row, ...]) -> tuple[Place, Form] | None:
    """Returns our variable for a key of theirs and how they keep it, if it is one of theirs."""
    for row in layout:
        for variable, (parameter, axes, ones) in KINDS[row.kind].items():
            numbers = _read(f"{_bare(row.theirs)}.{parameter}", _bare(key))
            if numbers is not None:
                return Place(_written(row.ours, numbers), variable), Form(key, axes, ones)
    return None


@cache
def _bare(key: str) -> str:
    """The key without the wrappers at its start."""
    while wrapper := next(filter(key.startswith, WRAPPERS), None):
        key = key.removeprefix(wrapper)
    return key


def _read(pattern: str, name: str) -> dict[str, int] | None:
    """The stage and the block that `name` has in the places of `pattern`, if it is of this form."""
    match = _compiled(pattern).fullmatch(name)
    if match is None:
        return None
    numbers = {}
    for token, (letter, factor, offset) in _NUMBERS.items():
        if token in pattern:
            numbers[letter], rest = divmod(int(match[letter]) - offset, factor)
            if rest or numbers[letter] < 0:
                return None
    return numbers


@cache
def _compiled(pattern: str) -> re.Pattern:
    regex = re.escape(pattern)
    for token, (letter, _, _) in _NUMBERS.items():
        regex = regex.replace(re.escape(token), f"(?P<{letter}>0|[1-9][0-9]{{0,3}})")
    return re.compile(regex)


def _written(pattern: str, numbers: dict[str, int]) -> str:
    for token, (letter, factor, offset) in _NUMBERS.items():
        if token in pattern:
            pattern = pattern.replace(token, str(factor * numbers[letter] + offset))
    return pattern
