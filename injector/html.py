"""Find the links of an HTML part, and the place for its pixel, by offset.

The scan follows the WHATWG tokeniser (HTML 13.2.5) as far as tags, attributes, comments and raw text go. It is strictly
linear: what was passed is never looked at again, whatever the input. Parsers and plain regular expressions stall for
seconds on 100 KB of hostile HTML, and no parser shows what Outlook reads inside conditional comments.

Inside `<svg>` and `<math>` raw text is markup and CDATA is text, but whether one is inside depends on the tree that a
browser builds. The scan goes on as long as both readings agree; from where they do not, nothing is touched.
"""

import re
from typing import Final

import msgspec

from injector.markup import COMMENT, CONDITION, DULL, FOREIGN, RAW_TEXT_END, SAME_TEXT, SCRIPT_TURN, TAG, first_of

#: More links than any mail has; a part with more is left alone.
MAX_LINKS: Final = 5000


class ScanLimitError(Exception):
    """The part holds more than `MAX_LINKS` links; it is sent as it is, without tracking."""


class Href(msgspec.Struct, frozen=True, kw_only=True):
    """One href of a wrapped element, by its place in the scanned bytes."""

    #: The span of the attribute's value, quotes included where there are any.
    start: int
    end: int
    #: The value as it stands: without its quotes, character references still encoded.
    value: bytes
    #: The span of a vendor's opt-out attribute on the same tag: strip it, and leave the href alone.
    opt_out: tuple[int, int] | None
    #: The element's name in lower case: `a`, `area`, `v:roundrect`… and `svg:a` for the `xlink:href` of an `a` in SVG.
    element: str
    #: The offset behind the `>` of the start tag: there its content begins.
    tag_end: int


class HtmlMap(msgspec.Struct, frozen=True, kw_only=True):
    """Where the links of a part are, and where its pixel goes."""

    hrefs: tuple[Href, ...]
    #: Before the last real `</body>`; without one at the end, or before what begins and never ends, but outside of a
    #: picture, which it would end.
    pixel_at: int


def scan(html: bytes) -> HtmlMap:
    """Map *html*, bytes in any charset whose ASCII is ASCII; raise `ScanLimitError` over `MAX_LINKS` hrefs."""
    scanner = _Scanner(html)
    end = scanner.run(0, len(html), commented=False)
    return HtmlMap(hrefs=tuple(scanner.hrefs), pixel_at=end if scanner.body_end is None else scanner.body_end)


def scan_piece(html: bytes) -> tuple[tuple[Href, ...], int | None] | None:
    """Return the links of a piece of a page, and where its last real `</body>` is; None: the piece cannot stand alone.

    Where one does, text begins and text ends, and a page of such pieces holds just what its pieces hold. Raises
    `ScanLimitError` like `scan`.
    """
    scanner = _Scanner(html)
    if scanner.run(0, len(html), commented=False) != len(html) or scanner.in_picture:
        return None
    return tuple(scanner.hrefs), scanner.body_end


_SPACES: Final = b" \t\n\f\r"
_UNENDED: Final = -1
# More pictures inside each other than any mail has.
_MAX_FOREIGN: Final = 100

# How mailers and their former providers say "do not track this link", with the value where one must stand beside it.
_OPT_OUTS: Final[dict[bytes, bytes | None]] = {
    b"data-no-track": None,
    b"data-ignore": None,
    b"data-pm-no-track": None,
    b"data-skip-click": None,
    b"mautic:disable-tracking": None,
    b"ses:no-track": None,
    b"clicktracking": b"off",
    b"disable-tracking": b"true",
    b"data-msys-clicktrack": b"0",
}
_HREF: Final = first_of([b"href"])
_XLINK_HREF: Final = first_of([b"xlink:href"])
_OPT_OUT: Final = first_of(_OPT_OUTS)


