"""Encodings are undone strictly and redone only where an edit is."""

import binascii
import quopri
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from injector.charsets import charset_of, exact_codec
from injector.encodings import (
    MAX_LINE,
    Splice,
    decode_base64,
    decode_qp,
    encode_base64,
    encode_qp,
    has_long_line,
    locate_qp,
    long_qp_lines,
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


class TestBase64:
    """Base64 is decoded strictly and written again in the shape it had."""

    @pytest.mark.parametrize("width", [4, 60, 64, 72, 76, 100])
    def test_m05_line_length_and_ends_are_kept(self, width: int) -> None:
        text = binascii.b2a_base64(bytes(range(256)), newline=False)
        raw = b"\r\n".join(text[at : at + width] for at in range(0, len(text), width)) + b"\r\n\r\n"
        assert encode_base64(bytes(range(256)), raw) == raw

    def test_m05_white_space_and_a_missing_line_end_are_no_errors(self) -> None:
        assert decode_base64(b" aGVs bG8=") == b"hello"
        assert encode_base64(b"hello!", b"aGVs\r\nbG8=") == b"aGVs\r\nbG8h"

    @pytest.mark.parametrize("raw", [b"aGVsbG8", b"aGVs*bG8=", b"aGVsbG8=\r\nfooter", b"aGVsbG8=aGVs", b"a"])
    def test_m05_what_needs_repair_is_not_decoded(self, raw: bytes) -> None:
        assert decode_base64(raw) is None

    def test_a_line_too_long_becomes_ordinary_lines(self) -> None:
        raw = binascii.b2a_base64(b"x" * 3_000, newline=False)
        assert longest_line(encode_base64(b"x" * 3_000, raw)) == 76

    def test_a_short_single_line_does_not_grow_past_76(self) -> None:
        assert longest_line(encode_base64(b"x" * 3_000, b"aGVsbG8=")) == 76

    @settings(deadline=None)
    @given(st.binary(max_size=500), st.integers(1, 200))
    def test_what_is_encoded_decodes_to_the_same(self, body: bytes, width: int) -> None:
        text = binascii.b2a_base64(b"y" * 200, newline=False)
        like = b"\r\n".join(text[at : at + width] for at in range(0, len(text), width))
        result = encode_base64(body, like)
        assert decode_base64(result) == body
        assert longest_line(result) <= MAX_LINE


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


class TestCharsets:
    """A label says how a body can be worked on, or that nobody knows."""

    @pytest.mark.parametrize(
        ("label", "codec"),
        [
            (None, "ascii"),
            ("us-ascii", "ascii"),
            ("UTF-8", "utf-8"),
            ('"utf-8"', "utf-8"),
            ("'utf8'", "utf-8"),
            ("unicode-1-1-utf-8", "utf-8"),
            ("windows-1251", "cp1251"),
            ("win-1251", "cp1251"),
            ("cp1251", "cp1251"),
            ("koi8-r", "koi8-r"),
            ("iso-8859-8-i", "iso8859-8"),
            ("windows-874", "cp874"),
        ],
    )
    def test_m06_these_are_worked_on_as_octets(self, label: str | None, codec: str) -> None:
        charset = charset_of(label)
        assert charset is not None
        assert (charset.codec, charset.wide) == (codec, False)

    @pytest.mark.parametrize(
        ("label", "codec"),
        [
            ("iso-2022-jp", "iso2022_jp"),
            ("gb18030", "gb18030"),
            ("gb2312", "gb18030"),
            ("utf-16", "utf-16"),
            ("x-sjis", "cp932"),
            ("windows-31j", "cp932"),
            ("big5", "big5hkscs"),
            ("hz-gb-2312", "hz"),
            ("utf-7", "utf-7"),
        ],
    )
    def test_m06_these_are_decoded_and_encoded_back(self, label: str, codec: str) -> None:
        charset = charset_of(label)
        assert charset is not None
        assert (charset.codec, charset.wide) == (codec, True)

    @pytest.mark.parametrize(
        "label", ["cp-850", "default", "binary", "x-unknown", "", "rot13", "cp037", "hex", "utf-8; x", "idna"]
    )
    def test_m06_these_are_not_known(self, label: str) -> None:
        assert charset_of(label) is None

    def test_every_codec_exists_and_keeps_ascii_where_it_says_so(self) -> None:
        ascii_text = bytes(range(0x20, 0x7F)).decode()
        for label in ("utf-8", "koi8-u", "x-mac-cyrillic", "cp866", "euc-jp", "iso-8859-16", "tis-620"):
            charset = charset_of(label)
            assert charset is not None
            assert ascii_text.encode(charset.codec) == ascii_text.encode()

    @pytest.mark.parametrize(
        ("label", "body", "codec"),
        [
            ("utf-16", b"\xff\xfe<\x00", "utf-16-le"),
            ("utf-16", b"\xfe\xff\x00<", "utf-16-be"),
            ("utf-16", b"<\x00", None),
            ("utf-16le", b"<\x00", "utf-16-le"),
            ("utf-32", b"\xff\xfe\x00\x00<\x00\x00\x00", "utf-32-le"),
        ],
    )
    def test_the_byte_order_must_be_known(self, label: str, body: bytes, codec: str | None) -> None:
        charset = charset_of(label)
        assert charset is not None
        assert exact_codec(charset, body) == codec
