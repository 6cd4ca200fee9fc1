"""What a message says about tracking is heard, off wins, and a refusal is never taken away from whoever comes next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import injector
from injector import HeaderEdits
from injector.consent import MAX_JSON, Consent, Tracked, consent_of
from tests.unit.injector.mails import BASE, STAMP, HexMinter, body_of, html_of, multipart, options, part, rewrite, top

ALL = Tracked(opens=True, html_clicks=True, text_clicks=True)
NONE = Tracked(opens=False, html_clicks=False, text_clicks=False)
NO_OPENS = Tracked(opens=False, html_clicks=True, text_clicks=True)
NO_CLICKS = Tracked(opens=True, html_clicks=False, text_clicks=False)
HTML_ONLY = Tracked(opens=True, html_clicks=True, text_clicks=False)
TEXT_ONLY = Tracked(opens=True, html_clicks=False, text_clicks=True)

LINK = b'<p>Hi <a href="https://example.com/?a=1">go</a></p>'
BOTH = multipart("alternative", part(b"see https://example.com/t now", "text/plain"), part(LINK))
PIXEL = b"/track/o/pixel"

SWITCHES = [
    ("X-Mailgun-Track", ALL, NONE),
    ("X-Infobip-Track", ALL, NONE),
    ("X-Track", ALL, NONE),
    *((name, ALL, NO_OPENS) for name in ("X-Mailgun-Track-Opens", "X-PM-TrackOpens", "X-Mailjet-TrackOpen")),
    *((name, ALL, NO_OPENS) for name in ("trackopens", "X-Infobip-TrackOpens", "x-smtpeter-trackopens")),
    *((name, ALL, NO_OPENS) for name in ("AhaSend-Track-Opens", "X-Unosend-Track-Opens", "X-Track-Open")),
    ("X-Track-Opens", ALL, NO_OPENS),
    *((name, ALL, NO_CLICKS) for name in ("X-Mailgun-Track-Clicks", "X-PM-TrackLinks", "X-Mailjet-TrackClick")),
    *((name, ALL, NO_CLICKS) for name in ("trackclicks", "X-Infobip-TrackClicks", "x-smtpeter-trackclicks")),
    *((name, ALL, NO_CLICKS) for name in ("AhaSend-Track-Clicks", "X-Unosend-Track-Clicks", "X-Track-Click")),
    *((name, ALL, NO_CLICKS) for name in ("X-Track-Clicks", "X-Track-Links")),
]


def consent(*lines: bytes, opens: bool = True, clicks: bool = True) -> Consent:
    """Return what is decided for a header of *lines*."""
    content = b"From: a@example.com\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\nx"
    return consent_of(injector.parse(content).headers, opens=opens, clicks=clicks)


class TestOurHeader:
    """X-Outrider-Track is one of four words, however it is written, and stands above everything."""

    @pytest.mark.parametrize(
        ("value", "tracked"),
        [
            (b"all", ALL),
            (b"clicks", NO_OPENS),
            (b"opens", NO_CLICKS),
            (b"none", NONE),
            (b" NONE \t", NONE),
            (b"\r\n\tClicks", NO_OPENS),
            (b"none (the reader said no (twice))", NONE),
            (b"(all) opens", NO_CLICKS),
            (b"none (never \\) closed", NONE),
        ],
    )
    @pytest.mark.parametrize("on", [True, False])
    def test_it_decides_whatever_the_settings_say(self, value: bytes, tracked: Tracked, *, on: bool) -> None:
        decided = consent(b"X-Outrider-Track:" + value, opens=on, clicks=on)
        assert (decided.tracked, decided.heard) == (tracked, ("x-outrider-track",))

    @pytest.mark.parametrize(
        "value", [b"", b"off", b"opens, clicks", b"non", b"\xff", b"(all)", b"all none", b"none (a) )"]
    )
    def test_an_unknown_word_switches_nothing_on_and_is_told(self, value: bytes) -> None:
        decided = consent(b"X-Outrider-Track: " + value, opens=False)
        assert decided.tracked == Tracked(opens=False, html_clicks=True, text_clicks=True)
        assert (decided.heard, decided.unread) == ((), ("x-outrider-track",))

    @pytest.mark.parametrize(
        ("values", "tracked"),
        [
            ((b"all", b"none"), NONE),
            ((b"none", b"all"), NONE),
            ((b"clicks", b"opens"), NONE),
            ((b"all", b"opens", b"all"), NO_CLICKS),
            ((b"nonsense", b"clicks"), NO_OPENS),
        ],
    )
    def test_of_two_that_disagree_only_what_both_allow_is_done(
        self, values: tuple[bytes, ...], tracked: Tracked
    ) -> None:
        assert consent(*(b"x-outrider-track: " + value for value in values)).tracked == tracked

    def test_it_stands_above_the_other_services_fields(self) -> None:
        refused = (b"X-Mailgun-Track: no", b"X-PM-TrackOpens: false", b"X-MC-Track: none")
        assert consent(b"X-Outrider-Track: all", *refused, opens=False).tracked == ALL
        assert consent(b"X-Outrider-Track: none", b"X-Mailgun-Track: yes").tracked == NONE


class TestOtherServices:
    """A mailer that came from another service keeps the switches it had there."""

    @pytest.mark.parametrize(("name", "yes", "no"), SWITCHES)
    def test_every_switch_is_understood(self, name: str, yes: Tracked, no: Tracked) -> None:
        for word in (b"no", b"FALSE", b" off ", b"0", b"None", b"\r\n no", b"no (thanks)"):
            decided = consent(name.encode() + b": " + word)
            assert (decided.tracked, decided.heard, decided.granted) == (no, (name.lower(),), ())
        for word in (b"yes", b"True", b"on", b"1"):
            decided = consent(name.encode() + b": " + word)
            assert (decided.tracked, decided.granted) == (yes, (name.lower(),))
        for word in (b"", b"maybe", b"2", b"https://example.com/"):
            decided = consent(name.encode() + b": " + word)
            assert (decided.tracked, decided.heard, decided.unread) == (ALL, (), (name.lower(),))

    @pytest.mark.parametrize(
        ("line", "tracked"),
        [
            (b"X-MC-Track: opens,clicks", ALL),
            (b"X-MC-Track: opens, clicks_all", ALL),
            (b"X-MC-Track: opens", NO_CLICKS),
            (b"X-MC-Track: clicks", NO_OPENS),
            (b"X-MC-Track: Opens,\r\n Clicks_HtmlOnly", HTML_ONLY),
            (b"X-MC-Track: opens,clicks_textonly", TEXT_ONLY),
            (b"X-MC-Track: none", NONE),
            (b"X-MC-Track:", NONE),
            (b"X-MC-Track: opens_and_more", NONE),
            (b"X-Mailgun-Track-Clicks: htmlonly", HTML_ONLY),
            (b"X-Mailgun-Track: htmlonly", HTML_ONLY),
            (b"X-PM-TrackLinks: HtmlAndText", ALL),
            (b"X-PM-TrackLinks: HtmlOnly", HTML_ONLY),
            (b"X-PM-TrackLinks: TextOnly", TEXT_ONLY),
            (b"X-Track: opens=false; clicks=false", NONE),
            (b"X-Track: opens=default; clicks=false", NO_CLICKS),
            (b"X-Track: clicks=true;opens = false", NO_OPENS),
            (b"X-Track: opens=maybe; colour=false", ALL),
            (b'X-MSYS-API: {"options":{"open_tracking":false,"click_tracking":false}}', NONE),
            (b'X-MSYS-API: {"options":{"open_tracking":true,"click_tracking":false}}', NO_CLICKS),
            (b'X-MSYS-API: {"campaign_id":"c","options":{"open_tracking":"false"}}', NO_OPENS),
            (b'X-MSYS-API: {"metadata":{"options":{"open_tracking":false}}}', ALL),
            (b'X-SMTPAPI: {"filters":{"clicktrack":{"settings":{"enable":0}}}}', NO_CLICKS),
            (b'X-SMTPAPI: {"filters":{"clicktrack":{"settings":{"enable":"0","enable_text":true}}}}', NO_CLICKS),
            (b'X-SMTPAPI: {"filters":{"clicktrack":{"settings":{"enable":1,"enable_text":false}}}}', HTML_ONLY),
            (b'X-SMTPAPI: {"filters":\r\n\t{"opentrack":{"settings":\r\n {"enable":0}}}}', NO_OPENS),
            (
                b'X-SMTPAPI: {"to":["\xe9"],"category":"a\r\n\tb","filters":{"opentrack":{"settings":{"enable":0}}}}',
                NO_OPENS,
            ),
        ],
    )
    def test_words_of_their_own_are_understood(self, line: bytes, tracked: Tracked) -> None:
        assert consent(line).tracked == tracked

    @pytest.mark.parametrize(
        "value",
        [
            b"",
            b"{",
            b"not json",
            b"[]",
            b"null",
            b"7",
            b'"options"',
            b'{"options":[],"filters":"x"}',
            b'{"options":{"click_tracking":null,"open_tracking":2},"filters":{"clicktrack":[{"settings":0}]}}',
            b'{"options":{"click_tracking":0.0,"open_tracking":' + b"9" * 3_000 + b"}}",
            b'{"options":' * 10_000 + b"false" + b"}" * 10_000,
            b"[" * 60_000,
            b'{"options":{"click_tracking":false}} and more',
            b'{"options":{"click_tracking":false},"pad":"' + b"x" * MAX_JSON + b'"}',
        ],
    )
    @pytest.mark.parametrize("name", [b"X-MSYS-API: ", b"X-SMTPAPI: "])
    def test_json_that_says_nothing_readable_says_nothing(self, name: bytes, value: bytes) -> None:
        decided = consent(name + value)
        assert (decided.tracked, decided.heard, decided.unread) == (ALL, (), ())

    def test_json_up_to_the_limit_is_read(self) -> None:
        frame = b'{"options":{"click_tracking":false},"pad":"%s"}'
        padding = MAX_JSON - len(b" " + frame % b"") - len(b"\r\n")
        assert consent(b"X-MSYS-API: " + frame % (b"x" * padding)).tracked == NO_CLICKS
        assert consent(b"X-MSYS-API: " + frame % (b"x" * (padding + 1))).tracked == ALL

    def test_off_wins_among_them_and_among_fields_of_one_name(self) -> None:
        lines = (b"X-Mailgun-Track: yes", b"X-PM-TrackLinks: None", b"X-PM-TrackOpens: true")
        assert consent(*lines).tracked == NO_CLICKS
        assert consent(b"X-PM-TrackOpens: true", b"x-pm-trackopens: false").tracked == NO_OPENS

    @pytest.mark.parametrize(
        "line",
        [
            b"X-Mailgun-Track: yes",
            b"X-MC-Track: opens,clicks",
            b'X-MSYS-API: {"options":{"open_tracking":true,"click_tracking":true}}',
        ],
    )
    def test_their_yes_switches_nothing_on(self, line: bytes) -> None:
        assert consent(line, opens=False, clicks=False).tracked == NONE
        assert consent(line, opens=False).tracked == NO_OPENS

    @given(st.lists(st.sampled_from([name for name, _, _ in SWITCHES]), max_size=4), st.data())
    def test_one_more_field_never_means_more_tracking(self, names: list[str], drawn: st.DataObject) -> None:
        """Invariant: without our own header, whoever adds a field can only take away."""
        words = drawn.draw(st.lists(st.sampled_from(["yes", "no", "", "htmlonly", "?"]), min_size=4, max_size=4))
        lines = [f"{name}: {word}".encode() for name, word in zip(names, words, strict=False)]
        opens, clicks = drawn.draw(st.booleans()), drawn.draw(st.booleans())
        before = Tracked(opens, clicks, clicks)
        for count in range(len(lines) + 1):
            after = consent(*lines[:count], opens=opens, clicks=clicks).tracked
            assert all(was or not now for was, now in zip(before, after, strict=True))
            before = after


class TestPartKinds:
    """Html and plain text are switched apart; text is only ever wrapped when the setting is on."""

    @pytest.mark.parametrize(
        ("line", "html", "text"),
        [
            (b"X-PM-TrackLinks: HtmlAndText", True, True),
            (b"X-PM-TrackLinks: HtmlOnly", True, False),
            (b"X-PM-TrackLinks: TextOnly", False, True),
            (b"X-PM-TrackLinks: None", False, False),
            (b"X-MC-Track: opens,clicks_textonly", False, True),
            (b"X-Outrider-Track: clicks", True, True),
        ],
    )
    @pytest.mark.parametrize("setting", [True, False])
    def test_each_kind_is_decided_alone(self, line: bytes, *, html: bool, text: bool, setting: bool) -> None:
        result = rewrite(top(BOTH, line), options(text_links=setting))
        wrapped = BASE.encode() + b"/track/c/"
        assert result.content.count(wrapped) == result.links == html + (text and setting)
        assert (wrapped in html_of(result.content)) is html

    def test_text_clicks_alone_are_no_tracking_without_the_setting(self) -> None:
        line = b"X-MC-Track: clicks_textonly"
        assert rewrite(top(BOTH, line), options()).reason == "tracking_off"
        assert rewrite(top(BOTH, line), options(text_links=True)).reason is None


class TestWhatLeaves:
    """A request that is granted here goes; a refusal goes on to whoever comes next."""

    @pytest.mark.parametrize(
        "line",
        [
            b"X-Mailgun-Track: yes",
            b"X-Mailgun-Track-Clicks:\r\n yes",
            b"X-PM-TrackLinks: HtmlAndText",
            b"X-PM-TrackOpens: true",
            b"X-MC-Track: opens,clicks_all",
            b"X-Mailjet-TrackOpen: 1",
            b"X-Track: opens=true; clicks=true",
        ],
    )
    def test_a_request_that_is_granted_goes(self, line: bytes) -> None:
        content = top(part(LINK), b"X-Before: 1", line, b"X-After: 1")
        result = rewrite(content, campaign=False, edits=HeaderEdits())
        assert (result.links, PIXEL in result.content) == (1, True)
        head = content[: -len(body_of(content))].replace(line + b"\r\n", b"")
        assert result.content.startswith(head)

    @pytest.mark.parametrize(
        "line",
        [
            b"X-Mailgun-Track: no",
            b"X-Mailgun-Track-Clicks: htmlonly",
            b"X-PM-TrackLinks: None",
            b"X-PM-TrackLinks: TextOnly",
            b"X-PM-TrackOpens: false",
            b"X-MC-Track: opens",
            b"X-Mailjet-TrackClick: 0",
            b"X-Track: opens=true; clicks=false",
            b"X-Track-Open: https://example.com/pixel",
            b"X-Mailgun-Track-Opens: yes\r\nX-Mailgun-Track-Opens: no",
            b"X-Mailgun-Tag: yes",
            b'X-MSYS-API: {"options":{"open_tracking":true,"click_tracking":true},\r\n "metadata":{"a": 1}}',
            b'X-SMTPAPI: {"filters":{"clicktrack":{"settings":{"enable":1}}},"category":"c"}',
        ],
    )
    def test_a_refusal_and_all_that_says_more_than_yes_stays(self, line: bytes) -> None:
        content = top(part(LINK), b"X-Before: 1", line, b"X-After: 1")
        result = rewrite(content, campaign=False, edits=HeaderEdits())
        assert result.content.startswith(content[: -len(body_of(content))])

    def test_a_request_that_the_settings_leave_undone_stays(self) -> None:
        content = top(part(LINK), b"X-Mailgun-Track: yes", b"X-PM-TrackLinks: HtmlAndText")
        result = rewrite(content, options(opens=False), campaign=False, edits=HeaderEdits())
        assert result.links == 1
        assert b"X-Mailgun-Track: yes" in result.content
        assert b"X-PM-TrackLinks" not in result.content
        content = top(part(LINK), b"X-Outrider-Track: none", b"X-Mailgun-Track: yes")
        result = rewrite(content, campaign=False, edits=HeaderEdits())
        assert result.content == content.replace(b"X-Outrider-Track: none\r\n", b"")

    @pytest.mark.parametrize(
        "body",
        [
            part(b"no html", "text/plain"),
            b"Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n" + part(LINK) + b"\r\n--b--\r\n",
            part(LINK, charset="x-unheard-of"),
        ],
    )
    def test_a_message_that_leaves_untracked_keeps_every_request(self, body: bytes) -> None:
        content = top(body, b"X-Mailgun-Track: yes")
        assert rewrite(content, campaign=False, edits=HeaderEdits()).content == content

    def test_a_rewriting_that_fails_keeps_every_request(self) -> None:
        class Failing(HexMinter):
            def open(self) -> str:
                """Fail."""
                raise ValueError

        content = top(part(LINK), b"X-Mailgun-Track: yes", b"X-Outrider-Track: all")
        result = rewrite(content, campaign=False, minter=Failing(), edits=HeaderEdits())
        assert result.reason == "rewrite_failed"
        assert result.content == content.replace(b"X-Outrider-Track: all\r\n", b"")

    @pytest.mark.parametrize(("signed", "kept"), [(b"from:x-outrider-track", True), (b"from", False)])
    def test_ours_stays_only_under_a_signature_that_covers_it(self, signed: bytes, *, kept: bool) -> None:
        content = top(part(LINK), b"DKIM-Signature: h=" + signed + b"; b=x", b"X-Outrider-Track: all")
        result = rewrite(content, edits=HeaderEdits(set_message_id=STAMP))
        expected = content if kept else content.replace(b"X-Outrider-Track: all\r\n", b"")
        assert result.content == expected

    def test_a_message_that_passes_twice_is_changed_once(self) -> None:
        content = top(BOTH, b"X-Mailgun-Track: yes", b"X-PM-TrackLinks: HtmlOnly", b"X-Outrider-Track: clicks")
        once = rewrite(content).content
        assert rewrite(once, options(opens=False), edits=HeaderEdits()).content == once

    def test_the_plan_tells_whose_word_it_was(self) -> None:
        content = top(part(LINK), b"X-PM-TrackOpens: false", b"X-Mailgun-Track-Clicks: yes", b"X-Track: ?")
        plan = injector.plan(injector.parse(content), options(), campaign=False)
        assert plan.consent == Consent(
            tracked=NO_OPENS,
            heard=("x-mailgun-track-clicks", "x-pm-trackopens"),
            unread=("x-track",),
            granted=("x-mailgun-track-clicks",),
        )
        assert plan.granted == ("x-mailgun-track-clicks",)
