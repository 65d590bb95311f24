"""How Sphinx builds the site: of pages in Markdown, and of docstrings in it too."""

import re

from docutils import nodes
from sphinx.util import inspect

import keras_convnext

project = "keras_convnext"
release = version = keras_convnext.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["attrs_block"]
myst_heading_anchors = 3
smartquotes = False  # what is quoted here is to be typed
pygments_style, pygments_dark_style = "friendly", "github-dark"

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # Keras' docstrings begin with the type
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"keras_convnext {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = html_show_copyright = False
toc_object_entries_show_parents = "hide"


def as_restructured_text(app, what, name, obj, options, lines):
    """Docstrings are Markdown, autodoc reads reStructuredText: code is what differs."""
    text, code = [], False
    for line in lines:
        if fence := re.fullmatch(r"( *)```(\w*)", line):
            code = not code
            text += [f"{fence[1]}.. code-block:: {fence[2]}", ""] if code else [""]
        elif code:
            text.append(f"    {line}")
        else:
            item = [""] if line.lstrip().startswith("- ") else []
            text += [*item, re.sub(r"`([^`]+)`", r"``\1``", line)]
    lines[:] = text


def colon_after_name(app, doctree, name):
    """`name: type. What.`, as the docstrings have it, where Sphinx puts a dash."""
    for field in doctree.findall(nodes.field_body):
        for text in [text for text in field.findall(nodes.Text) if text.startswith(" -- ")]:
            text.parent.replace(text, nodes.Text(text.replace(" -- ", ": ", 1)))


def signature_to_read(app, what, name, obj, options, signature, returned):
    """What makes a Keras layer, where autodoc sees the `__new__` of all; and functions by name."""
    if what == "class" and signature == "(*args, **kwargs)":
        own = inspect.signature(obj.__init__, bound_method=True)
        signature = inspect.stringify_signature(own, show_annotation=False)
    return signature and (re.sub(r"<built-in function (\w+)>", r"\1", signature), returned)


def setup(app):
    """Hooks these in; docstrings before napoleon reads their sections."""
    app.connect("autodoc-process-docstring", as_restructured_text, priority=400)
    app.connect("autodoc-process-signature", signature_to_read)
    app.connect("doctree-resolved", colon_after_name)
