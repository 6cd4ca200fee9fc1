"""The HTML scanner against two oracles: the standard's state machine, written out, and BeautifulSoup on tame input."""

import html as stdlib_html
import re
from collections.abc import Iterator

import pytest
from bs4 import BeautifulSoup
from hypothesis import example, given
from hypothesis import strategies as st

from injector.html import scan
from injector.links import attribute, judge

PUBLIC = "https://t.example.com"
SPACE = frozenset(b" \t\n\f\r")
RAW = frozenset(
    [b"script", b"style", b"textarea", b"title", b"xmp", b"noscript", b"iframe", b"noembed", b"noframes", b"plaintext"]
)


class Tokeniser:
    """The tokeniser of WHATWG HTML 13.2.5, one octet and one state at a time, as plainly as it can be put.

    It knows of the standard what the scanner claims to follow, and the three things that the scanner adds: content of
    conditional comments, CDATA everywhere, and `noscript` as text. It is slow and quadratic, and shares no code.
    """

    def __init__(self, html: bytes) -> None:
        self.html = html
        self.hrefs: list[tuple[int, int]] = []
        self.body_end: int | None = None

    def run(self, at: int, end: int, *, commented: bool) -> int:
        while at < end:
            after = self.token(at, end, commented=commented)
            if after is None:
                return at
            at = after
        return end

    def token(self, at: int, end: int, *, commented: bool) -> int | None:
        rest = self.html[at:end]
        if re.match(rb"<[A-Za-z]", rest):
            return self.start_tag(at, end)
        if re.match(rb"</[A-Za-z]", rest):
            name, _, after = self.tag(at + 2, end)
            if name == b"body" and after is not None and not commented:
                self.body_end = at
            return after
        if rest.startswith(b"</>"):
            return at + 3
        if rest.startswith(b"<!--"):
            return self.comment(at, end, commented=commented)
        if rest.startswith(b"<![CDATA[") and b"]]>" in rest:
            return at + rest.index(b"]]>") + 3
        if rest.startswith((b"<!", b"<?")) or (rest.startswith(b"</") and len(rest) > 2):
            return at + rest.index(b">") + 1 if b">" in rest else None
        return None if rest == b"</" else at + 1

    def start_tag(self, at: int, end: int) -> int | None:
        name, attributes, after = self.tag(at + 1, end)
        if after is None:
            return None
        if name in {b"a", b"area"} or name.startswith((b"v:", b"w:")):
            values = [value for key, value in attributes if key == b"href"]
            if values and values[0] is not None:
                self.hrefs.append(values[0])
        if name not in RAW:
            return after
        for closing in range(after, end):
            rest = self.html[closing:end].lower()
            if rest.startswith(b"</" + name) and rest[len(name) + 2 : len(name) + 3] in {
                b" ",
                b"\t",
                b"\n",
                b"\f",
                b"\r",
                b"/",
                b">",
            }:
                before = self.html[after:closing].lower()
                if name == b"plaintext" or (name == b"script" and self.in_nested_script(before)):
                    continue
                return closing
        return None

    @staticmethod
    def in_nested_script(text: bytes) -> bool:
        """Whether a script that reads *text* so far is double-escaped, so that `</script>` does not end it."""
        state, dashes, at = "data", 0, 0
        while at < len(text):
            opening = re.match(rb"<(/?)script[ \t\n\f\r/>]", text[at:])
            if text[at:].startswith(b"<!--") and state == "data":
                state, dashes, at = "escaped", 2, at + 4
                continue
            if text[at : at + 1] == b"-":
                dashes += 1
            elif text[at : at + 1] == b">" and dashes >= 2:
                state = "data"
            elif opening and state != "data":
                state = "escaped" if opening[1] else "nested"
            if text[at : at + 1] != b"-":
                dashes = 0
            at += 1
        return state == "nested"

    def comment(self, at: int, end: int, *, commented: bool) -> int | None:
        rest = self.html[at:end]
        for abrupt in (b"<!-->", b"<!--->"):
            if rest.startswith(abrupt):
                return at + len(abrupt)
        for close in range(4, len(rest)):
            if rest[close:].startswith((b"-->", b"--!>")):
                condition = re.match(rb"<!--[ \t\n\f\r]*\[if[^a-z0-9][^\]>]+\]>", rest[:close], re.IGNORECASE)
                if condition and not commented:
                    self.run(at + condition.end(), at + close, commented=True)
                return at + close + (3 if rest[close:].startswith(b"-->") else 4)
        return None

    def tag(self, at: int, end: int) -> tuple[bytes, list[tuple[bytes, tuple[int, int] | None]], int | None]:
        start = at
        while at < end and self.html[at] not in SPACE and self.html[at] not in b"/>":
            at += 1
        name = self.html[start:at].lower()
        attributes: list[tuple[bytes, tuple[int, int] | None]] = []
        while at < end:
            if self.html[at] in SPACE or self.html[at] == ord("/"):
                at += 1
            elif self.html[at] == ord(">"):
                return name, attributes, at + 1
            else:
                key, value, after = self.attribute(at, end)
                if after is None:
                    break
                attributes.append((key, value))
                at = after
        return name, attributes, None

    def attribute(self, at: int, end: int) -> tuple[bytes, tuple[int, int] | None, int | None]:
        start = at
        at += 1  # an equals sign here begins a name
        while at < end and self.html[at] not in SPACE and self.html[at] not in b"/>=":
            at += 1
        name, named = self.html[start:at].lower(), at
        while at < end and self.html[at] in SPACE:
            at += 1
        if at >= end or self.html[at] != ord("="):
            return name, None, named
        at += 1
        while at < end and self.html[at] in SPACE:
            at += 1
        if at >= end or self.html[at] == ord(">"):
            return name, None, at
        start = at
        if self.html[at] in b"\"'":
            close = self.html.find(self.html[at : at + 1], at + 1, end)
            return name, (start, close + 1), None if close < 0 else close + 1
        while at < end and self.html[at] not in SPACE and self.html[at] != ord(">"):
            at += 1
        return name, (start, at), at


