import pytest

from keras_convnext.classification.recipes import RECIPES, Recipe, RecipeFamily
from keras_convnext.training.settings import _RULES, recipe_for


@pytest.mark.parametrize(
    ("name", "model", "expected"),
    [
        ("imagenet1k", "convnext_tiny", {"drop_path_rate": 0.1, "devices": 32}),
        ("imagenet1k", "convnext_large", {"drop_path_rate": 0.5, "devices": 64}),
        ("imagenet1k_isotropic", "convnext_isotropic_base", {"layer_scale": None}),
        ("imagenet1k_isotropic", "convnext_isotropic_large", {"layer_scale": 1e-6}),
        ("imagenet22k", "convnext_xlarge", {"drop_path_rate": 0.2, "epochs": 90}),
        ("imagenet22k_to_1k", "convnext_base", {"layer_decay": 0.8, "ema_decay": None}),
        ("imagenet22k_to_1k_384", "convnext_xlarge", {"size": 384, "ema_decay": 0.9999}),
        ("imagenet1k_384", "convnext_large", {"drop_path_rate": 0.95, "layer_decay": 0.7}),
        ("finetune_small", "convnext_cifar", {"size": 32, "start": "cifar10"}),
    ],
)  # fmt: skip
def test_a_recipe_is_that_of_the_network(name, model, expected):
    row = recipe_for(name, model)
    assert {field: getattr(row, field) for field in expected} == expected


@pytest.mark.parametrize("name", RECIPES)
def test_every_setting_of_one_network_counts(name):
    for field in set(RecipeFamily._fields) - {"shared"}:
        for model, value in getattr(RECIPES[name], field).items():
            settings = {} if field == "drop_path_rate" else {"drop_path_rate": 0.0}
            assert getattr(recipe_for(name, model, settings), field) == value


@pytest.mark.parametrize("name", RECIPES)
def test_the_batch_is_that_of_the_reference_layout(name):
    for model in RECIPES[name].drop_path_rate or ["convnext_cifar"]:
        row = recipe_for(name, model)
        assert row.devices * row.device_batch == row.batch_size


def test_every_field_with_a_range_has_a_rule():
    assert set(Recipe._fields) - set(_RULES) == {
        "name", "source", "start", "published", "rand_augment",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ({"epochs": "5"}, 5),
        ({"learning_rate": "1e-4"}, 1e-4),
        ({"crop_scale": "0.3,1"}, (0.3, 1.0)),
        ({"crop_scale": "[0.3, 1.0]"}, (0.3, 1.0)),
        ({"rand_augment": "none"}, None),
        ({"ema_decay": "None"}, None),
        ({"remat": "true"}, True),
        ({"start": "best.keras"}, "best.keras"),
        ({"precision": "mixed_bfloat16"}, "mixed_bfloat16"),
        ({"optimizer": "muon"}, "muon"),
    ],
)
def test_a_setting_is_read_as_its_field_is(setting, value):
    ((field, _),) = setting.items()
    read = getattr(recipe_for("finetune_small", "convnext_atto", setting), field)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("name", "model", "settings", "message"),
    [
        ("imagenet", "convnext_tiny", {}, "did you mean imagenet"),
        ("imagenet1k", "convnext_tony", {"drop_path_rate": 0.1}, "did you mean convnext_tiny"),
        ("imagenet1k", "convnext_tiny", {"learning_rates": 1}, "did you mean learning_rate"),
        ("imagenet1k", "convnext_tiny", {"name": "mine"}, "Received: name=mine"),
        ("imagenet1k", "convnext_xlarge", {}, "published for convnext_tiny"),
        ("imagenet1k", "convnext_tiny", {"epochs": "many"}, "epochs=many"),
        ("imagenet1k", "convnext_tiny", {"epochs": 0}, "positive integer"),
        ("imagenet1k", "convnext_tiny", {"epochs": 1.5}, "positive integer"),
        ("imagenet1k", "convnext_tiny", {"learning_rate": "nan"}, "learning_rate"),
        ("imagenet1k", "convnext_tiny", {"crop_scale": "1,0.5"}, "the smaller one first"),
        ("imagenet1k", "convnext_tiny", {"precision": "float8"}, "mixed_bfloat16"),
        ("imagenet1k", "convnext_tiny", {"optimizer": "lamb"}, "one of adamw, muon"),
        ("imagenet1k", "convnext_tiny", {"size": 16}, "at least 32 px"),
        ("imagenet1k", "convnext_tiny", {"epochs": 10}, "Set warmup_epochs to 10 or less"),
    ],
)
def test_what_is_wrong_is_told(name, model, settings, message):
    with pytest.raises(ValueError, match=message):
        recipe_for(name, model, settings)
