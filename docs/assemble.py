"""Gathers the sources of the site in one folder, under their paths in the repository.

These are the README, the pages of this folder, the examples and a few others, and everything they
link to, so that the same links work on the site and in the repository. Notebooks and scripts become
pages, too. A line `<!-- name -->` is replaced by the result of the function `name` in `tables.py`.
The search words in `searched.py` are added below the title of their page.
"""

import re
import shutil
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

import tables
from notebooks import page_of_notebook
from searched import WORDS

ROOT = Path(__file__).parent.parent
BEGIN = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "benchmarks/results/speed.md",
    "weights/README.md",
)
PATTERNS = (
    "docs/*.md",
    "docs/reference/*.md",
    "examples/*.ipynb",
    "examples/*.md",
    "examples/*.py",
)
CONTENTS = "docs/index.md"  # appended to the first page
# Pages with another name on the site.
PAGES = {"README.md": "index.md", "keras_convnext/classification/recipes.py": "docs/recipes.md"}
IN_ONE_LINE = re.compile(r"(?<=\d), (?=\d)")  # numbers in the cell of a table
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")


def assemble(folder):
    """Fills a folder with the sources of the site."""
    found = [path for pattern in PATTERNS for path in sorted(ROOT.glob(pattern))]
    begin = [*BEGIN, *(str(path.relative_to(ROOT)) for path in found)]
    waiting, added = list(begin), {CONTENTS, *PAGES} - set(BEGIN)
    while waiting:
        place = waiting.pop()
        if place not in added and (ROOT / place).is_file():
            added.add(place)
            text = _add(folder, place, is_linked_only=place not in begin)
            waiting += [_target(place, link) for link in LINK.findall(text)]


def _add(folder, place, is_linked_only):
    """Adds a file of the repository to the site; returns the text in which to look for links."""
    path, page = ROOT / place, _page(place)
    (folder / page).parent.mkdir(parents=True, exist_ok=True)
    # Pages that are only linked to may be missing from the table of contents.
    head = "---\norphan: true\n---\n\n" if is_linked_only else ""
    if path.suffix == ".md":
        text = path.read_text("utf-8")
        end = (ROOT / CONTENTS).read_text("utf-8") if place == "README.md" else ""
        _write(folder, page, head + text + end, place)
        return text
    if path.suffix == ".ipynb":
        text, pictures = page_of_notebook(path)
        _write(folder, page, text, place)
        for name, picture in pictures.items():
            (folder / page).with_name(name).write_bytes(picture)
        shutil.copy(path, folder / place)
        return text
    if path.suffix == ".py":
        text = f"{head}# {path.name}\n\n```python\n{path.read_text('utf-8')}```\n"
        (folder / page).write_text(text, "utf-8")
        return ""
    shutil.copy(path, folder / place)
    return ""


def _write(folder, page, text, place):
    text = re.sub(r"^<!-- (\w+) -->$", lambda name: getattr(tables, name[1])(), text, flags=re.M)
    if place in WORDS:
        words = ", ".join(f"!{word}" for word in WORDS[place])
        text = re.sub(r"^(# .*\n)", rf"\1\n```{{index}} {words}\n```\n", text, count=1, flags=re.M)
    text = LINK.sub(lambda link: _link(place, link[1]), text)
    text = re.sub(r"^\|.*", lambda row: IN_ONE_LINE.sub(",\u00a0", row[0]), text, flags=re.M)
    (folder / page).write_text(text, "utf-8")


def _link(place, link):
    """Returns a link as it is on the site; what is no path of a file, such as code, stays."""
    target = _target(place, link)
    if not (ROOT / target).is_file():
        return link
    return relpath(_page(target), PurePosixPath(place).parent)


def _page(place):
    return PAGES.get(place) or re.sub(r"\.(ipynb|py)$", ".md", place)


def _target(place, link):
    return normpath(PurePosixPath(place).parent / link)
