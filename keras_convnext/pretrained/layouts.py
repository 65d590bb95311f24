"""How other programs name and shape the tensors of a ConvNeXt, one table per layout.

A row pairs one of our layers with one of their modules and gives the kind of both; `{s}` is the
stage, `{b}` the block. A kind gives, for each variable, the last part of their key, the permutation
of axes that turns their tensor into ours, and how many axes of length 1 they append, or, if
negative, put in front. Tables are read left to right to write a file and right to left to read one;
where two rows pair the same module, the first is written, and both are read.

In the layouts of Keras' own files, a module is the name of a layer, preceded by the Sequential that
contains it; `{name}` is the name of the model, and `{_n}` a suffix that Keras may have added. The
kind is the class of the layer. Legacy files use these names; a `.weights.h5` file calls the third
layer of a class `layers/class_2/vars`, in the order of the network, as counted in `addresses.py`.
"""

import re
from typing import NamedTuple

# Our variable: their parameter, their axes in our order, number of axes of length 1 behind them,
# or, if negative, in front.
Kind = dict[str, tuple[str, tuple[int, ...], int]]

KINDS: dict[str, Kind] = {
    "conv":    {"kernel": ("weight", (2, 3, 1, 0), 0), "bias": ("bias", (0,), 0)},  # OIHW -> HWIO
    "second conv": {"kernel_2": ("weight", (2, 3, 1, 0), 0), "bias_2": ("bias", (0,), 0)},
    "dwconv":  {"kernel": ("weight", (2, 3, 0, 1), 0), "bias": ("bias", (0,), 0)},  # C1HW -> HWC1
    "linear":  {"kernel": ("weight", (1, 0), 0),       "bias": ("bias", (0,), 0)},  # OI -> IO
    "conv1x1": {"kernel": ("weight", (1, 0), 2),       "bias": ("bias", (0,), 0)},  # OI11 -> IO
    "norm":    {"gamma": ("weight", (0,), 0),          "beta": ("bias", (0,), 0)},
    "batch_norm": {"gamma": ("weight", (0,), 0), "moving_mean": ("running_mean", (0,), 0),
                   "beta": ("bias", (0,), 0), "moving_variance": ("running_var", (0,), 0)},
    "gamma":   {"gamma": ("gamma", (0,), 0)},
    "scale11": {"gamma": ("layer_scale", (0,), 2)},
    "scale":   {"gamma": ("layer_scale_parameter", (0,), 0)},
    # Any number of axes of length 1 in front is read: V2's pre-training code wrote one.
    "grn111":  {"gamma": ("gamma", (0,), -3),          "beta": ("beta", (0,), -3)},
    "grn1":    {"gamma": ("gamma", (0,), -1),          "beta": ("beta", (0,), -1)},
    "grn":     {"gamma": ("gamma", (0,), 0),           "beta": ("beta", (0,), 0)},
    "grn weight111": {"gamma": ("weight", (0,), -3),   "beta": ("bias", (0,), -3)},
    "grn weight": {"gamma": ("weight", (0,), 0),       "beta": ("bias", (0,), 0)},
    # MinkowskiEngine: positions are one axis, column by column. The axes are those after splitting.
    "sparse conv":   {"kernel": ("kernel", (1, 0, 2, 3), 0), "bias": ("bias", (0,), -1)},
    "sparse dwconv": {"kernel": ("kernel", (1, 0, 2, 3), 0), "bias": ("bias", (0,), -1)},
    # Keras: the first word is the class; variables are numbered within the layer.
    "patch_conv2d":        {"kernel": ("0", (0, 1, 2, 3), 0), "bias": ("1", (0,), 0),
                            "kernel_2": ("2", (0, 1, 2, 3), 0), "bias_2": ("3", (0,), 0)},
    "conv2d":              {"kernel": ("0", (0, 1, 2, 3), 0), "bias": ("1", (0,), 0)},
    "conv2d grouped":      {"kernel": ("0", (0, 1, 3, 2), 0), "bias": ("1", (0,), 0)},  # HW1C
    "dense":               {"kernel": ("0", (0, 1), 0),       "bias": ("1", (0,), 0)},
    "pre_logits":          {"kernel": ("0", (0, 1), 0),       "bias": ("1", (0,), 0)},
    "layer_normalization": {"gamma": ("0", (0,), 0),          "beta": ("1", (0,), 0)},
    "layer_scale":         {"gamma": ("0", (0,), 0)},
    "block":               {"gamma": ("0", (0,), 0)},
    "block conv":          {"kernel": ("0", (0, 1, 2, 3), 0), "bias": ("1", (0,), 0)},
    "block norm":          {"gamma": ("0", (0,), 0),          "beta": ("1", (0,), 0)},
    "block grn":           {"gamma": ("0", (0,), 0),          "beta": ("1", (0,), 0)},
    "block dense":         {"kernel": ("0", (0, 1), 0),       "bias": ("1", (0,), 0)},
}  # fmt: skip


