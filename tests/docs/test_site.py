"""The site: built without a warning, with nothing left out."""

import re
from pathlib import Path

from keras_convnext import segmentation
from keras_convnext.classification.recipes import RECIPES, Classification
from keras_convnext.cli import app
from keras_convnext.pretrained.catalog import CATALOG, TAGS
from keras_convnext.training.devices import DEVICES
from keras_convnext.training.settings import field_types
from keras_convnext.variants import VARIANTS

ROOT = Path(__file__).parents[2]


def table(site, page):
    """The cells of the first table of a page, without what marks them up."""
    return next(tables(site, page))


def tables(site, page):
    """The cells of each table of a page."""
    html = (site / page).read_text("utf-8")
    for found in re.findall("<table.*?</table>", html, re.DOTALL):
        rows = [re.split("<t[hd][ >]", row)[1:] for row in found.split("<tr")[1:]]
        yield [[re.sub("^[^<]*>|<[^>]*>", "", cell).strip() for cell in row] for row in rows]


def test_the_tables_have_every_row(site):
    recipes = table(site, "docs/recipes.html")
    assert recipes[0] == ["field", *RECIPES]
    assert [row[0] for row in recipes[1:]] == [
        name for name in field_types(Classification) if name != "name"
    ]
    assert [
        row[recipes[0].index("imagenet22k")]
        for row in recipes[1:]
        if row[0] in ("schedule.epochs", "batch.batch_size")
    ] == ["90", "4096"]
    text = (site / "docs/recipes.html").read_text("utf-8")
    assert all(f">{name}<" in text for name in segmentation.RECIPES)
    assert [row[0] for row in table(site, "docs/models.html")[1:]] == [
        f"ConvNeXt{name}" for name in map(_title, VARIANTS)
    ]
    of_files = [each for each in tables(site, "weights/README.html") if each[0][-1] == "file"]
    weights = [row for each in of_files for row in each[1:]]
    assert sorted((row[0], row[1], row[-1]) for row in weights) == sorted(
        (row.model, row.tag, row.file) for row in CATALOG
    )
    text = (site / "docs/models.html").read_text("utf-8")
    assert all(f">{tag}<" in text for tag in TAGS)
    text = (site / "docs/scaling.html").read_text("utf-8")
    assert all(f">{device}<" in text for device in DEVICES)


def _title(name):
    words = name.replace("convnextv2", "V2").removeprefix("convnext_").split("_")
    return (
        "".join(
            {"xlarge": "XLarge", "xxlarge": "XXLarge", "mlp": "MLP", "ols": "OLS"}.get(
                word, word.title()
            )
            for word in words
        )
        + name
    )


def test_every_command_is_told(pages):
    (page,) = (page for page in pages if page.path.name == "command_line.html")
    commands = {f"keras-convnext-{command.name}" for command in app.registered_commands}
    assert len(commands) > 12
    assert commands <= set(page.ids)


def test_every_example_is_a_page(site):
    examples = {path.stem for path in (ROOT / "examples").iterdir() if path.suffix != ".zip"}
    made = {path.stem for path in (site / "examples").glob("*.html")}
    assert made == examples - {"photos", "output"}


def test_the_tests_that_are_named_are_there():
    text = "".join(path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md"))
    named = re.findall(r"`((?:tests|benchmarks)/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) > 30
    for path, test in named:
        assert not test or f"def {test}(" in (ROOT / path).read_text("utf-8"), (path, test)
        assert (ROOT / path).is_file(), path
