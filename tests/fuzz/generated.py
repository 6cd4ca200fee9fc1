"""Messages and pages such as people send, made by hypothesis: legal, varied, and with what trips rewriters up.

What every reader reads alike belongs here, so that readers can be held against each other; what they quarrel about is
the fuzzer's.
"""

import html
from typing import Final

from hypothesis import strategies as st

from tests.unit.injector.mails import PDF, multipart, part, top

#: Charset and the letters that it is drawn with.
CHARSETS: Final = {
    "utf-8": "éжß日本😀א",
    "us-ascii": "",
    "iso-8859-1": "éßü",
    "windows-1251": "жйЖя№",
    "koi8-r": "жйЖя",
    "iso-8859-8-i": "אבג",
    "shift_jis": "日本ソ表",
    "euc-jp": "日本ソ表",
    "iso-2022-jp": "日本語",
    "gb18030": "中文é",
    "big5": "中文功",
    "euc-kr": "한국",
    "utf-16": "éж日",
}
_CODECS: Final = {"iso-8859-8-i": "iso8859-8", "shift_jis": "cp932"}
_TRANSFER: Final = ("8bit", "quoted-printable", "base64")

URLS: Final = st.sampled_from(
    [
        "https://example.com/",
        "https://example.com/?a=1&b=2",
        "http://example.net/x_(y)#z",
        "https://example.org:8443/%20",
        "HTTPS://EXAMPLE.COM/Case",
        "https://example.com/" + "long/" * 40,
        "https://example.com/?u=https://example.net/&copy=2",
        " https://example.com/spaces ",
    ]
)
_LEFT_ALONE: Final = st.sampled_from(
    ["#top", "mailto:a@example.com", "tel:+1", "/relative", "{{url}}", "javascript:x", "cid:1@x", "", "//example.com/"]
)
_MARKS: Final = st.sampled_from([""] * 6 + [" data-no-track", ' clicktracking="off"', " ses:no-track"])
_BLOCKS: Final = st.sampled_from(
    [
        "<br>",
        "<p>",
        "</p>",
        "<table><tr><td>x</td></tr></table>",
        '<img src="cid:1@x" alt="">',
        "<!-- https://example.com/ <a href='https://example.com/no'> -->",
        "<style>a[href='https://example.com/']{color:red}</style>",
        "<script>document.write('<a href=\"https://example.com/\">')</script>",
        "<!--[if mso]><v:roundrect href=\"https://example.com/vml\" x='y'><w:anchorlock/></v:roundrect><![endif]-->",
        '<!--[if !mso]><!--><a href="https://example.com/shown">x</a><!--<![endif]-->',
        '<link rel="x" href="https://example.com/style">',
        '<map><area href="https://example.com/area"></map>',
        "&lt;a href=&quot;https://example.com/&quot;&gt;",
    ]
)
_FIELDS: Final = st.sampled_from(
    [
        b"Message-ID: <one@x>",
        b"Message-ID:\r\n <two@x>",
        b"Bcc: b@example.com",
        b"X-Id-Mail: 42",
        b"X-Outrider-Track: clicks",
        b"List-Unsubscribe: <mailto:u@example.com>",
        b"Subject: \xe9 =?utf-8?q?x?=",
        b"X-Folded: a\r\n\tb\r\n c",
        b"X-Long: " + b"x" * 900,
    ]
)
_DAMAGE: Final = st.sampled_from(
    [b"", b"\r\n", b"\r\n\r\n", b"--bbb", b"=", b"\x00", b"\xff", b"<a href=", b";", b"\r\n--b--\r\n", b"\x1b$B"]
)


@st.composite
def links(draw: st.DrawFn, words: str) -> str:
    """Return a link, its href in one of the spellings that HTML has."""
    url = draw(URLS | URLS | _LEFT_ALONE)
    written = url.replace("&", draw(st.sampled_from(["&", "&amp;", "&#38;"])))
    bare = written and not set(written) & set(" \"'=<>`")
    quote = draw(st.sampled_from(['"', "'", *([""] if bare else [])]))
    name = draw(st.sampled_from(["href", "HREF", "href ", "\r\nhref"]))
    before = draw(st.sampled_from(["", 'class="x" ', "title='a > b' ", "data-href='https://example.com/' "]))
    return f"<a {before}{name}={quote}{written}{quote}{draw(_MARKS)}>{words}</a>"


@st.composite
def pages(draw: st.DrawFn, letters: str = "éжß") -> str:
    """Return a page with links, some of its lines long."""
    lines = ["<html><head><title>x</title></head><body>"]
    texts = st.text("abc <>&=.\"'\t-" + letters, max_size=40).map(html.escape)
    for words in draw(st.lists(texts, max_size=6)):
        lines.append(f"<p>{words * draw(st.sampled_from([1, 1, 1, 30]))}</p>")
        lines.append(draw(links(words)))
        lines.append(draw(_BLOCKS))
    if draw(st.booleans()):
        lines.append("</body></html>")
    return draw(st.sampled_from(["\r\n", "\r\n", ""])).join(lines)


@st.composite
def page_parts(draw: st.DrawFn, extra: bytes = b"") -> bytes:
    """Return a page as a part, in any charset and transfer encoding."""
    charset = draw(st.sampled_from(sorted(CHARSETS)))
    body = draw(pages(CHARSETS[charset])).encode(_CODECS.get(charset, charset))
    encoding = "base64" if charset == "utf-16" else draw(st.sampled_from(_TRANSFER))
    return part(body, encoding=encoding, charset=charset, extra=extra)


@st.composite
def parts(draw: st.DrawFn, depth: int = 2) -> bytes:
    """Return a leaf or a multipart."""
    choice = draw(st.integers(0, 9 if depth else 6))
    match choice:
        case 0 | 1:
            return draw(page_parts())
        case 2:
            words = draw(st.text("abc éж\t-", max_size=40)) + draw(URLS)
            return part(words.encode(), "text/plain", draw(st.sampled_from(_TRANSFER)))
        case 3:
            return part(PDF, "application/pdf", "base64", charset="")
        case 4:
            return draw(page_parts(extra=b"Content-Disposition: attachment; filename=a.html\r\n"))
        case 5:
            return part(b"BEGIN:VCALENDAR\r\nURL:https://example.com/\r\nEND:VCALENDAR\r\n", "text/calendar")
        case 6:
            return b"Content-Type: message/rfc822\r\n\r\n" + top(draw(page_parts()))
    subtype = draw(st.sampled_from(["mixed", "alternative", "related"]))
    children = draw(st.lists(parts(depth=depth - 1), min_size=1, max_size=3))
    # Each boundary begins the next one, as `a` begins `ab`.
    return multipart(subtype, *children, boundary="b" * (depth + 1))


@st.composite
def mails(draw: st.DrawFn) -> bytes:
    """Return a message."""
    return top(draw(parts()), *draw(st.lists(_FIELDS, max_size=4)))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Return a message with pieces cut out, doubled or overwritten."""
    content = bytearray(draw(mails()))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(content)))
        end = min(len(content), at + draw(st.integers(0, 40)))
        content[at:end] = draw(_DAMAGE) + (content[at:end] * 2 if draw(st.booleans()) else b"")
    return bytes(content)
