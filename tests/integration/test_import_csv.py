"""History from a file: what a row may say, which rows are left out, and how that is told."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger import campaigns
from ledger.reports import MessageFilter, messages
from ledger.store import Ledger
from sidecar.export import export_csv
from sidecar.failures import CommandError
from sidecar.settings import Settings
from tests.importing import flags, imported, importing_settings, no_drift
from tests.rows import Pool

Write = Callable[[str | bytes], str]


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Say where the ledger is."""
    return importing_settings(database_url, tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a file and names it."""

    def written(content: str | bytes) -> str:
        path = tmp_path / "history.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return written


async def test_a_row_for_each_recipient(
    settings: Settings, ledger: Ledger, pool: Pool, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    """Flags and times in any mixture, quoted as RFC 4180 says, after a byte order mark; wrong rows are named."""
    name = write(
        "\N{ZERO WIDTH NO-BREAK SPACE}E-Mail,Name,sent_at,Opened,Clicked At,Bounced,bounce type,unsubscribed\r\n"
        'ann@example.net,"Ann, of\r\nNowhere",2024-05-01T09:00:00Z,yes,,,,\r\n'
        'bob@example.net,"the ""B""",2024-05-01 10:00:00+02:00,0,2024-05-02T11:00:00Z,no,,x\r\n'
        "nobody,,2024-05-01,,,,,\r\n"
        "cid@example.net,,2024-05-01,perhaps,,,,\r\n"
        "\r\n"
        "dan@example.net,,,,,2024-05-01,hard,\r\n"
        'eve@example.net,"a"b,,,,,,\r\n'
        "fay@example.net,,,,,,,,,\r\n"
        "gus@example.net,,,,,,,\r\n"
    )
    assert await imported(settings, "csv", name, "--campaign", "spring", "--suppress") == 0
    told = capsys.readouterr()
    assert told.err.splitlines() == [
        "line 5: 'nobody' is no address: left out",
        "line 6: opened: 'perhaps' is neither yes nor no, and no time: left out",
        "line 9: ',' expected after '\"': left out",
        "line 10: 10 cells, and the first line names 8 columns: left out",
        "columns that nothing was taken from: Name",
    ]
    assert "left out 1 that say they were not sent\nleft out 4 with something wrong in it\n" in told.out
    assert told.out.startswith("read 8 rows in ")
    no = dict.fromkeys(("opened", "clicked", "bounced", "complained", "unsubscribed"), False)
    assert await flags(pool) == {
        "ann@example.net": no | {"opened": True},
        "bob@example.net": no | {"opened": True, "clicked": True, "unsubscribed": True},
        "dan@example.net": no | {"bounced": True},
    }
    page = await messages(ledger, MessageFilter(), limit=10)
    sent = {message.recipient: message.sent_at and message.sent_at.isoformat() for message in page.messages}
    assert sent["bob@example.net"] == "2024-05-01T08:00:00+00:00"
    assert sent["dan@example.net"] is None
    suppressed = await pool.fetch("SELECT source, reason FROM suppression ORDER BY reason")
    assert [tuple(row) for row in suppressed] == [("", "bounced"), ("", "unsubscribed")]
    assert await no_drift(ledger)
    # The same again changes nothing, also where nothing says when it was.
    assert await imported(settings, "csv", name, "--campaign", "spring", "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["new_recipients"], again["new_events"], again["known"]) == (0, 0, 6)


async def test_a_row_for_each_event(settings: Settings, ledger: Ledger, write: Write) -> None:
    """Semicolons, columns under other names, and a time for each."""
    name = write(
        "Who;What;When;Where\n"
        "ann@example.net;opened;2024-05-02;\n"
        "ann@example.net;clicked;2024-05-03;https://example.com/?a=1\n"
        "ann@example.net;opened;2024-05-04;\n"
        "bob@example.net;sent;2024-05-01;\n"
    )
    maps = ("email=who", "event=What", "at=When", "url=Where")
    words = [word for one in maps for word in ("--map", one)]
    assert await imported(settings, "csv", name, "--campaign", "spring", "--source", "shop", *words) == 0
    page = await messages(ledger, MessageFilter(source="shop"), limit=10)
    ann = next(message for message in page.messages if message.recipient == "ann@example.net")
    assert (ann.engagement.opens, ann.engagement.clicks, ann.accepted_at.day) == (2, 1, 2)
    assert [event.url for event in ann.events if event.type == "clicked"] == ["https://example.com/?a=1"]
    assert {event.source for event in ann.events} == {"import:csv"}
    assert ann.tracking.reason == "imported"


async def test_every_row_is_one_thing(
    settings: Settings, ledger: Ledger, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of who opened, from standard input, and later one of all who got it: `sent` never lowers `opened`."""
    opened = io.TextIOWrapper(io.BytesIO(b"email address\nann@example.net\nbob@example.net\n"))
    monkeypatch.setattr("sys.stdin", opened)
    assert await imported(settings, "csv", "-", "--campaign", "spring", "--every", "opened") == 0
    everybody = write("recipient\n" + "".join(f"{name}@example.net\n" for name in ("ann", "bob", "cid", "Dan")))
    assert await imported(settings, "csv", everybody, "--campaign", "spring") == 0
    (row,) = await campaigns.campaigns(ledger, limit=2)
    assert (row.campaign.accepted, row.campaign.unique_opens, row.campaign.opens) == (4, 2, 2)


async def test_our_own_export_is_read(settings: Settings, ledger: Ledger, pool: Pool, write: Write) -> None:
    """What one Outrider exports another one imports, with the same flags."""
    name = write(
        "email,sent_at,opened_at,clicked,complained\n"
        "=ann@example.net,2024-05-01,2024-05-02,,\nbob@example.net,2024-05-01,,yes,yes\n"
    )
    assert await imported(settings, "csv", name, "--campaign", "spring") == 0
    before = await flags(pool)
    assert "=ann@example.net" in before
    exported = b"".join([piece async for piece in export_csv(ledger, MessageFilter())])
    await pool.execute("TRUNCATE message, delivery, engagement, event, event_seen, campaign, campaign_delta")
    assert await imported(settings, "csv", write(exported), "--campaign", "spring", "--source", "other") == 0
    assert await flags(pool) == before


async def test_what_cannot_be_read(settings: Settings, pool: Pool, write: Write) -> None:
    """The whole file is refused, and nothing of it stands in the ledger."""
    cases: tuple[tuple[str | bytes, tuple[str, ...], str], ...] = (
        ("", (), "names no column `email`"),
        ("name\nann\n", (), "names no column `email`: name it with --map email=COLUMN"),
        ("email\n", ("--map", "at=when"), "--map at=when: the first line names no such column"),
        ("email,event,opened\n", (), "columns of both"),
        (b"email\nann@example.net\n\xe4nn@example.net\n", (), "line 3: expected UTF-8; nothing was imported"),
        (b"email\nann@example.net\xc3", (), "line 2: expected UTF-8"),
        ("email\nann@example.net\n".encode("utf-16"), (), "it is UTF-16; save it as UTF-8"),
    )
    for content, words, told in cases:
        with pytest.raises(CommandError) as raised:
            await imported(settings, "csv", write(content), "--campaign", "spring", *words)
        assert told in str(raised.value)
    assert await pool.fetchval("SELECT count(*) FROM campaign") == 0


async def test_nothing_but_wrong_rows(
    settings: Settings, pool: Pool, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    """That is a failure; the first twenty are named."""
    name = write("email\n" + "nobody\n" * 30)
    assert await imported(settings, "csv", name, "--campaign", "spring") == 1
    told = capsys.readouterr()
    assert len(told.err.splitlines()) == 20
    assert "left out 30 with something wrong in it" in told.out
    assert await pool.fetchval("SELECT count(*) FROM campaign") == 0
