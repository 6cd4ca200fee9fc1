"""Places in quoted-printable are found by decoding, and a wrong place or a wrong line is seen before it is sent."""

import quopri
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from injector.encodings import Splice, decode_qp, place_qp, qp_splices, splice
from injector.quoted import MisplacedError, decodes_to, places_of

NEW = b'"https://t.example.com/track/c/a=b"'
LINES = [
    b'<p>one =C3=A9 <a href=3D"https://exam=\r\nple.com/?a=3D1">x</a>=\r\n',
    b'two <a href=3D"http://example.com/2">y</a> z=\r\n',
    b'<a href=3D=\r\n"https://example.com/3">y</a>\r\n',
    b'two <a href=3D"http://example.com/2">y</a> z\r\n',
]
RAW = b"".join(LINES)
BODY = quopri.decodestring(RAW)


@st.composite
def encoded(draw: st.DrawFn) -> bytes:
    """Return quoted-printable with links in it, legal or not."""
    units = [
        b"a",
        b"b c",
        b"=3D",
        b"=3d",
        b"=\r\n",
        b"\r\n",
        b'"http',
        b'"ht=\r\ntp',
        b"'http",
        b'"',
        b"=22",
        b"=",
        b"=3",
    ]
    return b"".join(draw(st.lists(st.sampled_from(units), max_size=40)))


def links() -> list[tuple[int, int]]:
    """Return the spans of the links of `BODY`, and that of its end."""
    spans = []
    at = BODY.find(b'"http')
    while at >= 0:
        end = BODY.index(b'"', at + 1) + 1
        spans.append((at, end))
        at = BODY.find(b'"http', end)
    return [*spans, (len(BODY), len(BODY))]


def edits() -> tuple[list[Splice], list[Splice]]:
    """Return an edit for each span of `links`, in `BODY` and in `RAW`."""
    places = place_qp(RAW, links())
    return (
        [Splice(start, end, NEW) for start, end in links()],
        [Splice(start, end, NEW) for start, end in zip(places[::2], places[1::2], strict=True)],
    )


class TestPlaces:
    """A place that was looked for is the one that counting finds."""

    @settings(deadline=None)
    @given(
        raw=encoded(),
        wanted=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 20)), max_size=5),
        at_quotes=st.booleans(),
    )
    def test_every_span_is_placed_as_counting_places_it(
        self, raw: bytes, wanted: list[tuple[int, int]], *, at_quotes: bool
    ) -> None:
        body = decode_qp(raw)
        if body is None:
            return
        spans: list[tuple[int, int]] = []
        at = 0
        for skip, length in wanted:
            start = body.find(b'"', at) if at_quotes else at + skip
            end = body.find(b'"', start + 1) + 1 if at_quotes else start + length
            if not at <= start <= end <= len(body):
                break
            spans.append((start, end))
            at = end
        assert places_of(raw, body, spans) == place_qp(raw, spans)

    def test_links_in_one_line_and_in_two_are_placed(self) -> None:
        assert places_of(RAW, BODY, links()) == place_qp(RAW, links())
        assert len(links()) == 5

    def test_a_body_that_is_another_is_not_placed(self) -> None:
        """A change before, within and between the links; what is behind the last, nobody asked for."""
        for old, new in ((b"one", b"two"), (b"le.com/?a", b"le.net/?a"), (b"y</a> z<", b"x</a> z<")):
            assert old in BODY
            with pytest.raises(MisplacedError):
                places_of(RAW, BODY.replace(old, new), links())

    @pytest.mark.parametrize("unit", [b'"http', b'"http=\r\n', b'"=\r\nhttp', b'=22http"', b'"aaa"'])
    def test_placing_is_linear(self, unit: bytes) -> None:
        raw = unit * (1_000_000 // len(unit)) + b"\r\n"
        body = decode_qp(raw)
        assert body is not None
        started = time.process_time()
        places_of(raw, body, [(at, at + 5) for at in range(0, len(body) - 5, len(body) // 4_000)])
        assert time.process_time() - started < 3


class TestProof:
    """What would decode to anything but the edited body is not sent."""

    def test_what_was_encoded_rightly_is_seen_to_be_right(self) -> None:
        meant, placed = edits()
        splices = qp_splices(RAW, placed)
        assert decodes_to(RAW, BODY, meant, placed, splices)
        assert quopri.decodestring(splice(RAW, splices)) == splice(BODY, meant)

    def test_offsets_may_count_from_elsewhere(self) -> None:
        meant, placed = edits()
        assert decodes_to(RAW, BODY, meant, placed, qp_splices(RAW, placed, 700), 700)
        assert not decodes_to(RAW, BODY, meant, placed, qp_splices(RAW, placed, 700), 701)

    @pytest.mark.parametrize(
        "broken",
        [
            lambda line: line._replace(new=line.new.replace(b"=3D", b"=3E", 1)),
            lambda line: line._replace(new=line.new.replace(b"=3D", b"=", 1)),
            lambda line: line._replace(new=line.new.removesuffix(b"=") + b" "),
            lambda line: line._replace(new=line.new[1:]),
            lambda line: line._replace(new=line.new + b"="),
            lambda line: line._replace(new=line.new.replace(NEW[:9], b"", 1)),
            lambda line: line._replace(start=line.start + 1),
            lambda line: line._replace(end=line.end + 1),
            lambda line: line._replace(end=line.end - 1),
            lambda line: line._replace(end=line.end + 2),
            lambda line: line._replace(end=len(RAW) + 1),
        ],
    )
    def test_an_encoder_that_errs_in_one_line_is_seen(self, broken: Callable[[Splice], Splice]) -> None:
        meant, placed = edits()
        splices = qp_splices(RAW, placed)
        for at, line in enumerate(splices):
            wrong = [*splices[:at], broken(line), *splices[at + 1 :]]
            if wrong != splices and quopri.decodestring(splice(RAW, wrong)) != splice(BODY, meant):
                assert not decodes_to(RAW, BODY, meant, placed, wrong)

    def test_a_line_that_is_forgotten_is_seen(self) -> None:
        meant, placed = edits()
        splices = qp_splices(RAW, placed)
        assert len(splices) > 1
        for at in range(len(splices)):
            assert not decodes_to(RAW, BODY, meant, placed, splices[:at] + splices[at + 1 :])

    @pytest.mark.parametrize("step", [-2, -1, 1, 2])
    def test_an_edit_that_is_placed_beside_its_link_is_seen(self, step: int) -> None:
        meant, placed = edits()
        for at, (start, end, new) in enumerate(placed[:-1]):
            wrong = [*placed[:at], Splice(start + step, end + step, new), *placed[at + 1 :]]
            assert not decodes_to(RAW, BODY, meant, wrong, qp_splices(RAW, wrong))

    def test_an_edit_of_other_octets_is_seen(self) -> None:
        meant, placed = edits()
        for at, (start, end, new) in enumerate(meant[:-1]):
            wrong = [*meant[:at], Splice(start - 1, end, new), *meant[at + 1 :]]
            assert not decodes_to(RAW, BODY, wrong, placed, qp_splices(RAW, placed))

    def test_many_edits_in_one_long_line_are_linear(self) -> None:
        raw = b'<a"x">' * 300_000
        placed = [Splice(at + 2, at + 5, NEW) for at in range(0, 1_800_000, 360)]
        splices = qp_splices(raw, placed)
        started = time.process_time()
        assert decodes_to(raw, raw, placed, placed, splices)
        assert time.process_time() - started < 1
