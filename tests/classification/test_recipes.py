import pytest

from keras_convnext.classification.network import build_classifier
from keras_convnext.classification.recipes import RECIPES, Classification
from keras_convnext.classification.settings import RULES, recipe_for
from keras_convnext.segmentation import UperNet
from keras_convnext.training.settings import RULES as COMMON
from keras_convnext.training.settings import field_types, flat
from keras_convnext.trunks import trunk_of


@pytest.mark.parametrize(
    ("name", "model", "expected"),
    [
        ("imagenet1k", "convnext_tiny", {"network.drop_path_rate": 0.1, "batch.devices": 32}),
        ("imagenet1k", "convnext_large", {"network.drop_path_rate": 0.5, "batch.devices": 64}),
        ("imagenet1k_isotropic", "convnext_isotropic_base", {"network.layer_scale": None}),
        ("imagenet1k_isotropic", "convnext_isotropic_large", {"network.layer_scale": 1e-6}),
        ("imagenet22k", "convnext_xlarge",
         {"network.drop_path_rate": 0.2, "schedule.epochs": 90}),
        ("imagenet22k_to_1k", "convnext_base",
         {"optimizer.layer_decay": 0.8, "optimizer.ema_decay": None}),
        ("imagenet22k_to_1k_384", "convnext_xlarge",
         {"input.size": 384, "optimizer.ema_decay": 0.9999}),
        ("imagenet1k_384", "convnext_large",
         {"network.drop_path_rate": 0.95, "optimizer.layer_decay": 0.7}),
        ("finetune_small", "convnext_cifar", {"input.size": 32, "network.start": "cifar10"}),
        ("fcmae_to_1k", "convnextv2_atto", {"optimizer.weight_decay": 0.3, "schedule.epochs": 600,
                                            "optimizer.layer_groups": "single"}),
        ("fcmae_to_1k", "convnextv2_base", {"optimizer.learning_rate": 2.5e-3,
                                            "optimizer.layer_groups": "official"}),
        ("fcmae_to_22k", "convnextv2_tiny", {"network.start": "fcmae", "batch.batch_size": 4096}),
        ("fcmae_22k_to_1k", "convnextv2_huge", {"optimizer.ema_decay": None,
                                                "optimizer.layer_decay": 0.85}),
    ],
)  # fmt: skip
def test_a_recipe_is_that_of_the_network(name, model, expected):
    row = flat(recipe_for(name, model))
    assert {field: row[field] for field in expected} == expected


@pytest.mark.parametrize("name", RECIPES)
def test_the_batch_is_that_of_the_reference_layout(name):
    for model in RECIPES[name].networks or ["convnext_cifar"]:
        model += "/inverted" * (model == "roadmap:cifar")
        batch = recipe_for(name, model).batch
        assert batch.devices * batch.device_batch == batch.batch_size


def test_every_task_builds_v2_by_its_name():
    recipe = recipe_for("imagenet1k", "convnextv2_atto", {"drop_path_rate": 0.1})
    classifier = build_classifier(recipe, "convnextv2_atto", classes=3)
    segmenter = UperNet("convnextv2_atto", weights=None, channels=8, input_shape=(64, 64, 3))
    for model in (classifier, segmenter):
        blocks = trunk_of(model).blocks
        assert all(block.grn is not None and block.gamma is None for block in blocks)


def test_the_roadmap_is_trained_like_its_end():
    """Section 2.1: all steps are trained with the recipe of ConvNeXt."""
    of_end = flat(recipe_for("imagenet1k", "convnext_tiny"))
    of_step = flat(recipe_for("roadmap", "roadmap:inverted"))
    differences = {name for name, value in of_end.items() if of_step[name] != value}
    assert differences == {"name", "source", "network.published"}
    small = flat(recipe_for("roadmap", "roadmap:cifar/inverted"))
    assert {name for name in small if small[name] != of_step[name]} == {"input.size"}
    assert small["input.size"] == 32


def test_every_number_has_a_rule():
    rules = {**COMMON, **RULES}
    without = {"name", "source", "network.start", "network.published", "input.rand_augment",
               "targets.teacher"}  # fmt: skip
    kinds = field_types(Classification)
    assert {name for name, kind in kinds.items() if kind is not bool} - set(rules) == without
    assert set(rules) <= set(kinds)


V2 = {"drop_path_rate": 0.1, "layer_scale": 0.1}


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [
        ({"rand_augment": "none"}, "input.rand_augment", None),
        ({"start": "best.keras"}, "network.start", "best.keras"),
        ({"precision": "mixed_bfloat16"}, "batch.precision", "mixed_bfloat16"),
        ({"algorithm": "muon"}, "optimizer.algorithm", "muon"),
    ],
)
def test_a_setting_is_read_as_its_field_is(setting, field, value):
    assert flat(recipe_for("finetune_small", "convnext_atto", setting))[field] == value


@pytest.mark.parametrize(
    ("name", "model", "settings", "message"),
    [
        ("imagenet", "convnext_tiny", {}, "did you mean imagenet"),
        ("imagenet1k", "convnext_tony", {"drop_path_rate": 0.1}, "did you mean convnext_tiny"),
        ("imagenet1k", "convnext_tiny", {"learning_rates": 1}, "did you mean learning_rate"),
        ("imagenet1k", "convnext_tiny", {"name": "mine"}, "Received: name"),
        ("imagenet1k", "convnext_tiny", {"published": "mine"}, "Received: published"),
        ("imagenet1k", "convnext_xlarge", {}, "published for convnext_tiny"),
        ("imagenet1k", "convnext_tiny", {"crop_scale": "1,0.5"}, "the smaller one first"),
        ("imagenet1k", "convnext_tiny", {"precision": "float8"}, "mixed_bfloat16"),
        ("imagenet1k", "convnext_tiny", {"algorithm": "lamb"}, "one of adamw, muon"),
        ("imagenet1k", "convnext_tiny", {"rand_augment": 9}, "rand_augment must be None or text"),
        ("imagenet1k", "convnext_tiny", {"size": 16}, "at least 32 px"),
        ("imagenet1k", "convnext_tiny", {"epochs": 10}, "Set warmup_epochs to 10 or less"),
        ("imagenet1k", "convnext_tiny", {"mixing_batch": 1}, "mixing_batch must be at least 2"),
        ("imagenet1k", "convnext_tiny", {"batch_size": 1}, "Set batch_size to 2 or more"),
        ("roadmap", "roadmap:resnext", {}, "step must be one of resnet, stage_ratio"),
        ("roadmap", "roadmap:resnet18/gelu", {}, "regime must be one of resnet50, resnet200, cif"),
        ("roadmap", "roadmap:cifar/gelu", {"size": 8}, "roadmap:cifar/gelu needs .* at least 16"),
        ("roadmap", "roadmap:gelu", {"remat": True}, "has no remat.* set remat=False. Received"),
        ("roadmap", "roadmap:gelu", {"layer_scale": 0.1}, "has no layer_scale.*Received: layer_s"),
        ("imagenet1k", "convnextv2_tiny", V2, "V2 normalizes responses .*layer_scale=0.1"),
        ("finetune_small", "roadmap:gelu", {}, "has no start.*Received: start=imagenet"),
    ],
)
def test_what_is_wrong_is_told(name, model, settings, message):
    with pytest.raises(ValueError, match=message):
        recipe_for(name, model, settings)
