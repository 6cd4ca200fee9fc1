"""When a campaign's mail may be sent: days and hours by the clock on the wall of a place.

Written `Mon-Fri 08:00-20:00 Europe/Berlin`; several are separated by `;`, and mail may be sent in any of them. Days are
names, ranges or both (`Mon,Wed-Fri`), or `daily`; hours that run past midnight belong to the day on which they begin.
"""

import re
from collections.abc import Sequence
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(r"(?P<days>\S+)\s+(?P<opens>\d\d:\d\d)-(?P<closes>\d\d:\d\d)\s+(?P<zone>\S+)")
_MINUTES_OF_A_DAY = 24 * 60


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """One span of every week."""

    #: The weekdays on which it opens; 0 is Monday.
    days: frozenset[int]
    #: Minutes from midnight; one that closes at or before it opens does so on the next day.
    opens: int
    closes: int
    zone: str

    def is_open(self, now: datetime) -> bool:
        """Tell whether *now*, an aware time, is in it."""
        local = now.astimezone(ZoneInfo(self.zone))
        minute = local.hour * 60 + local.minute
        today = local.weekday()
        if self.opens < self.closes:
            return today in self.days and self.opens <= minute < self.closes
        yesterday = (local.date() - timedelta(days=1)).weekday()
        return (today in self.days and minute >= self.opens) or (yesterday in self.days and minute < self.closes)


def parse_windows(text: str) -> tuple[Window, ...]:
    """Read *text*; empty is always. Raises `ValueError`, which says what is wrong."""
    return tuple(_window(part.strip()) for part in text.split(";") if part.strip())


def may_send(windows: Sequence[Window], now: datetime) -> bool:
    """Tell whether mail may be sent *now*, an aware time; without windows it always may."""
    return not windows or any(window.is_open(now) for window in windows)


def _window(text: str) -> Window:
    found = _WINDOW.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no window; write it like `Mon-Fri 08:00-20:00 Europe/Berlin`")
    zone = found["zone"]
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{zone!r} is no time zone; it has a name like Europe/Berlin or UTC") from None
    return Window(days=_days(found["days"]), opens=_minute(found["opens"]), closes=_minute(found["closes"]), zone=zone)


def _days(text: str) -> frozenset[int]:
    if text.lower() == "daily":
        return frozenset(range(7))
    days: set[int] = set()
    for part in text.lower().split(","):
        first, _, last = part.partition("-")
        if first not in _DAYS or (last or first) not in _DAYS:
            raise ValueError(f"{text!r} names no days; write them like Mon-Fri, Mon,Wed or daily")
        begin, end = _DAYS.index(first), _DAYS.index(last or first)
        days.update(day % 7 for day in range(begin, (end if end >= begin else end + 7) + 1))
    return frozenset(days)


def _minute(text: str) -> int:
    if text == "24:00":
        return _MINUTES_OF_A_DAY
    try:
        at = time.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text} is no time of day") from None
    return at.hour * 60 + at.minute
