"""What is wrapped and what never is, and why: one table, which the code asks and docs/injection.md shows.

A row is an example too: a test sends each through the injector and compares what became of it with what is said here.
"""

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Final

import msgspec

from injector.links import MAX_URL_OCTETS, LinkReason
from injector.skip import Reason

_ADDRESS: Final = "https://example.com/"

_DROPPED: Final = "a redirect would drop what the reader typed"
_LOADED: Final = "a picture is loaded, not followed"
_EMBEDDED: Final = "is loaded, where it is shown at all; so are its like"
_SOURCE: Final = "names a source that no mail program leads to"
_DISPUTED: Final = "programs differ on where it leads, or take it for none"
_FILLED: Final = "a placeholder that somebody after us fills"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A place in a message where an address can stand."""

    element: str
    attribute: str
    why: str
    wrapped: bool = False
    #: Every element whose name begins with this is meant.
    prefix: str = ""
    #: Why it is left alone; none: nobody looks there, for it is no link that a reader follows.
    reason: LinkReason | Reason | None = None
    #: What stands around the tag.
    within: str = "{}"
    #: What stands around the address in the attribute.
    value: str = "{}"
    #: The type of the part.
    kind: str = "text/html"

    def example(self, address: str = _ADDRESS) -> str:
        """Return it as it stands in a part, with *address*."""
        return self.within.format(f'<{self.element} {self.attribute}="{self.value.format(address)}">')


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """An address in the `href` of an `a`."""

    value: str
    why: str
    #: Why it is left alone; none: it is wrapped.
    reason: LinkReason | None = None
    #: What the reader sees.
    label: str = "Read on"
    #: The charset of the part; empty: it says nothing about that.
    charset: str = "utf-8"

    def example(self) -> str:
        """Return the link as it stands in a part."""
        return f'<a href="{self.value}">{self.label}</a>'


PLACES: Final = (
    Place(element="a", attribute="href", wrapped=True, why="what a reader follows"),
    Place(element="area", attribute="href", wrapped=True, why="a link of an image map"),
    Place(element="v:roundrect", prefix="v:", attribute="href", wrapped=True, why="VML, any `v:…`: Outlook's buttons"),
    Place(element="w:hlink", prefix="w:", attribute="href", wrapped=True, why="Word, any `w:…`: Outlook reads it"),
    Place(
        element="a",
        attribute="href",
        within="<!--[if mso]>{}<![endif]-->",
        wrapped=True,
        why="to Outlook this is no comment",
    ),
    Place(
        element="a",
        attribute="href",
        within="<!--[if !mso]><!-->{}<!--<![endif]-->",
        wrapped=True,
        why="what all others see in place of it",
    ),
    Place(
        element="a",
        attribute="href",
        within="<![if !mso]>{}<![endif]>",
        wrapped=True,
        why="the same in the other spelling",
    ),
    Place(
        element="a",
        attribute="href",
        within="<svg>{}</svg>",
        wrapped=True,
        why="a link of a picture is followed like any other",
    ),
    Place(
        element="a",
        attribute="xlink:href",
        within="<svg>{}</svg>",
        reason=LinkReason.XLINK,
        why="the retired spelling: programs that show SVG differ on whether they follow it",
    ),
    Place(element="a", attribute="data-href", why="only `href` is followed; the first of several counts"),
    Place(element="a", attribute="href", within="<!-- {} -->", why="nobody sees an ordinary comment"),
    Place(element="a", attribute="href", within="<script>{}</script>", why="a program, not a text"),
    Place(element="a", attribute="href", within="<style>{}</style>", why="the look, not the text"),
    Place(element="a", attribute="href", within="<textarea>{}</textarea>", why="text to be edited"),
    Place(element="a", attribute="href", within="<noscript>{}</noscript>", why="shown by some programs only"),
    Place(element="link", attribute="href", why="loads a font or a style sheet; nobody clicks it"),
    Place(element="base", attribute="href", why="changes what every relative address means"),
    Place(element="form", attribute="action", why=_DROPPED),
    Place(element="button", attribute="formaction", why=_DROPPED),
    Place(element="input", attribute="formaction", why=_DROPPED),
    Place(element="img", attribute="src", why=_LOADED),
    Place(element="img", attribute="srcset", value="{} 2x", why=_LOADED),
    Place(element="td", attribute="background", why=_LOADED),
    Place(element="td", attribute="style", value="background:url({})", why=_LOADED),
    Place(element="video", attribute="poster", why=_LOADED),
    Place(element="video", attribute="src", why=_EMBEDDED),
    Place(element="iframe", attribute="src", why=_EMBEDDED),
    Place(element="object", attribute="data", why=_EMBEDDED),
    Place(element="img", attribute="longdesc", why=_SOURCE),
    Place(element="blockquote", attribute="cite", why=_SOURCE),
    Place(
        element='meta http-equiv="refresh"',
        attribute="content",
        value="0; url={}",
        why="leads on without a click, so it would be counted for everybody",
    ),
    Place(element="html", attribute="xmlns", why="a name that looks like an address"),
    Place(
        element="a",
        attribute="href",
        kind="text/x-amp-html",
        reason=Reason.AMP,
        why="is checked as a whole where it is shown; the HTML beside it is tracked",
    ),
    Place(
        element="a",
        attribute="href",
        kind="text/calendar",
        reason=Reason.CALENDAR,
        why="calendars compare an invitation with the one they have",
    ),
)

ADDRESSES: Final = (
    Written(value="https://example.com/?a=1&amp;b=2#c", why="a web address, kept to the octet"),
    Written(value="HTTP://Example.com:8080", why="a web address, kept to the octet"),
    Written(value="https://пример.example/путь?q=ю", why="the redirect spells it as a browser does"),
    Written(value=" https://example.com/a&#10;b ", why="a browser drops what is around it, and line ends within it"),
    Written(value="", reason=LinkReason.EMPTY, why="leads nowhere"),
    Written(value="#top", reason=LinkReason.FRAGMENT, why="a place in the mail itself"),
    Written(
        value="page.html",
        reason=LinkReason.RELATIVE,
        why="has no host of its own; with a `base` neither, for mail programs disagree on whether it counts",
    ),
    Written(
        value="//example.com/",
        reason=LinkReason.PROTOCOL_RELATIVE,
        why="has no scheme, and a mail has none to lend it: programs take http, https or file",
    ),
    Written(value="mailto:ann@example.com", reason=LinkReason.MAILTO, why="no web address"),
    Written(value="tel:+15550100", reason=LinkReason.TEL, why="no web address"),
    Written(value="sms:+15550100", reason=LinkReason.SMS, why="no web address"),
    Written(value="cid:logo@example.com", reason=LinkReason.CID, why="a part of the mail itself"),
    Written(value="data:text/html,x", reason=LinkReason.DATA, why="the content itself"),
    Written(value="javascript:void(0)", reason=LinkReason.JAVASCRIPT, why="a program"),
    Written(value="ftp://example.com/", reason=LinkReason.OTHER_SCHEME, why="no web address"),
    *(
        Written(value=value, reason=LinkReason.TEMPLATE, why=_FILLED)
        for value in ("{{url}}", "{% url %}", "%%url%%", "*|URL|*", "[URL]", "https://example.com/?e={{email}}")
    ),
    Written(
        value="https+notrack://example.com/",
        reason=LinkReason.NOTRACK,
        why="excepted by the sender; leaves as `https://`",
    ),
    Written(
        value='https://example.com/" clicktracking="off',
        reason=LinkReason.OPT_OUT,
        why="excepted by the sender; the mark is removed",
    ),
    Written(
        value="https://example.com/amsweb.php?id=1",
        reason=LinkReason.SKIPPED,
        why="matches `OUTRIDER_INJECT__SKIP`",
    ),
    Written(
        value="https://t.example.com/track/c/TOKEN",
        reason=LinkReason.OWN_LINK,
        why="ours already: a message that passes twice is rewritten once",
    ),
    Written(
        value="https://example.com/p",
        label="example.com/p",
        reason=LinkReason.VISIBLE_URL,
        why="only where `OUTRIDER_INJECT__VISIBLE_URLS` is `leave`",
    ),
    Written(value="https:///path", reason=LinkReason.NO_HOST, why=_DISPUTED),
    Written(
        value="https://exa mple.com/",
        reason=LinkReason.BAD_HOST,
        why=_DISPUTED,
    ),
    Written(
        value="https://example.com:99999/",
        reason=LinkReason.BAD_PORT,
        why=_DISPUTED,
    ),
    Written(
        value="https:\\\\example.com\\",
        reason=LinkReason.BACKSLASH,
        why=_DISPUTED,
    ),
    Written(
        value="https://ann:secret@example.com/",
        reason=LinkReason.USERINFO,
        why="what browsers ask about, or refuse; a password is not ours to carry",
    ),
    Written(value="https://example.com/&#1;a", reason=LinkReason.CONTROL_CHARACTER, why="no header field may hold one"),
    Written(
        value="https://example.com/\xe9",
        charset="",
        reason=LinkReason.UNDECODABLE,
        why="its octets are not in the charset of the part, or nobody said which that is",
    ),
    Written(
        value="https://example.com/?q=&eacute;",
        charset="cp850",
        reason=LinkReason.CHARSET_DEPENDENT,
        why="what it asks for depends on the charset of the part, and programs differ on that",
    ),
    Written(
        value=_ADDRESS + "p" * MAX_URL_OCTETS,
        reason=LinkReason.TOO_LONG,
        why="has more than 1,500 octets: the new link would be longer than mail programs and logs bear",
    ),
)

#: The elements whose `href` is looked at, and what the names of others begin with.
LINKING: Final = frozenset(place.element.encode() for place in PLACES if place.wrapped and not place.prefix)
LINKING_PREFIXES: Final = tuple(place.prefix.encode() for place in PLACES if place.prefix)
#: What `injector.html` calls the links that are found and never wrapped.
NEVER_WRAPPED: Final = {"svg:a": LinkReason.XLINK}

_MAX_SHOWN: Final = 60


def reference() -> str:
    """Return the table as Markdown, as it stands in docs/injection.md."""
    places = [(_place(each), _verdict(each.reason, wrapped=each.wrapped), each.why) for each in PLACES]
    addresses = [(_address(each), _verdict(each.reason, wrapped=not each.reason), each.why) for each in ADDRESSES]
    lines = [*_table("where it stands", places), "", *_table("the address", addresses)]
    return "\n".join(lines) + "\n"


def _table(title: str, rows: list[tuple[str, str, str]]) -> Iterator[str]:
    """Yield the lines of a table; neighbours for the same cause share one."""
    yield _row(title, "what becomes of it", "why")
    yield "|---|---|---|"
    for why, group in groupby(rows, key=itemgetter(2)):
        shown, verdicts, _ = zip(*group, strict=True)
        yield _row(" ".join(shown), ", ".join(dict.fromkeys(verdicts)), why)


def _row(*cells: str) -> str:
    # GitHub's tables end a cell at a bar, also inside code.
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _place(place: Place) -> str:
    return f"`{place.example('…')}`" + ("" if place.kind == "text/html" else f" in {place.kind}")


def _address(written: Written) -> str:
    value = written.value if len(written.value) <= _MAX_SHOWN else written.value[:_MAX_SHOWN] + "…"
    if written.reason == LinkReason.VISIBLE_URL:
        return f"`{written.example()}`"
    shown = f"`{value}`" if value and value.strip() == value and '"' not in value else f'`href="{value}"`'
    match written.charset:
        case "utf-8":
            return shown
        case "":
            return f"{shown} in no charset"
        case charset:
            return f"{shown} in {charset}"


def _verdict(reason: str | None, *, wrapped: bool) -> str:
    return "wrapped" if wrapped else "not looked at" if reason is None else f"`{reason}`"
