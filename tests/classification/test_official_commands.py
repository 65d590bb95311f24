"""The recipes against the commands of the official TRAINING.md, and the defaults of its main.py."""

import pytest

from keras_convnext.classification.planning import DATA
from keras_convnext.classification.recipes import RECIPES
from keras_convnext.classification.settings import recipe_for
from keras_convnext.training.layout import shares
from keras_convnext.training.settings import flat

# One row per command: network, nodes of 8 GPUs, --batch_size, --update_freq on one such node, and
# --drop_path.
COMMANDS = {
    "imagenet1k": [
        ("convnext_tiny",             4, 128,  4, 0.1),
        ("convnext_small",            4, 128,  4, 0.4),
        ("convnext_base",             4, 128,  4, 0.5),
        ("convnext_large",            8,  64,  8, 0.5),
    ],
    "imagenet1k_isotropic": [
        ("convnext_isotropic_small",  4, 128,  4, 0.1),
        ("convnext_isotropic_base",   4, 128,  4, 0.2),
        ("convnext_isotropic_large",  8,  64,  8, 0.5),
    ],
    "imagenet22k": [
        ("convnext_base",            16,  32, 16, 0.1),
        ("convnext_large",           16,  32, 16, 0.1),
        ("convnext_xlarge",          16,  32, 16, 0.2),
    ],
    "imagenet1k_384": [
        ("convnext_base",             2,  32,  2, 0.8),
        ("convnext_large",            2,  32,  2, 0.95),
    ],
    "imagenet22k_to_1k": [
        ("convnext_base",             2,  32,  2, 0.2),
        ("convnext_large",            2,  32,  2, 0.3),
        ("convnext_xlarge",           4,  16,  4, 0.4),
    ],
    "imagenet22k_to_1k_384": [
        ("convnext_base",             4,  16,  4, 0.2),
        ("convnext_large",            4,  16,  4, 0.3),
        ("convnext_xlarge",           8,   8,  8, 0.4),
    ],
}  # fmt: skip

DEFAULTS = {
    "min_learning_rate": 1e-6,
    "algorithm": "adamw",
    "clip_norm": None,
    "frozen_epochs": 0,
    "crop_scale": (0.08, 1.0),
    "crop_ratio": (3 / 4, 4 / 3),
    "horizontal_flip": 0.5,
    "rand_augment": "rand-m9-mstd0.5-inc1",
    "color_jitter": None,  # 0.4, which RandAugment replaces
    "random_erasing": 0.25,
    "mixing_probability": 1.0,
    "mixing_switch": 0.5,
    "label_smoothing": 0.1,
    "validation_share": 0.0,
}

# The options that the commands of a recipe share, or the defaults where a command has none.
FROM_SCRATCH = {
    "batch_size": 4096,
    "learning_rate": 4e-3,
    "weight_decay": 0.05,
    "layer_decay": 1.0,
    "head_init_scale": 1.0,
    "layer_scale": 1e-6,
    "start": None,
    "size": 224,
    "mixup": 0.8,
    "cutmix": 1.0,
}
FINE_TUNING = {
    "batch_size": 512,
    "epochs": 30,
    "warmup_epochs": 0,
    "learning_rate": 5e-5,
    "weight_decay": 1e-8,
    "head_init_scale": 0.001,
    "ema_decay": None,
    "mixup": 0.0,
    "cutmix": 0.0,
}
SHARED = {
    "imagenet1k": {**FROM_SCRATCH, "epochs": 300, "warmup_epochs": 20, "ema_decay": 0.9999},
    "imagenet1k_isotropic": {
        **FROM_SCRATCH, "epochs": 300, "warmup_epochs": 50, "ema_decay": 0.9999,
        "layer_scale": None,
    },
    "imagenet22k": {**FROM_SCRATCH, "epochs": 90, "warmup_epochs": 5, "ema_decay": None},
    "imagenet1k_384": {**FINE_TUNING, "size": 384, "layer_decay": 0.7, "start": "imagenet"},
    "imagenet22k_to_1k": {**FINE_TUNING, "size": 224, "layer_decay": 0.8, "start": "imagenet22k"},
    "imagenet22k_to_1k_384": {
        **FINE_TUNING, "size": 384, "layer_decay": 0.8, "start": "imagenet22k"
    },
}  # fmt: skip

# The options that only some commands of a recipe have.
OWN = {
    ("imagenet1k_isotropic", "convnext_isotropic_large"): {"layer_scale": 1e-6},
    ("imagenet22k_to_1k", "convnext_xlarge"): {"ema_decay": 0.9999},
    ("imagenet22k_to_1k_384", "convnext_xlarge"): {"ema_decay": 0.9999},
}

ROWS = [(name, *row) for name, rows in COMMANDS.items() for row in rows]


@pytest.mark.parametrize(("name", "model", "nodes", "images", "accumulated", "drop_path"), ROWS)
def test_every_setting_is_that_of_the_official_command(
    name, model, nodes, images, accumulated, drop_path
):
    recipe = recipe_for(name, model)
    row = {field.rpartition(".")[2]: value for field, value in flat(recipe).items()}
    layout = {"device_batch": images, "devices": 8 * nodes, "drop_path_rate": drop_path}
    expected = {**DEFAULTS, **SHARED[name], **layout, **OWN.get((name, model), {})}
    assert {field: row[field] for field in expected} == expected
    assert shares(recipe.batch.batch_size, 8 * nodes, images) == (images, 1)
    assert shares(recipe.batch.batch_size, 8, images) == (images, accumulated)
    assert DATA[name][1] == (21_841 if name == "imagenet22k" else 1_000)
    if row["mixup"] or row["cutmix"]:
        assert row["mixing_batch"] == images  # timm mixes the images of a GPU


def test_the_other_recipes_are_our_own():
    official = {
        name
        for name, family in RECIPES.items()
        if not family.recipe.source.startswith(("ours", "V2"))
    }
    assert official == {*COMMANDS, "roadmap"}  # which `test_recipes` compares with imagenet1k
    assert len(ROWS) == 18
