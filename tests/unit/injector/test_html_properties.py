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

    It knows of the standard what the scanner claims to follow, and the two things that the scanner adds: content of
    conditional comments, and `noscript` as text. *foreign*: it takes what stands between `<svg` and `</svg>` for SVG;
    otherwise for HTML. Which is right only a tree builder knows. It is slow and quadratic, and shares no code.
    """

    def __init__(self, html: bytes, *, foreign: bool = False) -> None:
        self.html = html
        self.foreign = foreign
        self.hrefs: list[tuple[int, int]] = []
        self.body_end: int | None = None
        # Where the pictures begin that are open.
        self.open: list[int] = []
        # Every place between two tokens, comments not looked into.
        self.places: set[int] = set()
        # Whether the two readings can differ.
        self.torn = False

    def run(self, at: int, end: int, *, commented: bool) -> int:
        while at < end:
            if not commented:
                self.places.add(at)
            after = self.token(at, end, commented=commented)
            if after is None:
                return self.open[0] if self.open else at
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
            if name in {b"svg", b"math"} and after is not None and self.open:
                self.open.pop()
            return after
        if rest.startswith(b"</>"):
            return at + 3
        if rest.startswith(b"<!--"):
            return self.comment(at, end, commented=commented)
        if rest.startswith(b"<![CDATA[") and self.open:
            self.torn = True
            if self.foreign:
                return at + rest.index(b"]]>") + 3 if b"]]>" in rest else None
        if rest.startswith((b"<!", b"<?")) or (rest.startswith(b"</") and len(rest) > 2):
            return at + rest.index(b">") + 1 if b">" in rest else None
        return None if rest == b"</" else at + 1

    def start_tag(self, at: int, end: int) -> int | None:
        name, attributes, after = self.tag(at + 1, end)
        if after is None:
            return None
        if name in {b"a", b"area"} or name.startswith((b"v:", b"w:")):
            self.link(name, attributes)
        closed = self.html[after - 2 : after] == b"/>" and not (
            attributes and attributes[-1][1] is not None and attributes[-1][1][1] == after - 1
        )
        if name in {b"svg", b"math"} and not closed:
            self.open.append(at)
        if name not in RAW or (self.open and closed):
            return after
        if self.open:
            self.torn = True
            if self.foreign:
                return after
        return self.raw_text_end(name, after, end)

    def link(self, name: bytes, attributes: list[tuple[bytes, tuple[int, int] | None]]) -> None:
        wanted = b"href"
        if name == b"a" and self.open and all(key != b"href" for key, _ in attributes):
            wanted = b"xlink:href"
        values = [value for key, value in attributes if key == wanted]
        if values and values[0] is not None:
            self.hrefs.append(values[0])

    def raw_text_end(self, name: bytes, after: int, end: int) -> int | None:
        for closing in range(after, end):
            rest = self.html[closing:end].lower()
            if re.match(rb"</" + name + rb"[ \t\n\f\r/>]", rest):
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
                    outside, self.open = self.open, []
                    self.run(at + condition.end(), at + close, commented=True)
                    self.open = outside
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
    b"<a ", b"<A\n", b"<a", b"<a>", b"<area ", b"<v:x ", b"<p ", b"<p", b"<td class=x ", b"<TABLE ", b"<th\t", b"</a",
    b"</p>", b"<br>", b"<b>", b"<", b"</", b">", b"/>", b'href="x"', b"href='y'", b"href=z", b"href", b" href = ",
    b'HREF="X"', b"Href=w", b' href="/v"', b' class="c"', b' style="s"', b' title=">"', b'id="q" ', b'id="q"', b"id=q ",
    b"data-href=1", b"=", b'"', b"'", b" ", b"\r\n", b"/", b"<!--", b"-->", b"--!>", b"-", b"!", b"<!-->", b"<!--->",
    b"<!--[if mso]>", b"<!--[IF gte mso 9]>", b"<![endif]-->", b"<!--<![endif]-->", b"<![if !mso]>",
    b"<!--[if !mso]><!-->", b"<!-- href ", b"<![CDATA[", b"]]>", b"<?xml ", b"<!doctype html>", b"<script>",
    b"</script>", b"<script", b"<SCRIPT>", b"<style>", b"</style>", b"<STYLE ", b"<title>", b"</title", b"</Title>",
    b"<textarea>", b"</textarea>", b"<plaintext>", b"<noscript>", b"</noscript>", b"<xmp>", b"</xmp>", b"<iframe>",
    b"</iframe>", b"<noembed>", b"</noembed>", b"<noframes>", b"</noframes>", b"<body>", b"</body>", b"</BODY ",
    b"<template>", b"</template>", b"text", b"\x00", b"\xff", b"&amp;", b"t", b"x:y", b"data-no-track",
    b"clicktracking=off ",
]  # fmt: skip

PICTURES = [
    b"<svg>", b"<svg ", b"<SVG/>", b"</svg>", b"</Svg ", b"<math>", b"</math>", b"<a xlink:href='u'>", b"xlink:href=u ",
    b"<style/>", b"<title/>", b"<style><![CDATA[ x ]]></style>", b"<style><!-- x --></style>", b"<title>x</title>",
    b"<![CDATA[ > ]]>", b"<![CDATA[ <a href=u> ]]>",
]  # fmt: skip

# Pairs in which any soup can stand, and other pairs, as deep as it comes.
PAIRS = [
    (b"<!--[if mso]>", b"<![endif]-->"),
    (b"<!--[if !mso]><!-->", b"<!--<![endif]-->"),
    (b"<![if !mso]>", b"<![endif]>"),
    (b"<!-- ", b" -->"),
    (b"<svg>", b"</svg>"),
    (b"<table><tr><td style='x'>", b"</td></tr></table>"),
    (b"<title>", b"</title>"),
    (b'<p title="', b'">'),
]

SOUP = st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join)
DEEP = st.recursive(
    st.sampled_from([*PIECES, *PICTURES]),
    lambda inner: st.tuples(st.sampled_from(PAIRS), st.lists(inner, max_size=8)).map(
        lambda drawn: drawn[0][0] + b"".join(drawn[1]) + drawn[0][1]
    ),
    max_leaves=60,
)


def follows_the_standard(html: bytes) -> None:
    """Assert that the scanner finds what the standard's state machine finds, and where two disagree what both find."""
    as_html, as_svg = Tokeniser(html), Tokeniser(html, foreign=True)
    ends = [oracle.run(0, len(html), commented=False) for oracle in (as_html, as_svg)]
    found = scan(html)
    hrefs = [(href.start, href.end) for href in found.hrefs]
    if not as_html.torn:
        assert hrefs == as_html.hrefs
        assert found.pixel_at == (ends[0] if as_html.body_end is None else as_html.body_end)
    for oracle in (as_html, as_svg):
        assert set(hrefs) <= set(oracle.hrefs)
        assert found.pixel_at in oracle.places | {len(html)}


