"""Whole messages, one for each shape that mail is known to come in: what is touched, and that nothing else is.

A test names the row of our list of traps it stands for. The standard library, which is no part of the rewriter, reads
every result.
"""

import base64
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import injector
from injector import HeaderEdits, Rendered
from injector.encodings import undo
from tests.unit.injector.mails import (
    HexMinter,
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
LINK = b'<p>x <a href="https://example.com/?a=1&amp;b=2">y</a></p>\r\n'
URL = "https://example.com/?a=1&b=2"
PIXEL = re.compile(rb'<img src="https://t\.example\.com/track/o/pixel"[^>]*>')
WRAPPED = re.compile(rb'"https://t\.example\.com/track/c/[^"]*"')


def rewritten(content: bytes, *, text_links: bool = False) -> Rendered:
    """Return *content* rewritten without any change of its header, and undone once to see that nothing is lost."""
    plan = injector.plan(injector.parse(content), options(text_links=text_links, unsubscribe=False), campaign=False)
    result = plan.render(HexMinter(), NO_EDITS)
    assert undo(result.content, content, plan.body_splices(HexMinter())[0]) == content
    return result


def homes(content: bytes) -> list[list[str | None]]:
    """Return for each html leaf, as the standard library reads it, where its links lead."""
    return [[destination(link) for link in links_of(body)] for kind, body in leaves(content) if kind == "text/html"]


def pixels(content: bytes) -> list[int]:
    """Return for each html leaf how many pixels are in it."""
    return [len(PIXEL.findall(body)) for kind, body in leaves(content) if kind == "text/html"]


def labelled(charset: str, body: bytes, encoding: str = "base64") -> bytes:
    """Return a message of one html part whose Content-Type ends in *charset*, as it stands there."""
    head = f"Content-Type: text/html; {charset}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode()
    return top(head + encode(body, encoding))


class TestSealed:
    """M1: what is signed or encrypted keeps every octet of its body."""

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            (multipart("signed", part(LINK), part(b"x", "application/pkcs7-signature", "base64")), "signed"),
            (multipart("signed", part(LINK), part(b"x", "application/pgp-signature")), "signed"),
            (multipart("signed", multipart("alternative", part(LINK), boundary="i"), part(b"x", "a/b")), "signed"),
            (multipart("encrypted", part(b"Version: 1", "application/pgp-encrypted"), part(LINK)), "encrypted"),
            (part(LINK, "application/pkcs7-mime; smime-type=enveloped-data", "base64"), "encrypted"),
            (part(LINK, 'application/pkcs7-mime; name="smime.p7m"; smime-type=signed-data', "base64"), "signed"),
            (part(b"-----BEGIN PGP MESSAGE-----\r\n\r\nhQ\r\n" + LINK), "inline_pgp"),
            (part(b"-----BEGIN PGP SIGNED MESSAGE-----\r\n" + LINK, encoding="quoted-printable"), "inline_pgp"),
        ],
    )
    def test_m01_a_sealed_message_changes_in_its_header_only(self, body: bytes, reason: str) -> None:
        content = top(body)
        result = rewrite(content)
        assert (result.injected, result.reason) == (False, reason)
        assert body_of(result.content) == body_of(content)
        assert leaves(result.content) == leaves(content)

    def test_m01_a_sealed_part_beside_an_open_one_keeps_its_octets(self) -> None:
        sealed = multipart("signed", part(LINK), part(b"x", "application/pgp-signature"), boundary="s")
        result = rewritten(top(multipart("mixed", part(LINK), sealed)))
        assert sealed in result.content
        assert homes(result.content) == [[URL], [None]]


