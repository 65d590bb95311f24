"""Damaged and hostile files of ConvNeXt V2: classifiers, encoders and the pre-training code's."""

import os
import warnings
from argparse import Namespace
from random import Random

import numpy as np
import pytest
import torch
import torch_reference
from test_layouts import keras_model, official_v2, sparse, timm_v2, transformers_v2

import keras_convnext
from keras_convnext import CheckpointError, identify, load_checkpoint


def official_encoder():
    return {k: t for k, t in official().items() if not k.startswith(("norm.", "head."))}


def official():
    return torch_reference.randomize(official_v2()).state_dict()


KINDS = {
    "official": official,
    "encoder": official_encoder,
    "pre-training": lambda: sparse(official()),
    "timm": lambda: torch_reference.randomize(timm_v2()).state_dict(),
    "transformers": lambda: torch_reference.randomize(transformers_v2()).state_dict(),
}
CHANGES = ("drop", "rename", "longer", "axes", "nan", "integers", "twice", "empty")


# The slow ones import the packages of others.
SLOW = ("timm", "transformers")


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in KINDS],
)
def kind(request):
    """A sound file's tensors, and a model with other weights that takes them."""
    has_top = request.param not in ("encoder", "pre-training")
    return KINDS[request.param](), keras_model("", v2=True, include_top=has_top)


def changed(tensors, change, name):
    """Returns the tensors with a change to one of them."""
    tensors, tensor = dict(tensors), tensors[name]
    if change in ("drop", "rename"):
        del tensors[name]
    if change == "rename":
        tensors[f"{name}x"] = tensor
    elif change == "longer":
        tensors[name] = torch.cat([tensor, tensor], -1)
    elif change == "axes":
        tensors[name] = tensor.reshape(2, *tensor.shape[:-1], -1)
    elif change == "nan":
        tensors[name] = tensor * float("nan")
    elif change == "integers":
        tensors[name] = torch.zeros(tensor.shape, dtype=torch.int64)
    elif change == "twice":
        tensors[f"module.{name}"] = tensor
    elif change == "empty":
        tensors[name] = tensor[:0]
    return tensors


def load(model, tensors, path, **others):
    torch.save({"model": tensors, **others}, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load_checkpoint(model, path)


def test_a_damaged_file_is_refused_and_nothing_is_loaded(kind, tmp_path):
    """But for a second tensor under another prefix, which is ignored."""
    tensors, model = kind
    path, random = tmp_path / "x.pth", Random(0)
    load(model, tensors, path)
    expected, others = model.get_weights(), [np.full_like(w, 7) for w in model.get_weights()]
    names = [name for name in tensors if not name.startswith(("mask", "proj", "decoder", "pred"))]
    of_grn = [name for name in names if ".grn." in name]
    for change in CHANGES:
        for name in (random.choice(names), random.choice(of_grn)):
            model.set_weights(others)
            told = None
            try:
                load(model, changed(tensors, change, name), path)
            except CheckpointError as error:
                told = str(error)
                assert told.isprintable()
                assert told.endswith(f"(file: {path})")
            assert (told is None) == (change == "twice"), (change, name)
            for found, kept in zip(model.get_weights(), others if told else expected, strict=True):
                np.testing.assert_array_equal(found, kept)


class Harm:
    """Runs a command when it is unpickled by pickle."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def test_code_beside_the_weights_is_not_run(kind, tmp_path):
    tensors, _ = kind
    path = tmp_path / "x.pth"
    torch.save({"model": tensors, "args": Harm(tmp_path / "trace")}, path)
    for read in (identify, keras_convnext.load_model):
        with pytest.raises(CheckpointError, match="nothing was run"):
            read(path)
    assert [each.name for each in tmp_path.iterdir()] == ["x.pth"]


def test_what_the_pretraining_code_saves_beside_the_weights_is_skipped(kind, tmp_path):
    tensors, model = kind
    kept = {"args": Namespace(mask_ratio=0.6), "epoch": 1599, "scaler": {"scale": 2.0**16}}
    kept["optimizer"] = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [kept["args"]]}
    load(model, tensors, tmp_path / "bare.pth")
    expected = model.get_weights()
    model.set_weights([np.zeros_like(weight) for weight in expected])
    load(model, tensors, tmp_path / "whole.pth", **kept)
    for found, theirs in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(found, theirs)
