"""Where octets over 127 are not taken, what may be touched leaves in ASCII and means the same; the rest stays."""

import email
from binascii import a2b_qp

import pytest
from hypothesis import given
from hypothesis import strategies as st

import injector
from injector import HeaderEdits, Options, Rendered
from injector.encodings import splice, undo
from tests.unit.injector.mails import (
    HexMinter,
    body_of,
    html_of,
    leaves,
    links_of,
    longest_line,
    multipart,
    options,
    part,
    top,
)

WORDS = "Grüße, Привет, 你好"
PAGE = f'<html><body><p>{WORDS}</p> <a href="https://example.com/ü">{WORDS}</a></body></html>\r\n'.encode()
LABEL = b"Content-Transfer-Encoding: quoted-printable\r\n"
NO_EDITS = HeaderEdits()


def render(content: bytes, chosen: Options | None = None, *, eight_bit: bool = False) -> Rendered:
    """Return *content* as it leaves for one recipient, every splice undone for proof."""
    plan = injector.plan(injector.parse(content), chosen or options(unsubscribe=False), campaign=False)
    result = plan.render(HexMinter(), NO_EDITS, eight_bit=eight_bit)
    in_body, _ = plan.body_splices(HexMinter(), eight_bit=eight_bit)
    splices = sorted([*plan.header_splices(HexMinter(), NO_EDITS), *in_body])
    assert splice(content, splices) == result.content
    assert undo(result.content, content, splices) == content
    return result


@pytest.mark.parametrize("encoding", ["8bit", "8BIT", "7bit", "binary", ""])
def test_a_page_leaves_as_quoted_printable(encoding: str) -> None:
    """The label is changed or added, the words and where links lead are not."""
    content = top(part(PAGE, encoding=encoding))
    result = render(content)
    usual = render(content, eight_bit=True)
    assert result.content.isascii()
    assert result.content.lower().count(b"content-transfer-encoding:") == 1
    assert LABEL in result.content
    assert longest_line(body_of(result.content)) <= 76
    assert html_of(result.content) == html_of(usual.content)
    assert (result.injected, result.links) == (usual.injected, usual.links) == (True, 1)
    assert len(links_of(html_of(result.content))) == 1


def test_a_message_without_mime_says_that_it_is_mime_now() -> None:
    """RFC 2045 4: without MIME-Version a label means nothing."""
    result = render(b"From: a@example.com\r\nSubject: Hi\r\n\r\n" + WORDS.encode() + b"\r\n")
    assert b"MIME-Version: 1.0\r\n" + LABEL in result.content
    assert leaves(result.content) == [("text/plain", WORDS.encode() + b"\r\n")]
    assert not result.injected


def test_only_what_may_be_touched() -> None:
    """Text and page are written anew; what is in ASCII, encoded, attached, embedded or of another kind is not."""
    touched = [part(WORDS.encode() + b"\r\n", "text/plain", "8bit"), part(b"<p>Here:</p>" + PAGE, encoding="8bit")]
    kept = [
        part(b"plain words\r\n", "text/plain", "8bit"),
        part(PAGE, encoding="base64"),
        part(WORDS.encode(), "text/csv", "8bit", extra=b"Content-Disposition: attachment; filename=a.csv\r\n"),
        part(PAGE, encoding="8bit", extra=b"Content-Disposition: attachment\r\n"),
        part(WORDS.encode(), "text/calendar", "8bit"),
        b"Content-Type: message/rfc822\r\n\r\n" + top(part(PAGE, encoding="8bit")),
        part(PAGE.decode().encode("utf-16"), encoding="8bit", charset="utf-16"),
        part(PAGE, encoding="8bit", charset="x-nobody"),
    ]
    content = top(multipart("mixed", *touched, *kept))
    quiet = options(opens=False, clicks=False, unsubscribe=False)
    assert render(content, quiet, eight_bit=True).content == content
    result = render(content, quiet).content
    assert leaves(result) == leaves(content)
    assert result.count(LABEL) == 2
    for each in touched:
        assert each not in result
    for each in kept:
        assert each in result


SEAL = b"DKIM-Signature: v=1; a=rsa-sha256; d=shop.example; s=s; h=from; bh=aaaa; b=bbbb"
PGP = b"-----BEGIN PGP MESSAGE-----\r\n"


@pytest.mark.parametrize(
    "content",
    [
        top(part(PAGE, encoding="8bit"), SEAL),
        top(multipart("signed", part(PAGE, encoding="8bit"), part(b"x", "application/pgp-signature"))),
        top(multipart("encrypted", part(PAGE, encoding="8bit"))),
        top(multipart("report", part(PAGE, encoding="8bit"))),
        top(part(PGP + PAGE, encoding="8bit")),
        top(part(PAGE, encoding="8bit"), b"Auto-Submitted: auto-replied"),
        top(part(PAGE, encoding="8bit"), b"Content-Transfer-Encoding: 7bit"),
        top(part(PAGE, encoding="base64")),
        top(part(PAGE, encoding="quoted-printable")),
        top(part(b"<p>ASCII</p>\r\n", encoding="8bit"), f"X-Name: {WORDS}".encode()),
    ],
)
def test_the_rest_leaves_as_it_would_anyway(content: bytes) -> None:
    """Signed, encrypted, a report, a doubt; or in ASCII as it is: not an octet is different."""
    assert render(content).content == render(content, eight_bit=True).content


def test_a_dead_signature_is_no_reason() -> None:
    """It is stripped, so nobody's signature breaks."""
    result = render(top(part(PAGE, encoding="8bit"), SEAL), options(strip=True, unsubscribe=False))
    assert result.content.isascii()
    assert b"DKIM-Signature" not in result.content


@given(st.lists(st.binary(max_size=200).map(lambda line: line.replace(b"\r", b"").replace(b"\n", b"")), max_size=8))
def test_any_text_comes_back(lines: list[bytes]) -> None:
    """Whatever its octets are, and a second pass finds nothing to do."""
    body = b"\r\n".join(lines)
    content = top(part(body, "text/plain", "8bit", charset="iso-8859-1"))
    result = render(content).content
    if body.isascii():
        assert result == content
    else:
        assert result.isascii()
        assert a2b_qp(body_of(result)) == body
        assert email.message_from_bytes(result).get_payload(decode=True) == body
        assert longest_line(body_of(result)) <= 76
    assert render(result).content == result
