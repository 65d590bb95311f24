"""Toys of the steps, in this package and in PyTorch, with the same weights."""

import tempfile
from pathlib import Path

import torch_reference
import torch_roadmap
from battery import random

import keras_convnext
from keras_convnext import roadmap
from keras_convnext.roadmap.steps import Regime

CLASSES = 5
BEFORE, AFTER = (2, 1), (1, 2)
TOYS = {  # stems of stride 4, as in the paper, and of stride 2
    stride: Regime(f"toy{stride}", "A to B", 32, stride, (BEFORE, AFTER), (4, 8, 12), {})
    for stride in (4, 2)
}
PIXELS = random(2, 45, 67, 3, scale=255)  # odd sides, which tell paddings apart
_VARIABLES = {
    "kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias",
    "moving_mean": "running_mean", "moving_variance": "running_var",
}  # fmt: skip
_LAYERS = {"stem_conv": "conv1", "stem_norm": "bn1", "norm": "norm", "head": "fc"}
_WITHIN = {"shortcut_conv": "downsample.0", "shortcut_norm": "downsample.1"}


def twin_of(step, stride=4, **options):
    """Returns a step of this package and in PyTorch, with the same weights."""
    own = {"input_shape": (None, None, 3), "classes": CLASSES, "classifier_activation": None}
    model = roadmap.network(step, f"toy{stride}", **{**own, **options})
    if step == "convnext":
        reference = torch_reference.Hierarchical(AFTER, (12, 24), CLASSES, patch_size=stride)
        torch_reference.randomize(reference)
        with tempfile.TemporaryDirectory() as folder:
            file = torch_reference.save(reference, Path(folder) / "toy.pth")
            keras_convnext.load_checkpoint(model, file)
        return model, reference
    depths, width = (BEFORE, 4) if step == "resnet" else (AFTER, 8)
    width = 12 if torch_roadmap.Facts(step).after("width") else width
    reference = torch_roadmap.Roadmap(step, depths, width, CLASSES, stride)
    tensors = {
        name: tensor
        for name, tensor in torch_roadmap.randomize(reference).state_dict().items()
        if tensor.ndim
    }
    assert sorted(their_name(each.path) for each in model.weights) == sorted(tensors)
    for variable in model.weights:
        variable.assign(in_keras(tensors[their_name(variable.path)], variable))
    return model, reference


def their_name(path):
    """Returns the name in PyTorch of a variable."""
    layer, variable = path.split("/")
    kind, *rest = layer.split("_")
    if kind == "stages":
        stage, _, block, *part = rest
        part = "_".join(part)
        part = _WITHIN.get(part, part.replace("norm", "bn"))
        name = f"layer{int(stage) + 1}.{block}.{part}"
    elif kind == "downsample":
        name = "between" + ".".join(rest)
    else:
        name = _LAYERS[layer]
    return f"{name}.{_VARIABLES[variable]}"


def in_keras(tensor, variable):
    """Returns a tensor with the axes of a Keras variable."""
    array = tensor.detach().numpy()
    if array.ndim == 4:
        is_depthwise = tuple(variable.shape)[3] == 1
        return array.transpose((2, 3, 0, 1) if is_depthwise else (2, 3, 1, 0))
    return array.T if array.ndim == 2 else array