class _Scanner:
    """One pass over a part. A step returns the offset behind it, or `_UNENDED` where the input ends before it does."""

    def __init__(self, html: bytes) -> None:
        self.hrefs: list[Href] = []
        self.body_end: int | None = None
        self._html = html
        # Where each `<svg` and `<math` begins that is open.
        self._foreign: list[int] = []

    @property
    def in_picture(self) -> bool:
        """Whether an `<svg` or a `<math` is open."""
        return bool(self._foreign)

    def run(self, at: int, end: int, *, commented: bool) -> int:
        """Scan from *at* to *end*; return *end*, or where that begins which does not end before it."""
        html = self._html
        while at < end and (dull := DULL.match(html, at, end)) is not None:
            at = dull.end()
            if dull["href"] is not None:
                self._add("a", dull.span("href"), tag_end=at, opt_out=None)
            elif at < end:
                after = self._step(at, end, commented=commented)
                if after == _UNENDED:
                    return self._foreign[0] if self._foreign else at
                at = after
        return end

    def _step(self, at: int, end: int, *, commented: bool) -> int:
        """Take the step at the `<` at *at*."""
        tag = TAG.match(self._html, at, end)
        if tag is None:
            return self._declaration(at, end)
        closing, name, tail = tag.groups()
        name = name.lower()
        if closing:
            if name == b"body" and not commented:
                self.body_end = at
            elif name in FOREIGN and self._foreign:
                self._foreign.pop()
        elif name in FOREIGN:
            if not tail.endswith(b"/"):
                self._foreign.append(at)
            if len(self._foreign) > _MAX_FOREIGN:
                return _UNENDED
        elif name not in RAW_TEXT_END:
            self._link(tag, name)
        elif not (self._foreign and tail.endswith(b"/")):
            return self._raw_text_end(name, tag.end(), end)
        return tag.end()

    def _link(self, tag: re.Match[bytes], name: bytes) -> None:
        at, end = tag.end("name"), tag.end()
        element = name.decode("ascii", "replace")
        href = _HREF.match(self._html, at, end)
        if href is None and name == b"a" and self._foreign:
            href = _XLINK_HREF.match(self._html, at, end)
            element = "svg:a"
        if href is None or href["value"] is None:
            return
        self._add(element, href.span("value"), tag_end=end, opt_out=self._opt_out(at, end))

    def _add(self, element: str, span: tuple[int, int], *, tag_end: int, opt_out: tuple[int, int] | None) -> None:
        if len(self.hrefs) >= MAX_LINKS:
            raise ScanLimitError(f"more than {MAX_LINKS} links")
        start, end = span
        value = self._html[start:end]
        if value[0] in b"\"'":
            value = value[1:-1]
        self.hrefs.append(Href(start=start, end=end, value=value, opt_out=opt_out, element=element, tag_end=tag_end))

    def _opt_out(self, at: int, end: int) -> tuple[int, int] | None:
        while (found := _OPT_OUT.match(self._html, at, end)) is not None:
            wanted = _OPT_OUTS[found["name"].lower()]
            if wanted is None or (found["value"] or b"").strip(b"\"'").lower() == wanted:
                # One space goes with it, but never one that keeps its neighbours apart.
                start, at = found.span("attribute")
                if self._html[start - 1] in _SPACES and self._html[at] in _SPACES + b">":
                    # A line end goes whole: no CR may be left behind alone.
                    start -= 2 if self._html.startswith(b"\r\n", start - 2) else 1
                return start, at
            at = found.end()
        return None

    def _declaration(self, at: int, end: int) -> int:
        html = self._html
        if html.startswith(b"<![CDATA[", at, end):
            return self._cdata_end(at, end)
        comment = COMMENT.match(html, at, end)
        if comment is None:
            return _UNENDED
        condition = CONDITION.match(html, *comment.span("content"))
        if condition is not None:
            # To Outlook this is no comment. What begins in it and does not end in it concerns nobody else.
            foreign, self._foreign = self._foreign, []
            self.run(condition.end(), comment.end("content"), commented=True)
            self._foreign = foreign
        return comment.end()

    def _raw_text_end(self, name: bytes, at: int, end: int) -> int:
        if name == b"script":
            close = self._script_end(at, end)
        else:
            found = RAW_TEXT_END[name].search(self._html, at, end)
            close = _UNENDED if found is None else found.start()
        if self._foreign and close != _UNENDED and SAME_TEXT.fullmatch(self._html, at, close) is None:
            return _UNENDED
        return close

    def _cdata_end(self, at: int, end: int) -> int:
        """Pass what is a comment up to `>` to HTML, and text up to `]]>` to SVG."""
        after = self._html.find(b">", at, end) + 1
        if not after:
            return _UNENDED
        if not self._foreign:
            return after
        close = self._html.find(b"]]>", at, end)
        return _UNENDED if close < 0 or b"<" in self._html[after:close] else close + 3

    def _script_end(self, at: int, end: int) -> int:
        escaped = nested = False
        while (turn := SCRIPT_TURN.search(self._html, at, end)) is not None:
            at = turn.end()
            match turn[0].lower():
                case b"<!--":
                    escaped = True
                    at -= 2  # `<!-->` opens and closes
                case b"-->":
                    escaped = nested = False
                case b"<script":
                    nested = escaped
                case _ if nested:
                    nested = False
                case _:
                    return turn.start()
        return _UNENDED
