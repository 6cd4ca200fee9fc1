"""The report says what would happen, because it is made from what would happen."""

import msgspec

from injector import HeaderEdits, Options
from injector.explain import Report, explain, render_text
from tests.unit.injector.mails import BASE, STAMP, HexMinter, multipart, options, part, rewrite, top

HTML = (
    b'<a href="https://example.com/?a=1&amp;b=2">Read <b>on</b></a> <a href="mailto:a@example.com">write</a>'
    b'<a href="https://example.com/amsweb.php?x=1">skip</a><area href="https://example.com/map">'
)
EDITS = HeaderEdits(prepend=(b"Received: by x\r\n",), set_message_id=STAMP)


def mail() -> bytes:
    """Return a message with a part of each kind."""
    return top(
        multipart(
            "mixed",
            part(b"text https://example.com/", "text/plain"),
            part(HTML, encoding="quoted-printable"),
            part(b"pdf", "application/pdf", "base64", charset=""),
        ),
        b"Message-ID: <own@example.com>",
        b"Bcc: b@example.com",
    )


class TestReport:
    """Every part, link and header change is in it, with the reason."""

    def test_every_link_is_tracked_or_has_its_reason(self) -> None:
        links = explain(mail(), options(), campaign=True).parts[1].links
        assert [(link.tracked, link.url, link.number, link.reason, link.element) for link in links] == [
            (True, "https://example.com/?a=1&b=2", 0, None, "a"),
            (False, None, None, "mailto", "a"),
            (False, None, None, "skipped", "a"),
            (True, "https://example.com/map", 1, None, "area"),
        ]
        assert [link.label for link in links] == ["Read on", "write", "skip", ""]

    def test_every_part_is_tracked_or_has_its_reason(self) -> None:
        report = explain(mail(), options(), campaign=True)
        assert [(part.path, part.tracked, part.pixel, part.reason) for part in report.parts] == [
            ("1.1", False, False, "text_links_off"),
            ("1.2", True, True, None),
            ("1.3", False, False, "other_type"),
        ]
        assert [part.encoding for part in report.parts] == ["7bit", "quoted-printable", "base64"]

    def test_header_changes_are_listed(self) -> None:
        report = explain(mail(), options(), campaign=True, edits=EDITS)
        added = "".join(change.added for change in report.headers)
        assert "Received: by x" in added
        assert STAMP.decode() in added
        assert "List-Unsubscribe" in added
        assert [change.removed for change in report.headers if not change.added] == ["Bcc: b@example.com\r\n"]
        assert (report.message_id, report.keeps_message_id) == ("<own@example.com>", False)

    def test_the_difference_adds_up(self) -> None:
        content = mail()
        difference = explain(content, options(), campaign=True, edits=EDITS).difference
        assert difference.size_before == len(content)
        assert difference.kept + difference.removed == difference.size_before
        assert difference.kept + difference.added == difference.size_after
        assert difference.reversible

    def test_with_the_same_minter_it_is_what_the_relay_sends(self) -> None:
        rendered = rewrite(mail(), edits=EDITS)
        report = explain(mail(), options(), campaign=True, edits=EDITS)
        assert (report.injected, report.reason) == (rendered.injected, rendered.reason)
        assert sum(link.tracked for part in report.parts for link in part.links) == rendered.links

    def test_untouched_mail_says_why_for_every_part(self) -> None:
        content = top(multipart("alternative", part(HTML)), b"DKIM-Signature: h=from; b=x")
        report = explain(content, options(), campaign=True)
        assert (report.injected, report.reason, report.keeps_message_id) == (False, "dkim_signed", True)
        assert [part.reason for part in report.parts] == ["dkim_signed"]
        assert report.difference.changes == ()

    def test_a_rewrite_that_fails_is_reported_as_the_relay_would_send_it(self) -> None:
        class Failing(HexMinter):
            def open(self) -> str:
                """Fail."""
                raise MemoryError

        report = explain(mail(), options(), campaign=True, minter=Failing())
        assert (report.injected, report.reason, report.difference.changes) == (False, "rewrite_failed", ())
        assert "sent without changes to the body" in render_text(report)

    def test_a_folded_part_is_named(self) -> None:
        report = explain(top(part(b"x" * 1_200, "text/plain")), options(), campaign=False)
        assert [part.folded for part in report.parts] == [True]

    def test_labels_are_read_in_the_charset_of_the_part(self) -> None:
        for charset, words in (("koi8-r", "Привет"), ("utf-16", "你好"), ("iso-2022-jp", "ご案内")):
            html = f'<a href="https://example.com/">{words}</a>'.encode(charset)
            report = explain(top(part(html, encoding="base64", charset=charset)), options(), campaign=True)
            assert [link.label for link in report.parts[0].links] == [words]

    def test_any_octets_get_a_report(self) -> None:
        for content in (b"", b"\xff\x00", b"\r\n", b"no header", top(part(b"\xff" * 50))):
            assert isinstance(explain(content, options(), campaign=True), Report)

    def test_it_is_a_document(self) -> None:
        report = explain(mail(), Options(public_url=BASE), campaign=True)
        assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


class TestText:
    """A person can read it."""

    def test_it_names_every_verdict(self) -> None:
        text = render_text(explain(mail(), options(), campaign=True, edits=EDITS))
        for words in (
            "Message <own@example.com>: tracked",
            "+ 'Received: by x",
            "- 'Bcc: b@example.com",
            "Part 1.1 text/plain; charset=utf-8 (7bit, 25 octets): not tracked: text_links_off",
            "tracked, with the pixel",
            "link 0 <a> “Read on” tracked: https://example.com/?a=1&b=2",
            "<a> “write” left alone, mailto: mailto:a@example.com",
            "undone, they give the input back",
        ):
            assert words in text

    def test_it_names_what_is_not_tracked(self) -> None:
        text = render_text(explain(top(part(HTML), b"ARC-Seal: i=1"), options(), campaign=True))
        assert "not tracked: dkim_signed" in text
        assert "keeps its Message-ID: somebody signed it" in text
        assert "  unchanged" in text