class Place(NamedTuple):
    """The place of a weight in our networks: layer and variable."""

    layer: str
    variable: str


class Row(NamedTuple):
    """Our layer, their module, and the kind of both."""

    ours: str
    theirs: str
    kind: str


# facebookresearch/ConvNeXt, models/convnext.py; facebookresearch/ConvNeXt-V2, models/convnextv2.py
OFFICIAL = (
    Row("stem_conv",                          "downsample_layers.0.0",   "conv"),
    Row("stem_norm",                          "downsample_layers.0.1",   "norm"),
    Row("downsample_{s}_norm",                "downsample_layers.{s}.0", "norm"),
    Row("downsample_{s}_conv",                "downsample_layers.{s}.1", "conv"),
    Row("stages_{s}_blocks_{b}/dwconv",       "stages.{s}.{b}.dwconv",   "dwconv"),
    Row("stages_{s}_blocks_{b}/norm",         "stages.{s}.{b}.norm",     "norm"),
    Row("stages_{s}_blocks_{b}/pwconv1",      "stages.{s}.{b}.pwconv1",  "linear"),
    Row("stages_{s}_blocks_{b}/pwconv2",      "stages.{s}.{b}.pwconv2",  "linear"),
    Row("stages_{s}_blocks_{b}/grn",          "stages.{s}.{b}.grn",      "grn111"),
    Row("stages_{s}_blocks_{b}",              "stages.{s}.{b}",          "gamma"),
    Row("norm",                               "norm",                    "norm"),
    # facebookresearch/dinov3 stores this norm twice: also as the norm of the last stage.
    Row("norm",                               "norms.3",                 "norm"),
    Row("pre_logits",                         "pre_logits",              "linear"),  # ours
    Row("head",                               "head",                    "linear"),
)  # fmt: skip

# facebookresearch/ConvNeXt-V2, models/fcmae.py and convnextv2_sparse.py: the encoder with sparse
# convolutions, as the pre-training code saves it. The published encoders are in the layout above.
_SPARSE = "encoder.stages.{s}.{b}"
FCMAE = (
    Row("stem_conv",                          "encoder.downsample_layers.0.0",           "conv"),
    Row("stem_norm",                          "encoder.downsample_layers.0.1",           "norm"),
    Row("downsample_{s}_norm",                "encoder.downsample_layers.{s}.0.ln",      "norm"),
    Row("downsample_{s}_conv",                "encoder.downsample_layers.{s}.1",  "sparse conv"),
    Row("stages_{s}_blocks_{b}/dwconv",       f"{_SPARSE}.dwconv",              "sparse dwconv"),
    Row("stages_{s}_blocks_{b}/norm",         f"{_SPARSE}.norm.ln",                      "norm"),
    Row("stages_{s}_blocks_{b}/pwconv1",      f"{_SPARSE}.pwconv1.linear",               "linear"),
    Row("stages_{s}_blocks_{b}/pwconv2",      f"{_SPARSE}.pwconv2.linear",               "linear"),
    Row("stages_{s}_blocks_{b}/grn",          f"{_SPARSE}.grn",                          "grn1"),
)  # fmt: skip

# facebookresearch/ConvNeXt, models/convnext_isotropic.py
OFFICIAL_ISOTROPIC = (
    Row("stem_conv",               "stem",               "conv"),
    Row("blocks_{b}/dwconv",       "blocks.{b}.dwconv",  "dwconv"),
    Row("blocks_{b}/norm",         "blocks.{b}.norm",    "norm"),
    Row("blocks_{b}/pwconv1",      "blocks.{b}.pwconv1", "linear"),
    Row("blocks_{b}/pwconv2",      "blocks.{b}.pwconv2", "linear"),
    Row("blocks_{b}",              "blocks.{b}",         "gamma"),
    Row("norm",                    "norm",               "norm"),
    Row("head",                    "head",               "linear"),
)  # fmt: skip

