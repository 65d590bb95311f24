"""The reference: every public name once, and nothing that is not public."""

import ast
import inspect
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "keras_convnext"

# Modules whose public names are all in the reference. "" is keras_convnext itself.
PUBLIC = {
    "", "classification", "complexity", "demo", "detection", "export", "hub", "layers",
    "preprocessing", "pretraining", "roadmap", "saliency", "segmentation", "training",
}  # fmt: skip
# Of the other modules, what public functions take, raise or return, and parts to build with.
PARTS = {
    "classification.augmentation": ("training_image",),
    "classification.erasing": ("random_erasing",),
    "classification.mixing": ("mix", "smoothed_targets"),
    "classification.rand_augment": ("rand_augment",),
    "classification.recipes": ("Input", "Network", "Targets"),
    "data.checks": ("check_images",),
    "memory_errors": ("OutOfMemoryError",),
    "data.errors": ("DataError", "DataWarning"),
    "data.held_out": ("hold_out",),
    "data.images": ("evaluation_image", "training_crop"),
    "data.source": ("Source",),
    "data.sources": ("open_source",),
    "initializers": ("TruncatedNormal",),
    "picture_files": ("find_images",),
    "pretrained.catalog_row": ("Checkpoint", "License"),
    "pretrained.identify": ("Identity",),
    "pretraining.recipes": ("Input", "Masking", "Network"),
    "detection.recipes": ("Input", "Network", "Samples"),
    "detection.rotated": (
        "RECIPES",
        "RotatedDetection",
        "RotatedDetectionTask",
        "plan",
        "recipe_for",
        "train",
    ),
    "detection.rotated.recipes": ("Input", "Loss", "Network"),
    "segmentation.recipes": ("Input", "Labels", "Loss", "Network"),
    "training.devices": ("Device", "Rate"),
    "training.memory": ("Memory",),
    "training.layout": ("Layout", "find_strategy", "layout_of", "shares"),
    "variants": ("Variant",),
    "verification": ("Finding",),
}
# `keras_convnext` and `preprocessing` have what is public of these.
ELSEWHERE = {
    "applications", "block", "builders", "conversion", "distribution", "feature_maps", "lora",
    "pictures",
}  # fmt: skip
INTERNAL = {
    "arithmetic", "backbones", "call_graph", "class_list", "cli", "colors", "jax_cpu", "lazy",
    "loading", "model_digest", "network", "normalization", "pillow_output", "pixel_levels",
    "pixels", "printable", "progress", "resizing", "serialization", "shipped", "signature",
    "tasks", "tensorflow_cpu", "tensorflow_only", "tensorflow_passes", "trunks",
}  # fmt: skip


def source_of(module):
    file = PACKAGE / f"{module}.py"
    return file if module and file.is_file() else PACKAGE / module / "__init__.py"


def is_module(name):
    return (PACKAGE / f"{name}.py").is_file() or (PACKAGE / name / "__init__.py").is_file()


def public_names(module):
    """`__all__`, or the functions and classes without an underscore; nothing is imported."""
    body = ast.parse(source_of(module).read_text("utf-8")).body
    for node in body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            names = ast.literal_eval(node.value)
            return [name for name in names if module or not is_module(name)]
    made = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return [name for name in made if not name.startswith("_")]


def expected_names():
    named = {f".{module}" * bool(module): public_names(module) for module in PUBLIC}
    named |= {f".{module}": names for module, names in PARTS.items()}
    return [f"keras_convnext{module}.{name}" for module, names in named.items() for name in names]


@pytest.fixture(scope="module")
def documented(pages):
    return Counter(name for page in pages for name in page.documented)


def test_every_public_name_is_there_once(documented):
    expected = expected_names()
    assert len(expected) > 100
    assert [name for name in expected if not documented[name]] == []
    assert [name for name, times in documented.items() if times > 1] == []


def test_nothing_else_is_there(documented):
    expected = expected_names()
    members = tuple(f"{name}." for name in expected)
    others = documented.keys() - set(expected)
    assert [name for name in others if not name.startswith(members)] == []


def test_a_new_module_is_decided_upon():
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    modules |= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    decided = PUBLIC | {name.partition(".")[0] for name in PARTS} | ELSEWHERE | INTERNAL
    assert {name for name in modules if not name.startswith("__")} == decided - {""}


def test_no_signature_has_a_default_that_is_none_of_the_function():
    for module in PUBLIC - {"hub"}:
        package = import_module(f"keras_convnext.{module}".rstrip("."))
        for name in public_names(module):
            made = getattr(package, name)
            if inspect.isroutine(made):
                defaults = [each.default for each in inspect.signature(made).parameters.values()]
                assert ... not in defaults, name


def test_the_arguments_of_the_builders_are_there_once_and_one_a_line(site):
    page = (site / "docs" / "reference" / "networks.html").read_text("utf-8")
    # ConvNeXt, ConvNeXtV2, ConvNeXtIsotropic and ConvNeXtTiny list them.
    assert page.count("Stochastic depth rate of the last block") == 4
    signature = page.partition('id="keras_convnext.ConvNeXtTiny"')[2].partition("</dt>")[0]
    assert signature.count("<dd>") == 14
    signature = page.partition('id="keras_convnext.ConvNeXtBase"')[2].partition("</dt>")[0]
    assert "..." in signature
