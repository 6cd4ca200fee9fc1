"""The report says what would happen, because it is made from what would happen."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from injector import HeaderEdits, Options, parse
from injector.explain import Report, explain
from injector.explain_text import render_text
from tests.unit.injector.mails import BASE, STAMP, HexMinter, html_of, multipart, options, part, rewrite, top


def unwrapped(text: str) -> str:
    """Return *text* with its lines joined again."""
    return " ".join(text.split())


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
        assert "sent without changes to the body" in unwrapped(render_text(report))

    def test_a_folded_part_is_named(self) -> None:
        report = explain(top(part(b"x" * 1_200, "text/plain")), options(), campaign=False)
        assert [part.folded for part in report.parts] == [True]

    def test_a_part_tells_how_its_size_changes(self) -> None:
        report = explain(mail(), options(), campaign=True, minter=HexMinter())
        sent = rewrite(mail(), edits=HeaderEdits()).content
        came, left = (list(parse(content).leaves) for content in (mail(), sent))
        assert [(part.size, part.size_after) for part in report.parts] == [
            (before.body_end - before.body_start, after.body_end - after.body_start)
            for before, after in zip(came, left, strict=True)
        ]
        shown = report.parts[1].gmail
        assert shown is not None
        assert (shown.before, shown.after) == (len(HTML), len(html_of(sent)))
        assert [part.gmail for part in report.parts[::2]] == [None, None]

    @pytest.mark.parametrize("encoding", ["7bit", "base64", "quoted-printable"])
    @pytest.mark.parametrize(("room", "clipped"), [(0, False), (-1, True)])
    def test_gmail_clips_what_has_more_than_102_kib_when_it_leaves(
        self, encoding: str, room: int, *, clipped: bool
    ) -> None:
        pixel = len(html_of(rewrite(top(part(b"x"))).content)) - 1
        body = (b"x" * 70 + b"\r\n") * 2_000
        body = body[: 102 * 1024 - pixel - room]
        report = explain(top(part(body, encoding=encoding)), options(), campaign=False, minter=HexMinter())
        shown = report.parts[0].gmail
        assert shown is not None
        assert (shown.before, shown.after, shown.clipped) == (len(body), 102 * 1024 - room, clipped)
        words = "Gmail clips this message: 1 octets over" if clipped else "Gmail shows it whole, 0 octets are left"
        assert words in unwrapped(render_text(report))

    def test_what_stays_as_it_is_is_clipped_as_it_is(self) -> None:
        report = explain(top(part(b"x\r\n" * 40_000), b"DKIM-Signature: b=x"), options(), campaign=False)
        shown = report.parts[0].gmail
        assert shown is not None
        assert (shown.before, shown.after, shown.clipped) == (120_000, 120_000, True)
        assert "Gmail clips this message, as it did before" in unwrapped(render_text(report))

    def test_whole_fields_are_told(self) -> None:
        report = explain(mail(), options(), campaign=True, edits=EDITS)
        assert report.fields_removed == ("Message-ID: <own@example.com>\r\n", "Bcc: b@example.com\r\n")
        assert [field.partition(":")[0] for field in report.fields_added] == [
            "Received",
            "List-Unsubscribe",
            "List-Unsubscribe-Post",
            "Message-ID",
            "X-Original-Message-ID",
        ]

    def test_a_wish_about_tracking_is_told(self) -> None:
        content = top(part(HTML), b"X-Mailgun-Track-Clicks: no", b"X-PM-TrackOpens: perhaps")
        report = explain(content, options(), campaign=False)
        assert (report.heard, report.unread) == (("x-mailgun-track-clicks",), ("x-pm-trackopens",))
        assert "heard: x-mailgun-track-clicks" in render_text(report)
        assert {link.reason for link in report.parts[0].links} == {"clicks_off"}

    def test_a_message_that_is_signed_again_says_for_whom(self) -> None:
        content = top(part(HTML), b"DKIM-Signature: v=1; d=example.com; s=s1; h=from; b=x")
        chosen = msgspec.structs.replace(options(), dkim="resign", dkim_domains=("example.com",))
        report = explain(content, chosen, campaign=False)
        assert (report.injected, report.resigned_for) == (True, ("example.com",))
        assert "signed again for example.com" in render_text(report)
        assert any(field.startswith("DKIM-Signature") for field in report.fields_removed)

    @pytest.mark.parametrize(
        "url",
        [
            "https://links.example.com/ls/click?upn=u001.x",
            "https://example.com/track/click/30112/example.net?p=x",
            "https://click.example.com/x",
            "https://example.com/L0/https:%2F%2Fexample.net/1/0100",
            "https://example.com/f/a/AbC~~/x",
        ],
    )
    def test_a_link_that_another_service_tracks_is_named(self, url: str) -> None:
        report = explain(top(part(f'<a href="{url}">x</a>'.encode())), options(), campaign=False)
        assert [(link.tracked, link.warning) for link in report.parts[0].links] == [(True, "tracked_already")]
        assert "clicks are counted twice" in unwrapped(render_text(report))

    def test_an_ordinary_link_is_not_suspected(self) -> None:
        links = explain(mail(), options(), campaign=True).parts[1].links
        assert {link.warning for link in links} == {None}

    def test_labels_belong_to_their_places(self) -> None:
        page = (
            b'<!--[if mso]><a href="https://x.test/">Outlook</a><![endif]--><a href="https://x.test/"><b>x</b>.test</a>'
            b'<a href="https://x.test/">two<br>lines</a><a href="https://x.test/"><img alt="i"></a>'
        )
        links = explain(top(part(page)), options(), campaign=False).parts[0].links
        assert [link.label for link in links] == ["Outlook", "x.test", "two lines", ""]

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
    """A person can read it, in a terminal of 80 columns."""

    def test_it_names_every_verdict(self) -> None:
        text = unwrapped(render_text(explain(mail(), options(), campaign=True, edits=EDITS)))
        for words in (
            "Message <own@example.com>: tracked, 2 of 4 links and the pixel",
            "+ Received: by x",
            "- Bcc: b@example.com",
            "Part 1.1 text/plain; charset=utf-8 (7bit, 25 octets): not tracked: text_links_off",
            "tracked, with the pixel",
            "link 0 <a> “Read on” tracked: https://example.com/?a=1&b=2",
            "<a> “write” left alone, mailto: mailto:a@example.com",
            "Gmail shows it whole, 103,",
            "undone, they give the input back",
        ):
            assert words in text

    def test_it_names_what_is_not_tracked(self) -> None:
        text = render_text(explain(top(part(HTML), b"ARC-Seal: i=1"), options(), campaign=True))
        assert "not tracked: dkim_signed" in text
        assert "keeps its Message-ID: somebody signed it" in text
        assert "  unchanged" in text

    @given(st.binary(max_size=200), st.text(max_size=200), st.sampled_from(["utf-8", "utf-16", "iso-2022-jp"]))
    def test_it_fits_and_obeys_nobody(self, field: bytes, words: str, charset: str) -> None:
        """Invariant: a line has at most 80 columns, and nothing in it moves a cursor or turns a direction."""
        page = f'<a href="https://x.test/{words}">{words}</a>{words}'.encode(charset, "replace")
        subject = b"Subject: " + field.translate(None, b"\r\n")
        content = top(part(page, encoding="base64", charset=charset), subject, b"Message-ID: " + field[:9])
        for line in render_text(explain(content, options(), campaign=True)).split("\n"):
            assert line.isprintable()
            assert len(line) <= 80

    def test_a_label_in_ideographs_takes_no_more_columns(self) -> None:
        content = top(part(f'<a href="https://x.test/">{"日" * 50}</a>'.encode()))
        assert f"“{'日' * 20}…”" in render_text(explain(content, options(), campaign=False))
