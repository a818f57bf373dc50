"""Pages of hostile text: it shows itself and does nothing."""

from html.parser import HTMLParser

import pytest

from memsvc.inspector.rendering import Templates
from memsvc.inspector.shapes import BookmarkView, Hit, Passage, SearchView, SessionRow, Token

HOSTILE = (
    "<script>window.pwned = 1</script>",
    "\"><img src=x onerror='window.pwned = 1'>",
    "</bdi></div><iframe src=javascript:alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "\0\x1b[2J\x07",
    "\u202egnorw\u202c",
    "\u05d0\u05d1\u05d2",
    "y" * 1_000_000,
)
# What pages of these views are made of, and no more.
TAGS = frozenset(
    "html head meta title link script body a header svg path g circle rect span nav button main div p h1 h2 h3 dl dt "
    "dd form input kbd section bdi mark ul li".split()
)


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes a tag."""
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        """Notes that it ended."""
        self._inside = ""

    def handle_data(self, data: str) -> None:
        """Notes text, and what stands in a script."""
        (self.scripts if self._inside == "script" else self.words).append(data)


def hostile_view() -> BookmarkView:
    """A bookmark in the middle of hostile text, in a session of a hostile name."""
    tokens = [Token(at, at, text) for at, text in enumerate(HOSTILE)]
    session = SessionRow(HOSTILE[0], 8, 8, 1, 1, 0, 0, 0, HOSTILE[1], 0, HOSTILE[2], 0, 0, "", "id", [], [])
    return BookmarkView(session, 0, 1, 0, 0, 0.0, False, Passage(0, 8, tokens), [], [], [])


@pytest.fixture
def page() -> str:
    """The hostile page."""
    answer = Templates([], with_login=False).page("bookmark.html", "/sessions/x/bookmarks/0", hostile_view())
    return bytes(answer.body).decode()


def test_hostile_text_becomes_no_markup(page: str) -> None:
    """Proves that a page of hostile text has the tags of its template, no handler, and no script of its own."""
    read = Page(page)
    assert read.tags <= TAGS
    assert [name for name in read.attributes if name.startswith("on") or name == "style"] == []
    assert "".join(read.scripts).strip() == ""
    assert "{{ 7 * 7 }}" in "".join(read.words)


def test_hostile_text_has_no_control_left(page: str) -> None:
    """Proves that controls and direction changes are gone from the page, and that a right-to-left word is not."""
    assert not {"\0", "\x1b", "\x07", "\u202e", "\u202c"} & set(page)
    assert "\u05d0\u05d1\u05d2" in page


def test_a_line_of_a_megabyte_makes_no_page_of_one(page: str) -> None:
    """Proves that what is long is cut on the page."""
    assert len(page) < 20_000


def test_a_query_is_shown_and_not_obeyed() -> None:
    """Proves the same of what a reader types."""
    view = SearchView(hostile_view().session, HOSTILE[1], [Hit(0, None, Passage(0, 0, []))], False, HOSTILE[0])
    answer = Templates([], with_login=True).page("search.html", "/sessions/x/search", view)
    read = Page(bytes(answer.body).decode())
    assert read.tags <= TAGS
    assert HOSTILE[1] in "".join(read.words)


def test_a_page_without_its_assets_says_so_in_one_line() -> None:
    """Proves that what is lacking is named with the command that fetches it."""
    answer = Templates(["sigma.js"], with_login=False).page("bookmark.html", "/", hostile_view())
    (line,) = [one for one in bytes(answer.body).decode().splitlines() if "sigma.js" in one]
    assert "run python -m memsvc.inspector.assets" in line
