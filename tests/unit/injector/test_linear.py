"""Whatever a stranger sends, the work of parsing, planning and rendering grows no faster than the message does.

Each kind repeats what some step looks at again and again. A limit that is met on the way (500 parts, 5,000 links, a
header of 256 KiB) changes the work at once, so no two sizes that are compared lie on both sides of one.
"""

from collections.abc import Callable
from time import process_time

import pytest

from injector import Options
from tests.fuzz.proof import PUBLIC, rewritten
from tests.unit.injector.mails import encode

#: Linear work doubles with its input; quadratic work takes four times as long.
MOST_GROWTH = 3.0
#: What takes less than this, in seconds, is too short to be compared; the long round sees what hides behind it.
NOTHING = 0.003

SIZE = 100_000
LONG = 1_000_000
#: Below the limit of a header, even doubled, and above it.
HEADER_SIZES = (60_000, 300_000)

EVERYTHING = Options(public_url=PUBLIC, text_links=True, dkim="strip")
LINK = b"<a href=https://example.com/>x</a>"
QP_LINK = b"<a href=3Dhttps://example.com/>"
HEAD = b"From: a@example.com\r\nMIME-Version: 1.0\r\n"

Make = Callable[[int], bytes]


def _times(unit: bytes, size: int) -> bytes:
    # An even number of them: whether the last quote is open or not is another input, not a longer one.
    return unit * (size // len(unit) // 2 * 2)


def _page(octets: bytes, encoding: str = "8bit", charset: str = "utf-8") -> bytes:
    label = f"Content-Type: text/html; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return HEAD + label.encode() + octets


def _between_links(unit: bytes, encoding: str = "8bit", charset: str = "utf-8") -> Make:
    return lambda size: _page(encode(LINK + _times(unit, size) + LINK, encoding), encoding, charset)


def _raw(unit: bytes, encoding: str) -> Make:
    return lambda size: _page(_times(unit, size), encoding)


def _many(unit: bytes, encoding: str = "8bit", charset: str = "utf-8") -> Make:
    # At most 4,900 of them at the doubled size: a mail with more than 5,000 links is left alone.
    return lambda size: _page(b"".join(unit % number for number in range(2_450 * size // SIZE)), encoding, charset)


def _text(unit: bytes) -> Make:
    return lambda size: HEAD + b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + _times(unit, size)


def _header(unit: bytes, start: bytes = b"", end: bytes = b"\r\n") -> Make:
    return lambda size: HEAD + start + _times(unit, size) + end + b"\r\n" + LINK


def _multipart(unit: bytes, boundary: bytes = b"ab") -> Make:
    label = b"Content-Type: multipart/mixed; boundary=" + boundary + b"\r\n\r\n--" + boundary + b"\r\n"
    start = HEAD + label + b"Content-Type: text/html\r\n\r\n" + LINK
    return lambda size: start + _times(unit, size) + b"\r\n--" + boundary + b"--\r\n"


def _nested(size: int) -> bytes:
    deep = HEAD
    for level in range(size // 60):
        deep += b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level)
    return deep + b"\r\n" + LINK


PAGES: dict[str, Make] = {
    **{
        repr(unit.decode()): _between_links(unit)
        for unit in (
            b"<", b"<!--", b"<a ", b"<div>", b'<a href="', b"<a href=https://example.com/ ", b"</", b"<script>", b"-->",
            b"<!--[if mso]>", b"<!--[if mso]>href-->", b"<![CDATA[", b"</body", b"&amp", b"=", b"\r\n", b" ", b"x",
            b"<a x=\"'", b"<style></style", b"<table><a><b><svg>", b"\xd0\xb6", b"<a href=x y",
        )
    },
    **{
        f"{unit.decode()!r} in {encoding}": _between_links(unit, encoding)
        for encoding in ("quoted-printable", "base64")
        for unit in (b"<", b"<a ", b"=", b"\r\n", b" ", b"\xd0\xb6")
    },
    "12,000 links": lambda size: _page(LINK * (12_000 * size // SIZE)),
    "links": _many(b"<a href='https://example.com/%d'>x</a>\r\n"),
    "links in one line": _many(b"<a href='https://example.com/%d'>x</a>"),
    "links in ISO-2022-JP": _many(b"<a href='https://example.com/%d'>\x1b$B$3\x1b(B</a>\r\n", charset="iso-2022-jp"),
    "links in Shift_JIS": _many(b"<a href='https://example.com/%d'>\x83\x5c</a>\r\n", charset="shift_jis"),
    "links in quoted-printable": _many(b"<a href=3D'https://exam=\r\nple.com/%d'>x</a>=\r\n", "quoted-printable"),
    "links whose text is an address": _many(b"<a href=https://example.com/%d>www.example.com</a>\r\n"),
    "excepted links": _many(b"<a data-no-track href=https://example.com/%d>x</a>\r\n"),
    "references in one href": lambda size: _page(b'<a href="https://example.com/' + b"&amp;" * (size // 5) + b'">'),
    "one base64 line": lambda size: _page(encode(LINK + b"x" * size, "base64").replace(b"\r\n", b""), "base64"),
    "short base64 lines": lambda size: _page(b"QUJD\r\n" * (size // 6), "base64"),
    "nothing but = in quoted-printable": _raw(b"=", "quoted-printable"),
    "soft breaks": _raw(b"=\r\n", "quoted-printable"),
    "soft breaks before a link": lambda size: _page(_times(b"=\r\n", size) + QP_LINK, "quoted-printable"),
    "=3D": _raw(b"=3D", "quoted-printable"),
    "one line of quoted-printable": lambda size: _page(QP_LINK + _times(b"=41", size), "quoted-printable"),
    "escape sequences": _between_links(b"\x1b$B$3\x1b(B", charset="iso-2022-jp"),
    "UTF-16": lambda size: _page(encode(("<" * (size // 2)).encode("utf-16"), "base64"), "base64", "utf-16"),
    "GB 18030": _between_links(b"\x81\x30\x81\x30", charset="gb18030"),
    "undecodable octets": _between_links(b"\xff", charset="shift_jis"),
}  # fmt: skip

STRUCTURES: dict[str, Make] = {
    "delimiters": _multipart(b"\r\n--ab\r\n"),
    "delimiters with a header": _multipart(b"\r\n--ab\r\nContent-Type: text/html\r\n\r\n" + LINK),
    "prefixes of a delimiter": _multipart(b"\r\n--a"),
    "lines that begin as a delimiter": _multipart(b"\r\n--abc"),
    "delimiters and white space": _multipart(b"\r\n--ab" + b" " * 200 + b"x"),
    "closing delimiters": _multipart(b"\r\n--ab--"),
    "hyphens": _multipart(b"\r\n--"),
    "a long boundary": _multipart(b"\r\n--" + b"a" * 500, b"a" * 1_000),
    "nested multiparts": _nested,
    "URLs in text": _text(b"https://example.com/ "),
    "one URL in text": _text(b"https://example.com/"),
    "brackets in text": _text(b"https://example.com/" + b"(" * 900 + b")" * 900 + b" "),
    "points in text": _text(b"https://example.com/" + b"." * 1_900 + b" "),
    "schemes in text": _text(b"http://"),
    "letters in text": _text("https://example.com/ж".encode()),
    "almost a scheme": _text(b"a+"),
}

HEADERS: dict[str, Make] = {
    "header fields": _header(b"X: y\r\n", end=b""),
    "one name again and again": _header(b"Bcc: a@example.com\r\n", end=b""),
    "Message-ID again and again": _header(b"Message-ID: <a@example.com>\r\n", end=b""),
    "folds": _header(b"\r\n x", b"X-Folded: y"),
    "folds of a list": _header(b"\r\n <mailto:a@example.com>,", b"List-Unsubscribe:"),
    "a long line": _header(b"x", b"X-Long: "),
    "parameters": _header(b"; a=b", b"Content-Type: text/html"),
    "open quotes": _header(b'; a="', b"Content-Type: text/html"),
    "backslashes": _header(b"\\", b'Content-Type: text/html; a="'),
    "segments": _header(b"; boundary*1*=%41", b"Content-Type: multipart/mixed"),
    "semicolons": _header(b";", b"Content-Type: text/html"),
    "spaces in a parameter": _header(b" ", b"Content-Type: text/html; a"),
    "spaces before a colon": _header(b" ", b"X"),
    "signed names": _header(b"a:", b"DKIM-Signature: h="),
    "tags of a signature": _header(b"a=b;", b"DKIM-Signature: "),
    "a list to unsubscribe": _header(b"<mailto:a@example.com>, ", b"List-Unsubscribe: "),
    "brackets of a list": _header(b"<", b"List-Unsubscribe: "),
    "comments in a header": _header(b"(", b"Auto-Submitted: "),
    "words of consent": _header(b"all, ", b"X-Outrider-Track: "),
    "comments of consent": _header(b"(", b"X-Outrider-Track: "),
    "words of others": _header(b"opens,", b"X-MC-Track: "),
    "brackets in JSON": _header(b"[", b"X-SMTPAPI: "),
    "objects in JSON": _header(b'{"a":', b"X-SMTPAPI: "),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_twice_the_size_takes_twice_the_time(name: str) -> None:
    """No tag, comment, charset or transfer encoding makes the scan look twice."""
    assert _growth(PAGES[name], SIZE) < MOST_GROWTH


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_body_of_twice_the_size_takes_twice_the_time(name: str) -> None:
    """No delimiter, or what resembles one, and no text makes the walk look twice."""
    assert _growth(STRUCTURES[name], SIZE) < MOST_GROWTH


@pytest.mark.parametrize("size", HEADER_SIZES)
@pytest.mark.parametrize("name", HEADERS)
def test_a_header_of_twice_the_size_takes_twice_the_time(name: str, size: int) -> None:
    """Neither below the limit of a header nor above it."""
    assert _growth(HEADERS[name], size) < MOST_GROWTH


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [name for name in {**PAGES, **STRUCTURES} if "links" not in name])
def test_two_megabytes_take_twice_the_time_of_one(name: str) -> None:
    """What looks for an octet from every place to the end is quick enough to hide in a shorter message."""
    assert _growth({**PAGES, **STRUCTURES}[name], LONG) < MOST_GROWTH


def test_quadratic_work_is_seen() -> None:
    """The measure is no formality: work that is quadratic, if only in memory speed, is told from linear work."""

    def quadratic(content: bytes) -> None:
        for start in range(0, len(content), 8):
            content.find(b"\0", start)

    # One slow moment of a shared machine is enough to hide it from so few rounds as the rest can afford.
    assert _growth(lambda size: b"x" * size, SIZE, quadratic, rounds=8) > MOST_GROWTH


def _growth(make: Make, size: int, work: Callable[[bytes], object] | None = None, *, rounds: int = 2) -> float:
    """Return how many times as long twice the input takes; the least of several tries, for the machine is shared."""
    small, large = make(size), make(2 * size)
    work = work or (lambda content: rewritten(content, EVERYTHING))
    growth = MOST_GROWTH
    for _ in range(5):
        # Interleaved, so that a machine that slows down slows both down.
        seconds = [(_seconds(work, small), _seconds(work, large)) for _ in range(rounds)]
        once, twice = (min(column) for column in zip(*seconds, strict=True))
        growth = twice / max(once, NOTHING)
        if growth < MOST_GROWTH:
            break
    return growth


def _seconds(work: Callable[[bytes], object], content: bytes) -> float:
    started = process_time()
    work(content)
    return process_time() - started