PIECES = [
    b"<a ", b"<A\n", b"<a", b"<area ", b"<v:x ", b"<p ", b"<p", b"<td class=x ", b"</a", b"</p>", b"<br>", b"<b>", b"<",
    b"</", b">", b"/>", b'href="x"', b"href='y'", b"href=z", b"href", b" href = ", b'id="q" ', b"id=q ", b"data-href=1",
    b"=", b'"', b"'", b" ", b"\r\n", b"/", b"<!--", b"-->", b"--!>", b"-", b"!", b"<!--[if mso]>", b"<![endif]-->",
    b"<!--<![endif]-->", b"<![if !mso]>", b"<!--[if !mso]><!-->", b"<![CDATA[", b"]]>", b"<?xml ", b"<!doctype html>",
    b"<script>", b"</script>", b"<script", b"<style>", b"</style>", b"<STYLE ", b"<title>", b"</title", b"<textarea>",
    b"</textarea>", b"<plaintext>", b"<noscript>", b"</noscript>", b"<xmp>", b"</xmp>", b"<body>", b"</body>",
    b"</BODY ", b"text", b"\x00", b"\xff", b"&amp;", b"t", b"x:y", b"data-no-track", b"clicktracking=off ",
]  # fmt: skip

SOUP = st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join)


@given(SOUP)
@example(b'<p ="foo= " bar><a href="x">')
@example(b'<p x" y="> <a href=q> <" z">')
@example(b"<script><!--<script></script></script>")
@example(b"<script><!--><script></script><a href=x>")
@example(b"<!--[if mso]><![CDATA[--><a href=x>]]>")
def test_the_scanner_follows_the_standard(html: bytes) -> None:
    """Invariant: on any soup of tags the scanner finds what the standard's state machine finds, and nothing else."""
    oracle = Tokeniser(html)
    end = oracle.run(0, len(html), commented=False)
    found = scan(html)
    assert [(href.start, href.end) for href in found.hrefs] == oracle.hrefs
    assert found.pixel_at == (end if oracle.body_end is None else oracle.body_end)


@given(SOUP | st.binary(max_size=200))
def test_spans_lie_inside_and_apart(html: bytes) -> None:
    """Invariant: scan() never raises; spans are in order, within the input, and hold the values they claim."""
    found = scan(html)
    last = 0
    for href in found.hrefs:
        assert last <= href.start < href.end <= len(html)
        span = html[href.start : href.end]
        assert href.value == (span[1:-1] if span[:1] in {b'"', b"'"} else span)
        last = href.end
        if href.opt_out is not None:
            start, end = href.opt_out
            assert 0 < start < end <= len(html)
            assert end <= href.start or start >= href.end
    assert 0 <= found.pixel_at <= len(html)


