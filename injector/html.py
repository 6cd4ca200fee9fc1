"""Find the links of an HTML part, and the place for its pixel, by offset.

The scan follows the WHATWG tokeniser (HTML 13.2.5) as far as tags, attributes, comments and raw text go. It is strictly
linear: a position once passed is never looked at again, whatever the input. Parsers and plain regular expressions stall
for seconds on 100 KB of hostile HTML, and no parser shows what Outlook reads inside conditional comments.
"""

import re
from typing import Final

import msgspec

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
    #: The element's name in lower case: `a`, `area`, `v:roundrect`…
    element: str


class HtmlMap(msgspec.Struct, frozen=True, kw_only=True):
    """Where the links of a part are, and where its pixel goes."""

    hrefs: tuple[Href, ...]
    #: Before the last real `</body>`; without one at the end, or before what begins and never ends.
    pixel_at: int


def scan(html: bytes) -> HtmlMap:
    """Map *html*, bytes in any charset whose ASCII is ASCII; raise `ScanLimitError` over `MAX_LINKS` hrefs."""
    scanner = _Scanner(html)
    end = scanner.run(0, len(html), commented=False)
    return HtmlMap(hrefs=tuple(scanner.hrefs), pixel_at=end if scanner.body_end is None else scanner.body_end)


# Elements whose content is text, whatever it looks like. `noscript` too: clients differ on what they show of it.
_RAW_TEXT: Final = rb"script|style|textarea|title|xmp|noscript|iframe|noembed|noframes|plaintext"

# Everything that needs no look: text, and tags of other elements in the usual spelling. Each alternative goes exactly
# where the tokeniser goes, or does not match; then `_Scanner` takes that step. The counts bound the memory that the
# matcher keeps for its way back.
_PLAIN: Final = re.compile(
    rb"(?:[^<]++"
    rb"|<(?:/(?!body[ \t\n\f\r/>])[a-z]"
    rb"|[b-hj-moqruyz]"  # no element of interest begins so
    rb"|(?!(?:a|area|[vw]:[^ \t\n\f\r/>]*+|" + _RAW_TEXT + rb")[ \t\n\f\r/>])[a-z])[^ \t\n\f\r/>]*+"
    rb"(?:[ \t\n\f\r]++[a-z:_-]++=(?:\"[^\"]*+\"|'[^']*+')){0,64}[^>\"']*+>"
    rb"|<!--(?:<!\[endif\]-->|\[if [^\]>-]++\]><!-->)"  # what stands around all that is not for Outlook
    rb"|<(?![a-z/!?])"
    rb"){0,512}"
)
_TAG_NAME: Final = re.compile(rb"</?([a-z][^ \t\n\f\r/>]*+)")
# One attribute: its name, and its value with the quotes. A quote that never closes takes all there is.
_ATTRIBUTE: Final = re.compile(
    rb"[ \t\n\f\r/]*+(?P<name>[^ \t\n\f\r/>][^ \t\n\f\r/=>]*+)"
    rb"(?:[ \t\n\f\r]*+=[ \t\n\f\r]*+"
    rb"(?P<value>\"[^\"]*+(?:\"|\Z)|'[^']*+(?:'|\Z)|[^ \t\n\f\r>\"'][^ \t\n\f\r>]*+)?)?"
)
_TAG_END: Final = re.compile(rb"[ \t\n\f\r/]*+>")
_LINKING: Final = re.compile(rb"a|area|[vw]:.*", re.DOTALL)
_COMMENT_END: Final = re.compile(rb"--!?>")
_CONDITION: Final = re.compile(rb"[ \t\n\f\r]*+\[if[^a-z0-9][^\]>]*+\]>")
_RAW_TEXT_END: Final = {
    # `plaintext` has no end; `(?!)` matches nowhere.
    name: re.compile(rb"(?!)" if name == b"plaintext" else rb"</" + name + rb"(?=[ \t\n\f\r/>])")
    for name in _RAW_TEXT.split(b"|")
}
# Behind `<!--` a script may hold another script, tags and all (WHATWG HTML 13.2.5.20 to 13.2.5.31).
_SCRIPT_TURN: Final = re.compile(rb"<!--|-->|</?script(?=[ \t\n\f\r/>])")
_SPACES: Final = b" \t\n\f\r"
_UNENDED: Final = -1

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