# open-mmlab/mmpretrain, mmpretrain/models/backbones/convnext.py
OPENMMLAB = (
    Row("stem_conv",                          "backbone.downsample_layers.0.0",          "conv"),
    Row("stem_norm",                          "backbone.downsample_layers.0.1",          "norm"),
    Row("downsample_{s}_norm",                "backbone.downsample_layers.{s}.0",        "norm"),
    Row("downsample_{s}_conv",                "backbone.downsample_layers.{s}.1",        "conv"),
    Row("stages_{s}_blocks_{b}/dwconv",       "backbone.stages.{s}.{b}.depthwise_conv",  "dwconv"),
    Row("stages_{s}_blocks_{b}/norm",         "backbone.stages.{s}.{b}.norm",            "norm"),
    Row("stages_{s}_blocks_{b}/pwconv1",      "backbone.stages.{s}.{b}.pointwise_conv1", "linear"),
    Row("stages_{s}_blocks_{b}/pwconv2",      "backbone.stages.{s}.{b}.pointwise_conv2", "linear"),
    Row("stages_{s}_blocks_{b}/grn",          "backbone.stages.{s}.{b}.grn",             "grn"),
    Row("stages_{s}_blocks_{b}",              "backbone.stages.{s}.{b}",                 "gamma"),
    Row("norm",                               "backbone.norm3",                          "norm"),
    Row("head",                               "head.fc",                                 "linear"),
)  # fmt: skip

# huggingface/pytorch-image-models, timm/models/convnext.py
TIMM = (
    Row("stem_conv",                          "stem.0",                         "conv"),
    Row("stem_norm",                          "stem.1",                         "norm"),
    Row("downsample_{s}_norm",                "stages.{s}.downsample.0",        "norm"),
    Row("downsample_{s}_conv",                "stages.{s}.downsample.1",        "conv"),
    Row("stages_{s}_blocks_{b}/dwconv",       "stages.{s}.blocks.{b}.conv_dw",  "dwconv"),
    Row("stages_{s}_blocks_{b}/norm",         "stages.{s}.blocks.{b}.norm",     "norm"),
    Row("stages_{s}_blocks_{b}/pwconv1",      "stages.{s}.blocks.{b}.mlp.fc1",  "linear"),
    Row("stages_{s}_blocks_{b}/pwconv2",      "stages.{s}.blocks.{b}.mlp.fc2",  "linear"),
    Row("stages_{s}_blocks_{b}/grn",          "stages.{s}.blocks.{b}.mlp.grn",  "grn weight"),
    Row("stages_{s}_blocks_{b}",              "stages.{s}.blocks.{b}",          "gamma"),
    Row("norm",                               "head.norm",                      "norm"),
    Row("pre_logits",                         "head.pre_logits.fc",             "linear"),
    Row("head",                               "head.fc",                        "linear"),
)  # fmt: skip

# The same with `conv_mlp`, as used by timm's atto, femto, pico and nano.
TIMM_CONV_MLP = tuple(
    row._replace(kind="conv1x1") if ".mlp.fc" in row.theirs else row for row in TIMM
)

# The same with overlapping patches, as used by timm's `*_ols`.
TIMM_OVERLAP = (
    Row("stem_conv",                          "stem.0",                         "conv"),
    Row("stem_conv",                          "stem.1",                         "second conv"),
    Row("stem_norm",                          "stem.2",                         "norm"),
    *(row for row in TIMM_CONV_MLP if not row.ours.startswith("stem_")),
)  # fmt: skip

# The same in a FeatureListNet, made by `features_only=True`: no dot after the first name.
TIMM_FEATURES = tuple(
    row._replace(theirs=re.sub(r"^(stem|stages)\.", r"\1_", row.theirs))
    for row in TIMM
    if row.ours not in ("norm", "pre_logits", "head")
)

# huggingface/transformers, models/convnext/modeling_convnext.py
_STAGE = "convnext.encoder.stages.{s}"
TRANSFORMERS = (
    Row("stem_conv",                          "convnext.embeddings.patch_embeddings",    "conv"),
    Row("stem_norm",                          "convnext.embeddings.layernorm",           "norm"),
    Row("downsample_{s}_norm",                f"{_STAGE}.downsampling_layer.0",          "norm"),
    Row("downsample_{s}_conv",                f"{_STAGE}.downsampling_layer.1",          "conv"),
    Row("stages_{s}_blocks_{b}/dwconv",       f"{_STAGE}.layers.{{b}}.dwconv",           "dwconv"),
    Row("stages_{s}_blocks_{b}/norm",         f"{_STAGE}.layers.{{b}}.layernorm",        "norm"),
    Row("stages_{s}_blocks_{b}/pwconv1",      f"{_STAGE}.layers.{{b}}.pwconv1",          "linear"),
    Row("stages_{s}_blocks_{b}/pwconv2",      f"{_STAGE}.layers.{{b}}.pwconv2",          "linear"),
    Row("stages_{s}_blocks_{b}",              f"{_STAGE}.layers.{{b}}",                  "scale"),
    Row("norm",                               "convnext.layernorm",                      "norm"),
    Row("head",                               "classifier",                              "linear"),
)  # fmt: skip

