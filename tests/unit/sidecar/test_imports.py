"""What history says, read without a ledger: pages, rows, times, and how patient asking is."""

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.notice import Bounce, What
from sidecar import import_arguments
from sidecar.imports import csv_file, emailoctopus
from sidecar.imports.csv_file import WrongRowError, tell
from sidecar.imports.emailoctopus import Version, read_page
from sidecar.imports.origin import OriginError, address_of, milliseconds
from sidecar.imports.web import Pace, seconds_until

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
MAY = 1_714_521_600_000


def test_what_is_typed_is_what_is_read() -> None:
    """The arguments are read without loading what they are for; both say the same."""
    assert tuple(csv_file.FIELDS) == import_arguments.FIELDS
    assert csv_file.WHATS == import_arguments.COLUMNS
    assert emailoctopus.REPORTS == import_arguments.REPORTS
    assert tuple(Version) == import_arguments.APIS


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("2024-05-01", MAY),
        ("2024-05-01T00:00:00Z", MAY),
        (" 2024-05-01 02:00:00+02:00 ", MAY),
        ("20240501T000000", MAY),
        ("1969-12-31", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_times(text: str, at_ms: int | None) -> None:
    """ISO 8601, UTC where no zone is named; what no e-mail can be from is no time."""
    assert milliseconds(text) == at_ms


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7),
        ("0.5", 0.5),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        (str(NOW.timestamp() + 30), 30),
        (format_datetime(NOW - timedelta(days=1), usegmt=True), 0),
        ("-3", 0),
        ("nan", 0),
        ("inf", 0),
        ("soon", 0),
        ("", 0),
    ],
)
def test_how_long_a_header_asks_to_wait(text: str, seconds: float) -> None:
    """In seconds, as a date, or since the epoch; nonsense asks for nothing."""
    assert seconds_until(text, NOW) == pytest.approx(seconds)


async def test_a_pace_lets_a_burst_go_and_then_waits() -> None:
    """Five at once where one has a second; without a burst each waits for its turn."""
    begun = time.monotonic()
    burst, even = Pace(1, burst=5), Pace(100)
    for _ in range(5):
        await burst.turn()
    assert time.monotonic() - begun < 1
    begun = time.monotonic()
    for _ in range(6):
        await even.turn()
    assert time.monotonic() - begun >= 0.049


class TestEmailOctopus:
    """A page is read strictly where it matters, and the key of version 1.6 is never kept."""

    def test_where_the_next_page_begins(self) -> None:
        for paging, place in (
            ({"next": "/api/1.6/campaigns/c/reports/sent?api_key=eo_1&limit=100&last=c1"}, "last=c1"),
            ({"next": "https://emailoctopus.com/api/1.6/x?page=2&api_key=eo_1"}, "page=2"),
            ({"next": None}, None),
            ([], None),
            (None, None),
        ):
            body = msgspec.json.encode({"data": [], "paging": paging})
            assert read_page(body, Version.OLD, "sent").following == place
        body = msgspec.json.encode({"data": [], "paging": {"next": {"url": "x", "starting_after": "Wz/1=="}}})
        assert read_page(body, Version.NEW, "sent").following == "starting_after=Wz%2F1%3D%3D"

    @pytest.mark.parametrize(("kind", "bounce"), [("HARD", "hard"), ("soft", "soft"), ("", "unknown")])
    def test_what_kind_of_bounce(self, kind: str, bounce: str) -> None:
        row = {"contact": {"email_address": "ann@example.net"}, "occurred_at": "2024-05-01", "type": kind}
        page = read_page(msgspec.json.encode({"data": [row]}), Version.OLD, "bounced")
        assert [(one.what, one.bounce, one.at_ms) for one in page.notices] == [(What.BOUNCED, Bounce(bounce), MAY)]

    def test_a_time_that_is_none_leaves_the_row(self) -> None:
        row = {"contact_email_address": "ann@example.net", "occurred_at": None}
        (notice,) = read_page(msgspec.json.encode({"data": [row]}), Version.NEW, "opened").notices
        assert notice.at_ms is None

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["data", "paging", "next", "contact", "x"]), inner, max_size=4)
            ),
            max_leaves=12,
        )
    )
    def test_any_json_is_a_page_or_a_named_trouble(self, value: object) -> None:
        for version in Version:
            try:
                page = read_page(msgspec.json.encode(value), version, "sent")
            except OriginError:
                continue
            assert page.rows >= len(page.notices)


class TestRows:
    """What a row of a file says."""

    @pytest.mark.parametrize(
        ("row", "told"),
        [
            ({}, [(What.SENT, None)]),
            ({"opened": ""}, [(What.SENT, None)]),
            ({"opened": "3"}, [(What.OPENED, None)]),
            ({"opened": "2024-05-01"}, [(What.OPENED, MAY)]),
            ({"opened": "yes", "opened_at": "2024-05-01"}, [(What.OPENED, MAY)]),
            ({"opened": "no", "opened_at": "2024-05-01"}, [(What.OPENED, MAY)]),
            ({"sent_at": "2024-05-01", "clicked": "TRUE"}, [(What.SENT, MAY), (What.CLICKED, None)]),
            ({"event": "Complained", "at": "2024-05-01"}, [(What.COMPLAINED, MAY)]),
        ],
    )
    def test_each(self, row: dict[str, str], told: list[tuple[What, int | None]]) -> None:
        found = tell(row, "ann@example.net", None)
        assert not isinstance(found, str)
        assert [(one.what, one.at_ms) for one in found] == told

    @pytest.mark.parametrize("row", [{"sent": "no"}, {"sent_at": "", "opened": "0"}])
    def test_nobody_got_it(self, row: dict[str, str]) -> None:
        assert tell(row, "ann@example.net", None) == csv_file.NOT_SENT

    @pytest.mark.parametrize(
        "row", [{"opened": "maybe"}, {"opened_at": "May"}, {"event": "read"}, {"event": "bounced", "bounce": "loud"}]
    )
    def test_what_cannot_be_read(self, row: dict[str, str]) -> None:
        with pytest.raises(WrongRowError):
            tell(row, "ann@example.net", None)


@pytest.mark.parametrize(
    ("text", "address"),
    [(" ann@example.net\t", "ann@example.net"), ("jos\N{LATIN SMALL LETTER E WITH ACUTE}@example.net",) * 2]
    + [
        (text, None) for text in ("ann", "", "<ann@example.net>", "ann@example.net, bob@example.net", "a b@example.net")
    ],
)
def test_addresses(text: str, address: str | None) -> None:
    """What an operator may type is an address; nothing is cut out of what is none."""
    assert address_of(text) == address
