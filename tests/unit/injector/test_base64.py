"""Base64 is undone strictly, and only the lines that must change are written anew."""

import binascii
import time
from contextlib import suppress
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from injector import base64, parse
from injector.encodings import MAX_LINE, Splice, splice, undo
from injector.leaf import Leaf, RewriteError, render_leaf
from injector.marks import CONSTANT, Mark, Values
from tests.unit.injector.mails import body_of, html_of, longest_line, rewrite, top


def text_of(body: bytes) -> bytes:
    """Return *body* in base64 without any line end."""
    return binascii.b2a_base64(body, newline=False)


def wrapped(body: bytes, width: int) -> bytes:
    """Return *body* in base64 in lines of *width*, the last one without its end."""
    text = text_of(body)
    return b"\r\n".join(text[at : at + width] for at in range(0, len(text), width))


def carried(raw: bytes, edits: list[Splice]) -> tuple[bytes, list[Splice]]:
    """Return *raw* with *edits* of what it encodes, and the splices that brought them there."""
    body = base64.decode(raw)
    assert body is not None
    splices = [Splice._make(each) for each in base64.carry(body, edits, lines_of(raw))]
    return splice(raw, splices), splices


def lines_of(raw: bytes) -> base64.Lines:
    """Return the lines of *raw*: as they were found when it was read, if they were."""
    found = base64.read(raw)
    lines = (found[1] if found else None) or base64.lines_of(raw)
    assert lines is not None
    return lines


def is_sent(raw: bytes, edits: list[Splice], splices: list[Splice]) -> bool:
    """Tell whether a page of *raw* is sent with *edits* if it is said that *splices* carry them."""
    content = b"Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n" + raw
    [part] = parse(content).leaves
    marks = tuple(Mark(start, end, CONSTANT, new) for start, end, new in edits)
    body, lines = base64.decode(raw), lines_of(raw)
    leaf = Leaf(part=part, raw=raw, body=body, marks=marks, lines=lines)
    values = Values(source=None, urls={}, attributes={}, plain=True)
    with patch.object(base64, "carry", lambda *_: splices):
        try:
            render_leaf(leaf, values)
        except RewriteError:
            return False
    return True


