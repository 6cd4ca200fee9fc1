"""A send window says when mail may go, by the clock on a wall, over midnight and over summer time."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.windows import may_send, parse_windows


def at(text: str) -> datetime:
    """Return a time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "now", "open_"),
    [
        # 2026-11-20 is a Friday; Berlin is an hour ahead of UTC in winter.
        ("Mon-Fri 08:00-20:00 Europe/Berlin", "2026-11-20T06:59", False),
        ("Mon-Fri 08:00-20:00 Europe/Berlin", "2026-11-20T07:00", True),
        ("Mon-Fri 08:00-20:00 Europe/Berlin", "2026-11-20T18:59:59", True),
        ("Mon-Fri 08:00-20:00 Europe/Berlin", "2026-11-20T19:00", False),
        ("Mon-Fri 08:00-20:00 Europe/Berlin", "2026-11-21T12:00", False),
        # In summer two.
        ("Mon-Fri 08:00-20:00 Europe/Berlin", "2026-07-03T06:00", True),
        ("Mon-Fri 08:00-20:00 Europe/Berlin", "2026-07-03T18:00", False),
        ("mon,WED 00:00-24:00 UTC", "2026-11-18T23:59", True),
        ("mon,WED 00:00-24:00 UTC", "2026-11-19T00:00", False),
        ("Sat-Mon 10:00-11:00 UTC", "2026-11-22T10:30", True),
        ("Sat-Mon 10:00-11:00 UTC", "2026-11-24T10:30", False),
        # What begins on Friday night ends on Saturday morning.
        ("Fri 22:00-06:00 UTC", "2026-11-20T23:00", True),
        ("Fri 22:00-06:00 UTC", "2026-11-21T05:59", True),
        ("Fri 22:00-06:00 UTC", "2026-11-21T06:00", False),
        ("Fri 22:00-06:00 UTC", "2026-11-20T05:00", False),
        ("Mon 08:00-09:00 UTC; Fri 10:00-11:00 UTC;", "2026-11-20T10:00", True),
        ("daily 08:00-09:00 Asia/Kathmandu", "2026-11-20T02:15", True),
        ("", "2026-11-20T10:00", True),
    ],
)
def test_it_is_open_by_the_wall_clock(text: str, now: str, open_: bool) -> None:  # noqa: FBT001 - a table's column
    """To the minute."""
    assert may_send(parse_windows(text), at(now)) is open_


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("always", "is no window"),
        ("Mon-Fri 8:00-20:00 UTC", "is no window"),
        ("Mon-Fri 08:00-20:00", "is no window"),
        ("Mon-Fri 08:00-25:00 UTC", "25:00 is no time of day"),
        ("Mon-Fri 08:00-20:00 Mars/Base", "'Mars/Base' is no time zone"),
        ("Mon-Fri 08:00-20:00 ../etc/passwd", "is no time zone"),
        ("Montag 08:00-20:00 UTC", "'Montag' names no days"),
        ("Mon- 08:00-20:00 UTC; x", "is no window"),
    ],
)
def test_what_is_no_window_is_named(text: str, says: str) -> None:
    """With how to write one."""
    with pytest.raises(ValueError, match=says):
        parse_windows(text)


@given(
    opens=st.integers(0, 1439),
    closes=st.integers(0, 1439),
    start=st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)),  # noqa: DTZ001 - made aware below
)
def test_a_daily_window_and_its_complement_never_agree(opens: int, closes: int, start: datetime) -> None:
    """Every minute is in the one or in the other, if they are not the same."""

    def clock(minute: int) -> str:
        return f"{minute // 60:02}:{minute % 60:02}"

    now = start.replace(tzinfo=UTC)
    one = parse_windows(f"daily {clock(opens)}-{clock(closes)} UTC")
    other = parse_windows(f"daily {clock(closes)}-{clock(opens)} UTC")
    if opens == closes:
        assert may_send(one, now)
    else:
        assert may_send(one, now) is not may_send(other, now)
        assert may_send(one, now) is may_send(one, now + timedelta(days=1))
