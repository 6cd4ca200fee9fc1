"""Read off a batch of hits which of their writers' numbers it holds. Pure.

What is no number of a tracker's is passed over: an entry of the stream may say anything, and is recorded all the same.
"""

from collections.abc import Iterable
from itertools import groupby

from ledger.events import Hit
from ledger.numbers import Span

_WRITER_BYTES = 8
# PostgreSQL's bigint, with room for one more.
_MOST = 2**62


def spans(hits: Iterable[Hit]) -> list[Span]:
    """Return the numbers of *hits* as runs without a gap, by writer and in order."""
    numbered = {(hit.writer, hit.number): hit for hit in hits if _is_numbered(hit)}
    ordered = sorted(numbered)
    # Within a run the number and its place rise together.
    runs = groupby(enumerate(ordered), key=lambda item: (item[1][0], item[1][1] - item[0]))
    return [_span([numbered[place] for _, place in run]) for _, run in runs]


def _span(run: list[Hit]) -> Span:
    return Span(
        writer=run[0].writer,
        first=run[0].number,
        last=run[-1].number,
        settled=max(hit.settled for hit in run),
        lost=max(hit.lost for hit in run),
    )


def _is_numbered(hit: Hit) -> bool:
    return (
        len(hit.writer) == _WRITER_BYTES
        and 0 < hit.number < _MOST
        and 0 <= hit.settled < _MOST
        and 0 <= hit.lost < _MOST
    )