# huggingface/transformers, models/convnextv2/modeling_convnextv2.py. Until 2023, GRN's parameters
# were called gamma and beta.
_GRN = "convnextv2.encoder.stages.{s}.layers.{b}.grn"
TRANSFORMERS_V2 = (
    *(
        row._replace(theirs=row.theirs.replace("convnext.", "convnextv2."))
        for row in TRANSFORMERS
        if row.kind != "scale"
    ),
    Row("stages_{s}_blocks_{b}/grn",          _GRN,                        "grn weight111"),
    Row("stages_{s}_blocks_{b}/grn",          _GRN,                                 "grn111"),
)  # fmt: skip

# huggingface/transformers, models/dinov3_convnext/modeling_dinov3_convnext.py: no head
DINOV3 = (
    Row("stem_conv",                          "stages.0.downsample_layers.0",            "conv"),
    Row("stem_norm",                          "stages.0.downsample_layers.1",            "norm"),
    Row("downsample_{s}_norm",                "stages.{s}.downsample_layers.0",          "norm"),
    Row("downsample_{s}_conv",                "stages.{s}.downsample_layers.1",          "conv"),
    Row("stages_{s}_blocks_{b}/dwconv",       "stages.{s}.layers.{b}.depthwise_conv",    "dwconv"),
    Row("stages_{s}_blocks_{b}/norm",         "stages.{s}.layers.{b}.layer_norm",        "norm"),
    Row("stages_{s}_blocks_{b}/pwconv1",      "stages.{s}.layers.{b}.pointwise_conv1",   "linear"),
    Row("stages_{s}_blocks_{b}/pwconv2",      "stages.{s}.layers.{b}.pointwise_conv2",   "linear"),
    Row("stages_{s}_blocks_{b}",              "stages.{s}.layers.{b}",                   "gamma"),
    Row("norm",                               "layer_norm",                              "norm"),
)  # fmt: skip

# pytorch/vision, torchvision/models/convnext.py: stages have odd indices, downsampling even ones
TORCHVISION = (
    Row("stem_conv",                          "features.0.0",                   "conv"),
    Row("stem_norm",                          "features.0.1",                   "norm"),
    Row("downsample_{s}_norm",                "features.{2s}.0",                "norm"),
    Row("downsample_{s}_conv",                "features.{2s}.1",                "conv"),
    Row("stages_{s}_blocks_{b}/dwconv",       "features.{2s+1}.{b}.block.0",    "dwconv"),
    Row("stages_{s}_blocks_{b}/norm",         "features.{2s+1}.{b}.block.2",    "norm"),
    Row("stages_{s}_blocks_{b}/pwconv1",      "features.{2s+1}.{b}.block.3",    "linear"),
    Row("stages_{s}_blocks_{b}/pwconv2",      "features.{2s+1}.{b}.block.5",    "linear"),
    Row("stages_{s}_blocks_{b}",              "features.{2s+1}.{b}",            "scale11"),
    Row("norm",                               "classifier.0",                   "norm"),
    Row("head",                               "classifier.2",                   "linear"),
)  # fmt: skip

# Keras, our own networks: the part after a dot is an attribute of the layer
KERAS = tuple(Row(ours, ours.replace("/", "."), kind) for ours, kind in (
    ("stem_conv",                     "patch_conv2d"),
    ("stem_norm",                     "layer_normalization"),
    ("downsample_{s}_norm",           "layer_normalization"),
    ("downsample_{s}_conv",           "patch_conv2d"),
    ("stages_{s}_blocks_{b}",         "block"),
    ("stages_{s}_blocks_{b}/dwconv",  "block conv"),
    ("stages_{s}_blocks_{b}/norm",    "block norm"),
    ("stages_{s}_blocks_{b}/pwconv1", "block dense"),
    ("stages_{s}_blocks_{b}/grn",     "block grn"),
    ("stages_{s}_blocks_{b}/pwconv2", "block dense"),
    ("blocks_{b}",                    "block"),
    ("blocks_{b}/dwconv",             "block conv"),
    ("blocks_{b}/norm",               "block norm"),
    ("blocks_{b}/pwconv1",            "block dense"),
    ("blocks_{b}/pwconv2",            "block dense"),
    ("norm",                          "layer_normalization"),
    ("pre_logits",                    "pre_logits"),
    ("head",                          "dense"),
))  # fmt: skip

