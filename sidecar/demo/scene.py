"""Set the demo's scene: a data directory of its own, free ports, a capture upstream and a stand-in AMS."""

import asyncio
import logging
import socket
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

import aiohttp

from courier.settings import AmsSettings, CourierSettings
from relay.settings import RelaySettings
from sidecar.addresses import parse_listen
from sidecar.demo.acts import Stage, submit_campaign, watch_ams, watch_ledger, watch_mail, watch_recipients
from sidecar.demo.recipients import Browser
from sidecar.demo.story import Story
from sidecar.keys import console_token
from sidecar.logs import configure
from sidecar.settings import CAPTURE, ConsoleSettings, Settings, public_url
from sidecar.standin_ams import StandinAms
from sidecar.wiring.fleet import fleet
from sidecar.wiring.ports import try_port
from sidecar.wiring.role import RoleError
from sidecar.wiring.stopping import run_until_stopped
from tracker.settings import TrackerSettings

#: The exit code of a demo that was stopped before its last act had ended.
INTERRUPTED = 130

_API_KEY = "demo-key"


def play(settings: Settings, *, exit_when_done: bool) -> int:
    """Play all acts; stay up until Ctrl-C unless *exit_when_done*.

    Returns 0 only if every step held, and `INTERRUPTED` when it was stopped before the last of them.
    """
    configure("demo", level=logging.WARNING)
    story = Story()
    try:
        whole = run_until_stopped(
            lambda stopping, played: _play(settings, story, stopping, played, exit_when_done=exit_when_done)
        )
    except (RoleError, OSError) as error:
        print(f"outrider demo: {error}", file=sys.stderr)  # noqa: T201 - the operator is looking
        return 1
    if story.failures:
        return 1
    return 0 if whole else INTERRUPTED


async def _play(
    settings: Settings,
    story: Story,
    stopping: asyncio.Event,
    played: Callable[[], None],
    *,
    exit_when_done: bool,
) -> bool:
    began = time.monotonic()
    async with StandinAms(api_key=_API_KEY) as ams:
        own = _staged(settings, ams.url)
        async with fleet(own, quiet=True) as full, aiohttp.ClientSession() as session:
            story.chapter("Outrider")
            story.check("servers, relay, tracker and courier run", holds=True, seen=_since(began))
            # A campaign of its own for each run: a repeat of the last one would rightly be sent to nobody.
            stage = Stage(
                settings=full,
                ams=ams,
                browser=Browser(session),
                session=session,
                token=console_token(full),
                mailing=int(time.time()),
                now=datetime.now(UTC),
            )
            await _acts(stage, story)
            played()
            _where_to_look(stage, story)
            if not exit_when_done:
                story.tell("It stays up until Ctrl-C. What AMS receives from here on:")
                await _tell_ams(stage, story, stopping)
    story.chapter("Stopped; nothing of it runs any more.")
    return True


async def _acts(stage: Stage, story: Story) -> None:
    try:
        replies = await submit_campaign(stage, story)
        mail = watch_mail(stage, story, replies)
        await watch_recipients(stage, story, mail)
        await watch_ams(stage, story)
        await watch_ledger(stage, story)
    except Exception as error:  # noqa: BLE001 - whatever it is that did not hold, the story says so
        story.check("the act could not go on", holds=False, seen=type(error).__name__)


def _staged(settings: Settings, ams_url: str) -> Settings:
    """Return the settings of the demo: the operator's place and ports, and the defaults that the story is told of."""
    taken: set[int] = set()
    tracker = _free(settings.tracker.listen, taken)
    return Settings(
        data_dir=settings.data_dir / "demo",
        relay=RelaySettings(listen=_free(settings.relay.listen, taken), upstream=(CAPTURE,), workers=1),
        tracker=TrackerSettings(listen=tracker, public_url=f"http://{tracker}"),
        console=ConsoleSettings(listen=_free(settings.console.listen, taken)),
        ams=AmsSettings(url=ams_url, api_key=_API_KEY, interval=0.5),
        # Its recipients click everything within a second, as only machines do.
        courier=CourierSettings(burst_links=0),
    )


def _free(listen: str, taken: set[int]) -> str:
    """Return *listen* on loopback, on another port where somebody has that one."""
    port = parse_listen(listen).port
    for candidate in (port, 0):
        if candidate in taken:
            continue
        try:
            found = try_port(socket.AF_INET, ("127.0.0.1", candidate))
        except OSError:
            continue
        taken.add(found)
        return f"127.0.0.1:{found}"
    raise OSError("no free port on 127.0.0.1")


def _since(began: float) -> str:
    return f"{time.monotonic() - began:.1f} s"


def _where_to_look(stage: Stage, story: Story) -> None:
    settings = stage.settings
    story.chapter("Where to look next")
    story.tell(f"captured mail   http://{settings.console.listen}/  (token: {stage.token})")
    story.tell(f"message files   {settings.data_dir / 'capture'}")
    story.tell(f"send your own   SMTP to {settings.relay.listen}, with X-Id-Mail: [{stage.mailing}]")
    story.tell(f"tracked URLs    {public_url(settings)}")
    story.tell(f"in words        ./outrider status --data-dir '{settings.data_dir}'")


async def _tell_ams(stage: Stage, story: Story, stopping: asyncio.Event) -> None:
    told = len(stage.ams.received)
    while not stopping.is_set():
        for item in stage.ams.received[told:]:
            story.tell(f"mailing {item.mailing}: {item.email}  {item.url}")
        told = len(stage.ams.received)
        try:
            async with asyncio.timeout(0.5):
                await stopping.wait()
        except TimeoutError:
            continue
