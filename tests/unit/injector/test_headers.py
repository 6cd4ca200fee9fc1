"""Header edits touch the fields they are about and not one octet of any other."""

import pytest

from injector import HeaderEdits, parse, plan
from injector.encodings import splice
from injector.headers import header_splices, one_click_allowed, signed_names
from tests.unit.injector.mails import BASE, STAMP, HexMinter, options, part, rewrite, top

RECEIVED = b"Received: from a by b;\r\n\tMon, 1 Jan 2024 00:00:00 +0000\r\n"
STAMPED = b"Message-ID: " + STAMP + b"\r\n"


def edited(
    content: bytes,
    *,
    prepend: tuple[bytes, ...] = (),
    set_message_id: bytes | None = STAMP,
    remove: tuple[str, ...] = (),
) -> bytes:
    """Return *content* with its header edited."""
    edits = HeaderEdits(prepend=prepend, set_message_id=set_message_id, remove=remove)
    return splice(content, header_splices(parse(content), edits))


class TestStamp:
    """Exactly one Message-ID leaves, ours, and the first of the originals is kept to the octet."""

    def test_m11_without_a_message_id_one_is_added_below_the_prepended_lines(self) -> None:
        assert edited(b"A: 1\r\n\r\nx", prepend=(RECEIVED,)) == RECEIVED + STAMPED + b"A: 1\r\n\r\nx"

    def test_m11_the_original_is_kept_verbatim_with_its_folds(self) -> None:
        content = b"A: 1\r\nMessage-Id :\r\n\t<x@y>  \r\nB: 2\r\n\r\nx"
        kept = b"X-Original-Message-ID:\r\n\t<x@y>  \r\n"
        assert edited(content) == b"A: 1\r\n" + STAMPED + kept + b"B: 2\r\n\r\nx"

    def test_m11_of_several_the_first_is_kept_and_one_leaves(self) -> None:
        content = b"Message-ID: <one@x>\r\nA: 1\r\nmessage-id: <two@x>\r\nMESSAGE-ID:<three@x>\r\n\r\nx"
        assert edited(content) == STAMPED + b"X-Original-Message-ID: <one@x>\r\nA: 1\r\n\r\nx"

    @pytest.mark.parametrize("value", [b"<bad id>", b"no brackets", b"<a@b> <c@d>", b"\xff\xfe", b"<" + b"x" * 2000])
    def test_m11_a_broken_id_is_kept_as_it_is(self, value: bytes) -> None:
        content = b"Message-ID: " + value + b"\r\n\r\nx"
        assert edited(content) == STAMPED + b"X-Original-Message-ID: " + value + b"\r\n\r\nx"

    def test_m11_an_empty_id_leaves_no_trace(self) -> None:
        content = b"Message-ID:\r\nA: 1\r\nMessage-ID: <two@x>\r\n\r\nx"
        assert edited(content) == STAMPED + b"A: 1\r\nX-Original-Message-ID: <two@x>\r\n\r\nx"

    def test_m11_none_to_set_keeps_all_of_them(self) -> None:
        content = b"Message-ID: <one@x>\r\nMessage-ID: <two@x>\r\n\r\nx"
        assert edited(content, set_message_id=None) == content

    def test_a_stamp_without_brackets_gets_them(self) -> None:
        assert edited(b"\r\nx", set_message_id=b"k@example.com") == b"Message-ID: <k@example.com>\r\n\r\nx"


