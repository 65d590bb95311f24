"""Classification: recipes, training, accuracy and predictions.

The files have the names that every task uses: `recipes`, `network`, `input`, `losses`, `task`,
`evaluation` and `prediction`.
"""

from typing import TYPE_CHECKING

from keras_convnext.lazy import lazy_names
from keras_convnext.tensorflow_only import requiring_tensorflow

if TYPE_CHECKING:
    from keras_convnext.classification.confusion import draw_confusion
    from keras_convnext.classification.evaluation import Accuracy, evaluate
    from keras_convnext.classification.planning import Plan, plan
    from keras_convnext.classification.prediction import (
        Label,
        Prediction,
        draw_predictions,
        predict_files,
    )
    from keras_convnext.classification.recipes import RECIPES, Classification
    from keras_convnext.classification.robustness import Robustness, evaluate_suites
    from keras_convnext.classification.robustness_figures import CorruptionResult, SuiteResult
    from keras_convnext.classification.robustness_report import draw_robustness
    from keras_convnext.classification.robustness_state import RobustnessError, Score
    from keras_convnext.classification.settings import recipe_for
    from keras_convnext.classification.task import ClassificationTask, train

__all__ = [
    "RECIPES",
    "Accuracy",
    "Classification",
    "ClassificationTask",
    "CorruptionResult",
    "Label",
    "Plan",
    "Prediction",
    "Robustness",
    "RobustnessError",
    "Score",
    "SuiteResult",
    "draw_confusion",
    "draw_predictions",
    "draw_robustness",
    "evaluate",
    "evaluate_suites",
    "plan",
    "predict_files",
    "recipe_for",
    "train",
]

_RUNS = {"task": ("ClassificationTask", "train")}
_NAMES = {
    **_RUNS,
    "confusion": ("draw_confusion",),
    "evaluation": ("Accuracy", "evaluate"),
    "planning": ("Plan", "plan"),
    "prediction": ("Label", "Prediction", "draw_predictions", "predict_files"),
    "recipes": ("RECIPES", "Classification"),
    "robustness": ("Robustness", "evaluate_suites"),
    "robustness_figures": ("CorruptionResult", "SuiteResult"),
    "robustness_report": ("draw_robustness",),
    "robustness_state": ("RobustnessError", "Score"),
    "settings": ("recipe_for",),
}

_get, __dir__ = lazy_names(__name__, _NAMES)

if not TYPE_CHECKING:  # otherwise type checkers would accept any attribute
    __getattr__ = requiring_tensorflow(_get, __name__, _RUNS["task"])
