"""Header edits touch the fields they are about and not one octet of any other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from injector import HeaderEdits, parse, plan
from injector.encodings import splice
from injector.headers import header_splices, signed_names
from tests.unit.injector.mails import BASE, STAMP, HexMinter, options, part, rewrite, top

RECEIVED = b"Received: from a by b;\r\n\tMon, 1 Jan 2024 00:00:00 +0000\r\n"
STAMPED = b"Message-ID: " + STAMP + b"\r\n"
OFFER = f"List-Unsubscribe: <{BASE}/unsubscribe/one>\r\n".encode()
ONE_CLICK = b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"


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

    def test_m11_a_folded_id_under_a_name_without_a_space_is_kept(self) -> None:
        content = b"Message-Id:<x@y>\r\nX: 1\r\n\r\nx"
        assert edited(content) == STAMPED + b"X-Original-Message-ID:<x@y>\r\nX: 1\r\n\r\nx"
        content = b"Message-ID:\r\n <a-long-id\r\n\t@example.com>\r\n\r\nx"
        assert edited(content) == STAMPED + content.replace(b"Message-ID", b"X-Original-Message-ID")

    def test_m11_one_id_for_three_recipients_becomes_three_and_stays_one(self) -> None:
        planned = plan(parse(top(part(b"<p>x"), b"Message-ID: <one@x>")), options(), campaign=False)
        edits = [HeaderEdits(set_message_id=b"<%d@example.com>" % number) for number in range(3)]
        sent = [parse(planned.render(HexMinter(), edit).content).headers for edit in edits]
        assert [each.all("Message-ID") for each in sent] == [[f"<{number}@example.com>"] for number in range(3)]
        assert [each.all("X-Original-Message-ID") for each in sent] == [["<one@x>"]] * 3

    def test_an_original_that_an_earlier_hop_kept_stays_beside_ours(self) -> None:
        content = b"X-Original-Message-ID: <older@x>\r\nMessage-ID: <old@x>\r\n\r\nx"
        older, old = b"X-Original-Message-ID: <older@x>\r\n", b"X-Original-Message-ID: <old@x>\r\n"
        assert edited(content) == older + STAMPED + old + b"\r\nx"

    def test_a_stamp_without_brackets_gets_them(self) -> None:
        assert edited(b"\r\nx", set_message_id=b"k@example.com") == b"Message-ID: <k@example.com>\r\n\r\nx"


class TestRemoval:
    """Fields that must not leave are gone, and every other field is as it came."""

    def test_m13_named_fields_are_removed_folds_and_duplicates_included(self) -> None:
        content = b"X-Id-Mail: 42;\r\n DROP\r\nA: 1\r\nx-id-mail: 43\r\n\r\nx"
        assert edited(content, remove=("X-ID-Mail",)) == STAMPED + b"A: 1\r\n\r\nx"

    def test_m13_removal_by_name_takes_no_name_that_only_begins_like_it(self) -> None:
        kept = b"X-Id-Mail-Kind: a\r\nNot-X-Id-Mail: b\r\n\r\nX-Id-Mail: 44\r\n"
        content = b"X-Id-Mail : 42\r\nX-ID-MAIL:\r\n\t43\r\n \r\n" + kept
        assert edited(content, set_message_id=None, remove=("x-id-MAIL", "X-Absent", "")) == kept

    def test_m13_nothing_is_removed_unless_it_is_asked_for(self) -> None:
        content = b"X-Id-Mail: 42; DROP\r\nX-Campaign-Id: 1000000000000\r\nX-Mailing-Id:  [123] \r\n\r\nx"
        assert edited(content, set_message_id=None) == content

    @pytest.mark.parametrize(
        "field",
        [
            b"Bcc: b@example.com",
            b"bcc : b@example.com",
            b"BCC\t: b@example.com",
            b"Bcc:",
            b"Bcc:b@example.com,\r\n\tc@example.com,\r\n d@example.com",
            b"Bcc: b\xfccher@example.com \xe9\xff",
            b"Bcc: a@example.com\r\nbcc: b@example.com\r\nBCC: c@example.com",
            b"Resent-Bcc: b@example.com",
            b"resent-BCC :\r\n b@example.com",
            b"Bcc: " + b"b@example.com, " * 2_000,
        ],
    )
    def test_m14_bcc_is_removed_however_it_is_written(self, field: bytes) -> None:
        before, after = (
            b"To: a@example.com\r\n",
            b"Cc: c@example.net\r\nX-Bcc: kept\r\nBcc-Count: 1\r\n\r\nBcc: body\r\n",
        )
        assert edited(before + field + b"\r\n" + after, set_message_id=None) == before + after

    def test_m14_bcc_is_always_removed(self) -> None:
        content = b"To: a@example.com\r\nBcc: b@example.com,\r\n c@example.com\r\nResent-Bcc: d@example.com\r\n\r\nx"
        assert edited(content) == STAMPED + b"To: a@example.com\r\n\r\nx"

    def test_bcc_is_found_in_a_header_over_the_limit(self) -> None:
        filler = b"".join(b"X-%d: y\r\n" % number for number in range(1_500))
        content = filler + b"BCC: b@example.com\r\nMessage-ID: <a@x>\r\n\r\nx"
        assert edited(content) == filler + STAMPED + b"X-Original-Message-ID: <a@x>\r\n\r\nx"

    @pytest.mark.parametrize(
        "field",
        [
            b"Subject: " + b"a long subject that nobody folded " * 20,
            b"Subject: =?utf-8?b?w6k=?=\r\n =?utf-8?q?=C3=A9?=",
            b"References: <a@example.com>\r\n\t<b@example.com>\r\n\t<c@example.com>",
            b"In-Reply-To:<a@example.com>",
            b"Received: from a by b;\r\n\tMon, 1 Jan 2024 00:00:00 +0000\r\nReceived: from c by d; x",
            b"X-A:",
            b"X-A: \r\nX-A:\t\r\nX-A:",
            b"X-A: folded\r\n \r\n\tafter a line of white space",
            b"Comments: caf\xe9 \xff\x80 \xe3\x81\x82",
            b"X-Nul: \x00 \x01 \x7f",
            b"X-Long: " + b"y" * 2_000,
            b"X-Space : before the colon",
            b"To: undisclosed-recipients:;",
            b"From: =?utf-8?q?=C3=A9?= <a@example.com>, b@example.com",
        ],
    )
    def test_m09_each_of_these_leaves_as_it_came(self, field: bytes) -> None:
        content = b"A: 1\r\n" + field + b"\r\nZ: 2\r\n\r\nx"
        assert edited(content, prepend=(RECEIVED,)) == RECEIVED + STAMPED + content
        sent = rewrite(content.replace(b"\r\n\r\nx", b"\r\n" + part(b"<p>x")), edits=HeaderEdits()).content
        assert b"\r\n" + field + b"\r\nZ: 2\r\n" in sent

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
            (b"A: 1\r\n", STAMPED + b"A: 1\r\n"),
            (b"A: 1", STAMPED + b"A: 1"),
            (b"A: 1\r\n folded", STAMPED + b"A: 1\r\n folded"),
            (b"Message-ID: <a@x>", STAMPED + b"X-Original-Message-ID: <a@x>"),
            (b"Message-ID:", STAMPED),
            (b"Bcc: b@example.com", STAMPED),
            (b"A: 1\r\n\r\n", STAMPED + b"A: 1\r\n\r\n"),
            (b">From ann Mon\r\n\r\nx", b">From ann Mon\r\n" + STAMPED + b"\r\nx"),
            (b"From ann Mon\r\nbody only", b"From ann Mon\r\n" + STAMPED + b"\r\nbody only"),
            (b"From ann Mon\r\n", b"From ann Mon\r\n" + STAMPED),
            (b"From ann Mon", b"From ann Mon\r\n" + STAMPED),
            (b"Bcc: b@example.com\r\n\xff: 1\r\n\r\nx", STAMPED + b"\r\n\xff: 1\r\n\r\nx"),
        ],
    )
    def test_our_lines_stay_header_and_the_body_stays_body(self, content: bytes, expected: bytes) -> None:
        assert edited(content) == expected

    @pytest.mark.parametrize(
        ("before", "header", "body"),
        [
            (b"", top(b""), b"\r\ntext"),
            (b"From ann Mon\r\n", top(b""), b"\r\ntext"),
            (b"", b"", b"\r\nbody"),
            (b"", b"A: 1\r\n", b""),
            (b"", b"", b""),
            (b"", b"", b"body only"),
            (b"", b"A: 1\r\n", b"no colon\r\nB: 2\r\n\r\nx"),
            (b"", b"".join(b"X-%d: y\r\n" % number for number in range(1_500)), b"\r\nx"),
            (b"", b"X: " + b"y" * 300_000 + b"\r\n", b"\r\nx"),
        ],
    )
    def test_received_stamp_and_offer_stand_on_top_in_this_order(
        self, before: bytes, header: bytes, body: bytes
    ) -> None:
        edits = HeaderEdits(prepend=(RECEIVED,), set_message_id=STAMP)
        gap = b"" if body.startswith(b"\r\n") or not body else b"\r\n"
        result = rewrite(before + header + body, edits=edits).content
        assert result == before + RECEIVED + STAMPED + OFFER + ONE_CLICK + header + gap + body
        sent = parse(result)
        assert [sent.headers.count(name) for name in ("Received", "Message-ID", "List-Unsubscribe")] == [1, 1, 1]

    def test_an_offer_of_the_mailer_is_found_in_a_header_over_the_limit(self) -> None:
        filler = b"".join(b"X-%d: y\r\n" % number for number in range(1_500))
        content = filler + b"LIST-Unsubscribe :\r\n <mailto:u@example.com>\r\n\r\nx"
        assert rewrite(content, edits=HeaderEdits()).content == content


@st.composite
def fields(draw: st.DrawFn) -> bytes:
    """Return a header field with its line end: any name, any octets, any folds."""
    name = draw(
        st.sampled_from(
            b"Subject Message-ID message-id Bcc RESENT-bcc X-Outrider-Track X-Id-Mail List-Unsubscribe Received DKIM "
            b"X-Mailgun-Track Content-ID Bccs".split()
        )
        | st.text([chr(code) for code in range(33, 127) if chr(code) != ":"], min_size=1, max_size=12).map(str.encode)
    )
    lines = draw(
        st.lists(st.binary(max_size=30).map(lambda line: line.translate(None, b"\r\n")), min_size=1, max_size=3)
    )
    return (
        name
        + draw(st.sampled_from([b":", b": ", b"\t:"]))
        + draw(st.sampled_from([b"\r\n ", b"\r\n\t"])).join(lines)
        + b"\r\n"
    )


def name_of(field: bytes) -> bytes:
    """Return the lower-case name of a whole field."""
    return field.partition(b":")[0].strip(b" \t").lower()


class TestAnyHeader:
    """For every header, what is neither ours nor removed leaves in its order, byte for byte."""

    REMOVED = (b"bcc", b"resent-bcc", b"x-outrider-track", b"x-id-mail")

    @given(st.lists(fields(), max_size=8), st.sampled_from([b"\r\nbody\r\n", b"", b"\r\n", b"no colon\r\n\r\nx"]))
    def test_m09_the_fields_that_stay_are_the_fields_that_came(self, given_fields: list[bytes], rest: bytes) -> None:
        """Invariant: the fields of the input, without those removed; a reader of its own splits them here."""
        kept = b"".join(field for field in given_fields if name_of(field) not in self.REMOVED)
        content = b"".join(given_fields) + rest
        edits = HeaderEdits(prepend=(RECEIVED,), remove=("X-Id-Mail",))
        offers = all(name_of(field) != b"list-unsubscribe" for field in given_fields)
        doubled = any(name_of(field) == b"list-unsubscribe-post" for field in given_fields)
        ours = RECEIVED + (OFFER if offers else b"") + (ONE_CLICK if offers and not doubled else b"")
        gap = b"\r\n" if rest.startswith(b"no colon") else b""
        assert rewrite(content, edits=edits).content == ours + kept + gap + rest

    @given(st.lists(fields(), max_size=8))
    def test_m11_with_a_stamp_one_id_leaves_and_the_first_that_says_anything_is_kept(
        self, given_fields: list[bytes]
    ) -> None:
        """Invariant: every other field as it came, and the first id stands where it stood, under the other name."""
        expected: list[bytes] = []
        ids = [field for field in given_fields if name_of(field) == b"message-id"]
        said = next((at for at, field in enumerate(ids) if parse(field).headers.first("Message-ID")), -1)
        seen = -1
        for field in given_fields:
            if name_of(field) == b"message-id":
                seen += 1
                expected += [STAMPED] if seen == 0 else []
                expected += [b"X-Original-Message-ID:" + field.partition(b":")[2]] if seen == said else []
            elif name_of(field) not in self.REMOVED[:3]:
                expected.append(field)
        result = edited(b"".join(given_fields) + b"\r\nx")
        assert result == (b"" if ids else STAMPED) + b"".join(expected) + b"\r\nx"


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
