from dataclasses import dataclass

import pytest

from keras_convnext.training.recipe import Batch, Optimizer, Recipe, RecipeFamily, Schedule
from keras_convnext.training.settings import (
    RULES,
    Rule,
    check,
    field_types,
    flat,
    for_network,
    with_all_networks,
)


@dataclass(frozen=True, kw_only=True)
class Shape:
    sides: tuple[float, float] = (1.0, 2.0)
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Drawing(Recipe):
    shape: Shape = Shape()


RECIPE = Drawing(
    name="drawing",
    source="ours",
    optimizer=Optimizer(learning_rate=1e-3, weight_decay=0.1),
    schedule=Schedule(epochs=4),
    batch=Batch(batch_size=8),
)
FAMILY = RecipeFamily(
    RECIPE, {"small": {"devices": 2}, "large": {"devices": 4, "sides": (2.0, 3.0)}}, ("devices",)
)


@pytest.mark.parametrize(
    ("settings", "name", "expected"),
    [
        ({"epochs": "5"}, "schedule.epochs", 5),
        ({"schedule.epochs": 5}, "schedule.epochs", 5),
        ({"learning_rate": "1e-4"}, "optimizer.learning_rate", 1e-4),
        ({"optimizer.learning_rate": 1e-4}, "optimizer.learning_rate", 1e-4),
        ({"sides": "0.3,1"}, "shape.sides", (0.3, 1.0)),
        ({"sides": "[0.3, 1.0]"}, "shape.sides", (0.3, 1.0)),
        ({"ema_decay": "None"}, "optimizer.ema_decay", None),
        ({"remat": "true"}, "batch.remat", True),
        ({"shape.name": "1"}, "shape.name", "1"),
        ({"shape.name": "none"}, "shape.name", None),
        ({"milestones": "27,33"}, "schedule.milestones", (27.0, 33.0)),
        ({"milestones": "5"}, "schedule.milestones", (5.0,)),
    ],
)
def test_a_setting_is_read_as_a_value_of_its_field(settings, name, expected):
    found = flat(for_network(FAMILY, "small", settings))[name]
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 1}, "did you mean epochs"),
        ({"name": "mine"}, r"use name or shape.name|Received: name"),
        ({"epochs": 1, "schedule.epochs": 2}, "set twice"),
        ({"epochs": "many"}, "epochs=many"),
        ({"epochs": 1.5}, "None or a positive integer"),
        ({"epochs": "true"}, "positive integer"),
        ({"remat": 1}, "remat must be True or False"),
        ({"remat": "yes"}, "remat=yes"),
        ({"learning_rate": "nan"}, "above 0"),
        ({"learning_rate": float("inf")}, "above 0"),
        ({"learning_rate": [1, 2]}, "above 0"),
        ({"sides": "1"}, "numbers, separated by commas"),
        ({"sides": "1,2,3"}, "numbers, separated by commas"),
        ({"shape.name": 5}, "shape.name must be None or text. Received: shape.name=5"),
        ({"decay": "linear"}, "one of cosine, polynomial, steps, constant"),
        ({"updates": 5}, "either epochs or updates"),
        ({"epochs": "none"}, "either epochs or updates"),
        ({"warmup_epochs": 5}, "Set warmup_epochs to 4 or less"),
        ({"warmup_epochs": 1, "warmup_updates": 1}, "not both"),
        ({"epochs": "none", "updates": 5, "warmup_updates": 6}, "Set warmup_updates to 5 or less"),
        ({"epochs\x1b[31m": 1}, r"Received: epochs\\x1b"),
    ],
)
def test_a_wrong_setting_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        check(for_network(FAMILY, "small", settings), {})


def test_a_network_has_its_own_settings():
    assert for_network(FAMILY, "large", {}).batch.devices == 4
    assert for_network(FAMILY, "large", {}).shape.sides == (2.0, 3.0)
    assert for_network(FAMILY, "large", {"devices": 1}).batch.devices == 1
    with pytest.raises(ValueError, match=r"published for small, large.*set devices"):
        for_network(FAMILY, "middle", {})
    assert for_network(FAMILY, "middle", {"batch.devices": 3}).batch.devices == 3


def test_the_settings_of_all_networks_are_shown_at_once():
    found = with_all_networks(FAMILY)
    assert found["batch.devices"] == {"small": 2, "large": 4}
    assert found["shape.sides"] == {"": (1.0, 2.0), "large": (2.0, 3.0)}
    assert found["schedule.epochs"] == 4


def test_a_task_adds_rules():
    rules = {"shape.sides": Rule("small", lambda value: value[0] < 1)}
    with pytest.raises(ValueError, match="sides must be small"):
        check(RECIPE, rules)


def test_every_number_has_a_rule():
    kinds = field_types(Recipe)
    assert {name for name, kind in kinds.items() if kind not in (str, bool)} <= set(RULES)
    assert set(RULES) <= set(kinds)
