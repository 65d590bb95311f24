"""Loads saved models and continues their training, in a separate process for `test_optimizer.py`.

Usage: python train_on.py FOLDER. Fits each FOLDER/NAME.keras to FOLDER/data.npz, and writes its
variables and those of its optimizer to FOLDER/NAME.npz. With other backends than TensorFlow, also
checks that the package does not import it.
"""

import sys
from pathlib import Path

import keras
import numpy as np

import keras_convnext  # noqa: F401  (registers the optimizers)


def train_on(folder):
    with np.load(folder / "data.npz") as data:
        inputs, targets = data["inputs"], data["targets"]
    for path in folder.glob("*.keras"):
        model = keras.models.load_model(path)
        model.fit(inputs, targets, batch_size=1, verbose=0, shuffle=False)
        variables = [*model.variables, *model.optimizer.variables]
        found = {str(i): keras.ops.convert_to_numpy(v) for i, v in enumerate(variables)}
        np.savez(path.with_suffix(".npz"), **found)


def plan_without_tensorflow():
    from keras_convnext.classification import RECIPES, plan, recipe_for
    from keras_convnext.training.assembly import optimizer_of
    from keras_convnext.training.layout import Layout
    from keras_convnext.training.length import length_of

    assert "imagenet1k" in RECIPES
    recipe = recipe_for("imagenet1k", "convnext_tiny")
    assert plan(recipe, "convnext_tiny", None, 8, "a100-80gb").hours > 1
    optimizer = optimizer_of(recipe, Layout(0, 1, 8, 128, 4), length_of(recipe, 1_281_167))
    assert float(optimizer.learning_rate) == 0
    assert optimizer.gradient_accumulation_steps == 4
    try:
        from keras_convnext.classification import train  # noqa: F401
    except ImportError as error:
        assert "KERAS_BACKEND=tensorflow" in str(error)  # noqa: PT017
    else:
        raise AssertionError("train has to ask for TensorFlow")
    assert "tensorflow" not in sys.modules


if __name__ == "__main__":
    train_on(Path(sys.argv[1]))
    if keras.config.backend() != "tensorflow":
        plan_without_tensorflow()
