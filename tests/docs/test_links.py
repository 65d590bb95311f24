"""Links lead somewhere; those to other sites are well-formed, and their hosts are listed."""

import re
from functools import cache
from urllib.parse import unquote, urlsplit

from built_pages import Page

# The hosts that pages link to. Add a new one once you have looked at the link.
HOSTS = {
    "ai.meta.com", "arxiv.org", "commons.wikimedia.org", "dl.fbaipublicfiles.com",
    "download.openmmlab.com", "github.com", "huggingface.co", "keepachangelog.com", "keras.io",
    "semver.org", "www.tensorflow.org",
    "pradyunsg.me", "www.sphinx-doc.org",  # in the footer of each page
}  # fmt: skip
WELL_FORMED = re.compile(r"https://[a-z0-9-]+(\.[a-z0-9-]+)+(/[^\s<>\"\\]*)?")


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
            if not target.is_file() or (inside and parts.fragment not in page_at(target).ids):
                wrong.append((page.path.name, place))
    assert wrong == []
    assert checked > 1000


def test_links_to_other_sites_are_well_formed(pages):
    places = {place for page in pages for place in page.links if place}
    links = sorted(place for place in places if urlsplit(place).scheme)
    assert len(links) > 20
    assert [link for link in links if not WELL_FORMED.fullmatch(link)] == []
    assert [link for link in links if urlsplit(link).hostname not in HOSTS] == []