class TestDisplayed:
    """M2 to M4: which parts the reader sees as the message."""

    def test_m02_a_page_deep_inside_is_found_and_everything_beside_it_is_the_same(self) -> None:
        png = part(b"\x89PNG", "image/png", "base64", charset="", extra=b"Content-ID: <a@example.com>\r\n")
        pdf = part(b"%PDF", "application/pdf", "base64", charset="")
        attached = part(LINK, extra=b"Content-Disposition: attachment\r\n")
        forwarded = b"Content-Type: message/rfc822\r\n\r\n" + top(part(LINK))
        page = multipart("related", part(LINK, encoding="quoted-printable"), png, boundary="r")
        inner = multipart("alternative", part(b"see https://example.com/t", "text/plain"), page, boundary="i")
        result = rewritten(top(multipart("mixed", inner, pdf, attached, forwarded, boundary="o")), text_links=True)
        assert result.links == 2
        assert all(same in result.content for same in (png, pdf, attached, forwarded))
        assert homes(result.content) == [[URL], [None], [None]]
        assert pixels(result.content) == [1, 0, 0]

    @pytest.mark.parametrize(
        "extra",
        [
            b"Content-Disposition: inline; filename=a.html\r\n",
            b'Content-Disposition: inline;\r\n filename="a.html"\r\n',
            b"Content-Disposition: inline; filename*0*=utf-8''a; filename*1=.html\r\n",
            b"Content-Disposition: attachment\r\n",
        ],
    )
    def test_m03_a_page_with_a_file_name_is_a_file(self, extra: bytes) -> None:
        """Some mail programs show it below the text too, but all of them offer it as a file, which has to be whole."""
        second = part(LINK, extra=extra)
        result = rewritten(top(multipart("mixed", part(LINK), second)))
        assert second in result.content
        assert homes(result.content) == [[URL], [None]]

    def test_m04_two_pages_one_behind_the_other_are_both_wrapped_and_share_a_pixel(self) -> None:
        """Apple Mail splits its text around an attachment so; a later part without a file name is shown in place."""
        pdf = part(b"%PDF", "application/pdf", "base64", charset="")
        result = rewritten(top(multipart("mixed", part(LINK), pdf, part(LINK))))
        assert homes(result.content) == [[URL], [URL]]
        assert pixels(result.content) == [0, 1]

    def test_m04_a_text_before_the_page_hides_nothing(self) -> None:
        """Both are parts of a mixed, so both are shown, and the second is no attachment."""
        result = rewritten(top(multipart("mixed", part(b"text", "text/plain"), part(LINK))))
        assert (homes(result.content), pixels(result.content)) == ([[URL]], [1])

    def test_m04_of_two_pages_of_an_alternative_both_are_wrapped(self) -> None:
        """A reader shows one of them, the last it can (RFC 2046 5.1.4); which one, nobody knows here.

        A list of care says that a page that is not the first of its alternative be left alone. The contract says that
        the links of every text/html part that is no attachment are wrapped, and it stands above that list.
        """
        result = rewritten(top(multipart("alternative", part(b"t", "text/plain"), part(LINK), part(LINK))))
        assert homes(result.content) == [[URL], [URL]]
        assert pixels(result.content) == [0, 1]

    def test_m04_the_pixel_is_in_the_alternative_and_not_in_the_footer_of_a_list(self) -> None:
        inner = multipart("alternative", part(b"t", "text/plain"), part(LINK), boundary="i")
        result = rewritten(top(multipart("mixed", inner, part(LINK))))
        assert homes(result.content) == [[URL], [URL]]
        assert pixels(result.content) == [1, 0]

    @pytest.mark.parametrize(("start", "shown"), [("", 0), ('; start="<two@example.com>"', 1)])
    def test_m04_only_the_root_of_a_related_is_the_page(self, start: str, shown: int) -> None:
        parts = [part(LINK, extra=b"Content-ID: <%s@example.com>\r\n" % name) for name in (b"one", b"two")]
        result = rewritten(top(multipart("related", *parts, extra=start)))
        assert [links[0] == URL for links in homes(result.content)] == [at == shown for at in range(2)]
        assert sum(pixels(result.content)) == 1

    @pytest.mark.parametrize("empty", [b"", b"\r\n", b" \t\r\n\r\n"])
    @pytest.mark.parametrize("encoding", ["", "quoted-printable", "base64"])
    def test_m04_an_empty_page_stays_empty(self, empty: bytes, encoding: str) -> None:
        content = top(multipart("alternative", part(b"t", "text/plain"), part(empty, encoding=encoding)))
        result = rewritten(content)
        assert (result.content, result.reason) == (content, "empty")

    @pytest.mark.parametrize(
        "kind",
        [
            "text/calendar; method=REQUEST",
            "text/x-amp-html",
            "text/watch-html",
            "message/delivery-status",
            "message/external-body; access-type=URL",
            "message/partial; id=a; number=1; total=2",
            "message/global",
            "application/xhtml+xml",
            "text/html5",
        ],
    )
    def test_m04_other_types_stay_beside_a_page(self, kind: str) -> None:
        other = part(LINK, kind)
        result = rewritten(top(multipart("alternative", part(b"t", "text/plain"), other, part(LINK))))
        assert (other in result.content, result.links) == (True, 1)

    def test_m04_a_report_stays(self) -> None:
        content = top(multipart("report", part(LINK), part(b"x", "message/delivery-status"), extra="; report-type=x"))
        result = rewritten(content)
        assert (result.content, result.reason) == (content, "report")