def edits(html: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield the splices that wrap a part, in order: every href, opted out or not, and the pixel."""
    found = scan(html)
    marks = [(href.start, href.end, attribute(f"{PUBLIC}/track/c/{at}")) for at, href in enumerate(found.hrefs)]
    yield from sorted([*marks, (found.pixel_at, found.pixel_at, b'<img src="pixel" alt="">')])


@given(SOUP)
def test_undoing_the_splices_gives_the_input(html: bytes) -> None:
    """Invariant: outside its splices the output is the input; taking them back gives the input to the octet."""
    out, undone, at, shift = b"", b"", 0, 0
    places = []
    for start, end, new in edits(html):
        out += html[at:start] + new
        places.append((start + shift, len(new), html[start:end]))
        shift += len(new) - (end - start)
        at = end
    out += html[at:]
    at = 0
    for place, length, old in places:
        undone += out[at:place] + old
        at = place + length
    assert undone + out[at:] == html


@given(SOUP)
def test_a_wrapped_part_has_the_same_links_again(html: bytes) -> None:
    """Invariant: wrapping changes no structure: the same links stand in the output, each ours, none wrapped again."""
    out, at = b"", 0
    marks = [(href.start, href.end) for href in scan(html).hrefs]
    for number, (start, end) in enumerate(marks):
        out += html[at:start] + attribute(f"{PUBLIC}/track/c/{number}?a&b")
        at = end
    again = scan(out + html[at:]).hrefs
    assert [href.value for href in again] == [
        f"{PUBLIC}/track/c/{number}?a&amp;b".encode() for number in range(len(marks))
    ]
    verdicts = [judge(href.value, charset="utf-8", skip=(), public_url=PUBLIC) for href in again]
    assert all(verdict.reason == "own_link" for verdict in verdicts)


# Tame: what every parser reads alike. No duplicate attributes and no bare ampersands, where html.parser errs.
NAMES = st.sampled_from(["class", "id", "title", "data-href", "style", "hrefs", "target"])
TEXT = st.text(st.sampled_from("abc xyz0189>/.:;-=éж"), max_size=12)
URLS = st.sampled_from(["https://x.test/", "http://y.test/a?b=1", "#top", "mailto:a@b.test", "/rel", "x"])


@st.composite
def tags(draw: st.DrawFn) -> str:
    """Draw an opening tag with quoted attributes, some of them hrefs."""
    names = draw(st.lists(NAMES, unique=True, max_size=3))
    attributes = [f'{name}="{draw(TEXT)}"' for name in names]
    if draw(st.booleans()):
        url = draw(URLS)
        attributes.insert(
            draw(st.integers(0, len(attributes))),
            draw(st.sampled_from([f'href="{url}"', f"HREF='{url}'", f'href = "{url}"'])),
        )
    return f"<{draw(st.sampled_from(['a', 'A', 'area', 'p', 'td', 'link', 'abbr', 'div']))} {' '.join(attributes)}>"


BLOCKS = st.one_of(
    tags(),
    TEXT.map(stdlib_html.escape),
    st.sampled_from(["</a>", "</p>", "</div>", "<br>", "&nbsp;", "\r\n", "<!-- <a href='https://c.test/'> -->"]),
    st.sampled_from(["<style>a[href='x']{}</style>", "<script>'<a href=x>'</script>", "<![if !mso]>", "<![endif]>"]),
)


@given(st.lists(BLOCKS, max_size=20))
def test_beautifulsoup_finds_the_same_links(blocks: list[str]) -> None:
    """Invariant: on tame HTML the scanner and a parser find the same hrefs in the same order."""
    html = f"<html><body>{''.join(blocks)}</body></html>"
    soup = BeautifulSoup(html, "html.parser")
    expected = [str(tag["href"]) for tag in soup.find_all(["a", "area"], href=True)]
    assert [href.value.decode() for href in scan(html.encode()).hrefs] == expected


@pytest.mark.soak
@given(st.lists(st.sampled_from(PIECES), max_size=400).map(b"".join))
def test_the_scanner_follows_the_standard_at_length(html: bytes) -> None:
    """Invariant: the same, for parts long enough to reach the matcher's own limits."""
    oracle = Tokeniser(html)
    end = oracle.run(0, len(html), commented=False)
    found = scan(html)
    assert [(href.start, href.end) for href in found.hrefs] == oracle.hrefs
    assert found.pixel_at == (end if oracle.body_end is None else oracle.body_end)