# keras-team/keras, keras/src/applications/convnext.py: downsampling is a Sequential of two layers
_STEM = "{name}_stem/{name}_stem"
_DOWN = "{name}_downsampling_block_{s-1}/{name}_downsampling"
_BLOCK = "{name}_stage_{s}_block_{b}"
KERAS_APPLICATIONS = (
    Row("stem_conv",                          f"{_STEM}_conv",             "conv2d"),
    Row("stem_norm",                          f"{_STEM}_layernorm",        "layer_normalization"),
    Row("downsample_{s}_norm",                f"{_DOWN}_layernorm_{{s-1}}", "layer_normalization"),
    Row("downsample_{s}_conv",                f"{_DOWN}_conv_{{s-1}}",     "conv2d"),
    Row("stages_{s}_blocks_{b}/dwconv",       f"{_BLOCK}_depthwise_conv",  "conv2d grouped"),
    Row("stages_{s}_blocks_{b}/norm",         f"{_BLOCK}_layernorm",       "layer_normalization"),
    Row("stages_{s}_blocks_{b}/pwconv1",      f"{_BLOCK}_pointwise_conv_1", "dense"),
    Row("stages_{s}_blocks_{b}/pwconv2",      f"{_BLOCK}_pointwise_conv_2", "dense"),
    Row("stages_{s}_blocks_{b}",              f"{_BLOCK}_layer_scale",     "layer_scale"),
    Row("norm",                               "{name}_head_layernorm",     "layer_normalization"),
    Row("head",                               "{name}_head_dense",         "dense"),
)  # fmt: skip

# The same without a head: the norm is named after its class, numbered if it is not the first.
KERAS_APPLICATIONS_NOTOP = tuple(
    row._replace(theirs="layer_normalization{_n}") if row.ours == "norm" else row
    for row in KERAS_APPLICATIONS
    if row.ours != "head"
)

# Stored among the weights but not a weight: the constants that normalize the pixels.
SKIPPED = ("{name}_prestem_normalization",)

LAYOUTS = {
    "official": OFFICIAL,
    "fcmae": FCMAE,
    "official_isotropic": OFFICIAL_ISOTROPIC,
    "openmmlab": OPENMMLAB,
    "timm": TIMM,
    "timm_conv_mlp": TIMM_CONV_MLP,
    "timm_overlap": TIMM_OVERLAP,
    "timm_features": TIMM_FEATURES,
    "transformers": TRANSFORMERS,
    "transformers_v2": TRANSFORMERS_V2,
    "dinov3": DINOV3,
    "torchvision": TORCHVISION,
    "keras": KERAS,
    "keras_applications": KERAS_APPLICATIONS,
    "keras_applications_notop": KERAS_APPLICATIONS_NOTOP,
}

# Layouts of HDF5 files only.
HDF5_LAYOUTS = ("keras", "keras_applications", "keras_applications_notop")

# The entry of a `.pth` file that contains the dict of tensors, unless that is the whole file.
ENTRIES = {
    "official": "model", "fcmae": "model", "official_isotropic": "model", "openmmlab": "state_dict"
}  # fmt: skip

# The module that contains the trunk in the original network. Files of the trunk alone may omit or
# rename it; rows without it are outside the trunk.
TRUNK_MODULES = {
    "fcmae": "encoder.",
    "openmmlab": "backbone.",
    "transformers": "convnext.",
    "transformers_v2": "convnextv2.",
    "dinov3": "model.",
    "torchvision": "features.",
}

# A tensor that only exists if the network normalizes the feature map of each stage, as detectors
# do; then its norms are not norms of the pooled features.
NORMS_OF_MAPS = {"openmmlab": "norm0.weight"}

# Layers above the trunk, which may be missing.
ABOVE = ("norm", "pre_logits", "head")

# Their shapes give the patch size and channels, and the number of classes.
STEM_KERNEL = Place("stem_conv", "kernel")
SECOND_KERNEL = Place("stem_conv", "kernel_2")  # only with overlapping patches
HEAD_KERNEL = Place("head", "kernel")

# Its shape gives the width of the head's hidden layer, if there is one.
HIDDEN_KERNEL = Place("pre_logits", "kernel")