class TestTransferEncodings:
    """M5: the label stays, and what is sent under it is legal."""

    @pytest.mark.parametrize("field", ["8BIT", "8bit", "7bit", "Binary", None])
    def test_m05_text_as_it_is(self, field: str | None) -> None:
        head = b"Content-Type: text/html\r\n" + (f"Content-Transfer-Encoding: {field}\r\n".encode() if field else b"")
        result = rewritten(top(head + b"\r\n" + LINK))
        assert homes(result.content) == [[URL]]
        assert result.content.count(head + b"\r\n") == 1
        assert body_of(result.content).isascii()

    @pytest.mark.parametrize(
        "body",
        [
            b'<a href=3D"https://example.com/?a=3D1&amp;b=3D2">',
            b'<a href=3d"https://example.com/?a=3d1&amp;b=3d2">',
            b'<a href=3D"https://exam=\r\nple.com/?a=\r\n=3D1&amp;b=3D=\r\n2">',
            b'<a href=3D=\r\n"https://example.com/?a=3D1&amp;b=3D2"=\r\n>',
            b"<a href=3Dhttps://example.com/?a=3D1&amp;b=3D2 >  \r\n=20",
            b'<a href=3D"https://example.com/?a=3D1&amp;b=3D2">=C3=A9\xc3\xa9' + b"x" * 90 + b"=\r\n",
        ],
    )
    def test_m05_quoted_printable(self, body: bytes) -> None:
        content = top(b"Content-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + body)
        result = rewritten(content)
        assert homes(result.content) == [[URL]]
        new = body_of(result.content)
        assert longest_line(new) <= 76
        # What we put there has no octet over 127; what came in has its own.
        assert [line for line in new.split(b"\r\n") if not line.isascii()] == [
            line for line in new.split(b"\r\n") if b"\xc3\xa9" in line
        ]

    @pytest.mark.parametrize(
        "raw",
        [
            base64.b64encode(LINK * 9),
            base64.encodebytes(LINK * 9).replace(b"\n", b"\r\n"),
            b"\r\n".join(re.findall(b".{1,60}", base64.b64encode(LINK * 9))),
            b"\r\n".join(re.findall(b".{1,61}", base64.b64encode(LINK * 9))) + b"\r\n\r\n",
            b" \t".join(re.findall(b".{1,40}", base64.b64encode(LINK * 9))),
            b"\r\n\r\n" + b" \r\n".join(re.findall(b".{1,76}", base64.b64encode(LINK * 9))),
        ],
    )
    def test_m05_base64_in_any_layout(self, raw: bytes) -> None:
        result = rewritten(top(b"Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n" + raw))
        assert homes(result.content) == [[URL] * 9]
        assert longest_line(body_of(result.content)) <= max(76, longest_line(raw))
        assert base64.b64decode(body_of(result.content))

    @pytest.mark.parametrize(
        ("encoding", "body", "reason"),
        [
            ("x-uuencode", LINK, "unknown_encoding"),
            ("base-64", LINK, "unknown_encoding"),
            ("quoted-printable", LINK, "undecodable"),
            ("base64", LINK, "undecodable"),
            ("base64", base64.b64encode(b"<p>1") + b"\r\n" + base64.b64encode(LINK), "undecodable"),
            ("base64", base64.b64encode(LINK)[:-3], "undecodable"),
        ],
    )
    def test_m05_what_would_have_to_be_repaired_stays(self, encoding: str, body: bytes, reason: str) -> None:
        """Also a body that somebody set anew below an old label: its `?a=1` would decode to something else."""
        head = f"Content-Type: text/html\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode()
        result = rewritten(top(head + body))
        assert (result.content, result.reason) == (top(head + body), reason)

    def test_m05_an_encoded_multipart_stays_closed(self) -> None:
        body = multipart("mixed", part(LINK)).replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n", 1)
        result = rewritten(top(body))
        assert (result.content, result.injected) == (top(body), False)


ALIASES = [
    ("windows-1251", "cp1251", "Привет"),
    ("koi8-r", "koi8-r", "Привет"),
    ("iso-2022-jp", "iso-2022-jp", "ご案内"),
    ("gb18030", "gb18030", "你好"),
    ("utf-16", "utf-16", "你好"),
    ("iso-8859-8-i", "iso8859-8", "שלום"),
    ("x-sjis", "cp932", "ソ表"),
    ("windows-874", "cp874", "สวัสดี"),
    ("cp-850", "cp850", "Grüße"),
    ("win-1251", "cp1251", "Привет"),
    ("x-gbk", "gbk", "你好"),
    ("windows-31j", "cp932", "①"),
    ("iso-2022-jp-ms", "iso-2022-jp-ext", "ご案内"),
    ('"utf-8"', "utf-8", "Grüße"),
    ("UTF-8", "utf-8", "Grüße"),
    ("ks_c_5601-1987", "cp949", "똠방각하"),
    ("big5", "big5", "許功蓋"),
    ("euc-jp", "euc-jp", "ご案内"),
    ("iso-8859-1", "cp1252", "“Grüße” €"),
]


class TestCharsets:
    """M6 and M7: letters survive, whatever the label says and whether it is true."""

    @pytest.mark.parametrize(("label", "codec", "words"), ALIASES)
    @pytest.mark.parametrize("encoding", ["base64", "quoted-printable"])
    def test_m06_words_survive_in_every_charset(self, label: str, codec: str, words: str, encoding: str) -> None:
        page = f'<p>{words} <a href="{URL.replace("&", "&amp;")}">{words}</a> {words}</p>'
        body = page.encode(codec)
        if encoding == "quoted-printable":
            raw = re.sub(rb"[^ -<>-~]", lambda found: b"=%02X" % found[0][0], body)
        else:
            raw = encode(body, encoding)
        head = f"Content-Type: text/html; charset={label}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode()
        result = rewritten(top(head + raw))
        assert (result.links, result.injected) == (1, True)
        new = html_of(result.content).decode(codec)
        assert [destination(link) for link in links_of(new)] == [URL]
        assert PIXEL.sub(b"", WRAPPED.sub(b"URL", new.encode())) == re.sub('"http[^"]*"', "URL", page).encode()

    @pytest.mark.parametrize(
        "label",
        [
            "charset*=us-ascii'en'utf-8",
            "charset*=''windows-1251",
            "charset*0=windows-; charset*1=1251",
            "charset*0*=us-ascii''windows%2D; charset*1=1251",
            'CHARSET = "windows-1251" ; x=y',
            "charset='windows-1251'",
            'charset=" windows-1251 "',
            "charset=windows-1251; charset=windows-1251",
            "charset=windows-1251;",
            "format=flowed;charset=windows_1251",
        ],
    )
    def test_m06_labels_in_every_spelling(self, label: str) -> None:
        assert rewritten(labelled(label, LINK)).links == 1

    @pytest.mark.parametrize(
        "label",
        [
            *("charset=default", "charset=binary", "charset=x-unknown", "charset=unknown-8bit", 'charset=""'),
            *("charset=utf-8; charset=koi8-r", "charset=koi8-r; charset*=''utf-8", "charset=hz-gb-2312"),
        ],
    )
    def test_m06_labels_that_say_nothing_leave_the_part_alone(self, label: str) -> None:
        content = labelled(label, LINK)
        result = rewritten(content)
        assert (result.content, result.reason) == (content, "unknown_charset")

    def test_m07_octets_that_are_in_no_charset_survive(self) -> None:
        body = b"<p>caf\xe9 \xff\xc3</p>" + LINK + b"\xe9"
        for encoding in ("8bit", "base64"):
            result = rewritten(labelled("charset=utf-8", body, encoding))
            new = html_of(result.content)
            assert (result.links, new.startswith(b"<p>caf\xe9 \xff\xc3</p>")) == (1, True)
            assert PIXEL.sub(b"", new).endswith(b"\xe9")

    @pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""])
    def test_m07_the_header_stands_above_a_meta_element(self, mark: bytes) -> None:
        body = mark + b'<meta charset="koi8-r"><a href="https://example.com/\xc3\xa9">x</a>'
        result = rewritten(labelled("charset=utf-8", body, "8bit"))
        assert [destination(link) for link in links_of(html_of(result.content).decode())] == ["https://example.com/é"]
        assert body_of(result.content).startswith(mark + b'<meta charset="koi8-r">')

    @pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
    @pytest.mark.parametrize("label", ["charset=utf-8", "charset=us-ascii", "x=y"])
    def test_m07_a_mark_of_two_octet_letters_stands_against_the_label(self, codec: str, label: str) -> None:
        """Whoever believes the mark would see what we add as letters of another script."""
        content = labelled(label, ("\ufeff" + LINK.decode()).encode(codec))
        result = rewritten(content)
        assert (result.content, result.reason) == (content, "undecodable")


