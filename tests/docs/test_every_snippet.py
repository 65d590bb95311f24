"""All code on all pages and in all docstrings, without running it: names, arguments, options.

`test_snippets.py`, `test_everyday.py` and `test_hub.py` run what can be run here.
"""

import ast
import inspect
import re
import shlex
import subprocess
import textwrap
from importlib import import_module
from pathlib import Path

import pytest
import typer

from keras_convnext import cli

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *(
        path
        for folder in ("docs", "weights", "examples", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.md"))
        if "output" not in path.parts
    ),
]
MODULES = sorted((ROOT / "keras_convnext").rglob("*.py"))
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)
# "py" needs keras-cv; `test_keras_cv.py` runs it.
LANGUAGES = {"python", "py", "sh", "dockerfile", "text", ""}
LIBRARIES = ("keras", "keras_convnext", "numpy")


def blocks(text, language):
    return [textwrap.dedent(code) for _, kind, code in FENCE.findall(text) if kind == language]


def docstrings(path):
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    nodes = [
        node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, kinds)
    ]
    return "\n".join(filter(None, map(ast.get_docstring, nodes)))


class Names(ast.NodeVisitor):
    """What a snippet calls from our libraries: whether it is there, and takes these arguments."""

    def __init__(self):
        self.known = {"keras_convnext": import_module("keras_convnext")}
        self.looked_up = 0

    def visit_Import(self, node):
        for alias in node.names:
            if alias.name.partition(".")[0] in LIBRARIES and alias.name != "keras_convnext.hub":
                module = import_module(alias.name)
                root = module if alias.asname else import_module(alias.name.partition(".")[0])
                self.known[alias.asname or alias.name.partition(".")[0]] = root

    def visit_ImportFrom(self, node):
        if node.module.partition(".")[0] in LIBRARIES and node.module != "keras_convnext.hub":
            module = import_module(node.module)
            for alias in node.names:
                self.known[alias.asname or alias.name] = getattr(module, alias.name)

    def found(self, node):
        """The object that a dotted name stands for; None if that is only known at run time."""
        if isinstance(node, ast.Name):
            return self.known.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self.found(node.value)
            return None if owner is None else getattr(owner, node.attr)
        return None

    def visit_Assign(self, node):
        self.generic_visit(node)
        for target in node.targets:
            self.known.pop(getattr(target, "id", None), None)

    def visit_Attribute(self, node):
        self.looked_up += self.found(node) is not None
        self.generic_visit(node)

    def visit_Call(self, node):
        function = self.found(node.func)
        if getattr(function, "__module__", "").startswith("keras_convnext"):
            starred = any(isinstance(argument, ast.Starred) for argument in node.args)
            keywords = {keyword.arg: None for keyword in node.keywords if keyword.arg}
            inspect.signature(function).bind_partial(
                *[None] * len(node.args) * (not starred), **keywords
            )
        self.generic_visit(node)


def check(text, place):
    names = Names()
    for number, code in enumerate(blocks(text, "python")):
        try:
            names.visit(ast.parse(code))
        except (SyntaxError, AttributeError, TypeError, ImportError) as error:
            pytest.fail(f"{place}, snippet {number}: {error}\n{code}")
    return names.looked_up


def test_the_python_of_pages_has_names_and_arguments_that_exist():
    found = sum(check(path.read_text("utf-8"), path.relative_to(ROOT)) for path in PAGES)
    assert found > 100


def test_the_python_of_docstrings_has_names_and_arguments_that_exist():
    found = sum(check(docstrings(path), path.relative_to(ROOT)) for path in MODULES)
    assert found > 20


def test_a_fence_names_a_language_that_is_checked():
    kinds = {kind for path in PAGES for _, kind, _ in FENCE.findall(path.read_text("utf-8"))}
    assert kinds <= LANGUAGES, kinds - LANGUAGES


def shell_lines():
    """The page and the words of each command, which a quote may spread over lines."""
    for path in PAGES:
        for code in blocks(path.read_text("utf-8"), "sh"):
            subprocess.run(["bash", "-n"], input=code, text=True, check=True)
            lexer = shlex.shlex(code.replace("\\\n", " "), posix=True, punctuation_chars="&;\n")
            lexer.whitespace = " \t"
            lexer.wordchars += ",:"
            words = []
            for word in [*lexer, ";"]:
                if set(word) <= set("&;\n"):
                    yield path.relative_to(ROOT), words
                    words = []
                else:
                    words.append(word)


def test_the_commands_of_pages_are_well_formed():
    commands = typer.main.get_command(cli.app).commands
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    optional = project.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    extras = set(re.findall(r"^(\w+) = \[", optional, re.M))
    checked = 0
    for path, words in shell_lines():
        line = " ".join(words)
        for extra in re.findall(r"\[([a-z,]+)\]", line) if "pip" in words else ():
            assert set(extra.split(",")) <= extras, (path, line)
        for place, word in enumerate(words):
            if word.split("/")[-1] == "keras-convnext" and len(words) > place + 1:
                name, *arguments = words[place + 1 :]
                if not {name, *arguments} & {"--help", "--version", "--install-completion"}:
                    arguments = [word for word in arguments if word not in ("|", "head", "-1")]
                    commands[name].make_context(name, arguments)
                    checked += 1
            if re.fullmatch(r"(benchmarks|examples|tests|docs)/[\w/.]+", word):
                assert (ROOT / word).exists() or "output" in word, (path, line)
    assert checked > 15
