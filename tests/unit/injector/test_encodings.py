"""Encodings are undone strictly and redone only where an edit is."""

import quopri
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from injector.encodings import (
    MAX_LINE,
    Splice,
    decode_qp,
    differs_only_there,
    encode_qp,
    has_long_line,
    locate_qp,
    long_qp_lines,
    place_qp,
    qp_splices,
    qp_text,
    splice,
    undo,
)
from tests.unit.injector.mails import longest_line

OCTETS = st.binary(max_size=300) | st.text("a=é \t.<\r\n", max_size=300).map(str.encode)


@st.composite
def encoded(draw: st.DrawFn) -> bytes:
    """Return legal quoted-printable as some encoder might write it: odd breaks, needless escapes, both cases."""
    units = [b"a", b"b c", b"=3D", b"=3d", b"=C3=A9", b"=\r\n", b"\r\n", b"=\r\n=\r\n", b"\t", b" ", b"<x>", b"=20"]
    return b"".join(draw(st.lists(st.sampled_from(units), max_size=60)))


def carried(raw: bytes, edits: list[Splice]) -> list[Splice]:
    """Return the splices of quoted-printable *raw* that carry *edits* of what it encodes."""
    places = place_qp(raw, edits)
    placed = zip(places[::2], places[1::2], edits, strict=True)
    return qp_splices(raw, [Splice(start, end, edit.new) for start, end, edit in placed])


class TestSplices:
    """A list of splices is made and unmade."""

    def test_splices_are_made_and_undone(self) -> None:
        content = b"0123456789"
        splices = [Splice(0, 0, b"<"), Splice(2, 4, b"xyz"), Splice(4, 5, b""), Splice(10, 10, b">")]
        assert splice(content, splices) == b"<01xyz56789>"
        assert undo(b"<01xyz56789>", content, splices) == content

    def test_undo_shows_a_change_beside_the_splices(self) -> None:
        content = b"0123456789"
        splices = [Splice(2, 4, b"xyz")]
        assert undo(b"01xyz4567!9", content, splices) != content
        assert undo(b"01xyz456789!", content, splices) != content

    @settings(deadline=None)
    @given(
        st.binary(max_size=20),
        st.lists(st.tuples(st.integers(-2, 22), st.integers(-2, 22), st.binary(max_size=3)), max_size=4),
        st.integers(-1, 30),
    )
    def test_what_differs_only_there_is_what_undoes(
        self, content: bytes, wanted: list[tuple[int, int, bytes]], flipped: int
    ) -> None:
        """Invariant: in order and within the content, and the result is that of the splices, to the octet."""
        for splices in (wanted, sorted(wanted)):
            bounds = [0, *(offset for edit in splices for offset in edit[:2]), len(content)]
            ordered = bounds == sorted(bounds)
            result = splice(content, splices)
            assert differs_only_there(result, content, splices) is ordered
            if ordered:
                assert undo(result, content, splices) == content
                spoilt = bytes(octet ^ (at == flipped) for at, octet in enumerate(result))
                assert differs_only_there(spoilt, content, splices) is (spoilt == result)
                assert not differs_only_there(result + b"x", content, splices)
                assert not result or not differs_only_there(result[:-1], content, splices)


class TestLongLines:
    """998 octets are a line, 999 are too many (RFC 5321 4.5.3.1.6)."""

    @pytest.mark.parametrize(
        ("body", "long"),
        [
            (b"", False),
            (b"x" * 998, False),
            (b"x" * 999, True),
            (b"x" * 998 + b"\r\n" + b"y" * 998 + b"\r\n", False),
            (b"x" * 998 + b"\r\n" + b"y" * 999 + b"\r\n", True),
            (b"\r\n" * 2_000, False),
            (b"\r\n" + b"x" * 998 + b"\r\n", False),
            (b"x\n" * 600, True),
        ],
    )
    def test_the_limit_is_exact(self, body: bytes, *, long: bool) -> None:
        assert has_long_line(body) is long

    @settings(deadline=None)
    @given(st.lists(st.integers(0, 1_010), max_size=8))
    def test_the_limit_is_found_in_any_line(self, lengths: list[int]) -> None:
        body = b"\r\n".join(b"x" * length for length in lengths)
        assert has_long_line(body) is (longest_line(body) > MAX_LINE)


