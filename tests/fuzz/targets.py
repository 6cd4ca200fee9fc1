"""What the fuzzer calls: one function per kind of input, which returns, or raises when a promise is broken.

They need no fuzzer: `tests/fuzz/test_targets.py` runs the same functions over the corpus, and a find is looked into by
calling one with the octets that were found.
"""

import base64
import re
from collections.abc import Callable
from contextlib import suppress
from time import process_time
from typing import Final, NamedTuple
from unittest.mock import patch

import injector
from injector import Options, recall
from injector.fields import index_of, parameters, read_block
from injector.html import ScanLimitError, scan
from injector.links import attribute, location
from injector.text import scan as scan_text
from injector.tokens import Claim, Keyring, Purpose, TokenError
from relay.address import Flaw, Path, mailbox, split_path
from tests.fuzz import grammar
from tests.fuzz.proof import EDITS, MINTER, PUBLIC, a_browser_agrees, check, rewritten
from tests.unit.injector.mails import encode

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_PLAINLY: Final = Options(public_url=PUBLIC)
_WHOLLY: Final = Options(public_url=PUBLIC, text_links=True, dkim="strip")
_LINKS_ONLY: Final = Options(public_url=PUBLIC, opens=False)
_ENCODINGS: Final = ("8bit", "quoted-printable", "base64")

#: Short inputs are repeated up to this length, for what is quadratic shows only in long ones.
_LONG: Final = 10_000
_SHORT: Final = 24
#: Linear work on `_LONG` octets takes a fiftieth of it, with the fuzzer's counters too; quadratic work many times.
_SECONDS: Final = 0.15


class Target(NamedTuple):
    """One kind of input."""

    run: Callable[[bytes], None]
    #: What its inputs are made of.
    fragments: tuple[bytes, ...]
    #: Inputs to begin with, besides those that were found before.
    seeds: tuple[bytes, ...] = ()


def mime(octets: bytes) -> None:
    """Take *octets* for a message: nothing is raised, undo gives the input, and what leaves is as legal as it came."""
    # The relay refuses a NUL and makes every line end CRLF.
    content = _LINE_END.sub(b"\r\n", octets.replace(b"\0", b""))
    check(content, _PLAINLY)
    check(content, _WHOLLY)


def html(octets: bytes) -> None:
    """Take *octets* for a page: spans hold what they claim, a wrapped page has the same links, and a browser agrees."""
    try:
        hrefs = scan(octets).hrefs
    except ScanLimitError:
        return
    _spans(octets)
    page = octets
    for number, href in reversed(list(enumerate(hrefs))):
        page = page[: href.start] + attribute(f"{PUBLIC}/track/c/{number}?a&b") + page[href.end :]
    again = scan(page).hrefs
    assert [found.value for found in again] == [
        b"%b/track/c/%d?a&amp;b" % (PUBLIC.encode(), n) for n in range(len(hrefs))
    ]
    if octets and len(octets) <= _SHORT:
        _is_quick(octets)
    encoding = _ENCODINGS[len(octets) % len(_ENCODINGS)]
    body = octets if encoding == "base64" else _LINE_END.sub(b"\r\n", octets.replace(b"\0", b""))
    head = b"MIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: "
    check(head + encoding.encode() + b"\r\n\r\n" + encode(body, encoding), _PLAINLY)
    _browser_agrees(head + b"base64\r\n\r\n", octets)


