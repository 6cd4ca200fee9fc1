"""The pieces that mail and HTML are made of, and how the fuzzer puts them together.

Octets alone hardly ever make a boundary or a tag. Every change here is a function of its seed, so that a run with the
same seed makes the same inputs.
"""

import random
from collections.abc import Callable
from typing import Final

HEADER: Final = (
    b"Content-Type: text/html; charset=utf-8\r\n",
    b"Content-Type: text/plain; charset=utf-8\r\n",
    b"Content-Type: text/html; charset=iso-2022-jp\r\n",
    b"Content-Type: text/html; charset=utf-16\r\n",
    b"Content-Type: text/html; charset=gb18030\r\n",
    b"Content-Type: text/html; charset=x-sjis\r\n",
    b"Content-Type: text/html; charset=windows-1251\r\n",
    b"Content-Type: text/html; charset=utf-7\r\n",
    b"Content-Type: multipart/mixed; boundary=a\r\n",
    b'Content-Type: multipart/alternative; boundary="ab"\r\n',
    b'Content-Type: multipart/related; boundary=b; start="<1@x>"\r\n',
    b"Content-Type: multipart/digest; boundary=a\r\n",
    b"Content-Type: multipart/signed; boundary=b\r\n",
    b"Content-Type: message/rfc822\r\n",
    b"Content-Type: text/calendar; method=REQUEST\r\n",
    b"Content-Transfer-Encoding: quoted-printable\r\n",
    b"Content-Transfer-Encoding: base64\r\n",
    b"Content-Transfer-Encoding: 8bit\r\n",
    b"Content-Transfer-Encoding: 7bit\r\n",
    b"Content-Transfer-Encoding: binary\r\n",
    b"Content-Disposition: attachment; filename=a.html\r\n",
    b"Content-Disposition: inline\r\n",
    b"Content-ID: <1@x>\r\n",
    b"MIME-Version: 1.0\r\n",
    b"Message-ID: <a@example.com>\r\n",
    b"Message-ID:\r\n <b@example.com>\r\n",
    b"Bcc: ann@example.net\r\n",
    b"X-Outrider-Track: clicks\r\n",
    b"X-Outrider-Track: none\r\n",
    b"X-Mailgun-Track-Clicks: htmlonly\r\n",
    b"X-MC-Track: opens, clicks_all\r\n",
    b"X-PM-TrackOpens: (x) false\r\n",
    b'X-SMTPAPI: {"filters": {"clicktrack": {"settings": {"enable": 0}}}}\r\n',
    b'X-MSYS-API: {"options": {"open_tracking": false}}\r\n',
    b"List-Unsubscribe: <mailto:u@example.com>\r\n",
    b"DKIM-Signature: v=1; h=from:to; d=example.com; b=x\r\n",
    b"Auto-Submitted: no\r\n",
    b"From ann Sun Nov 22 10:00:00 2026\r\n",
    b"boundary*0=a; boundary*1=b",
    b"charset*=utf-8''utf-8",
    b'; charset="utf-8"',
    b"; boundary=a",
    b"name=x.html",
)
BODY: Final = (
    b"\r\n",
    b"\r\n\r\n",
    b"\r\n--a\r\n",
    b"\r\n--ab\r\n",
    b"\r\n--b\r\n",
    b"\r\n--a--\r\n",
    b"\r\n--ab--\r\n",
    b"--a",
    b" \t",
    b"=\r\n",
    b"=3D",
    b"=3C",
    b"=",
    b"=20\r\n",
    b"PGEgaHJlZj0iaHR0cHM6Ly9leGFtcGxlLmNvbS8iPg==",
    b"\r\n ",
    b"-----BEGIN PGP MESSAGE-----\r\n",
    b"\xd0\xb6",
    b"\xff",
    b"\x1b$B",
    b"\x1b(B",
    b"\xff\xfe",
    b"x" * 200,
    b"https://example.com/",
    b"(https://example.com/a_(b))",
    b"<https://example.com/>.",
)
MARKUP: Final = (
    b"<a ", b"<A\r\n", b"<a href=", b'<a href="https://example.com/">', b"<a href='https://example.com/?a=1&amp;b=2'>",
    b"<a href=https://example.com/>", b"</a>", b"<area href=", b"<v:roundrect href=", b"<w:anchorlock/>",
    b"<link href=", b"<base href=", b"<svg>", b"</svg>", b"<svg><a xlink:href=", b"<math>", b"<template>",
    b"<table>", b"<td>", b"<select>", b"<option>", b"</table>", b"<form>", b"<p ", b"</p>", b"<br>", b"<b>",
    b"<html>", b"<head>", b"</head>", b"<body>", b"</body>", b"</BODY ", b"</html>", b"<frameset>",
    b"<!--", b"-->", b"--!>", b"<!-->", b"<!--[if mso]>", b"<![endif]-->", b"<!--<![endif]-->", b"<![if !mso]>",
    b"<![endif]>", b"<!--[if !mso]><!-->", b"<![CDATA[", b"]]>", b"<?xml version='1.0'?>", b"<!doctype html>",
    b"<script>", b"</script>", b"<script", b"<style>", b"</style>", b"<title>", b"</title>", b"<textarea>",
    b"</textarea>", b"<plaintext>", b"<noscript>", b"</noscript>", b"<xmp>", b"</xmp>", b"<iframe>", b"</iframe>",
    b"<", b"</", b">", b"/>", b"/", b"=", b'"', b"'", b" ", b"\t", b"\x0c", b"\x00",
    b" href", b" HREF = ", b' href="', b" data-href=1", b" data-no-track", b' clicktracking="off"', b" ses:no-track",
    b"https://example.com/", b"http://example.net/x?a=1&b=2#c", b"HTTPS://EXAMPLE.ORG:8443/%20", b"//example.com/",
    b"https+notrack://example.com/", b"mailto:a@example.com", b"javascript:x", b"cid:1@x", b"#top", b"{{url}}",
    b"https://t.example.com/track/c/0.68", b"https://\xd0\xb6.example/", b"https://user@example.com/",
    b"&amp;", b"&copy=2", b"&#x2f;", b"&#0;", b"&Tab;", b"&NewLine;", b"&colon;", b"&lt;",
)  # fmt: skip
TOKEN: Final = (b"A", b"-", b"_", b".", b"=", b"%2E", b"+", b"/", b"\n", b" ", b"\x00", b"\xef\xbc\x8e", b"AAAA" * 12)
ADDRESS: Final = (
    b"<", b">", b"@", b"<>", b"ann@example.com", b"<ann@example.com>", b'"a b"@example.com', b'"a\\"b"@example.com',
    b"@relay.example.com,@x.example.com:", b"Ann <", b" SIZE=1", b" SMTPUTF8", b"\xd0\xb6@example.com",
    b"a@\xd0\xb6.example.com", b"a@xn--e1aybc.example", b"=?utf-8?q?a?=", b"\\", b'"', b".", b"-", b",", b":",
    b"\xe2\x80\xae", b"\xef\xbc\x8e", b"\xc2\xa0", b"\x7f", b"a" * 64, b"b." * 100,
    b"; a=b", b'; a="b', b"; a*=utf-8''%41", b"; a*0=b; a*1=c", b"; a*1*=%42", b'; a="\\"', b"text/html",
)  # fmt: skip

