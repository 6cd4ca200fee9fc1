"""What is touched and what is not: each kind of mail and part with its reason."""

import pytest

import injector
from injector import HeaderEdits, Plan
from tests.unit.injector.mails import (
    BASE,
    PDF,
    STAMP,
    body_of,
    destination,
    html_of,
    leaves,
    links_of,
    multipart,
    options,
    part,
    rewrite,
    top,
)

LINK = b'<p>Hi <a href="https://example.com/?a=1&amp;b=2">go</a></p>'
WRAPPED = b'href="' + BASE.encode()
PIXEL = b"/track/o/pixel"


def planned(content: bytes, *, text_links: bool = False) -> Plan:
    """Return the plan of a campaign's message."""
    return injector.plan(injector.parse(content), options(text_links=text_links), campaign=True)


class TestWholeMail:
    """Mail that somebody signed, encrypted or a program answered keeps its body to the octet."""

    @pytest.mark.parametrize(
        ("kind", "reason"),
        [
            ('multipart/signed; boundary=b; protocol="application/pkcs7-signature"', "signed"),
            ('multipart/signed; boundary=b; protocol="application/pgp-signature"', "signed"),
            ("multipart/encrypted; boundary=b", "encrypted"),
            ("application/pkcs7-mime; smime-type=signed-data", "signed"),
            ("application/pkcs7-mime; smime-type=enveloped-data", "encrypted"),
            ("application/x-pkcs7-mime", "encrypted"),
            ("multipart/report; boundary=b; report-type=delivery-status", "report"),
            ("message/disposition-notification", "report"),
        ],
    )
    def test_m01_sealed_bodies_stay(self, kind: str, reason: str) -> None:
        content = top(f"Content-Type: {kind}\r\n\r\n--b\r\n".encode() + part(LINK) + b"\r\n--b--\r\n")
        result = rewrite(content)
        assert (result.reason, result.injected, result.links) == (reason, False, 0)
        assert body_of(result.content) == body_of(content)
        assert STAMP in result.content

    @pytest.mark.parametrize("encoding", ["", "quoted-printable", "base64"])
    @pytest.mark.parametrize("kind", ["text/plain", "text/html"])
    def test_m01_inline_pgp_stays(self, encoding: str, kind: str) -> None:
        armour = part(b"-----BEGIN PGP SIGNED MESSAGE-----\r\nx\r\n", kind, encoding)
        content = top(multipart("mixed", armour, part(LINK)))
        result = rewrite(content)
        assert (result.reason, result.injected) == ("inline_pgp", False)
        assert body_of(result.content) == body_of(content)

    def test_an_attached_pgp_key_is_no_inline_pgp(self) -> None:
        key = part(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\r\n", "application/pgp-keys")
        assert rewrite(top(multipart("mixed", part(LINK), key))).injected

    @pytest.mark.parametrize(("value", "reason"), [(b"no", None), (b"auto-replied", "auto_submitted")])
    def test_automatic_answers_stay(self, value: bytes, reason: str | None) -> None:
        result = rewrite(top(part(LINK), b"Auto-Submitted: " + value + b"; x=y"))
        assert result.reason == reason
        assert (b"List-Unsubscribe" in result.content) is (reason is None)

    @pytest.mark.parametrize("field", [b"DKIM-Signature: h=from; b=x", b"ARC-Seal: i=1; b=x"])
    def test_m09_mail_that_somebody_signed_is_not_stamped(self, field: bytes) -> None:
        content = top(part(LINK), field, b"Message-ID: <own@example.com>")
        result = rewrite(content)
        assert (result.content, result.reason) == (content, "dkim_signed")
        assert planned(content).keeps_message_id

    def test_ordinary_mail_does_not_keep_its_id(self) -> None:
        assert not planned(top(part(LINK))).keeps_message_id

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"no header\r\n\r\n<a href='https://example.com/'>", "malformed_header"),
            (b"".join(b"X: y\r\n" for _ in range(1_001)) + part(LINK), "header_limit"),
            (top(multipart("mixed", *[part(LINK)] * 501)), "part_limit"),
            (top(b"Content-Type: multipart/mixed\r\n\r\n--b\r\n" + part(LINK)), "no_boundary"),
            (top(part(b"text", "text/plain")), "no_html"),
        ],
    )
    def test_structures_in_doubt_stay(self, content: bytes, reason: str) -> None:
        result = rewrite(content, edits=HeaderEdits())
        assert (result.reason, result.injected) == (reason, False)
        assert result.content.endswith(content[-200:])


