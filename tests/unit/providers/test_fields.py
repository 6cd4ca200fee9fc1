"""A provider's time is read in whichever unit and spelling it comes."""

import pytest

from providers.fields import time_ms

#: 2026-01-02T03:04:05.678Z.
AT = 1_767_323_045_678


@pytest.mark.parametrize(
    ("spelt", "at"),
    [
        (AT, AT),
        (AT / 1000, AT),
        (AT // 1000, AT - 678),
        (str(AT), AT),
        ("1767323045.678", AT),
        ("2026-01-02T03:04:05.678Z", AT),
        ("2026-01-02T03:04:05.6780000Z", AT),
        ("2026-01-02T05:04:05.678+02:00", AT),
        ("2026-01-02 03:04:05.678", AT),
        # A time to come is kept as it is told: nobody here knows whose clock is wrong.
        ("2126-01-02T03:04:05Z", 4_922_996_645_000),
        # No time at all.
        (None, None),
        (True, None),
        (-1, None),
        (float("nan"), None),
        (1e300, None),
        ("soon", None),
        ("", None),
        ({}, None),
        ("9999-99-99T99:99:99Z", None),
    ],
)
def test_e1_a_time_in_seconds_milliseconds_or_words(spelt: object, at: int | None) -> None:
    """What is no time is none, and never an error."""
    assert time_ms({"when": {"at": spelt}}, "when", "at") == at
