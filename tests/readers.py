"""Read a message before and after as others do, and say what they see differ: the independent parties of promise 4.

The standard library reads the tree, BeautifulSoup and Lexbor (a browser's parser) read the pages. Nothing here shares
code with the injector, and nothing is forgiven that the documentation does not name: whoever calls these functions
learns what was tracked, or meets an `AssertionError` that shows the first difference.
"""

import re
from collections.abc import Callable, Iterator
from email import message_from_string
from email.message import Message
from typing import Protocol

import msgspec

from injector.tokens import Keyring, Purpose, TokenError
from tests.leaves import Leaf, destination_of, leaves, text_of
from tests.page_tokens import End, Tag, Text, Token, browser_tokens, merged, soup_tokens
from tests.splices import ADDED, REMOVED


class Urls(Protocol):
    """Tell our URLs from everybody else's."""

    def destination(self, url: str) -> str | None:
        """Return where a tracked link of ours leads; None: it is none of ours."""

    def is_pixel(self, url: str) -> bool:
        """Tell whether this is the address of a pixel of ours."""


class SignedUrls:
    """The URLs that a keyring has signed."""

    def __init__(self, keyring: Keyring, public_url: str) -> None:
        self._keyring = keyring
        self._click = f"{public_url}/track/c/"
        self._open = f"{public_url}/track/o/"

    def destination(self, url: str) -> str | None:
        """Return where a tracked link of ours leads; None: it is none of ours."""
        if not url.startswith(self._click):
            return None
        try:
            return self._keyring.verify(Purpose.CLICK, url.removeprefix(self._click)).url
        except TokenError:
            return None

    def is_pixel(self, url: str) -> bool:
        """Tell whether this is the address of a pixel of ours."""
        if not url.startswith(self._open):
            return False
        try:
            self._keyring.verify(Purpose.OPEN, url.removeprefix(self._open))
        except TokenError:
            return False
        return True


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader sees differ between two pages, or two messages."""

    #: The destinations of the links that were wrapped, in the order of the page.
    links: tuple[str, ...] = ()
    pixels: int = 0
    #: Links whose sender excepted them: the mark is gone, the link is not wrapped.
    excepted: int = 0

    def __add__(self, other: "Seen") -> "Seen":
        return Seen(
            links=self.links + other.links,
            pixels=self.pixels + other.pixels,
            excepted=self.excepted + other.excepted,
        )


#: What the documentation calls an opt-out, with the value where one must stand beside it.
OPT_OUTS: dict[str, str | None] = {
    "data-no-track": None,
    "data-ignore": None,
    "data-pm-no-track": None,
    "data-skip-click": None,
    "mautic:disable-tracking": None,
    "ses:no-track": None,
    "clicktracking": "off",
    "disable-tracking": "true",
    "data-msys-clicktrack": "0",
}
_LINKING = re.compile(r"(?:a|area|[vw]:.+)\Z", re.DOTALL)
_NOTRACK = re.compile(r"\A(\s*https?)\+notrack:(?=//)", re.IGNORECASE)
#: What Outlook reads inside a comment is a page to it.
_CONDITIONAL = re.compile(r"(\s*\[if[^\]>]*\]>)(.*)(<!\[endif\])\Z", re.IGNORECASE | re.DOTALL)
#: The elements that a browser opens again by itself for whatever stands behind their misnested end (HTML 13.2.4.3).
_FORMATTING = frozenset(
    ("a", "b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u")
)


def readers_agree(before: bytes, after: bytes, urls: Urls) -> Seen:
    """Return what differs between a message and its rewritten form, on which every reader agrees.

    The tree is the same, untouched leaves are identical, and each touched leaf is a page that the reader sees, in which
    only wrapped hrefs, removed opt-out marks and at most one pixel differ.
    """
    total = Seen()
    for came, gone in changed_leaves(before, after):
        assert came.kind == gone.kind == "text/html", f"a part of type {gone.kind} was changed"
        assert not came.attached, "an attachment was changed"
        was, became = text_of(came), text_of(gone)
        by_soup = soup_sees(was, became, urls)
        by_browser = browser_sees(was, became, urls, codec=came.codec)
        assert by_soup.links == by_browser.links
        assert by_soup == by_browser
        total += by_soup
    assert total.pixels <= 1, "more than one pixel"
    return total


def changed_leaves(before: bytes, after: bytes) -> list[tuple[Leaf, Leaf]]:
    """Return the leaves that differ, in pairs; the standard library sees the same tree around them.

    Types, boundaries, preambles, epilogues, defects and the fields of every part are equal, but for the fields of the
    message that the documentation names and the label of a leaf that had to be folded.
    """
    _same_tree(_parsed(before), _parsed(after), top=True)
    pairs = list(zip(leaves(before), leaves(after), strict=True))
    for came, gone in pairs:
        assert (came.raw == gone.raw) or came.decoded != gone.decoded or came.encoding != gone.encoding
    return [(came, gone) for came, gone in pairs if came != gone]


def soup_sees(before: str, after: str, urls: Urls) -> Seen:
    """Return what BeautifulSoup (html.parser, the first of several attributes counts) sees differ between two pages.

    Character references in attributes are its weak point (`&copy=2`), so it is not asked where a link leads.
    """
    return _Comparison(urls, soup_tokens).of(before, after)


def browser_sees(before: str, after: str, urls: Urls, *, codec: str = "utf-8") -> Seen:
    """Return what Lexbor, a parser that follows the WHATWG tree construction, sees differ between two pages.

    Each wrapped href leads where the one that it replaced led a browser; *codec* is that of the page.
    """
    return _Comparison(urls, browser_tokens, codec=codec).of(before, after)


def _parsed(content: bytes) -> "Message[str, str]":
    # In latin-1 every octet is one character, and none of them is made up.
    return message_from_string(content.decode("latin-1"))


def _same_tree(before: "Message[str, str]", after: "Message[str, str]", *, top: bool) -> None:
    assert before.get_content_type() == after.get_content_type()
    assert before.get_boundary() == after.get_boundary()
    assert (before.preamble, before.epilogue) == (after.preamble, after.epilogue)
    assert [type(defect) for defect in before.defects] == [type(defect) for defect in after.defects]
    assert _fields(before, top=top) == _fields(after, top=top)
    assert before.is_multipart() == after.is_multipart()
    if before.is_multipart():
        for came, gone in zip(_children(before), _children(after), strict=True):
            _same_tree(came, gone, top=False)


def _children(message: "Message[str, str]") -> "list[Message[str, str]]":
    children = message.get_payload()
    assert isinstance(children, list)
    return [child for child in children if isinstance(child, Message)]


def _fields(message: "Message[str, str]", *, top: bool) -> list[tuple[str, str]]:
    # The label of a leaf may change where it is folded; the leaves are compared by what they decode to.
    ours = {"content-transfer-encoding"} | ({name.decode() for name in ADDED | REMOVED} if top else set())
    return [(name, value) for name, value in message.raw_items() if name.lower() not in ours]


class _Comparison:
    """One reader's view of two pages."""

    def __init__(self, urls: Urls, tokens: Callable[[str], list[Token]], *, codec: str | None = None) -> None:
        self._urls = urls
        self._tokens = tokens
        #: Of the page; None: this reader is not asked where a link leads.
        self._codec = codec

    def of(self, before: str, after: str) -> Seen:
        """Return what differs; anything that is not ours is an error."""
        came, gone = self._tokens(before), self._tokens(after)
        if any(self._is_pixel(token) for token in came):
            # A message that passes twice has its pixel already.
            return self._compared(came, gone)
        candidates = list(self._without_pixel(gone))
        for candidate in candidates[:-1]:
            if len(candidate) == len(came):
                return self._compared(came, candidate) + Seen(pixels=1)
        last = candidates[-1]
        return self._compared(came, last) + Seen(pixels=int(last is not gone))

    def _is_pixel(self, token: Token) -> bool:
        return isinstance(token, Tag) and token.name == "img" and self._urls.is_pixel(token.attributes.get("src") or "")

    def _without_pixel(self, tokens: list[Token]) -> Iterator[list[Token]]:
        """Yield *tokens* without the pixel, then also without each element that was opened again for it alone."""
        places = [place for place, token in enumerate(tokens) if self._is_pixel(token)]
        if not places:
            yield tokens
            return
        assert len(places) == 1, "more than one pixel"
        start = places[0]
        pixel = tokens[start]
        assert isinstance(pixel, Tag)
        _is_inconspicuous(pixel)
        end = start + 1
        assert tokens[end] == End(name="img")
        end += 1
        yield merged(tokens[:start] + tokens[end:])
        while start and end < len(tokens):
            opened, closed = tokens[start - 1], tokens[end]
            if not isinstance(opened, Tag) or not isinstance(closed, End) or opened.name not in _FORMATTING:
                return
            start, end = start - 1, end + 1
            yield merged(tokens[:start] + tokens[end:])

    def _compared(self, came: list[Token], gone: list[Token]) -> Seen:
        seen = Seen()
        for was, became in zip(came, gone, strict=False):
            if was == became:
                continue
            if isinstance(was, Tag) and isinstance(became, Tag):
                seen += self._tag(was, became)
            else:
                assert isinstance(was, Text), (was, became)
                assert isinstance(became, Text), (was, became)
                seen += self._inside(was, became)
        assert len(came) == len(gone), (came[len(gone) :], gone[len(came) :])
        return seen

    def _inside(self, was: Text, became: Text) -> Seen:
        """Compare two comments that Outlook reads."""
        assert was.kind == became.kind == "comment", (was, became)
        inner, outer = _CONDITIONAL.match(was.text), _CONDITIONAL.match(became.text)
        assert inner is not None, (was, became)
        assert outer is not None, (was, became)
        assert (inner[1], inner[3]) == (outer[1], outer[3])
        seen = self.of(inner[2], outer[2])
        assert not seen.pixels, "the pixel is where only Outlook sees it"
        return seen

    def _tag(self, was: Tag, became: Tag) -> Seen:
        assert was.name == became.name, (was, became)
        assert _LINKING.match(was.name), (was, became)
        href, url = was.attributes.get("href"), became.attributes.get("href")
        assert href is not None, (was, became)
        assert url is not None, (was, became)
        destination = self._urls.destination(url)
        if destination is None:
            return self._excepted(was, became)
        assert self._urls.destination(href) is None, "a link of ours was wrapped again"
        assert list(was.attributes.items()) == [
            (name, href if name == "href" else value) for name, value in became.attributes.items()
        ], (was, became)
        assert self._codec is None or destination == destination_of(href, self._codec), (href, destination)
        return Seen(links=(destination,))

    def _excepted(self, was: Tag, became: Tag) -> Seen:
        marks = {name: value for name, value in was.attributes.items() if name not in became.attributes}
        for name, value in marks.items():
            wanted = OPT_OUTS[name]
            assert wanted is None or (value or "").lower() == wanted, (name, value)
        expected = {name: value for name, value in was.attributes.items() if name not in marks}
        if not marks:
            plain, count = _NOTRACK.subn(r"\1:", was.attributes["href"] or "")
            assert count == 1, (was, became)
            expected["href"] = plain
        assert list(expected.items()) == list(became.attributes.items()), (was, became)
        return Seen(excepted=1)


def _is_inconspicuous(pixel: Tag) -> None:
    assert list(pixel.attributes) == ["src", "width", "height", "alt", "style"]
    assert (pixel.attributes["width"], pixel.attributes["height"]) == ("1", "1")
    assert not pixel.attributes["alt"]
    style = pixel.attributes["style"] or ""
    assert "position:absolute" in style, "the pixel moves what stands around it"
    assert "display" not in style, "a hidden image is not loaded everywhere"
