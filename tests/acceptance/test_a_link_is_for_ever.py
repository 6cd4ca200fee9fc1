"""Promise 5: a valid token redirects with PostgreSQL and Redis down, exactly where the mailer's link went."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from injector.tokens import Keyring, Purpose
from ledger.events import EventType
from tests.conftest import ROOT, Eventually
from tests.tracker_support import KEY, SECRET, door, journaled, streamed, tracking
from tracker.buffer import open_buffer
from tracker.health import Health
from tracker.settings import TrackerSettings

PATIENT = TrackerSettings(append_wait=5.0)

#: Destinations that a redirect by a library is known to change, and what must come out.
DESTINATIONS = (
    "https://files.example.com/a%2Fb/../c/./d?X-Amz-Signature=%7E0aF%2b+/=&u=|&a[]=1&empty=&&#",
    "https://EXAMPLE.com:443?q=%zz&q=%C3%a9",
    "http://example.net:80/%0d%0aX:y?redirect=https%3A%2F%2Fexample.org%2F",
    "https://example.org/it's;v=1,2(3)!*'$@:~?a=b?c=d/e#!/f#g",
    "https://example.com/" + "x" * 1400,
)


@pytest.mark.parametrize("url", DESTINATIONS)
async def test_a_click_redirects_exactly_with_everything_down(
    url: str, redis_url: str, tmp_path: Path, eventually: Eventually
) -> None:
    """Redis goes away, PostgreSQL was never asked: 302, the same octets, and the hit is there when Redis is back."""
    async with (
        door(redis_url) as way,
        open_buffer(way.url, tmp_path / "journal", PATIENT, tick=0.05) as buffer,
        tracking(buffer) as tracker,
    ):
        path = tracker.path(Purpose.CLICK, url, 5)
        assert (await tracker.ask(path)).headers["location"] == url
        await way.shut()
        answer = await tracker.ask(path)
        assert (answer.status, answer.headers["location"]) == (302, url)
        assert (await tracker.ask("/readyz")).status == 200
        assert [hit.url for hit in journaled(tmp_path / "journal")] == [url]
        await way.open()
        await eventually(lambda: buffer.health() == Health(ready=True))
        hits = await streamed(redis_url)
    assert [(hit.type, hit.key, hit.link, hit.url) for hit in hits] == [(EventType.CLICKED, KEY, 5, url)] * 2


async def test_a_tracker_that_starts_with_nothing_redirects(tmp_path: Path) -> None:
    """No Redis since the start, and no disk either: people still arrive where they wanted to go."""
    (tmp_path / "journal").write_bytes(b"not a directory")
    async with (
        open_buffer("redis://127.0.0.1:1/0", tmp_path / "journal", PATIENT, tick=0.05) as buffer,
        tracking(buffer) as tracker,
    ):
        for url in DESTINATIONS:
            answer = await tracker.ask(tracker.path(Purpose.CLICK, url, 0))
            assert (answer.status, answer.headers["location"]) == (302, url)
        assert (await tracker.ask("/readyz")).status == 503


async def test_links_outlive_the_key_that_signed_them(redis_url: str, tmp_path: Path) -> None:
    """A rotation keeps old links alive; taking a key out revokes its links, and nothing unsigned ever redirects."""
    old = Keyring([b"the signing key of last year"]).mint(Purpose.CLICK, KEY, 0, DESTINATIONS[0])
    async with open_buffer(redis_url, tmp_path / "journal", PATIENT) as buffer:
        async with tracking(buffer, secrets=[SECRET, b"the signing key of last year"]) as rotated:
            assert (await rotated.ask(f"/track/c/{old}")).headers["location"] == DESTINATIONS[0]
        async with tracking(buffer) as retired:
            answers = [
                await retired.ask(path)
                for path in (
                    f"/track/c/{old}",
                    "/track/c/?url=https://example.net/",
                    "/track/c/https://example.net/",
                    "/track/c/" + retired.pixel.removeprefix("/track/o/"),
                )
            ]
    assert {answer.status for answer in answers} == {404}
    assert not any("location" in answer.headers for answer in answers)
    assert len({answer.body for answer in answers}) == 1


def test_the_tracker_cannot_ask_postgresql() -> None:
    """A redirect needs no database because the tracker has no driver for one."""
    program = (
        "import sys, tracker.app, tracker.buffer, tracker.listener\n"
        "print(*sorted({'asyncpg', 'aiosmtpd', 'relay', 'courier', 'sidecar'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == ""