def pages(octets: bytes) -> None:
    """Take *octets* for a page that comes again and again, with a number of its own for each `{}` in it.

    Recognised piece by piece, it leaves as if it was read.
    """
    body = _LINE_END.sub(b"\r\n", octets.replace(b"\0", b""))
    head = b"MIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: "
    recall.forget()
    with (
        patch.multiple(recall, LEAST=1, _PAGE=range(1, 1_000_000), _SHARE=1),
        patch.multiple("injector.memory", _HEAD=_SHORT, _TELLING=_SHORT),
    ):
        for encoding in _ENCODINGS[:2]:
            for turn in range(6):
                # The first ones end before the others do.
                whole = body.replace(b"{}", b"%d" % turn)
                page = encode(whole[: len(whole) - (5 - turn) // 2], encoding)
                mail = injector.parse(head + encoding.encode() + b"\r\n\r\n" + page)
                read = injector.plan(mail, _PLAINLY, campaign=True, recalls=False)
                known = injector.plan(mail, _PLAINLY, campaign=True)
                assert (known.links, known.reason) == (read.links, read.reason)
                assert known.render(MINTER, EDITS) == read.render(MINTER, EDITS)


def _browser_agrees(head: bytes, octets: bytes) -> None:
    """Assert that for a browser's parser nothing but wrapped hrefs differs, each leading where it led."""
    try:
        page = octets.decode()
    except UnicodeDecodeError:
        return
    if not page.strip() or "\0" in page:
        return
    _, left = rewritten(head + encode(octets, "base64"), _LINKS_ONLY)
    a_browser_agrees(page, base64.b64decode(left.content.partition(b"\r\n\r\n")[2]).decode())


def _spans(octets: bytes) -> None:
    found = scan(octets)
    last = 0
    for href in found.hrefs:
        assert last <= href.start < href.end <= len(octets)
        span = octets[href.start : href.end]
        assert href.value == (span[1:-1] if span[:1] in {b'"', b"'"} else span)
        if href.opt_out is not None:
            start, end = href.opt_out
            assert 0 < start < end <= len(octets)
            assert end <= href.start or start >= href.end
        last = href.end
    assert 0 <= found.pixel_at <= len(octets)


def _is_quick(octets: bytes) -> None:
    long = octets * (_LONG // len(octets))
    seconds = []
    for _ in range(5):
        started = process_time()
        with suppress(ScanLimitError):
            scan(long)
        scan_text(long)
        seconds.append(process_time() - started)
        if seconds[-1] < _SECONDS:
            return
    raise AssertionError(f"{len(long)} octets took {min(seconds):.2f} s: the work is not linear")


_KEYRING: Final = Keyring([b"one secret of the tests", b"an older one"])
#: What mint() has to take.
_MOST_URL_OCTETS: Final = 1_500
_OLDER: Final = Keyring([b"an older one"])
_STRANGER: Final = Keyring([b"nobody's"])


def tokens(octets: bytes) -> None:
    """Mint a token from *octets*, and alter it as they say: only what was minted is valid, nothing else is raised."""
    head, tail = octets[:24], octets[24:]
    if len(head) == 24:
        _one_spelling(head, tail)
    for text in {octets.decode("latin-1"), octets.decode("utf-8", "surrogateescape")}:
        for purpose in Purpose:
            _refused(purpose, text)


def _one_spelling(head: bytes, tail: bytes) -> None:
    purpose = list(Purpose)[head[0] % 3]
    link = int.from_bytes(head[1:5], "big") % 2**31 - 1
    url = tail.decode("utf-8", "replace")[:2_000]
    keyring = _OLDER if head[5] % 2 else _KEYRING
    claim = Claim(key=head[8:], link=link, url=url)
    try:
        token = keyring.mint(purpose, head[8:], link, url)
    except ValueError:
        assert len(url.encode()) > _MOST_URL_OCTETS
        return
    assert _KEYRING.verify(purpose, token) == claim
    assert keyring.mint(purpose, head[8:], link, url) == token
    for other in Purpose:
        if other != purpose:
            _refused(other, token)
    try:
        _STRANGER.verify(purpose, token)
    except TokenError:
        pass
    else:
        raise AssertionError("a key that did not make the token verified it")
    for altered in _altered(token, head[6], head[7], tail):
        if altered != token:
            _refused(purpose, altered)


def _altered(token: str, where: int, how: int, tail: bytes) -> list[str]:
    at = (where * 256 + how) % (len(token) + 1)
    body, _, signature = token.partition(".")
    piece = tail[:4].decode("latin-1")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return [
        token[:at] + token[at + 1 :],
        token[:at] + piece + token[at:],
        token[:at] + piece + token[at + len(piece) :],
        token[:at] + alphabet[how % 64] + token[at + 1 :],
        # The last letters hold spare bits: other spellings of the same octets.
        body[:-1] + alphabet[how % 64] + "." + signature,
        token[:-1] + alphabet[how % 64],
        token.replace("-", "+").replace("_", "/"),
        token + "=",
        body + "=." + signature,
        token.swapcase(),
        f" {token}",
        f"{token}\n",
        f"{signature}.{body}",
        f"{body}.{body}.{signature}",
    ]


def _refused(purpose: Purpose, token: str) -> None:
    try:
        _KEYRING.verify(purpose, token)
    except TokenError:
        return
    raise AssertionError("a token that nobody minted was taken")


def fields(octets: bytes) -> None:
    """Take *octets* for a header block, a parameter list, an envelope address and a link in turn: all are total."""
    _envelope(octets)
    text = octets.decode("utf-8", "surrogateescape")
    for name, value in parameters(text).items():
        assert name == name.lower()
        assert len(value) <= len(text)
    reached = location(text)
    assert reached is None or (reached.isascii() and reached.isprintable())
    _block(_LINE_END.sub(b"\r\n", octets.replace(b"\0", b"")))


def _envelope(argument: bytes) -> None:
    path = split_path(argument)
    if path is None:
        return
    assert path.local in argument
    assert path.domain in argument
    assert argument.endswith(path.parameters)
    for utf8 in (False, True):
        address = mailbox(path, utf8=utf8)
        if isinstance(address, Flaw):
            continue
        # What comes out is what stands there, fits into a MAIL line again, and is read the same again.
        assert address.encode() == path.local + b"@" + path.domain
        assert not set("\r\n\0") & set(address)
        assert utf8 or address.isascii()
        again = split_path(b"<" + address.encode() + b">")
        assert again == Path(local=path.local, domain=path.domain, parameters=b"")


def _block(content: bytes) -> None:
    block = read_block(content, 0)
    headers = index_of(content, 0, block)
    assert 0 <= block.end <= block.body_start <= len(content)
    at = 0
    for field in block.fields:
        assert (field.start, field.start < field.value <= field.end) == (at, True), "fields do not follow each other"
        assert content[field.start : field.value].rstrip(b": \t").lower() == field.name.encode()
        at = field.end
    if not block.over_limit:
        assert at == block.end
    seen = sum(headers.count(name) for name in {field.name for field in block.fields})
    assert seen == len(block.fields)
    for field in block.fields:
        value = headers.text(field)
        assert "\r\n" not in value
        assert value in headers.all(field.name.upper())


_HEAD: Final = b"MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n--a\r\n"
TARGETS: Final = {
    "mime": Target(
        run=mime,
        fragments=(*grammar.HEADER, *grammar.BODY, *grammar.MARKUP),
        seeds=(
            _HEAD + b"Content-Type: text/html\r\n\r\n<a href=https://example.com/>x</a>\r\n--a--\r\n",
            _HEAD + b"Content-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
            b'<a href=3D"https://exam=\r\nple.com/">x</a>\r\n--a--\r\n',
            b"Content-Type: text/html; charset=iso-2022-jp\r\n\r\n\x1b$B$3\x1b(B<a href='https://example.com/'>x</a>",
            b"Content-Type: text/plain\r\n\r\nhttps://example.com/ and www.example.com\r\n",
        ),
    ),
    "html": Target(
        run=html,
        fragments=grammar.MARKUP,
        seeds=(
            b'<html><body><a href="https://example.com/">x</a></body></html>',
            b"<!--[if mso]><v:roundrect href='https://example.com/'></v:roundrect><![endif]-->",
            b"<style>a{}</style><script>'<a href=x>'</script><svg><a href=https://example.com/>x</a></svg>",
        ),
    ),
    "pages": Target(
        run=pages,
        fragments=(*grammar.MARKUP, b"\r\n", b"\r\n<p>", b"\r\n <a href='https://example.com/'>\r\n"),
        seeds=(
            b"<p>\r\n<a href='https://example.com/'>x</a>\r\n<p>\r\n</body>\r\n",
            b"<style>\r\n<a href=x>\r\n</style>\r\n<p>\r\n<svg>\r\n<a href='https://example.com/'>\r\n</svg>\r\n",
        ),
    ),
    "tokens": Target(
        run=tokens,
        fragments=grammar.TOKEN,
        seeds=(
            bytes(24) + b"https://example.com/",
            _KEYRING.mint(Purpose.CLICK, bytes(16), 3, "https://example.com/")[:-1].encode(),
        ),
    ),
    "fields": Target(
        run=fields,
        fragments=(*grammar.ADDRESS, *grammar.HEADER),
        seeds=(b"<ann@example.com> SIZE=1", b'"a b"@example.com', b"text/html; charset=utf-8", b"A: b\r\n c\r\n\r\nd"),
    ),
}