def joined(*lines: bytes) -> bytes:
    """Return *lines*, each with its end but the last."""
    return b"\r\n".join(lines)


HTML = joined(b"Content-Type: text/html", b"", LINK.strip())
STRUCTURES = {
    "a boundary that begins like another": multipart(
        "mixed", multipart("alternative", part(b"t", "text/plain"), part(LINK), boundary="ab"), boundary="a"
    ),
    "a boundary that another begins with": multipart(
        "mixed", multipart("alternative", part(b"t", "text/plain"), part(LINK), boundary="a"), boundary="ab"
    ),
    "preamble and epilogue": joined(
        b"Content-Type: multipart/mixed; boundary=b", b"", b'<a href="https://example.com/">', b"--bb", b"--b", HTML
    )
    + joined(b"", b"--b--", b"--b", b'<a href="https://example.com/">'),
    "no last line end": multipart("mixed", part(LINK))[:-2],
    "no closing delimiter": joined(b"Content-Type: multipart/mixed; boundary=b", b"", b"--b", HTML),
    "half a delimiter at the end": joined(b"Content-Type: multipart/mixed; boundary=b", b"", b"--b", HTML, b"--"),
    "a boundary with a space": multipart("mixed", part(LINK), boundary="x y"),
    "white space behind delimiters": joined(
        b'Content-Type: multipart/mixed; boundary="b"', b"", b"--b \t", HTML, b"--b-- ", b""
    ),
    "a folded label": joined(b"Content-Type:", b"\tmultipart/mixed;", b' boundary="b"', b"", b"--b", HTML, b"--b--"),
    "a label in two segments": joined(
        b"Content-Type: multipart/mixed; boundary*0=x; boundary*1*=%79", b"", b"--xy", HTML, b"--xy--", b""
    ),
    "an inner multipart that nobody closed": joined(
        b"Content-Type: multipart/mixed; boundary=o",
        *(b"", b"--o", b"Content-Type: multipart/alternative; boundary=i", b"", b"--i", HTML, b"--o--", b""),
    ),
    "a part without a header": joined(
        b"Content-Type: multipart/mixed; boundary=b", b"", b"--b", b"", b"text", b"--b", HTML, b"--b--", b""
    ),
    "a repeated field": joined(
        b"Content-Type: multipart/mixed; boundary=b",
        *(b"", b"--b", b"Content-Type: text/html", b"content-type:", b" text/html", b"", LINK.strip(), b"--b--"),
    ),
    "broken parameters": joined(
        b'Content-Type: multipart/mixed; ;=; x="; boundary=no; \\"";boundary=b;', b"", b"--b", HTML, b"--b--"
    ),
}
# As a part of the outer or of the inner one, the page is shown to everybody.
STRUCTURES["the same boundary inside"] = multipart(
    "mixed", multipart("alternative", part(LINK), boundary="b"), boundary="b"
)
UNTOUCHED = {
    "no boundary": joined(b"Content-Type: multipart/mixed", b"", b"--b", HTML, b"--b--"),
    "two boundaries": joined(b"Content-Type: multipart/mixed; boundary=a; boundary=b", b"", b"--b", HTML, b"--b--"),
    "no part at all": joined(b"Content-Type: multipart/mixed; boundary=b", b"", LINK),
    "labels that disagree": joined(b"Content-Type: text/html", b"Content-Type: text/plain", b"", LINK),
    "a part without an empty line": multipart("mixed", joined(b"Content-Type: text/html", LINK)),
}


