"""What a page of the built site has to be checked for."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """The ids of a page, what its reference documents, where its links go, and what it loads."""

    def __init__(self, path):
        super().__init__()
        self.path, self.ids, self.documented = path, [], []
        self.links, self.loaded = [], []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids += filter(None, (given.get("id"), given.get("name")))
        if tag == "dt" and "sig" in given.get("class", "").split():
            self.documented.append(given.get("id"))
        if tag in ("a", "img", "link", "script"):
            place = given.get("href") or given.get("src")
            (self.links if tag == "a" else self.loaded).append(place)