class TestRemoval:
    """Fields that must not leave are gone, and every other field is as it came."""

    def test_m13_named_fields_are_removed_folds_and_duplicates_included(self) -> None:
        content = b"X-Id-Mail: 42;\r\n DROP\r\nA: 1\r\nx-id-mail: 43\r\n\r\nx"
        assert edited(content, remove=("X-ID-Mail",)) == STAMPED + b"A: 1\r\n\r\nx"

    def test_m14_bcc_is_always_removed(self) -> None:
        content = b"To: a@example.com\r\nBcc: b@example.com,\r\n c@example.com\r\nResent-Bcc: d@example.com\r\n\r\nx"
        assert edited(content) == STAMPED + b"To: a@example.com\r\n\r\nx"

    def test_bcc_is_found_in_a_header_over_the_limit(self) -> None:
        filler = b"".join(b"X-%d: y\r\n" % number for number in range(1_500))
        content = filler + b"BCC: b@example.com\r\nMessage-ID: <a@x>\r\n\r\nx"
        assert edited(content) == filler + STAMPED + b"X-Original-Message-ID: <a@x>\r\n\r\nx"

    def test_m09_every_other_field_leaves_as_it_came(self) -> None:
        fields = (
            b"Subject: =?utf-8?q?caf=C3=A9?= " + b"long " * 200 + b"\r\n"
            b"References: <a@x>\r\n\t<b@x>\r\n"
            b"X-Empty:\r\n"
            b"X-8bit: caf\xc3\xa9 \xe9\r\n"
            b"X-Dup: 1\r\nx-dup: 2\r\n"
            b"X-Long: " + b"y" * 2_000 + b"\r\n"
        )
        assert edited(fields + b"\r\nx", prepend=(RECEIVED,)) == RECEIVED + STAMPED + fields + b"\r\nx"


class TestUnsubscribe:
    """Campaign mail offers one-click where nobody offered anything."""

    def test_m08_a_long_list_unsubscribe_of_the_mailer_is_not_encoded(self) -> None:
        field = b"List-Unsubscribe: <mailto:u@x.example.com>, <https://x.example.com/" + b"q" * 90 + b">\r\n"
        result = rewrite(top(part(b"<p>x"), field[:-2])).content
        assert field in result
        assert result.lower().count(b"list-unsubscribe") == 1

    @pytest.mark.parametrize(
        "fields",
        [
            (b"List-Unsubscribe: <mailto:u@example.com>",),
            (b"List-Unsubscribe: <https://example.com/u>",),
            (b"list-unsubscribe: <mailto:u@example.com>", b"List-Unsubscribe: <https://example.com/u>"),
        ],
    )
    def test_m12_an_existing_list_unsubscribe_is_never_joined_by_ours(self, fields: tuple[bytes, ...]) -> None:
        result = rewrite(top(part(b"<p>x"), *fields)).content
        assert result.lower().count(b"list-unsubscribe") == len(fields)
        assert b"One-Click" not in result

    def test_campaign_mail_offers_one_click_on_two_unfolded_lines(self) -> None:
        result = rewrite(top(part(b"<p>x"))).content
        assert f"List-Unsubscribe: <{BASE}/unsubscribe/one>\r\n".encode() in result
        assert b"\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" in result

    @pytest.mark.parametrize(("campaign", "wanted"), [(False, True), (True, False)])
    def test_other_mail_offers_nothing(self, *, campaign: bool, wanted: bool) -> None:
        result = rewrite(top(part(b"<p>x")), options(unsubscribe=wanted), campaign=campaign)
        assert b"List-Unsubscribe" not in result.content

    def test_a_post_line_of_the_mailer_is_not_doubled(self) -> None:
        result = rewrite(top(part(b"<p>x"), b"List-Unsubscribe-Post: List-Unsubscribe=One-Click")).content
        assert result.count(b"List-Unsubscribe-Post:") == 1

    @pytest.mark.parametrize(
        ("url", "allowed"),
        [
            ("https://t.example.com", True),
            ("http://127.0.0.1:8080", True),
            ("http://127.9.9.9", True),
            ("http://localhost:8080", True),
            ("http://[::1]:8080", True),
            ("http://t.example.com", False),
            ("http://127.0.0.1.example.com", False),
            ("http://localhost.example.com", False),
            ("http://128.0.0.1", False),
            ("http://[::1", False),
            ("", False),
        ],
    )
    def test_one_click_needs_https_or_loopback(self, url: str, *, allowed: bool) -> None:
        assert one_click_allowed(url) is allowed

    def test_without_one_click_only_the_link_is_offered(self) -> None:
        result = rewrite(top(part(b"<p>x")), options(public_url="http://t.example.com")).content
        assert result.count(b"List-Unsubscribe: <") == 1
        assert b"List-Unsubscribe-Post" not in result

    @pytest.mark.parametrize("url", ["https://t.example.com/a b", "https://t.example.com/\r\nX: y", "https://t.é/"])
    def test_an_unsubscribe_address_that_cannot_stand_in_a_header_is_left_out(self, url: str) -> None:
        class Odd:
            def open(self) -> str:
                """Return the pixel's address."""
                return f"{BASE}/o"

            def click(self, link: int, url: str) -> str | None:
                """Return a link's address."""
                return f"{BASE}/c/{link}{len(url)}"

            def unsubscribe(self) -> str:
                """Return what no header may hold."""
                return url

        result = rewrite(top(part(b"<p>x")), minter=Odd())
        assert result.injected
        assert b"List-Unsubscribe" not in result.content