class TestTrackHeader:
    """X-Outrider-Track overrides the settings for its message and never leaves."""

    @pytest.mark.parametrize(
        ("value", "pixel", "wrapped"),
        [
            (b"all", True, True),
            (b"clicks", False, True),
            (b"OPENS", True, False),
            (b"none", False, False),
            (b"nonsense", True, True),
        ],
    )
    def test_the_header_decides(self, value: bytes, *, pixel: bool, wrapped: bool) -> None:
        result = rewrite(top(part(LINK), b"X-Outrider-Track: " + value))
        assert (PIXEL in result.content, WRAPPED in result.content) == (pixel, wrapped)
        assert b"X-Outrider-Track" not in result.content

    def test_it_can_switch_on_what_is_off(self) -> None:
        result = rewrite(top(part(LINK), b"x-outrider-track: all"), options(opens=False, clicks=False))
        assert (PIXEL in result.content, result.links) == (True, 1)

    def test_switched_off_says_so(self) -> None:
        assert rewrite(top(part(LINK)), options(opens=False, clicks=False)).reason == "tracking_off"
        assert rewrite(top(part(b"<p>")), options(opens=False)).reason == "nothing_to_track"


class TestParts:
    """Only what the reader sees as the message is worked on."""

    def test_m02_only_the_inner_text_and_html_are_touched(self) -> None:
        attached = part(LINK, extra=b"Content-Disposition: attachment; filename=a.html\r\n")
        forwarded = b"Content-Type: message/rfc822\r\n\r\n" + top(part(LINK))
        pdf = part(PDF, "application/pdf", "base64", charset="")
        png = part(b"\x89PNG", "image/png", "base64", charset="")
        inner = multipart(
            "alternative",
            part(b"see https://example.com/t .", "text/plain"),
            multipart("related", part(LINK, encoding="quoted-printable"), png, boundary="r"),
            boundary="i",
        )
        content = top(multipart("mixed", inner, pdf, attached, forwarded, boundary="o"))
        result = rewrite(content, options(text_links=True))
        assert result.links == 2
        for same in (pdf, attached, forwarded, png):
            assert same in result.content
        assert [destination(link) for link in links_of(html_of(result.content))] == ["https://example.com/?a=1&b=2"]

    @pytest.mark.parametrize(
        ("extra", "injected"),
        [
            (b"", True),
            (b"Content-Disposition: inline\r\n", True),
            (b"Content-Disposition: INLINE; filename=a.html\r\n", False),
            (b"Content-Disposition: inline; filename*=utf-8''a.html\r\n", False),
            (b"Content-Disposition: attachment\r\n", False),
            (b"Content-Disposition: unheard-of\r\n", False),
        ],
    )
    def test_m03_a_disposition_or_a_name_makes_an_attachment(self, extra: bytes, *, injected: bool) -> None:
        content = top(multipart("mixed", part(b"text", "text/plain"), part(LINK, extra=extra)))
        result = rewrite(content)
        assert (result.injected, result.reason) == (injected, None if injected else "attachment")

    @pytest.mark.parametrize(
        ("kind", "reason"),
        [
            ("text/calendar", "no_html"),
            ("text/x-amp-html", "no_html"),
            ("application/xhtml+xml", "no_html"),
            ("message/delivery-status", "no_html"),
            ("message/external-body", "no_html"),
            ("message/partial", "no_html"),
        ],
    )
    def test_m04_other_types_stay(self, kind: str, reason: str) -> None:
        content = top(multipart("mixed", part(LINK, kind)))
        result = rewrite(content)
        assert result.reason == reason
        assert body_of(result.content) == body_of(content)

    def test_m04_amp_before_html_stays_and_html_is_tracked(self) -> None:
        amp = part(LINK, "text/x-amp-html")
        content = top(multipart("alternative", part(b"t", "text/plain"), amp, part(LINK)))
        result = rewrite(content)
        assert (result.links, amp in result.content) == (1, True)

    @pytest.mark.parametrize(
        ("subtype", "reason"), [("signed", "signed"), ("encrypted", "encrypted"), ("report", "report")]
    )
    def test_m04_a_sealed_part_inside_an_ordinary_mail_stays_alone(self, subtype: str, reason: str) -> None:
        sealed = multipart(subtype, part(LINK), boundary="s")
        content = top(multipart("mixed", part(LINK), sealed))
        result = rewrite(content)
        assert (result.links, sealed in result.content) == (1, True)
        assert planned(content).leaves[1].reason == reason

    def test_m04_an_empty_html_part_stays_empty(self) -> None:
        content = top(multipart("alternative", part(b"t", "text/plain"), part(b" \r\n")))
        result = rewrite(content)
        assert (result.reason, body_of(result.content)) == ("empty", body_of(content))

    def test_a_name_on_the_message_itself_is_no_attachment(self) -> None:
        assert rewrite(top(part(LINK, 'text/html; name="news.html"'))).injected
        assert not rewrite(top(multipart("mixed", part(LINK, 'text/html; name="news.html"')))).injected

    def test_x8_the_same_url_in_text_and_html_has_one_number(self) -> None:
        text = part(b"https://example.com/?a=1&b=2 https://example.com/other", "text/plain")
        plan = planned(top(multipart("alternative", text, part(LINK + LINK))), text_links=True)
        assert [(link.number, link.url, link.parts, link.count) for link in plan.links] == [
            (0, "https://example.com/?a=1&b=2", ("1.1", "1.2"), 3),
            (1, "https://example.com/other", ("1.1",), 1),
        ]


