"""The page of the roadmap shows the code, the drawings and the numbers of the package."""

import re
import textwrap
from pathlib import Path

import pytest

from keras_convnext.roadmap import REGIMES, STEPS, draw, parts

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "roadmap.md").read_text("utf-8")
CODE = "\n".join(
    textwrap.dedent(line) for path in sorted((ROOT / "keras_convnext" / "roadmap").glob("*.py"))
    for line in path.read_text("utf-8").splitlines()
)  # fmt: skip
SECTIONS = {
    name: section
    for section in re.split(r"^## ", PAGE, flags=re.M)
    if (name := re.search(r"\A.*\n\n`(\w+)`: ", section)) and (name := name[1])
}
ASIDE = ("kernel_5", "kernel_9", "kernel_11")  # in the section of kernel_7


def numbers(name):
    """The line of numbers of a step."""
    counted, reported = parts(name), [REGIMES[each].figures_of(STEPS[name]) for each in REGIMES]
    small, large, _ = reported
    line = f"`{name}`: {sum(part.parameters for part in counted):,} parameters, "
    line += f"{sum(part.macs for part in counted) / 1e9:.2f} GMACs."
    if small.top1 is None:
        return line
    digits = 1 if name == "convnext" else 2
    deviation = "" if small.deviation is None else f" \u00b1 {small.deviation:.2f}"
    line += f" Top-1: {small.top1:.{digits}f}{deviation} %; "
    return line + f"from ResNet-200: {large.top1:.{digits}f} %."


def test_every_step_has_its_section_in_order():
    assert list(SECTIONS) == [name for name in STEPS if name not in ASIDE]


@pytest.mark.parametrize("name", STEPS)
def test_the_numbers_are_those_of_the_package(name):
    section = SECTIONS["kernel_7" if name in ASIDE else name]
    assert re.search(rf"^(- )?{re.escape(numbers(name))}$", section, re.M)


@pytest.mark.parametrize("name", SECTIONS)
def test_the_code_and_the_drawing_are_those_of_the_package(name):
    section = SECTIONS[name]
    snippets = re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S)
    assert snippets
    for snippet in snippets:
        lines = "\n".join(textwrap.dedent(line) for line in snippet.splitlines())
        assert f"\n{lines}\n" in CODE, snippet
    assert re.findall(r"^```text\n(.*?)\n```$", section, re.M | re.S) == [draw(name)]
