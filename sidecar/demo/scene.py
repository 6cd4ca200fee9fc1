"""Set the demo's scene: a data directory of its own, free ports, a capture upstream and a stand-in AMS."""

import asyncio
import logging
import signal
import socket
import sys
import time
from datetime import UTC, datetime

import aiohttp
import msgspec

from sidecar.addresses import parse_listen
from sidecar.demo.acts import Stage, submit_campaign, watch_ams, watch_ledger, watch_mail, watch_recipients
from sidecar.demo.recipients import Browser
from sidecar.demo.story import Story
from sidecar.keys import console_token
from sidecar.logs import configure
from sidecar.settings import CAPTURE, Settings, public_url
from sidecar.standin_ams import StandinAms
from sidecar.wiring.fleet import fleet
from sidecar.wiring.role import RoleError

_API_KEY = "demo-key"


def play(settings: Settings, *, exit_when_done: bool) -> int:
    """Play all acts; stay up until Ctrl-C unless *exit_when_done*. Returns 0 only if every step held."""
    configure("demo", level=logging.WARNING)
    story = Story()
    try:
        asyncio.run(_play(settings, story, exit_when_done=exit_when_done))
    except (RoleError, OSError) as error:
        print(f"outrider demo: {error}", file=sys.stderr)  # noqa: T201 - the operator is looking
        return 1
    return 0 if story.steps and not story.failures else 1


async def _play(settings: Settings, story: Story, *, exit_when_done: bool) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    began = time.monotonic()
    async with StandinAms(api_key=_API_KEY) as ams:
        own = _staged(settings, ams.url)
        async with fleet(own, quiet=True) as full, aiohttp.ClientSession() as session:
            story.chapter("Outrider")
            story.check("servers, relay, tracker, courier and console run", holds=True, seen=_since(began))
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
            acts = asyncio.create_task(_acts(stage, story))
            waiter = asyncio.create_task(stopping.wait())
            await asyncio.wait([acts, waiter], return_when=asyncio.FIRST_COMPLETED)
            if not acts.done():
                acts.cancel()
                return
            acts.result()
            _where_to_look(stage, story)
            if not exit_when_done:
                story.tell("It stays up until Ctrl-C. What AMS receives from here on:")
                await _tell_ams(stage, story, stopping)
            waiter.cancel()
    story.chapter("Stopped; nothing of it runs any more.")


async def _acts(stage: Stage, story: Story) -> None:
    replies = await submit_campaign(stage, story)
    mail = watch_mail(stage, story, replies)
    await watch_recipients(stage, story, mail)
    await watch_ams(stage, story)
    await watch_ledger(stage, story)


def _staged(settings: Settings, ams_url: str) -> Settings:
    """Return the settings of the demo: what the operator said, on a stage of its own."""
    replace = msgspec.structs.replace
    taken: set[int] = set()
    tracker = _free(settings.tracker.listen, taken)
    return replace(
        settings,
        data_dir=settings.data_dir / "demo",
        database_url="",
        redis_url="",
        relay=replace(
            settings.relay, listen=_free(settings.relay.listen, taken), listen_tls="", upstream=CAPTURE, workers=1
        ),
        tracker=replace(settings.tracker, listen=tracker, public_url=f"http://{tracker}"),
        console=replace(settings.console, listen=_free(settings.console.listen, taken)),
        ams=replace(settings.ams, url=ams_url, api_key=_API_KEY, interval=0.5),
    )


def _free(listen: str, taken: set[int]) -> str:
    """Return *listen* on loopback, on another port where somebody has that one."""
    port = parse_listen(listen).port
    for candidate in (port, 0):
        if candidate in taken:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            found = probe.getsockname()[1]
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
