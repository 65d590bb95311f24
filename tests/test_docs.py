"""The site: built without a warning, with links that lead somewhere, and with nothing left out."""

import inspect
import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from keras_convnext.cli import app
from keras_convnext.pretrained.catalog import CATALOG, TAGS
from keras_convnext.training.devices import DEVICES
from keras_convnext.training.recipes import RECIPES, Recipe
from keras_convnext.variants import VARIANTS

for package in ("sphinx", "furo", "myst_parser"):
    pytest.importorskip(package)

ROOT = Path(__file__).parent.parent


class Page(HTMLParser):
    """The names that a page can be entered by, where its links go, and what it loads."""

    def __init__(self, path):
        super().__init__()
        self.path, self.names, self.links, self.loaded = path, set(), [], []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.names |= {given.get("id"), given.get("name")}
        if tag in ("a", "img", "link", "script"):
            place = given.get("href") or given.get("src")
            (self.links if tag == "a" else self.loaded).append(place)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "docs", str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return [Page(path) for path in site.rglob("*.html")]


@pytest.fixture(scope="module")
def names(pages):
    return set().union(*(page.names for page in pages if "reference" in page.path.parts))


def table(site, page):
    """The cells of the first table of a page, without what marks them up."""
    html = (site / page).read_text("utf-8")
    rows = re.search("<table.*?</table>", html, re.DOTALL)[0].split("<tr")[1:]
    cells = [re.split("<t[hd][ >]", row)[1:] for row in rows]
    return [[re.sub("^[^<]*>|<[^>]*>", "", cell).strip() for cell in row] for row in cells]


def test_links_lead_somewhere_and_nothing_comes_from_elsewhere(pages):
    page_at = cache(Page)
    wrong, checked = [], 0
    for page in pages:
        for place in filter(None, page.links + page.loaded):
            parts = urlsplit(place)
            if parts.scheme or parts.netloc:
                wrong += [(page.path.name, place)] * (place in page.loaded)
                continue
            checked += 1
            target = (page.path.parent / unquote(parts.path)).resolve()
            target = target if parts.path else page.path
            inside = parts.fragment and target.suffix == ".html" and target.is_file()
            if not target.is_file() or (inside and parts.fragment not in page_at(target).names):
                wrong.append((page.path.name, place))
    assert wrong == []
    assert checked > 1000


def public_names(module):
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if not inspect.ismodule(getattr(module, name))]
    return [
        name
        for name, value in vars(module).items()
        if inspect.isroutine(value) or inspect.isclass(value)
        if value.__module__ == module.__name__ and not name.startswith("_")
    ]


@pytest.mark.parametrize(
    "module", ["", ".training", ".export", ".evaluation", ".preprocessing", ".saliency"]
)
def test_the_reference_has_every_public_name(names, module):
    path = f"keras_convnext{module}"
    public = public_names(import_module(path))
    assert len(public) > 1
    elsewhere = {"keras_convnext.training.Recipe"}  # on the page of the recipes
    assert {f"{path}.{name}" for name in public} - names <= elsewhere


def test_the_tables_have_every_row(site):
    recipes = table(site, "docs/recipes.html")
    assert recipes[0] == ["field", *RECIPES]
    assert [row[0] for row in recipes[1:]] == [name for name in Recipe._fields if name != "name"]
    assert [row[recipes[0].index("imagenet22k")] for row in recipes[2:4]] == ["90", "4096"]
    assert [row[0] for row in table(site, "docs/models.html")[1:]] == [
        f"ConvNeXt{name}" for name in map(_title, VARIANTS)
    ]
    weights = table(site, "weights/README.html")[1:]
    assert sorted((row[0], row[1], row[-1]) for row in weights) == sorted(
        (row.model, row.tag, row.file) for row in CATALOG
    )
    text = (site / "docs/models.html").read_text("utf-8")
    assert all(f">{tag}<" in text for tag in TAGS)
    text = (site / "docs/scaling.html").read_text("utf-8")
    assert all(f">{device}<" in text for device in DEVICES)


def _title(name):
    words = name.removeprefix("convnext_").split("_")
    return "".join("XLarge" if word == "xlarge" else word.title() for word in words) + name


def test_every_command_is_told(pages):
    (page,) = (page for page in pages if page.path.name == "command_line.html")
    commands = {f"keras-convnext-{command.name}" for command in app.registered_commands}
    assert len(commands) == 14
    assert commands <= page.names


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