class _Scanner:
    """One pass over a part. A step returns the offset behind it, or `_UNENDED` where the input ends before it does."""

    def __init__(self, html: bytes) -> None:
        self.hrefs: list[Href] = []
        self.body_end: int | None = None
        self._html = html
        self._lower = html.lower()  # of ASCII only, so that offsets hold in both
        self._cdata_end = -1

    def run(self, at: int, end: int, *, commented: bool) -> int:
        """Scan from *at* to *end*; return *end*, or the offset of what begins and does not end before it."""
        lower = self._lower
        while (plain := _PLAIN.match(lower, at, end)) is not None and (at := plain.end()) < end:
            if lower[at] == 0x3C:
                after = self._step(at, end, commented=commented)
                if after == _UNENDED:
                    return at
                at = after
        return end

    def _step(self, at: int, end: int, *, commented: bool) -> int:
        """Take the step at the `<` at *at*."""
        lower = self._lower
        if lower.startswith(b"!", at + 1, end):
            return self._declaration(at, end)
        name = _TAG_NAME.match(lower, at, end)
        if name is None:
            # `</` and `<?` open a comment up to the next `>`, unless a letter follows; any other `<` is text.
            return self._past(b">", at + 2, end) if lower.startswith((b"/", b"?"), at + 1, end) else at + 1
        if lower[at + 1] != 0x2F:
            return self._start_tag(name, end)
        after = self._tag_end(name.end(), end)
        if name[1] == b"body" and not commented and after != _UNENDED:
            self.body_end = at
        return after

    def _start_tag(self, name: re.Match[bytes], end: int) -> int:
        if _LINKING.fullmatch(name[1]):
            return self._linking_tag(name, end)
        after = self._tag_end(name.end(), end)
        if after == _UNENDED or name[1] not in _RAW_TEXT_END:
            return after
        if name[1] == b"script":
            return self._script_end(after, end)
        close = _RAW_TEXT_END[name[1]].search(self._lower, after, end)
        return _UNENDED if close is None else close.start()

    def _linking_tag(self, name: re.Match[bytes], end: int) -> int:
        lower = self._lower
        at = name.end()
        href = opt_out = None
        while (attribute := _ATTRIBUTE.match(lower, at, end)) is not None:
            at = attribute.end()
            if href is None and attribute[1] == b"href":  # the first of several counts
                href = attribute
            elif opt_out is None and attribute[1] in _OPT_OUTS and _opts_out(attribute):
                opt_out = attribute
        after = self._tag_end(at, end)
        if after != _UNENDED and href is not None and href[2] is not None:
            self._add(name[1], href, opt_out)
        return after

    def _add(self, element: bytes, href: re.Match[bytes], opt_out: re.Match[bytes] | None) -> None:
        if len(self.hrefs) >= MAX_LINKS:
            raise ScanLimitError(f"more than {MAX_LINKS} links")
        start, end = href.span("value")
        quotes = 1 if self._html[start] in b"\"'" else 0
        self.hrefs.append(
            Href(
                start=start,
                end=end,
                value=self._html[start + quotes : end - quotes],
                opt_out=None if opt_out is None else self._strippable(opt_out),
                element=element.decode("ascii", "replace"),
            )
        )

    def _strippable(self, attribute: re.Match[bytes]) -> tuple[int, int]:
        # One space goes with it, but never one that keeps its neighbours apart.
        start, end = attribute.start("name"), attribute.end()
        if self._lower[start - 1] in _SPACES and self._lower[end] in _SPACES + b">":
            start -= 1
        return start, end

    def _tag_end(self, at: int, end: int) -> int:
        """Pass the attributes that are left, and the `>`."""
        lower = self._lower
        while (close := _TAG_END.match(lower, at, end)) is None:
            attribute = _ATTRIBUTE.match(lower, at, end)
            if attribute is None:
                return _UNENDED
            at = attribute.end()
        return close.end()

    def _declaration(self, at: int, end: int) -> int:
        if self._html.startswith(b"<!--", at, end):
            return self._comment(at, end)
        if self._html.startswith(b"<![CDATA[", at, end):
            if self._cdata_end < at:
                # Found once for the whole part: a search for each opening would be quadratic where none ends.
                found = self._html.find(b"]]>", at)
                self._cdata_end = len(self._html) if found < 0 else found
            if self._cdata_end + 3 <= end:
                return self._cdata_end + 3
        return self._past(b">", at + 2, end)  # a doctype, `<![if !mso]>`, `<![endif]>`

    def _comment(self, at: int, end: int) -> int:
        lower = self._lower
        close = _COMMENT_END.search(lower, at + 2, end)  # `<!-->` and `<!--->` are whole comments
        if close is not None and close.end() == at + 6 and lower[at + 4] == 0x21:
            close = _COMMENT_END.search(lower, at + 4, end)  # `<!--!>` is none
        if close is None:
            return _UNENDED
        if lower.find(b"href", at, close.start()) >= 0:
            condition = _CONDITION.match(lower, at + 4, close.start())
            if condition is not None:
                # To Outlook this is no comment. What begins in it and does not end in it concerns nobody else.
                self.run(condition.end(), close.start(), commented=True)
        return close.end()

    def _script_end(self, at: int, end: int) -> int:
        escaped = nested = False
        while (turn := _SCRIPT_TURN.search(self._lower, at, end)) is not None:
            at = turn.end()
            match turn[0]:
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

    def _past(self, mark: bytes, at: int, end: int) -> int:
        found = self._lower.find(mark, at, end)
        return _UNENDED if found < 0 else found + len(mark)


def _opts_out(attribute: re.Match[bytes]) -> bool:
    wanted = _OPT_OUTS[attribute["name"]]
    return wanted is None or (attribute["value"] or b"").strip(b"\"'") == wanted
