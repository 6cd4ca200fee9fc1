"""A part is edited in its own encoding and charset, and everything beside the edits comes out as it went in."""

import base64
import re

import pytest

import injector
from injector import HeaderEdits
from tests.unit.injector.mails import (
    PDF,
    body_of,
    destination,
    encode,
    html_of,
    leaves,
    links_of,
    longest_line,
    multipart,
    options,
    part,
    rewrite,
    top,
)

NO_EDITS = HeaderEdits()
PIXEL = re.compile(r'<img src="[^"]*/track/o/pixel"[^>]*>')
WIDE = ["utf-16", "utf-16le", "utf-32", "iso-2022-jp", "johab", "shift_jis", "x-sjis", "big5", "gb18030", "gbk"]
LETTERS = {
    "iso-2022-jp": "ご案内 表示",
    "shift_jis": "ソ表ご案内",
    "x-sjis": "ソ表",
    "big5": "許功蓋",
    "johab": "안녕하세요",
}


def page(words: str, links: int = 2) -> str:
    """Return an html page with *words* around its links."""
    anchors = "".join(
        f'<p>{words} <a href="https://example.com/{n}?a=1&amp;b={n}">{words}</a></p>\r\n' for n in range(links)
    )
    return f"<html><body>\r\n<h1>{words}</h1>\r\n{anchors}{words}</body></html>\r\n"


def undone(html: str) -> str:
    """Return *html* with the pixel out and every wrapped link back as `page` wrote it."""
    html = PIXEL.sub("", html)
    for link in set(re.findall(r'"(https://t\.example\.com/track/c/[^"]*)"', html)):
        html = html.replace(link, (destination(link) or "").replace("&", "&amp;"))
    return html


