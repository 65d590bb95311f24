"""The site on the screen of a telephone and of a laptop, where there is Chromium."""

import json

import pytest
from chromium import in_chromium

# Of each page, what is cut off at the right, unless it is in a box that scrolls by itself.
WIDTHS = """
const found = {};
for (const page of PAGES) {
  const frame = await open(page, WIDTH);
  const root = frame.contentDocument.documentElement;
  const wide = [...root.querySelectorAll("article *, .mobile-header *")].filter(part => {
    const box = part.getBoundingClientRect();
    return box.width && box.right > WIDTH + 1 && !part.closest("pre, .table-wrapper");
  });
  found[page] = wide.map(part => part.outerHTML.slice(0, 80));
  if (root.scrollWidth > WIDTH) found[page].push(`scrolls to ${root.scrollWidth} px`);
  frame.remove();
}
return found;
"""


@pytest.mark.parametrize("width", [400, 1280])
def test_no_page_scrolls_sideways(site, tmp_path, width):
    names = [f"/{path.relative_to(site)}" for path in sorted(site.rglob("*.html"))]
    script = WIDTHS.replace("PAGES", json.dumps(names)).replace("WIDTH", str(width))
    found = in_chromium(site, script, tmp_path)
    assert found.keys() == set(names)
    assert {name: wide for name, wide in found.items() if wide} == {}
