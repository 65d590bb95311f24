"""The tables of the site, generated from the tables of the package."""

from pathlib import Path

import typer
from typer.cli import get_docs_for_click

from keras_convnext import detection, segmentation
from keras_convnext.builders import BUILDERS
from keras_convnext.classification import RECIPES, plan, recipe_for
from keras_convnext.classification.suites import SUITES
from keras_convnext.cli import app
from keras_convnext.complexity import parts
from keras_convnext.detection import rotated
from keras_convnext.pretrained.catalog import TAGS, list_weights
from keras_convnext.pretrained.timm_rows import TIMM_TAGS
from keras_convnext.training.devices import DEVICES
from keras_convnext.training.settings import with_all_networks
from keras_convnext.variants import VARIANTS


def models():
    """The networks and their dimensions."""
    rows = []
    for name, variant in VARIANTS.items():
        builder, counted = BUILDERS[name].__name__, parts(variant)
        rows.append((
            f"[{builder}](#keras_convnext.{builder})<br>`{name}`",
            _numbers(variant.depths),
            _numbers(variant.dims),
            variant.patch_size,
            variant.kernel_size,
            _value(variant.layer_scale),
            variant.size,
            variant.min_size,
            f"{sum(part.parameters for part in counted):,}",
            f"{sum(part.macs for part in counted) / 1e9:.2f}",
        ))  # fmt: skip
    heads = ("builder and name", "depths", "dims", "patch", "kernel", "layer scale", "px",
             "smallest px", "parameters", "GMACs at 224 px")  # fmt: skip
    return _table(heads, rows)


def weights():
    """The weights of each network but timm's, with their top-1 accuracy if it was published."""
    tags = [tag for tag in TAGS if tag not in TIMM_TAGS]
    published = {(row.model, row.tag): row.top1 or "yes" for row in list_weights()}
    rows = [(f"`{name}`", *(published.get((name, tag), "") for tag in tags)) for name in VARIANTS]
    return _table(("name", *(f"`{tag}`" for tag in tags)), rows)


def timm_weights():
    """The names of timm's weights, what they stand for, and the networks that have them."""
    rows = [
        (
            f"`{tag}`",
            meaning,
            ", ".join(f"`{row.model}`" for row in list_weights() if row.tag == tag),
        )
        for tag, meaning in TIMM_TAGS.items()
    ]
    return _table(("name", "trained on", "networks"), rows)


def recipes():
    """Every field of every recipe for classifiers."""
    return _recipes(RECIPES)


def segmentation_recipes():
    """Every field of every recipe for segmenters."""
    return _recipes(segmentation.RECIPES)


def detection_recipes():
    """The fields of each recipe for detectors."""
    return _recipes(detection.RECIPES)


def rotated_recipes():
    """The fields of each recipe for detectors of rotated boxes."""
    return _recipes(rotated.RECIPES)


def _recipes(families):
    columns = [with_all_networks(family) for family in families.values()]
    rows = [
        (f"`{field}`", *(_value(column[field]) for column in columns))
        for field in columns[0]
        if field != "name"
    ]
    return _table(("field", *(f"`{name}`" for name in families)), rows)


def planned():
    """The output of `plan` for a large run."""
    recipe = recipe_for("imagenet22k", "convnext_base")
    rows = plan(recipe, "convnext_base", None, recipe.batch.devices, "a100-80gb").rows()
    return _table(("imagenet22k, convnext_base", "", ""), rows)


def devices():
    """The devices that `plan` knows."""
    rows = [
        (f"`{name}`", f"{device.memory:g}", f"`{precision}`", f"{device.peak(precision):g}",
         f"{rate.utilization:g}", rate.basis)
        for name, device in DEVICES.items()
        for precision, rate in device.rates.items()
    ]  # fmt: skip
    heads = ("device", "GiB", "precision", "peak, TFLOP/s", "part reached", "basis")
    return _table(heads, rows)


def suites():
    """The sets that measure robustness, and their rules."""
    rows = [
        (suite.title, f"`{name}`", (suite.dataset and f"`{suite.dataset}`") or "", suite.metric,
         suite.scores, suite.source)
        for name, suite in SUITES.items()
    ]  # fmt: skip
    heads = ("set", "name", "in TensorFlow Datasets", "figure", "an image or the set is scored as",
             "source")  # fmt: skip
    return _table(heads, rows)


def commands():
    """The help of each command."""
    group = typer.main.get_command(app)
    context = typer.Context(group)
    return "\n\n".join(
        get_docs_for_click(
            obj=command, ctx=context, indent=1, name=name, call_prefix="keras-convnext"
        )
        for name, command in group.commands.items()
    )


def angle_task():
    """The example of a task of its own, which is also a test."""
    text = (Path(__file__).parents[1] / "tests/training/angle_task.py").read_text("utf-8")
    return f"```python\n{text}```"


def _table(heads, rows):
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _numbers(values):
    return ",\u00a0".join(f"{value:.4g}" for value in values)  # in one line


def _value(value):
    """Formats a field for a table, with a line per network if it depends on the network."""
    if isinstance(value, dict):
        return "<br>".join(
            f"{network.removeprefix('convnext_') or 'others'}: {_value(own)}"
            for network, own in value.items()
        )
    if isinstance(value, tuple):
        return _numbers(value)
    if isinstance(value, float):
        return f"{value:g}".replace("-", "\u2011")  # in one line
    return str(value)