class TestStructure:
    """M10: parts are found where mail programs find them, and what stands around them is the same to the octet."""

    @pytest.mark.parametrize("name", STRUCTURES)
    def test_m10_only_link_and_pixel_change(self, name: str) -> None:
        content = top(STRUCTURES[name])
        result = rewritten(content)
        assert (result.links, result.injected) == (1, True)
        before = re.sub(rb'"https://example\.com/\?a=1&amp;b=2"', b"URL", content)
        assert PIXEL.sub(b"", WRAPPED.sub(b"URL", result.content)) == before
        assert [kind for kind, _ in leaves(result.content)] == [kind for kind, _ in leaves(content)]

    @pytest.mark.parametrize("name", UNTOUCHED)
    def test_m10_what_can_be_read_in_two_ways_stays(self, name: str) -> None:
        content = top(UNTOUCHED[name])
        result = rewritten(content)
        assert (result.content, result.injected) == (content, False)

    def test_m10_a_header_that_runs_into_the_body_stays(self) -> None:
        """Where the one ends and the other begins is said by an empty line, which is put between them."""
        head = top(b"Content-Type: text/html\r\n")
        result = rewrite(head + LINK, edits=NO_EDITS, campaign=False)
        assert (result.reason, result.injected) == ("malformed_header", False)
        assert result.content == head + b"\r\n" + LINK

    def test_m10_bare_line_feeds_are_line_ends_to_explain(self, tmp_path: Path) -> None:
        """The relay turns them into CRLF when it takes a message, and so does the command; here none arrives."""
        message = tmp_path / "message.eml"
        message.write_bytes(top(STRUCTURES["preamble and epilogue"]).replace(b"\r\n", b"\n"))
        command = [sys.executable, "-m", "sidecar", "explain", str(message), "--json"]
        told = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=50).stdout)
        assert told["injected"] is True
        assert [(each["path"], [link["url"] for link in each["links"]]) for each in told["parts"]] == [("1.1", [URL])]

    @pytest.mark.parametrize(
        ("bomb", "reason"),
        [
            (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 30_000, "part_limit"),
            (
                b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + (b"--b\r\n" + HTML + b"\r\n") * 3_000,
                "part_limit",
            ),
            (
                b"".join(
                    b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(5_000)
                ),
                "depth_limit",
            ),
            (b"".join(b"X-%d: y\r\n" % n for n in range(20_000)) + HTML, "header_limit"),
            (
                b"Content-Type: multipart/mixed; boundary=" + b"b" * 200_000 + b"\r\n\r\n" + b"--b\r\n" * 9_000,
                "no_html",
            ),
        ],
    )
    def test_m10_a_bomb_is_bounded_and_untouched(self, bomb: bytes, reason: str) -> None:
        """Ten times what it takes here on a busy machine; a quadratic step would take minutes."""
        content = top(bomb)
        start = time.process_time()
        result = rewritten(content)
        assert time.process_time() - start < 3
        assert (result.content, result.reason) == (content, reason)
