"""Parts are found in the raw bytes where mail programs find them, and hostile structures stay cheap."""

import time
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from injector import Reason, parse
from injector.message import MAX_DEPTH, MAX_PARTS, Mail
from tests.unit.injector.mails import leaves, multipart, part, top

SIZE = 400_000
#: Lines that are delimiters of `a`, `ab` and `.*`, or begin like one.
LINES = (
    b"--a",
    b"--ab",
    b"--.*",
    b"--abc",
    b"--a b",
    b"--a-",
    b"--a--",
    b"--ab-- \t",
    b"--a \t",
    b"--ab\r",
    b"--",
    b"-- ",
    b"x",
)
OPENINGS = tuple(b"\r\nContent-Type: multipart/mixed; boundary=%b\r\n" % name for name in (b"a", b"ab", b'".*"'))
HOSTILE = {
    "delimiters": top(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"\r\n--" * (SIZE // 4)),
    "almost delimiters": top(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"\r\n--bb" * (SIZE // 6)),
    "one long line": top(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--" + b"b" * SIZE),
    "name without colon": b"x" * SIZE,
    "folds": b"X: y" + b"\r\n " * (SIZE // 3),
    "parameters": b"Content-Type: text/html" + b"; a=b" * (SIZE // 5),
    "open quotes": b"Content-Type: text/html" + b'; a="' * (SIZE // 5),
    "segments": b"Content-Type: text/html" + b"".join(b";a*%d=x" % n for n in range(SIZE // 8)),
    "white space": b"Content-Type: text/html;" + b" " * SIZE + b"x",
    "backslashes": b'Content-Type: text/html; a="' + b"\\" * SIZE,
    "blank lines": b"\r\n" * (SIZE // 2),
    "fields": b"A:\r\n" * (SIZE // 4),
}


def bodies(mail: Mail) -> list[bytes]:
    """Return the raw body of every leaf."""
    return [mail.content[leaf.body_start : leaf.body_end] for leaf in mail.leaves]


class TestHeaderFields:
    """Fields are found by name and by range, and the body begins where mail programs begin it."""

    def test_header_fields_have_their_byte_ranges(self) -> None:
        content = b"Subject: a\r\n b\r\nX-A:\r\nsubject:c\r\n\r\nbody"
        mail = parse(content)
        first, second = mail.headers.fields("SUBJECT")
        assert content[first.start : first.end] == b"Subject: a\r\n b\r\n"
        assert content[second.start : second.end] == b"subject:c\r\n"
        assert mail.headers.all("Subject") == ["a b", "c"]
        assert mail.headers.first("x-a") == ""
        assert mail.headers.count("subject") == 2
        assert mail.headers.first("absent") is None
        assert content[mail.body_start :] == b"body"

    def test_odd_octets_in_a_value_survive_as_surrogates(self) -> None:
        value = parse(b"Subject: caf\xe9\r\n\r\n").headers.first("subject")
        assert value is not None
        assert value.encode("utf-8", "surrogateescape") == b"caf\xe9"

    def test_a_space_before_the_colon_hides_no_field(self) -> None:
        assert parse(b"Bcc : x@example.com\r\n\r\n").headers.count("bcc") == 1

    @pytest.mark.parametrize(
        ("content", "body", "reason"),
        [
            (b"", b"", None),
            (b"Subject: only a header\r\n", b"", None),
            (b"Subject: no line end", b"", None),
            (b"\r\nleading blank line", b"leading blank line", None),
            (b"no header at all\r\nsecond line", b"no header at all\r\nsecond line", Reason.MALFORMED_HEADER),
            (b" continuation first\r\n\r\nx", b" continuation first\r\n\r\nx", Reason.MALFORMED_HEADER),
            (b"A: 1\r\nno separator here\r\n\r\nx", b"no separator here\r\n\r\nx", Reason.MALFORMED_HEADER),
            (b"From ann Mon Jan  1\r\nA: 1\r\n\r\nx", b"x", None),
            (b">From ann Mon Jan  1\r\nA: 1\r\n\r\nx", b"x", None),
            (b"A: 1\r\nFrom ann in the middle\r\n\r\nx", b"From ann in the middle\r\n\r\nx", "malformed_header"),
            (b"A: 1\r\n \t\r\n\r\nx", b"x", None),
        ],
    )
    def test_where_the_body_begins(self, content: bytes, body: bytes, reason: str | None) -> None:
        mail = parse(content)
        assert (content[mail.body_start :], mail.reason) == (body, reason)

    def test_lines_go_behind_an_mbox_line(self) -> None:
        mail = parse(b"From ann Mon Jan  1\r\nA: 1\r\n\r\nx")
        assert mail.headers_start == len(b"From ann Mon Jan  1\r\n")
        assert mail.headers.first("a") == "1"


class TestParts:
    """The leaves are the ones that mail programs see."""

    def test_m02_nested_leaves_are_found_and_attachments_stay_closed(self) -> None:
        inner = multipart(
            "alternative",
            part(b"text", "text/plain"),
            multipart("related", part(b"<p>"), part(b"png", "image/png"), boundary="c"),
            boundary="b",
        )
        forwarded = b"Content-Type: message/rfc822\r\n\r\n" + top(part(b"<p>inner"))
        mail = parse(top(multipart("mixed", inner, part(b"pdf", "application/pdf"), forwarded, boundary="a")))
        assert [(leaf.path, leaf.kind) for leaf in mail.leaves] == [
            ("1.1.1", "text/plain"),
            ("1.1.2.1", "text/html"),
            ("1.1.2.2", "image/png"),
            ("1.2", "application/pdf"),
            ("1.3", "message/rfc822"),
        ]
        assert mail.leaves[1].enclosing == ("multipart/mixed", "multipart/alternative", "multipart/related")
        assert bodies(mail)[:4] == [b"text", b"<p>", b"png", b"pdf"]

    def test_m10_a_boundary_that_begins_like_another_is_not_that_one(self) -> None:
        inner = multipart("alternative", part(b"one", "text/plain"), part(b"two"), boundary="ab")
        mail = parse(top(multipart("mixed", inner, part(b"three", "text/plain"), boundary="a")))
        assert [leaf.path for leaf in mail.leaves] == ["1.1.1", "1.1.2", "1.2"]
        assert bodies(mail) == [b"one", b"two", b"three"]

    def test_m10_preamble_and_epilogue_belong_to_no_part(self) -> None:
        content = top(
            b"Content-Type: multipart/mixed; boundary=b\r\n\r\npre\r\n--bx\r\n--b \t\r\n\r\none\r\n"
            b"--b--\r\nepilogue\r\n--b\r\n\r\nnot a part"
        )
        assert bodies(parse(content)) == [b"one"]

    @given(lines=st.lists(st.sampled_from((*LINES, *OPENINGS)), max_size=40), ended=st.booleans())
    def test_m10_however_many_lines_begin_like_a_delimiter_the_parts_are_the_same(
        self, lines: list[bytes], *, ended: bool
    ) -> None:
        """Invariant: where the next delimiter is looked for by a pattern, it is the one that looking at each finds."""
        content = top(OPENINGS[0].lstrip() + b"\r\n" + b"\r\n".join(lines) + b"\r\n" * ended)
        one_by_one = parse(content)
        with patch("injector.message._MISSES", 1):
            assert parse(content) == one_by_one

    @pytest.mark.parametrize("ending", [b"", b"\r\n", b"\r\n--b", b"\r\n--b--", b"\r\n--b--\r\n"])
    def test_m10_a_missing_end_costs_nothing(self, ending: bytes) -> None:
        content = top(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b\r\n\r\ntwo" + ending)
        mail = parse(content)
        assert bodies(mail)[:2] == [b"one", b"two" + (b"\r\n" if ending == b"\r\n" else b"")]

    def test_m10_an_outer_delimiter_ends_an_inner_part_that_was_not_closed(self) -> None:
        content = top(
            b"Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n"
            b"Content-Type: multipart/alternative; boundary=i\r\n\r\n--i\r\n\r\none\r\n--o\r\n\r\ntwo\r\n--o--\r\n"
        )
        mail = parse(content)
        assert [(leaf.path, body) for leaf, body in zip(mail.leaves, bodies(mail), strict=True)] == [
            ("1.1.1", b"one"),
            ("1.2", b"two"),
        ]

    @pytest.mark.parametrize(
        "parameter",
        [
            'boundary="x y"',
            'BOUNDARY = "x y" ; type=a',
            'boundary="x\\ y"',
            "boundary*=us-ascii'en'x%20y",
            'boundary*0="x "; boundary*1=y',
            "boundary*0*=''x%20; boundary*1=y",
            'x="a;boundary=no"; boundary="x y"',
            '; ;boundary="x y";',
            'boundary="x y"; =',
            'a*=1; a=2; boundary="x y"; boundary*=x%20y; nonsense',
        ],
    )
    def test_m10_boundary_parameters_in_every_spelling(self, parameter: str) -> None:
        content = top(f"Content-Type: multipart/mixed; {parameter}\r\n\r\n--x y\r\n\r\none\r\n--x y--\r\n".encode())
        assert bodies(parse(content)) == [b"one"]


class TestDoubt:
    """What can be read in two ways is not opened."""

    @pytest.mark.parametrize(
        ("label", "reason"),
        [
            ("multipart/mixed", Reason.NO_BOUNDARY),
            ("multipart/mixed; boundary=", Reason.NO_BOUNDARY),
            ("multipart/mixed; boundary=a; boundary=b", Reason.NO_BOUNDARY),
            ("multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: base64", Reason.ENCODED_MULTIPART),
            ("multipart/mixed; boundary=b\r\nContent-Type: text/html", Reason.AMBIGUOUS_HEADER),
        ],
    )
    def test_a_multipart_that_can_be_read_in_two_ways_stays_closed(self, label: str, reason: Reason) -> None:
        content = top(f"Content-Type: {label}\r\n\r\n--b\r\n\r\none\r\n--b--\r\n".encode())
        (leaf,) = parse(content).leaves
        assert leaf.reason == reason

    def test_a_reused_boundary_keeps_the_inner_multipart_closed(self) -> None:
        content = top(multipart("mixed", multipart("alternative", part(b"x"), boundary="b"), boundary="b"))
        assert parse(content).leaves[0].reason == Reason.BOUNDARY_REUSED

    def test_a_part_without_header_and_one_without_anything(self) -> None:
        content = top(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n--b\r\n\r\n--b\r\n\r\n\r\n--b--")
        assert bodies(parse(content)) == [b"", b"", b""]

    def test_a_part_header_that_runs_into_its_body_is_left_alone(self) -> None:
        content = top(multipart("mixed", b"Content-Type: text/html\r\n<p>no empty line</p>"))
        (leaf,) = parse(content).leaves
        assert leaf.reason == Reason.MALFORMED_HEADER

    def test_digest_parts_are_messages_unless_they_say_otherwise(self) -> None:
        content = top(multipart("digest", b"\r\nSubject: x\r\n\r\n", part(b"x")))
        assert [leaf.kind for leaf in parse(content).leaves] == ["message/rfc822", "text/html"]

    @pytest.mark.parametrize(
        ("extra", "roots"),
        [("", [True, False]), ('; start="<two@x>"', [False, True]), ("; start=two@x", [False, True])],
    )
    def test_only_the_root_of_a_related_is_shown(self, extra: str, roots: list[bool]) -> None:
        parts = [part(b"<p>", extra=b"Content-ID: <%s@x>\r\n" % name) for name in (b"one", b"two")]
        mail = parse(top(multipart("related", *parts, extra=extra)))
        assert [leaf.reason != Reason.RELATED_RESOURCE for leaf in mail.leaves] == roots


class TestBombs:
    """Every limit ends in a reason, and time grows with the size."""

    def test_part_bomb_is_bounded(self) -> None:
        content = top(multipart("mixed", *[b"\r\nx"] * (MAX_PARTS + 1)))
        mail = parse(content)
        assert (mail.reason, mail.leaves) == (Reason.PART_LIMIT, ())

    def test_header_bomb_of_a_part_is_bounded(self) -> None:
        bomb = b"X: y\r\n" * 1_001 + part(b"<p>")
        (leaf, other) = parse(top(multipart("mixed", bomb, part(b"x")))).leaves
        assert (leaf.reason, other.reason) == (Reason.HEADER_LIMIT, None)

    @pytest.mark.parametrize("levels", [MAX_DEPTH - 1, MAX_DEPTH])
    def test_depth_up_to_the_limit_is_read(self, levels: int) -> None:
        content = part(b"x")
        for level in range(levels):
            content = multipart("mixed", content, boundary=f"b{level}")
        assert [leaf.kind for leaf in parse(top(content)).leaves] == ["text/html"]

    def test_depth_bomb_is_bounded(self) -> None:
        content = b"".join(
            b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level) for level in range(5_000)
        )
        assert parse(top(content)).reason == Reason.DEPTH_LIMIT

    def test_over_limit_header_still_answers_for_single_names(self) -> None:
        filler = b"".join(b"X-%d: y\r\n" % number for number in range(1_001))
        end = b"bcc:\r\n two@example.com\r\nBccx: no\r\n\r\nbody\r\nBcc: text"
        content = b"Bcc: one@example.com\r\n" + filler + end
        mail = parse(content)
        assert mail.reason == Reason.HEADER_LIMIT
        assert mail.headers.all("bcc") == ["one@example.com", "two@example.com"]
        assert content[mail.body_start :] == b"body\r\nBcc: text"

    def test_one_huge_field_is_over_the_limit_too(self) -> None:
        content = b"X: " + b"y" * 300_000 + b"\r\nSubject: s\r\n\r\nbody"
        mail = parse(content)
        assert (mail.reason, mail.headers.first("subject")) == (Reason.HEADER_LIMIT, "s")

    @pytest.mark.parametrize("name", HOSTILE)
    def test_hostile_structure_is_read_in_linear_time(self, name: str) -> None:
        """Ten times what it takes here on a busy machine; a quadratic step would take minutes."""
        start = time.process_time()
        parse(HOSTILE[name])
        assert time.process_time() - start < 3


class TestOracle:
    """The standard library reads the same parts."""

    def test_leaf_bodies_are_what_the_standard_library_reads(self) -> None:
        content = top(
            multipart(
                "mixed",
                multipart("alternative", part(b"a\r\nb", "text/plain"), part(b"<p>\r\n\r\n"), boundary="i"),
                part(b"last\r\n", "text/plain"),
                boundary="o",
            )
        )
        assert bodies(parse(content)) == [body for _, body in leaves(content)]