class TestPixel:
    """One pixel per message, where the reader sees it, and it moves nothing."""

    def test_h31_the_pixel_is_shown_and_moves_nothing(self) -> None:
        html = html_of(rewrite(top(part(b"<html><head></head><p>x</p>"))).content)
        assert html.count(b"<img") == 1
        assert html.index(b"<img") > html.index(b"</head>")
        tag = html[html.index(b"<img") :].partition(b">")[0]
        assert b'width="1" height="1" alt=""' in tag
        assert b"position:absolute" in tag
        assert b"none" not in tag

    @pytest.mark.parametrize(
        ("html", "before"),
        [
            (b"<body>x</BODY >tail", b"</BODY >tail"),
            (b"<body>x<!-- </body> --></body>", b"</body>"),
            (b"<body>x<style></body></style></body></html>after", b"</body></html>after"),
            (b"<pre>&lt;/body&gt;</pre>", b""),
            (b"one</body>two</body>three", b"</body>three"),
        ],
    )
    def test_h27_exactly_one_pixel_before_the_last_real_body_end(self, html: bytes, before: bytes) -> None:
        result = html_of(rewrite(top(part(html))).content)
        assert result.count(PIXEL) == 1
        assert result.partition(b'border:0">')[2] == before

    def test_the_last_html_of_the_first_alternative_has_it(self) -> None:
        inner = multipart(
            "alternative", part(b"<p>one"), multipart("mixed", part(b"<p>two"), part(b"<p>three"), boundary="m")
        )
        content = top(multipart("mixed", part(b"<p>banner"), inner, part(b"<p>footer"), boundary="o"))
        bodies = [body for _, body in leaves(rewrite(content).content)]
        assert [PIXEL in body for body in bodies] == [False, False, False, True, False]

    def test_without_an_alternative_the_last_html_has_it(self) -> None:
        content = top(multipart("mixed", part(b"<p>one"), part(PDF, "application/pdf", "base64"), part(b"<p>two")))
        assert [PIXEL in body for _, body in leaves(rewrite(content).content)] == [False, False, True]

    def test_opens_off_means_no_pixel(self) -> None:
        assert PIXEL not in rewrite(top(part(LINK)), options(opens=False)).content