@given(SOUP | DEEP)
@example(b'<p ="foo= " bar><a href="x">')
@example(b'<p x" y="> <a href=q> <" z">')
@example(b"<script><!--<script></script></script>")
@example(b"<script><!--><script></script><a href=x>")
@example(b"<!--[if mso]><![CDATA[--><a href=x>]]>")
@example(b"<svg><style><a href=x></style><a href=y>")
@example(b"<svg><![CDATA[>]]><a href=x></svg><![CDATA[><a href=y>]]>")
@example(b"<svg><title/><a href=x></svg><title/><a href=y>")
@example(b"<!--[if mso]><svg><![endif]--><style><a href=x></style><a href=y>")
@example(b"<p><<a href=x><<</body>")
@example(b"<svg a=/><style><i></style><a href=x>")
def test_the_scanner_follows_the_standard(html: bytes) -> None:
    """Invariant: on any soup of tags the scanner finds what the standard's state machine finds, and nothing else."""
    follows_the_standard(html)


@given(SOUP | DEEP | st.binary(max_size=200))
def test_spans_lie_inside_and_apart(html: bytes) -> None:
    """Invariant: scan() never raises; spans are in order, within the input, and hold the values they claim."""
    found = scan(html)
    last = 0
    for href in found.hrefs:
        assert last <= href.start < href.end <= len(html)
        span = html[href.start : href.end]
        assert href.value == (span[1:-1] if span[:1] in {b'"', b"'"} else span)
        last = href.end
        assert href.end < href.tag_end <= len(html)
        assert html[href.tag_end - 1 : href.tag_end] == b">"
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


@given(SOUP | DEEP)
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


@given(SOUP | DEEP)
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
    verdicts = [judge(href.value, charset="utf-8", page="utf-8", skip=(), public_url=PUBLIC) for href in again]
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
@given(st.lists(st.sampled_from([*PIECES, *PICTURES]) | DEEP, max_size=400).map(b"".join))
def test_the_scanner_follows_the_standard_at_length(html: bytes) -> None:
    """Invariant: the same, for long parts."""
    follows_the_standard(html)