@st.composite
def layouts(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Return a body and its base64 as somebody may have laid it out: any line length, blanks, empty lines."""
    body = draw(st.binary(max_size=400))
    width = draw(st.sampled_from([1, 3, 4, 5, 6, 57, 60, 61, 64, 70, 72, 75, 76, 76, 76, 78, 100, 1000]))
    raw = wrapped(body, width)
    raw += draw(st.sampled_from([b"", b"\r\n", b"\r\n\r\n", b" \r\n"]))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 4]))):
        at = draw(st.integers(0, len(raw)))
        if raw[at - 1 : at + 1] != b"\r\n":
            raw = raw[:at] + draw(st.sampled_from([b" ", b"\t", b"\r\n", b"\r\n\r\n", b"  \r\n"])) + raw[at:]
    return body, raw


@st.composite
def edited(draw: st.DrawFn) -> tuple[bytes, bytes, list[Splice]]:
    """Return a body, its base64, and edits of the body."""
    body, raw = draw(layouts())
    places = sorted(draw(st.lists(st.tuples(st.integers(0, len(body)), st.integers(0, 30)), max_size=6)))
    edits: list[Splice] = []
    pos = 0
    for start, length in places:
        if start >= pos:
            pos = min(start + length, len(body))
            edits.append(Splice(start, pos, draw(st.binary(min_size=start == pos, max_size=90))))
    return body, raw, edits


def must_stay(raw: bytes, size: int, edits: list[Splice]) -> list[tuple[int, int]]:
    """Return the ranges of the lines of *raw* that the edits give no reason to touch.

    A character holds the bits `6n` to `6n + 5` of the body. It may stay when no edit touches these, and when all edits
    before it together moved it by whole groups: that is asked of each bit, without any arithmetic of the code.
    """
    changed = {bit // 6 for edit in edits for bit in range(8 * edit.start, 8 * edit.end)}
    ranges: list[tuple[int, int]] = []
    pos = chars = 0
    for line in raw.split(b"\r\n"):
        held = len(b"".join(line.split()))
        own = range(chars, chars + held)
        shift = sum(len(edit.new) - (edit.end - edit.start) for edit in edits if 6 * chars > 8 * edit.start - 6)
        cut = any(6 * chars < 8 * edit.start < 6 * (chars + held) for edit in edits)
        begins = any(8 * edit.start == 6 * chars for edit in edits)
        if held and shift % 3 == 0 and not cut and not begins and not changed.intersection(own):
            ranges.append((pos, pos + len(line)))
        chars += held
        pos += len(line) + 2
    if any(edit.start == size for edit in edits):
        # Behind the end there is nothing to stay: the last line takes what is added.
        ranges = [each for each in ranges if raw[each[1] :].strip()]
    return ranges


class TestDecoding:
    """What a decoder would have to repair is not decoded."""

    def test_m05_white_space_and_a_missing_line_end_are_no_errors(self) -> None:
        assert base64.decode(b" aGVs bG8=") == b"hello"
        assert base64.decode(b"aGVs\r\n\r\nbG8=\r\n\t") == b"hello"

    @pytest.mark.parametrize(
        "raw",
        [
            b"aGVsbG8",
            b"aGVs*bG8=",
            b"aGVsbG8=\r\nfooter",
            b"aGVsbG8=aGVs",
            b"aGVsbG8=\r\naGVsbG8=",
            b"a",
            b"====",
            b"=",
        ],
    )
    def test_m05_what_needs_repair_is_not_decoded(self, raw: bytes) -> None:
        """Two bodies one behind the other are two readings: some stop at the first padding, some go on."""
        assert base64.decode(raw) is None

    @settings(deadline=None)
    @given(layouts())
    def test_white_space_is_passed_over(self, layout: tuple[bytes, bytes]) -> None:
        body, raw = layout
        assert base64.decode(raw) == body
        assert base64.decode(raw + b" " * 300) == body

    @settings(deadline=None)
    @given(layouts(), st.integers(0, 1_000), st.sampled_from([b"=", b"*", b"-", b"\x00", b"A", b""]))
    def test_what_is_decoded_is_what_a_strict_decoder_reads(
        self, layout: tuple[bytes, bytes], at: int, new: bytes
    ) -> None:
        """Invariant: however the lines are laid out, the result is that of the standard library, or none."""
        _, raw = layout
        at %= len(raw) + 1
        spoilt = raw[:at] + new + raw[at + 1 :]
        text = b"".join(spoilt.split())
        expected: bytes | None = None
        with suppress(binascii.Error):
            expected = binascii.a2b_base64(text, strict_mode=True)
        # The standard library lets padding pass that pads nothing.
        if expected is not None and text.count(b"=") != -len(expected) % 3:
            expected = None
        assert base64.decode(spoilt) == expected

    @settings(deadline=None)
    @given(layouts())
    def test_regular_lines_are_found_as_all_others_are(self, layout: tuple[bytes, bytes]) -> None:
        """Invariant: what is worked out from the first line is what looking at each of them finds."""
        _, raw = layout
        found = base64.read(raw)
        assert found is not None
        if found[1] is not None:
            regular, others = found[1], base64.lines_of(raw)
            assert others is not None
            ends = [min(end, regular.end) for end in regular.ends]
            assert [[*regular.starts], [*regular.begins]] == [others.starts, others.begins]
            assert (ends, regular.end, regular.width) == (others.ends, others.end, others.width)


class TestLines:
    """The lines are found, whatever white space stands between and within them."""

    @pytest.mark.parametrize("tail", [b"\n" * 1_000, b"\r", b"\r\n\n", b"\n\r\n"])
    def test_lines_are_not_regular_with_half_line_ends_behind_them(self, tail: bytes) -> None:
        """To a mail program that is a line, and it may be too long to send."""
        raw = wrapped(b"x" * 300, 76)
        for regular in (raw, raw + b"\r\n\r\n"):
            assert (base64.read(regular) or (b"", None))[1] is not None
        assert base64.read(raw + tail) == (b"x" * 300, None)

    @settings(deadline=None)
    @given(layouts())
    def test_lines_are_where_they_are(self, layout: tuple[bytes, bytes]) -> None:
        body, raw = layout
        lines = lines_of(raw)
        text = text_of(body)
        found = []
        for at, (start, begin) in enumerate(zip(lines.starts, lines.begins, strict=True)):
            end = min(lines.ends[at], lines.end)
            line = b"".join(raw[begin:end].split())
            assert not begin or raw[begin - 2 : begin] == b"\r\n"
            assert not line or raw[end : end + 2] in {b"\r\n", b""}
            assert text[start : start + len(line)] == line
            found.append(line)
        assert b"".join(found) == text
        assert not body or all(found)

    @pytest.mark.parametrize(
        ("raw", "width"),
        [
            (wrapped(b"x" * 300, 60), 60),
            (wrapped(b"x" * 300, 61), 61),
            (wrapped(b"x" * 900, 900), 900),
            (wrapped(b"x" * 3_000, 4_000), 76),
            (wrapped(b"x" * 30, 76), 76),
            (b"QUJD\r\n" + wrapped(b"x" * 300, 64), 64),
            (b"", 76),
            (b"\r\n \r\n", 76),
        ],
    )
    def test_new_lines_are_as_long_as_those_of_the_body(self, raw: bytes, width: int) -> None:
        """One short line says nothing about the length, and a line too long to send is no example."""
        assert lines_of(raw).width == width


class TestCarrying:
    """Edits arrive, and what they need not touch is as it was."""

    @settings(deadline=None)
    @given(edited())
    def test_edits_arrive_and_all_other_lines_stay(self, case: tuple[bytes, bytes, list[Splice]]) -> None:
        """Invariant: the result decodes to the edited body; no line is touched that could stay; lines stay legal."""
        body, raw, edits = case
        result, splices = carried(raw, edits)
        assert base64.decode(result) == splice(body, edits)
        assert undo(result, raw, splices) == raw
        ends = [0, *(end for each in splices for end in each[:2]), len(raw)]
        assert ends == sorted(ends)
        for start, end in must_stay(raw, len(body), edits):
            assert not any(each.start < end and start < each.end for each in splices)
        lengths = [len(b"".join(line.split())) for line in raw.split(b"\r\n")]
        one_line = len([length for length in lengths if length]) < 2
        longest = max(*lengths, 76 if one_line else 0)
        for each in splices:
            assert longest_line(each.new) <= (76 if longest > MAX_LINE else longest)
            assert b"\r\n\r\n" not in each.new
            assert not each.new or not each.new.startswith(b"\r\n")

    @settings(deadline=None)
    @given(
        edited(), st.integers(0, 5), st.integers(0, 2_000), st.sampled_from([b"A", b"=", b"", b"\r\n", b"!", b"AAAA"])
    )
    def test_what_errs_in_one_line_is_seen(
        self, case: tuple[bytes, bytes, list[Splice]], which: int, at: int, new: bytes
    ) -> None:
        """Invariant: what is sent decodes to what was meant, or the mail is sent without tracking instead."""
        body, raw, edits = case
        _, splices = carried(raw, edits)
        if not splices:
            return
        which %= len(splices)
        start, end, text = splices[which]
        at %= len(text) + 1
        for wrong in (Splice(start, end, text[:at] + new + text[at + 1 :]), Splice(start + at % 5, end, text)):
            spoilt = [*splices[:which], wrong, *splices[which + 1 :]]
            if is_sent(raw, edits, spoilt):
                assert base64.decode(splice(raw, spoilt)) == splice(body, edits)
        assert is_sent(raw, edits, splices)
        if splice(body, edits) != body:
            assert not is_sent(raw, edits, [])

    @settings(deadline=None)
    @given(edited())
    def test_no_empty_line_is_made(self, case: tuple[bytes, bytes, list[Splice]]) -> None:
        """Invariant: there are no more lines without a character between two others than there were."""
        _, raw, edits = case
        result, _ = carried(raw, edits)

        def empty(encoded: bytes) -> int:
            return sum(not line.strip() for line in encoded.strip().split(b"\r\n")[1:-1])

        assert empty(result) <= empty(raw)

    def test_lines_before_an_edit_stay_and_lines_behind_it_where_it_adds_three(self) -> None:
        body = b"".join(b"%03d" % number for number in range(100))
        raw = wrapped(body, 60) + b"\r\n"
        lines = raw.split(b"\r\n")
        result, (only,) = carried(raw, [Splice(95, 97, b"a longer one!" + b"!")])
        assert (only.start, only.end) == (62 * 2, 62 * 3 - 2)
        assert result.split(b"\r\n")[:2] == lines[:2]
        assert result.split(b"\r\n")[4:] == lines[3:]

    @pytest.mark.parametrize(("added", "lines"), [(b"abc", 1), (b"ab", 6), (b"a", 6)])
    def test_what_does_not_come_back_to_three_is_written_anew_to_the_end(self, added: bytes, lines: int) -> None:
        raw = wrapped(b"x" * 300, 60)
        _, (only,) = carried(raw, [Splice(50, 50, added)])
        assert raw[only.start : only.end].count(b"\r\n") == lines - 1

    def test_a_later_edit_can_bring_the_rest_back(self) -> None:
        raw = wrapped(b"x" * 300, 60)
        result, (only,) = carried(raw, [Splice(50, 50, b"a"), Splice(100, 100, b"bc")])
        assert (only.start, only.end) == (62, 62 * 3 - 2)
        assert result.endswith(raw[only.end :])

    def test_edits_in_neighbouring_lines_are_carried_apart(self) -> None:
        raw = wrapped(b"x" * 135, 60)
        result, splices = carried(raw, [Splice(10, 13, b"abc"), Splice(45, 48, b"def")])
        assert len(splices) == 2
        assert base64.decode(result) == b"x" * 10 + b"abc" + b"x" * 32 + b"def" + b"x" * 87

    @pytest.mark.parametrize("width", [5, 61, 70, 75])
    def test_lines_that_cut_a_group_are_left_alone_too(self, width: int) -> None:
        """A line of 61 characters ends within a group of four; the bits of its last character are its own."""
        raw = wrapped(bytes(range(256)), width)
        lines = raw.split(b"\r\n")
        result, _ = carried(raw, [Splice(128, 131, b"abcdef")])
        number = 4 * 128 // 3 // width
        assert result.split(b"\r\n")[:number] == lines[:number]
        tail = b"\r\n".join(lines[number + 2 :])
        assert result.endswith(tail)

    @pytest.mark.parametrize("at", [0, 1, 2, 3])
    @pytest.mark.parametrize("tail", [b"", b"\r\n", b"\r\n\r\n"])
    def test_an_end_without_a_line_end_gets_none(self, at: int, tail: bytes) -> None:
        body = b"y" * (100 + at)
        result, _ = carried(wrapped(body, 76) + tail, [Splice(len(body), len(body), b"<img>")])
        assert result == wrapped(body + b"<img>", 76) + tail

    def test_lines_of_the_same_length_come_back_the_same(self) -> None:
        """An edit of all there is gives what an encoder would have written."""
        for width in (4, 60, 64, 72, 76):
            raw = wrapped(bytes(range(256)), width) + b"\r\n\r\n"
            result, _ = carried(raw, [Splice(0, 256, bytes(range(255, -1, -1)))])
            assert result == wrapped(bytes(range(255, -1, -1)), width) + b"\r\n\r\n"

    def test_what_is_taken_out_leaves_no_empty_line(self) -> None:
        raw = wrapped(b"x" * 12, 4)
        assert carried(raw, [Splice(3, 6, b"")])[0] == wrapped(b"x" * 9, 4)
        assert carried(raw, [Splice(9, 12, b"")])[0] == wrapped(b"x" * 9, 4)
        assert carried(raw, [Splice(0, 12, b"")])[0] == b""

    def test_an_empty_body_takes_an_edit(self) -> None:
        assert carried(b"\r\n", [Splice(0, 0, b"abc")])[0] == b"YWJj\r\n"

    def test_white_space_of_a_line_that_changes_goes(self) -> None:
        """Otherwise a line could outgrow what may be sent."""
        raw = b" " * 900 + b"eHh4" + b" " * 80 + b"\r\neHh4"
        result, _ = carried(raw, [Splice(0, 3, b"z" * 300)])
        assert longest_line(result) <= 76

    def test_encoding_from_scratch_is_ordinary(self) -> None:
        assert base64.encode(b"x" * 3_000) == wrapped(b"x" * 3_000, 76)

    def test_lines_of_many_lengths_are_not_remembered_without_bound(self) -> None:
        """A page of so many is written anew as a whole: it takes no memory for each of its lines."""
        ragged = b"eH h4\r\n" * 20 + wrapped(b"<a href='https://example.com/'>x</a>", 76)
        content = top(b"Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n" + ragged)
        line_by_line = rewrite(content).content
        with patch.object(base64, "MOST_LINES", 10):
            assert base64.lines_of(ragged) is None
            rendered = rewrite(content)
        as_a_whole = rendered.content
        assert rendered.links == 1
        assert b"eH h4" in line_by_line
        assert b"eH h4" not in as_a_whole
        assert longest_line(body_of(as_a_whole)) == 76
        assert html_of(as_a_whole) == html_of(line_by_line)

    @pytest.mark.parametrize("unit", [b"eHh4", b"eHh4\r\n", b"e\r\nH\r\nh\r\n4\r\n", b"eHh4 ", b"eHh4\r\n\r\n"])
    def test_hostile_layouts_are_linear(self, unit: bytes) -> None:
        raw = unit * (1_000_000 // len(unit))
        size = 3 * (1_000_000 // len(unit))
        start = time.process_time()
        with patch.object(base64, "MOST_LINES", len(raw)):
            carried(raw, [Splice(at, at + 3, b"abcdef") for at in range(0, size, size // 5_000)])
        assert time.process_time() - start < 3