class TestEncodings:
    """The label stays, the lines stay legal, the links lead where they led."""

    @pytest.mark.parametrize(
        "encoding", ["", "7bit", "8BIT", "binary", "quoted-printable", "Quoted-Printable", "base64"]
    )
    @pytest.mark.parametrize("end", ["\r\n", "\n"])
    def test_m05_each_encoding_comes_back_as_itself(self, encoding: str, end: str) -> None:
        if end == "\n" and encoding.lower() != "base64":
            end = "\r\n"
        words = "Grüße" if encoding.lower() not in {"", "7bit"} else "Hello"
        source = page(words).replace("\r\n", end)
        content = top(part(source.encode(), encoding=encoding))
        result = rewrite(content, edits=NO_EDITS)
        assert result.links == 2
        assert (b"Content-Transfer-Encoding: " + encoding.encode() + b"\r\n" in result.content) is bool(encoding)
        assert undone(html_of(result.content).decode()) == source
        assert longest_line(body_of(result.content)) <= (
            998 if encoding.lower() in {"", "7bit", "8bit", "binary"} else 76
        )

    @pytest.mark.parametrize("encoding", ["x-uuencode", "base-64", "7bit; x", "uuencode"])
    def test_m05_unknown_encodings_stay(self, encoding: str) -> None:
        content = top(
            part(page("x").encode()).replace(
                b"\r\n\r\n", f"\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode(), 1
            )
        )
        result = rewrite(content, edits=NO_EDITS)
        assert result.reason == "unknown_encoding"
        assert body_of(result.content) == body_of(content)

    @pytest.mark.parametrize(
        ("encoding", "body"),
        [
            ("base64", b"PGEgaHJlZj0iaHR0cHM6Ly9leGFtcGxlLmNvbS8iPng8L2E+!!"),
            ("base64", b"PGEgaHJlZj0iaHR0cHM6Ly9leGFtcGxlLmNvbS8iPng8L2E"),
            ("quoted-printable", b'<a href="https://example.com/?a=zz">x</a>'),
        ],
    )
    def test_m05_what_cannot_be_decoded_stays(self, encoding: str, body: bytes) -> None:
        header = part(b"").replace(b"\r\n\r\n", f"\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode())
        content = top(header + body)
        result = rewrite(content)
        assert (result.reason, result.injected) == ("undecodable", False)
        assert body_of(result.content) == body

    def test_m05_a_soft_break_in_a_link_and_both_cases_of_escapes(self) -> None:
        body = (
            b'<p>caf=c3=A9</p>\r\n<a class=3d"x" href=3D"https://exam=\r\nple.com/?a=3d1&amp;b=\r\n=3D2">x</a>\r\n'
            b"last =3D line\r\n"
        )
        content = top(part(b"", encoding="quoted-printable") + body)
        result = rewrite(content, edits=NO_EDITS)
        assert destination(links_of(html_of(result.content))[0]) == "https://example.com/?a=1&b=2"
        assert body_of(result.content).startswith(b"<p>caf=c3=A9</p>\r\n<a class=3d")
        assert b"\r\nlast =3D line\r\n" in result.content

    def test_quoted_printable_lines_without_an_edit_stay_to_the_octet(self) -> None:
        lines = [b"<p>needless =41=42 escapes</p>", b"odd   ", b"\tTab", b"long " * 30, b"=E9 raw \xe9"]
        body = b"\r\n".join([*lines, b"<a href=3Dhttps://example.com/>x</a>", *lines, b"</body>"])
        result = rewrite(top(part(b"", encoding="quoted-printable", charset="iso-8859-1") + body))
        assert result.links == 1
        assert body_of(result.content).count(b"\r\n".join(lines) + b"\r\n") == 2

    def test_base64_keeps_its_line_length(self) -> None:
        raw = base64.b64encode(page("x").encode())
        lines = b"\r\n".join(raw[at : at + 60] for at in range(0, len(raw), 60))
        content = top(part(b"", encoding="base64") + lines)
        result = body_of(rewrite(content).content)
        assert longest_line(result) == 60
        assert not result.endswith(b"\r\n")
        assert result.startswith(lines[:62])

    def test_an_attached_pdf_is_the_same_to_the_bit(self) -> None:
        pdf = part(PDF, "application/pdf", "base64", charset="", extra=b"Content-Disposition: attachment\r\n")
        result = rewrite(top(multipart("mixed", part(page("x").encode(), encoding="base64"), pdf)))
        assert result.links == 2
        assert pdf in result.content
        assert leaves(result.content)[1] == ("application/pdf", PDF)


class TestLongLines:
    """No line that we send in a part we may touch is over 998 octets."""

    @pytest.mark.parametrize("encoding", ["", "7bit", "8bit"])
    def test_h30_a_long_link_turns_a_plain_part_into_quoted_printable(self, encoding: str) -> None:
        source = "<p>" + "x" * 600 + f'<a href="https://example.com/?q={"y" * 300}">x</a></p>\r\n'
        content = top(multipart("alternative", part(b"t", "text/plain"), part(source.encode(), encoding=encoding)))
        result = rewrite(content)
        assert result.links == 1
        assert longest_line(body_of(result.content)) <= 998
        assert result.content.count(b"Content-Transfer-Encoding: quoted-printable\r\n") == 1
        assert undone(html_of(result.content).decode()) == source

    @pytest.mark.parametrize("kind", ["text/plain", "text/html"])
    @pytest.mark.parametrize("track", [b"all", b"none"])
    @pytest.mark.parametrize("encoding", ["", "8bit", "quoted-printable", "base64"])
    def test_a_long_line_that_came_in_is_folded(self, kind: str, track: bytes, encoding: str) -> None:
        source = ("Grüße " * 200 + "\r\nshort\r\n").encode()
        raw = {"quoted-printable": source.replace("ü".encode(), b"=C3=BC"), "base64": base64.b64encode(source)}
        content = top(part(b"", kind, encoding) + raw.get(encoding, source), b"X-Outrider-Track: " + track)
        result = rewrite(content)
        assert longest_line(result.content) <= 998
        assert PIXEL.sub("", leaves(result.content)[0][1].decode()) == source.decode()

    def test_a_message_without_mime_header_gets_one_with_the_encoding(self) -> None:
        result = rewrite(b"Subject: x\r\n\r\n" + b"y" * 1_500, edits=NO_EDITS).content
        assert b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" in result
        assert leaves(result) == [("text/plain", b"y" * 1_500)]

    @pytest.mark.parametrize(
        "extra",
        [
            b"Content-Disposition: attachment\r\n",
            b"Content-Type: text/calendar\r\n",
            b"Content-Transfer-Encoding: x\r\n",
        ],
    )
    def test_a_long_line_in_a_part_that_stays_stays(self, extra: bytes) -> None:
        other = extra + b"\r\n" + b"z" * 1_500
        assert other in rewrite(top(multipart("mixed", part(page("x").encode()), other))).content


class TestCharsets:
    """Letters survive, whatever the charset and whether its label is true."""

    def test_m06_windows_1251_in_base64_with_ten_links(self) -> None:
        source = page("Привет, мир", links=10)
        html = part(source.encode("cp1251"), encoding="base64", charset="windows-1251")
        text = part("Привет".encode("cp1251"), "text/plain", "base64", "windows-1251")
        content = top(multipart("alternative", text, html))
        result = rewrite(content)
        assert result.links == 10
        new = html_of(result.content).decode("cp1251")
        assert [destination(link) for link in links_of(new)] == [
            f"https://example.com/{n}?a=1&b={n}" for n in range(10)
        ]
        assert undone(new) == source
        assert text in result.content

    @pytest.mark.parametrize(
        "charset",
        ["utf-8", "windows-1251", "koi8-r", "iso-8859-5", "cp866", "win-1251", "cp1251", "x-mac-cyrillic"],
    )
    def test_m06_one_octet_charsets_are_worked_on_as_octets(self, charset: str) -> None:
        codec = {"win-1251": "cp1251", "x-mac-cyrillic": "mac-cyrillic"}.get(charset, charset)
        source = page("Привет")
        for encoding in ("8bit", "quoted-printable", "base64"):
            result = rewrite(top(part(source.encode(codec), encoding=encoding, charset=charset)))
            assert result.links == 2
            assert undone(html_of(result.content).decode(codec)) == source

    @pytest.mark.parametrize("encoding", ["quoted-printable", "base64"])
    @pytest.mark.parametrize("charset", WIDE)
    def test_m06_wide_charsets_are_decoded_and_encoded_back(self, charset: str, encoding: str) -> None:
        codec = {"utf-16le": "utf-16-le", "x-sjis": "cp932"}.get(charset, charset)
        source = page(LETTERS.get(charset, "你好"))
        body = source.encode(codec)
        if encoding == "quoted-printable":
            raw = re.sub(rb"[^ -<>-~]", lambda found: b"=%02X" % found[0][0], body)
        else:
            raw = encode(body, encoding)
        result = rewrite(top(part(b"", encoding=encoding, charset=charset) + raw))
        assert (result.links, result.reason) == (2, None)
        assert undone(html_of(result.content).decode(codec)) == source
        assert longest_line(body_of(result.content)) <= 998

    def test_m06_iso_2022_jp_in_seven_bits(self) -> None:
        source = page("ご案内")
        result = rewrite(top(part(source.encode("iso-2022-jp"), encoding="7bit", charset="ISO-2022-JP")))
        assert result.links == 2
        assert body_of(result.content).isascii()
        assert undone(html_of(result.content).decode("iso-2022-jp")) == source

    @pytest.mark.parametrize("mark", ["utf-16-le", "utf-16-be"])
    def test_m07_either_byte_order_is_kept(self, mark: str) -> None:
        body = ("\ufeff" + page("你好")).encode(mark)
        result = rewrite(top(part(body, encoding="base64", charset="utf-16")))
        assert result.links == 2
        assert undone(html_of(result.content).decode(mark)) == "\ufeff" + page("你好")

    @pytest.mark.parametrize(
        ("charset", "body", "reason"),
        [
            ("utf-16", page("x").encode("utf-16-le"), "undecodable"),
            ("utf-16", page("x").encode("utf-16") + b"x", "undecodable"),
            ("shift_jis", page("x").encode() + b"\x81", "undecodable"),
            ("iso-2022-jp", b"\x1b(B" + page("x").encode(), "charset_round_trip"),
            ("utf-7", b"<p>+AGE-</p>", "charset_round_trip"),
            ("gb18030", b"\xff" + page("x").encode(), "undecodable"),
            ("x-unknown", page("x").encode(), "unknown_charset"),
            ("hz-gb-2312", page("x").encode(), "unknown_charset"),
            ("iso-2022-kr", page("x").encode(), "unknown_charset"),
            ("x-user-defined", page("x").encode(), "unknown_charset"),
            ("us-ascii", page("x").encode("utf-16"), "undecodable"),
            ("utf-16le", page("x").encode("utf-16").replace(b"\xff\xfe", b"\xfe\xff"), "undecodable"),
            ("shift_jis", b"\xef\xbb\xbf" + page("x").encode(), "undecodable"),
            ("default", page("x").encode(), "unknown_charset"),
            ("utf-8; charset=koi8-r", page("x").encode(), "unknown_charset"),
        ],
    )
    def test_m06_what_would_be_guessed_at_stays(self, charset: str, body: bytes, reason: str) -> None:
        content = top(part(body, encoding="base64", charset=charset))
        result = rewrite(content)
        assert (result.reason, result.injected) == (reason, False)
        assert body_of(result.content) == body_of(content)

    def test_utf_16_cannot_travel_as_lines(self) -> None:
        content = top(part(page("x").encode("utf-16"), encoding="8bit", charset="utf-16"))
        result = rewrite(content)
        assert (result.reason, body_of(result.content)) == ("undecodable", body_of(content))

    @pytest.mark.parametrize("charset", ["", "us-ascii", "utf-8", "koi8-r"])
    def test_m07_a_lying_label_costs_no_octet(self, charset: str) -> None:
        body = b"\xef\xbb\xbf<meta charset=koi8-r><p>\xe9\xff \x80</p>" + page("x").encode()
        result = rewrite(top(part(body, encoding="8bit", charset=charset)))
        new = html_of(result.content).decode("latin-1")
        assert (result.links, undone(new)) == (2, body.decode("latin-1"))

    def test_h16_seven_bits_stay_seven_bits(self) -> None:
        body = b'<p>a&nbsp;b&zwnj;c&mdash;</p><a href="https://example.com/">x</a>'
        result = rewrite(top(part(body, encoding="7bit", charset="us-ascii")))
        assert result.content.isascii()
        assert b"<p>a&nbsp;b&zwnj;c&mdash;</p>" in result.content


class TestHtml:
    """Markup that parsers would repair leaves as it was written."""

    @pytest.mark.parametrize(
        "html",
        [
            b'<!--[if mso]><v:roundrect href="https://example.com/"></v:roundrect><![endif]-->',
            b'<![if !mso]><a href="https://example.com/">x</a><![endif]>',
            b'<table><tr><td><a href="https://example.com/">x<td>y</table>',
            b'text a < b \x00 <a href="https://example.com/">x</a>',
            b"<?xml version='1.0'?><p>\xef\xbb\xbf<![CDATA[x]]><a href=https://example.com/>x</a>",
        ],
    )
    def test_h13_to_h28_nothing_but_the_link_changes(self, html: bytes) -> None:
        result = rewrite(top(part(html, encoding="8bit")), options(opens=False), edits=NO_EDITS)
        assert result.links == 1
        new = re.sub(rb'"https://t.example.com/track/c/[^"]*"', b"HREF", body_of(result.content))
        assert new == re.sub(rb'"?https://example.com/"?', b"HREF", html)

    def test_h29_too_many_links_leave_the_part_alone(self) -> None:
        body = b'<a href="https://example.com/">x</a>\r\n' * 12_000
        content = top(part(body))
        result = rewrite(content)
        assert (result.reason, body_of(result.content)) == ("link_limit", body)

    def test_h29_too_many_links_in_text_leave_the_part_alone(self) -> None:
        content = top(part(b"https://example.com/\r\n" * 5_001, "text/plain"))
        planned = injector.plan(injector.parse(content), options(text_links=True), campaign=True)
        assert [leaf.reason for leaf in planned.leaves] == ["link_limit"]

    def test_h29_too_many_links_in_all_parts_leave_the_mail_alone(self) -> None:
        content = top(multipart("mixed", *[part(b'<a href="https://example.com/">x</a>\r\n' * 3_000)] * 2))
        result = rewrite(content)
        assert (result.reason, body_of(result.content)) == ("link_limit", body_of(content))

    def test_x6_a_link_at_a_soft_break_of_plain_text_is_joined(self) -> None:
        body = b"see https://a.example.com/te=\r\nst/x.\r\n> https://b.example.com/\r\n-- \r\nsig\r\n"
        content = top(part(b"", "text/plain; format=flowed", "quoted-printable") + body)
        result = rewrite(content, options(text_links=True))
        urls = [
            link.url for link in injector.plan(injector.parse(content), options(text_links=True), campaign=True).links
        ]
        assert (result.links, urls) == (2, ["https://a.example.com/test/x", "https://b.example.com/"])
        assert result.content.endswith(b"\r\n-- \r\nsig\r\n")
        assert longest_line(body_of(result.content)) <= 76

    def test_text_links_are_left_alone_unless_asked_for(self) -> None:
        content = top(part(b"https://example.com/", "text/plain"))
        assert rewrite(content).links == 0
        assert rewrite(content, options(text_links=True)).links == 1
        assert rewrite(content, options(text_links=True, clicks=False)).links == 0