class TestWhereLinesGo:
    """Our lines are header lines in every reading of the message."""

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (b"\r\nbody", STAMPED + b"\r\nbody"),
            (b"body only", STAMPED + b"\r\nbody only"),
            (b" folded first\r\nx", STAMPED + b"\r\n folded first\r\nx"),
            (b"A: 1\r\nbroken line\r\n\r\nx", STAMPED + b"A: 1\r\n\r\nbroken line\r\n\r\nx"),
            (b"From ann Mon\r\nA: 1\r\n\r\nx", b"From ann Mon\r\n" + STAMPED + b"A: 1\r\n\r\nx"),
            (b"", STAMPED),
        ],
    )
    def test_our_lines_stay_header_and_the_body_stays_body(self, content: bytes, expected: bytes) -> None:
        assert edited(content) == expected


SEALED = b"DKIM-Signature: v=1; a=rsa-sha256; h=From : To:\r\n Subject:Message-ID;\r\n bh=x; b=y"


class TestSealed:
    """What somebody signed still verifies."""

    def test_signed_names_are_read_through_folds(self) -> None:
        headers = parse(SEALED + b"\r\n\r\n").headers
        assert signed_names(headers) == frozenset({"from", "to", "subject", "message-id"})
        assert signed_names(parse(b"DKIM-Signature: v=1\r\n\r\n").headers) is None

    def test_a_signed_message_keeps_its_id_and_its_signed_fields(self) -> None:
        content = top(part(b"<a href='https://example.com/'>x</a>"), SEALED, b"Message-ID: <own@x>", b"X-Id-Mail: 4")
        planned = plan(parse(content), options(), campaign=True)
        edits = HeaderEdits(prepend=(RECEIVED, b"Subject: no\r\n"), set_message_id=STAMP, remove=("X-Id-Mail", "To"))
        result = planned.render(HexMinter(), edits)
        assert planned.keeps_message_id
        assert result.reason == "dkim_signed"
        assert result.content == RECEIVED + content.replace(b"X-Id-Mail: 4\r\n", b"")

    def test_bcc_goes_even_when_it_is_signed(self) -> None:
        content = b"DKIM-Signature: h=bcc:from\r\nFrom: a@example.com\r\nBcc: b@example.com\r\n\r\nx"
        assert b"Bcc" not in rewrite(content).content

    def test_a_signature_that_cannot_be_read_keeps_everything_else(self) -> None:
        content = b"DKIM-Signature: broken\r\nX-Id-Mail: 4\r\n\r\nx"
        edits = HeaderEdits(prepend=(RECEIVED,), remove=("X-Id-Mail",))
        assert rewrite(content, edits=edits).content == RECEIVED + content

    @pytest.mark.parametrize("field", [b"DKIM-Signature: h=from; b=y", b"ARC-Seal: i=1; b=y"])
    def test_strip_takes_the_dead_signature_off_and_works_as_usual(self, field: bytes) -> None:
        content = top(part(b"<a href='https://example.com/'>x</a>"), field, b"ARC-Message-Signature: i=1; h=from")
        planned = plan(parse(content), options(strip=True), campaign=True)
        result = rewrite(content, options(strip=True))
        assert not planned.keeps_message_id
        assert (result.injected, result.links) == (True, 1)
        assert b"DKIM-Signature" not in result.content
        assert b"ARC-" not in result.content
        assert STAMPED in result.content