_MOST_CHANGES: Final = 5


def mutator(fragments: tuple[bytes, ...], plainly: Callable[[bytes, int], bytes]) -> Callable[[bytes, int, int], bytes]:
    """Return a mutator that puts *fragments* into its input, and leaves every third change to *plainly*."""

    def mutate(octets: bytes, max_size: int, seed: int) -> bytes:
        chance = random.Random(seed)  # noqa: S311 - inputs that can be made again, no secrets
        if chance.randrange(3) == 0:
            return plainly(octets, max_size)
        for _ in range(chance.randint(1, _MOST_CHANGES)):
            octets = _changed(octets, fragments, chance)
        return octets[:max_size]

    return mutate


def _changed(octets: bytes, fragments: tuple[bytes, ...], chance: random.Random) -> bytes:
    at = chance.randint(0, len(octets))
    end = min(len(octets), at + chance.choice((0, 1, 2, 4, 8, 16, 64)))
    match chance.randrange(6):
        case 0:
            return octets[:at] + octets[end:]
        case 1:
            return octets[:end] + octets[at:]
        case 2:
            there = chance.randint(0, len(octets))
            return octets[:there] + octets[at:end] + octets[there:]
        case 3:
            return octets[:at] + chance.choice(fragments) * chance.choice((1, 2, 3, 20)) + octets[at:]
        case _:
            return octets[:at] + chance.choice(fragments) + octets[end:]
