"""The search finds what people look for by the words that they type."""

import json
import re

import pytest
from chromium import in_chromium

AMONG = 4  # results, the first ones

# What is typed, and the pages that answer it, of which one is enough.
SEARCHES = {
    "freeze": ("docs/everyday",),
    "fine-tune": ("docs/everyday", "examples/fine_tune"),
    "finetune": ("docs/everyday", "examples/fine_tune"),
    "out of memory": ("docs/everyday",),
    "multi-label": ("docs/everyday",),
    "mixed precision": ("docs/everyday",),
    "offline": ("weights/README",),
    "export": ("docs/export",),
    "onnx": ("docs/export", "examples/export_and_serve"),
    "grad-cam": ("docs/everyday", "examples/what_it_looks_at"),
    "embedding": ("docs/everyday", "examples/search"),
    "learning rate": ("docs/everyday", "docs/training"),
    "quantization": ("docs/everyday", "docs/export"),
    "int8": ("docs/export",),
    "lora": ("docs/everyday",),
    "multiple gpus": ("docs/everyday", "docs/scaling"),
    "resume": ("docs/training", "docs/scaling"),
    "pytorch": ("examples/torch_and_back", "docs/files", "docs/coming_from_timm"),
    "timm": ("docs/coming_from_timm",),
    "license": ("index", "weights/README"),
    "proxy": ("weights/README",),
    "normalization": ("docs/everyday",),
    "feature extraction": ("docs/everyday",),
    "object detection": ("docs/keras_hub",),
    "preprocess_input": ("docs/reference/preprocessing",),
    "convnexttiny": ("docs/reference/networks",),
}

SEARCH = """
const found = {};
for (const words of WORDS) {
  const frame = await open("/search.html?q=" + encodeURIComponent(words), 1280);
  const results = () => frame.contentDocument.querySelectorAll("#search-results li > a");
  const summary = () => frame.contentDocument.querySelector(".search-summary");
  while (!summary()?.innerText || !results().length) {
    if (/did not match/.test(summary()?.innerText)) break;
    await new Promise(done => setTimeout(done, 20));
  }
  await new Promise(done => setTimeout(done, 200));
  found[words] = [...results()].map(link => link.getAttribute("href"));
  frame.remove();
}
return found;
"""


def test_a_search_finds_the_page_among_the_first(site, tmp_path):
    script = SEARCH.replace("WORDS", json.dumps(list(SEARCHES)))
    found = in_chromium(site, script, tmp_path)
    for words, pages in SEARCHES.items():
        results = [re.split("[?#]", place)[0] for place in found[words]]
        assert any(f"{page}.html" in results[:AMONG] for page in pages), (words, results[:8])


def test_the_index_of_the_search_has_the_words(site):
    text = (site / "searchindex.js").read_text("utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
    stem = pytest.importorskip("sphinx.search.en").SearchEnglish({}).stem

    def pages_with(term):
        found = {row[0] for row in index["indexentries"].get(term, ())}
        for kind in ("terms", "titleterms"):
            numbers = index[kind].get(stem(term), [])
            found |= {numbers} if isinstance(numbers, int) else set(numbers)
        return {index["docnames"][number] for number in found}

    for words, pages in SEARCHES.items():
        found = filter(None, map(pages_with, re.findall(r"\w+", words)))  # "of" is in none
        answers = set.intersection(*found) | pages_with(words)
        assert answers & set(pages), words