class TestQuotedPrintable:
    """Quoted-printable is decoded strictly, located without a table, and folded only where an edit is."""

    @pytest.mark.parametrize(
        ("raw", "body"),
        [
            (b"a=3Db", b"a=b"),
            (b"a=3db", b"a=b"),
            (b"a=\r\nb", b"ab"),
            (b"a=\r\n=\r\nb", b"ab"),
            (b"a=", b"a"),
            (b"=", b""),
            (b"caf\xc3\xa9", b"caf\xc3\xa9"),
            (b"a \r\nb", b"a \r\nb"),
            (b"", b""),
        ],
    )
    def test_m05_legal_text_is_decoded(self, raw: bytes, body: bytes) -> None:
        assert decode_qp(raw) == body

    @pytest.mark.parametrize(
        "raw", [b"a=b", b"a==b", b"a=3", b"a= \r\nb", b"?a=1&b=2", b"===", b"=G0", b"a=\r\n==", b"=3D=1"]
    )
    def test_m05_what_needs_repair_is_not_decoded(self, raw: bytes) -> None:
        assert decode_qp(raw) is None

    @settings(deadline=None)
    @given(encoded())
    def test_decoding_agrees_with_the_standard_library(self, raw: bytes) -> None:
        assert decode_qp(raw) == quopri.decodestring(raw)

    @settings(deadline=None)
    @given(encoded())
    def test_every_decoded_offset_is_found(self, raw: bytes) -> None:
        """Invariant: what stands before the place decodes to what stands before the offset."""
        body = decode_qp(raw)
        assert body is not None
        places = locate_qp(raw, range(len(body) + 1))
        assert [quopri.decodestring(raw[:place]) for place in places] == [body[:at] for at in range(len(body) + 1)]
        assert [quopri.decodestring(raw[place:]) for place in places] == [body[at:] for at in range(len(body) + 1)]

    @settings(deadline=None)
    @given(encoded(), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 5), OCTETS), max_size=5))
    def test_edits_arrive_and_leave_other_lines_alone(self, raw: bytes, wanted: list[tuple[int, int, bytes]]) -> None:
        """Invariant: the result decodes to the edited body, and every untouched encoded line is in it."""
        body = decode_qp(raw)
        assert body is not None
        edits: list[Splice] = []
        at = 0
        for skip, length, new in wanted:
            start = min(at + skip, len(body))
            at = min(start + length, len(body))
            # Our own insertions hold no line ends.
            edits.append(Splice(start, at, new.replace(b"\r\n", b"")))
            at += 1
            if at > len(body):
                break
        offsets = locate_qp(raw, [offset for edit in edits for offset in edit[:2]])
        placed = [
            Splice(start, end, edit.new) for edit, start, end in zip(edits, offsets[::2], offsets[1::2], strict=True)
        ]
        splices = qp_splices(raw, placed)
        result = splice(raw, splices)
        assert decode_qp(result) == splice(body, edits)
        assert undo(result, raw, splices) == raw
        touched = b"".join(each.new + b"\r\n" for each in splices)
        assert longest_line(touched) <= 76

    @settings(deadline=None)
    @given(encoded(), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9), OCTETS), max_size=5))
    def test_no_line_changes_that_no_edit_is_in(self, raw: bytes, wanted: list[tuple[int, int, bytes]]) -> None:
        """Invariant: a splice covers only encoded lines that hold octets of an edit, or its place."""
        body = decode_qp(raw)
        assert body is not None
        edits: list[Splice] = []
        at = 0
        for skip, length, new in wanted:
            start, end = min(at + skip, len(body)), min(at + skip + length, len(body))
            if at <= start and not any(body[cut - 1 : cut + 1] == b"\r\n" for cut in (start, end)):
                edits.append(Splice(start, end, new.replace(b"\r\n", b"")))
                at = end + 1
        splices = carried(raw, edits)
        assert decode_qp(splice(raw, splices)) == splice(body, edits)
        pos = place = 0
        joined = set[int]()
        for line in raw.split(b"\r\n"):
            soft = line.endswith(b"=")
            held = len(quopri.decodestring(line[:-1] if soft else line))
            end = pos + held
            here = [
                edit
                for edit in edits
                if (edit.start < end + 2 * (not soft) and pos < edit.end) or pos <= edit.start == edit.end <= end
            ]
            if not here and pos not in joined:
                assert not any(each.start < place + len(line) and place < each.end for each in splices)
            pos = end + 2 * (not soft)
            joined.update(edit.end for edit in here if edit.end == pos)
            place += len(line) + 2

    @pytest.mark.parametrize(
        ("raw", "changed"),
        [
            (b'one <a href=3D=\r\n"https://example.com/">=\r\nthree', [b'"https://example.com/">=']),
            (
                b'one <a href=3D"ht=\r\ntps://exam=\r\nple.com/">x',
                [b'one <a href=3D"ht=', b"tps://exam=", b'ple.com/">x'],
            ),
            (b'one <a href=3d"https://example.com/">\r\nlast =3d', [b'one <a href=3d"https://example.com/">']),
            (b'trailing  \r\n<a href=3D"https://example.com/">  \r\n\tx', [b'<a href=3D"https://example.com/">  ']),
            (
                b"y" * 90 + b'\r\n<a href=3D"https://example.com/">' + b"x" * 60,
                [b'<a href=3D"https://example.com/">' + b"x" * 60],
            ),
        ],
    )
    def test_m05_only_the_lines_of_a_link_are_written_anew(self, raw: bytes, changed: list[bytes]) -> None:
        """Soft breaks inside and before it, lower case, white space at line ends, lines that came in too long."""
        body = decode_qp(raw)
        assert body is not None
        start = body.index(b'"http')
        end = body.index(b'"', start + 1) + 1
        new = b'"https://t.example.com/?a=b' + b"c" * 100 + b'"'
        (edit,) = carried(raw, [Splice(start, end, new)])
        assert raw[edit.start : edit.end].split(b"\r\n") == changed
        assert longest_line(edit.new) <= 76
        assert decode_qp(splice(raw, [edit])) == body[:start] + new + body[end:]
        assert edit.new.endswith(b"  ") is changed[-1].endswith(b"  ")

    def test_an_edit_folds_its_own_line_and_no_other(self) -> None:
        raw = b"first =3D " + b"x" * 60 + b"=\r\nsecond <a>\r\n" + b"third, a line of more than 76 octets " * 4
        place = raw.index(b"<a>")
        (edit,) = qp_splices(raw, [Splice(place, place + 3, b'"https://t.example.com/?a=b"' + b"y" * 100)])
        assert raw[edit.start : edit.end] == b"second <a>"
        assert edit.new.startswith(b'second "https://t.example.com/?a=3Db"yyy')

    def test_white_space_that_we_leave_at_a_line_end_is_escaped(self) -> None:
        raw = b"<a x opt>\r\nnext"
        (edit,) = qp_splices(raw, [Splice(5, 9, b"")])
        assert edit.new == b"<a x=20"

    def test_white_space_that_stood_at_a_line_end_is_not(self) -> None:
        raw = b"<a> tail  \r\nnext"
        (edit,) = qp_splices(raw, [Splice(0, 3, b"<b>")])
        assert edit.new == b"<b> tail  "

    def test_lines_over_the_limit_are_folded(self) -> None:
        raw = b"short\r\n" + b"=C3=A9" * 500 + b"=\r\nshort"
        result = splice(raw, long_qp_lines(raw))
        assert longest_line(result) <= 76
        assert quopri.decodestring(result) == quopri.decodestring(raw)
        assert result.startswith(b"short\r\n")
        assert result.endswith(b"=\r\nshort")

    @settings(deadline=None)
    @given(OCTETS)
    def test_encoding_a_whole_body_is_reversible_and_legal(self, body: bytes) -> None:
        result = encode_qp(body)
        assert decode_qp(result) == body
        assert quopri.decodestring(result) == body
        assert longest_line(result) <= 76
        assert result.isascii()
        assert not any(line.endswith((b" ", b"\t")) for line in result.split(b"\r\n"))

    @settings(deadline=None)
    @given(OCTETS)
    def test_text_without_breaks_is_ascii(self, octets: bytes) -> None:
        assert qp_text(octets).isascii()
        assert quopri.decodestring(qp_text(octets)) == octets

    @pytest.mark.parametrize("unit", [b"=\r\n", b"=41", b"=3D=\r\n", b"a=\r\n", b"\r\n"])
    def test_locating_is_linear(self, unit: bytes) -> None:
        raw = unit * (1_000_000 // len(unit)) + b"end"
        body = decode_qp(raw)
        assert body is not None
        start = time.process_time()
        places = locate_qp(raw, [0, len(body) // 2, len(body)])
        assert time.process_time() - start < 3
        assert [decode_qp(raw[place:]) for place in places] == [body, body[len(body) // 2 :], b""]

    def test_many_edits_in_one_long_line_are_linear(self) -> None:
        raw = b"<a>" * 300_000
        edits = [Splice(at, at + 3, b'"x"') for at in range(0, 900_000, 180)]
        start = time.process_time()
        (edit,) = qp_splices(raw, edits)
        assert time.process_time() - start < 3
        assert longest_line(edit.new) == 76
