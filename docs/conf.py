"""Settings of Sphinx: the pages are Markdown, and so are the docstrings."""

import re
import sys
import textwrap
from types import ModuleType, SimpleNamespace

import keras
from docutils import nodes
from sphinx.util import inspect

import keras_convnext
from keras_convnext.builders import BUILDERS

project = "keras_convnext"
release = version = keras_convnext.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["attrs_block"]
myst_heading_anchors = 3
smartquotes = False  # readers copy quoted text
highlight_language = "text"  # of code without a language
pygments_style, pygments_dark_style = "friendly", "github-dark"

autodoc_member_order = "bysource"
maximum_signature_line_length = 72  # longer ones have one argument a line
autodoc_typehints = "none"  # Keras' docstrings begin with the type
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"keras_convnext {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = html_show_copyright = False
toc_object_entries_show_parents = "hide"


# The site is built without keras-hub, so our classes inherit from Keras' here.
hub = sys.modules["keras_hub"] = ModuleType("keras_hub")
hub.models = SimpleNamespace(FeaturePyramidBackbone=keras.Model, ImageClassifier=keras.Model)

# These take the arguments of ConvNeXtTiny, which the reference lists once.
SAME_ARGUMENTS = {builder.__name__ for builder in BUILDERS.values()} - {"ConvNeXtTiny"}


def written_once(app, what, name, obj, options, lines):
    """Drops the parts of a docstring that are elsewhere in the reference."""
    package, _, own = name.rpartition(".")
    if own in SAME_ARGUMENTS:
        del lines[lines.index("Args:") :]
    elif package == "keras_convnext" and own in keras_convnext.preprocessing.__all__:
        lines[:] = [f"The same as `keras_convnext.preprocessing.{own}`."]


MARKDOWN = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$|`([^`]+)`|^(?= *- )", re.M | re.S)


def as_restructured_text(app, what, name, obj, options, lines):
    """Converts code in a docstring from Markdown to reStructuredText, which autodoc reads."""

    def converted(match):
        indent, language, code, inline = match.groups()
        if code:
            return f"{indent}.. code-block:: {language}\n\n{textwrap.indent(code, '    ')}"
        if inline:
            plural = match.string[match.end() : match.end() + 1].isalpha()
            return f"``{' '.join(inline.split())}``" + "\\ " * plural
        return "\n"  # before an item of a list

    lines[:] = MARKDOWN.sub(converted, "\n".join(lines)).split("\n")


def colon_after_name(app, doctree, name):
    """Puts a colon after the name of an argument, as in the docstrings; Sphinx puts a dash."""
    for field in doctree.findall(nodes.field_body):
        for text in [text for text in field.findall(nodes.Text) if text.startswith(" -- ")]:
            text.parent.replace(text, nodes.Text(text.replace(" -- ", ": ", 1)))


def signature_to_read(app, what, name, obj, options, signature, returned):
    """Replaces signatures that are hard to read.

    A Keras layer gets that of its constructor rather than of `__new__`, which all layers share.
    Functions are given by name. Tuples get none: they are results, and their fields are listed.
    """
    if what == "class" and issubclass(obj, tuple):
        return "", None
    if what == "class" and signature == "(*args, **kwargs)":
        own = inspect.signature(obj.__init__, bound_method=True)
        signature = inspect.stringify_signature(own, show_annotation=False)
    if name.rpartition(".")[2] in SAME_ARGUMENTS:
        signature = "(...)"
    return signature and (re.sub(r"<built-in function (\w+)>", r"\1", signature), returned)


def setup(app):
    """Registers the hooks; those of docstrings run before napoleon's."""
    app.connect("autodoc-process-docstring", written_once, priority=300)
    app.connect("autodoc-process-docstring", as_restructured_text, priority=400)
    app.connect("autodoc-process-signature", signature_to_read)
    app.connect("doctree-resolved", colon_after_name)
