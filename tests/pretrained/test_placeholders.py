"""Whatever is saved beside the weights stays inert, and the weights are read."""

import argparse
import collections
import datetime
import decimal
import functools
import logging
import pathlib
import random
import re
import sys
import types
import uuid

import numpy as np
import pytest
import torch
from torch import nn

from keras_convnext.pretrained.placeholder import Placeholder
from keras_convnext.pretrained.torch_file import read_torch_file

MATRIX = torch.arange(24, dtype=torch.float32).reshape(4, 6).sin()
ELSEWHERE = """
import collections, dataclasses, enum

@dataclasses.dataclass
class Data:
    rate: float = 0.1
    layers: tuple = (1, 2)

@dataclasses.dataclass(slots=True)
class Slotted:
    rate: float = 0.1

class Color(enum.Enum):
    RED = 1

class Flags(enum.IntFlag):
    FIRST = 1

class Config(dict):
    __getattr__ = dict.get

class Items(list):
    pass

class Row(collections.namedtuple("Row", "a b")):
    pass

class Outer:
    class Inner:
        rate = 0.1

    def method(self):
        pass

    @classmethod
    def made(cls):
        return cls()

class Keywords:
    def __new__(cls, *, rate):
        return super().__new__(cls)

    def __getnewargs_ex__(self):
        return (), {"rate": 1}

def function(x):
    return x
"""


@pytest.fixture
def elsewhere():
    """A module that is there when a file is saved, and not when it is read."""
    module = types.ModuleType("somebodys.training")
    sys.modules["somebodys"] = types.ModuleType("somebodys")
    sys.modules["somebodys.training"] = module
    exec(ELSEWHERE, module.__dict__)
    yield module
    sys.modules.pop("somebodys.training", None)
    sys.modules.pop("somebodys", None)


def trainer(there):
    """A whole trainer, as it should not be saved and is."""
    model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 3, 4, 4)).square().sum().backward()
    optimizer.step()
    trainer = there.Outer()
    trainer.__dict__.update(
        model=model,
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10),
        criterion=nn.CrossEntropyLoss(label_smoothing=0.1),
        loader=torch.utils.data.DataLoader([1, 2], batch_size=1),
        config=there.Config(rate=0.1, nested=there.Config()),
        best=np.float64(0.9),
        callback=trainer.method,
    )
    return trainer


OBJECTS = {
    "namespace": lambda there: argparse.Namespace(rate=0.1, inner=argparse.Namespace()),
    "simple namespace": lambda there: types.SimpleNamespace(rate=0.1),
    "data class": lambda there: there.Data(),
    "slots": lambda there: there.Slotted(),
    "config": lambda there: there.Config(rate=0.1, nested=there.Config(a=1)),
    "list": lambda there: there.Items([1, 2]),
    "row": lambda there: there.Row(1, 2),
    "class": lambda there: there.Data,
    "class in a class": lambda there: [there.Outer.Inner, there.Outer.Inner()],
    "class method": lambda there: there.Outer.made,
    "method": lambda there: there.Outer().method,
    "function": lambda there: there.function,
    "keywords": lambda there: there.Keywords(rate=1),
    "enum": lambda there: [there.Color.RED, there.Flags.FIRST],
    "named keys": lambda there: {there.Color.RED: 1, (1, 2): 3, b"x": 4, MATRIX: 5, None: 6},
    "partial": lambda there: functools.partial(there.function, 1),
    "scalars": lambda there: [np.float64(0.5), np.int64(3), np.bool_(True), np.str_("x")],
    "array": lambda there: [np.arange(4.0), np.array(["a"]), np.array([None])],
    "dtype": lambda there: [np.dtype("float32"), np.float32, torch.float32, torch.strided],
    "random": lambda there: [np.random.get_state(), np.random.default_rng(0), random.Random(0)],
    "paths": lambda there: [pathlib.PurePosixPath("/data"), pathlib.Path("x")],
    "dates": lambda there: [datetime.datetime.now(), datetime.date(2026, 1, 1),
                            datetime.timedelta(1), datetime.timezone.utc],
    "collections": lambda there: [collections.defaultdict(list, a=1), collections.deque([1], 3),
                                  collections.Counter("aab"), collections.ChainMap({})],
    "values": lambda there: [uuid.UUID(int=1), decimal.Decimal("0.1"), 1j, slice(1), range(3),
                             b"x" * 300, bytearray(b"x"), Ellipsis, NotImplemented, int, len],
    "pattern": lambda there: re.compile("a+"),
    "logger": lambda there: logging.getLogger("x"),
    "error": lambda there: [ValueError("x"), KeyError(1)],
    "device": lambda there: [torch.device("cuda", 1), torch.Size([1]), torch.get_rng_state(),
                             torch.Generator()],
    "trainer": trainer,
}  # fmt: skip


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("make", OBJECTS.values(), ids=OBJECTS)
def test_weights_beside_an_object_are_read(make, protocol, tmp_path, elsewhere):
    path = tmp_path / "saved.pth"
    saved = {"before": make(elsewhere), "model": {"weight": MATRIX}, "after": make(elsewhere)}
    torch.save(saved, path, pickle_protocol=protocol)
    del sys.modules["somebodys.training"], sys.modules["somebodys"]
    imported = set(sys.modules)
    loaded = read_torch_file(path)
    assert list(loaded) == list(saved)
    np.testing.assert_array_equal(loaded["model"]["weight"].read(), MATRIX.numpy())
    assert set(sys.modules) == imported


def test_what_is_known_of_an_object_is_kept(tmp_path, elsewhere):
    path = tmp_path / "saved.pth"
    saved = [elsewhere.Data(), elsewhere.Config(a=1), elsewhere.Outer.Inner, elsewhere.Slotted(),
             elsewhere.Row(1, 2)]  # fmt: skip
    torch.save(saved, path)
    data, config, inner, slotted, row = read_torch_file(path)
    assert (data.name, data.attributes) == (
        "somebodys.training.Data",
        {"rate": 0.1, "layers": (1, 2)},
    )
    assert (config.name, dict(config)) == ("somebodys.training.Config", {"a": 1})
    assert inner == "somebodys.training.Outer.Inner"
    assert slotted.name == "somebodys.training.Slotted"
    assert row.arguments == (1, 2)
    assert repr(data) == "<somebodys.training.Data, not imported>"
    assert repr(Placeholder("a\x1b[2J")) == r"<a\x1b[2J, not imported>"


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 2, bias=False), nn.BatchNorm2d(4))
        self.stages = nn.ModuleList([nn.Linear(4, 4) for _ in range(2)])
        self.gamma = nn.Parameter(MATRIX)
        self.register_buffer("kept", MATRIX[0])
        self.register_buffer("left", MATRIX[1], persistent=False)
        self.activation = functools.partial(nn.functional.gelu, approximate="tanh")


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_module_saved_whole_has_the_tensors_of_its_state_dict(protocol, tmp_path):
    network = Network()
    path = tmp_path / "saved.pth"
    torch.save({"epoch": 1, "model": network}, path, pickle_protocol=protocol)
    loaded = read_torch_file(path)["model"]
    expected = network.state_dict()
    assert loaded.name.endswith("Network")
    assert list(loaded) == list(expected)
    for key, tensor in expected.items():
        np.testing.assert_array_equal(loaded[key].read(), tensor.numpy())
    torch.save(nn.DataParallel(network), path, pickle_protocol=protocol)
    assert list(read_torch_file(path)) == [f"module.{key}" for key in expected]
