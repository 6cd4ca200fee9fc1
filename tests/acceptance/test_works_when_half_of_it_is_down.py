"""Promise 12: each dependency's loss has a documented behaviour, and recovery needs no hand.

One Outrider with its own PostgreSQL and Valkey, an upstream and an AMS. Each test takes one of them away, or lets it
hang, sees what still works and what is said about it, gives it back, and sees that nothing was lost.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from sidecar.standin_ams import StandinAms
from tests.conftest import Eventually, next_port
from tests.playing import Tracked, accepted, asked, mail, ready, submit, tracked, unsubscribe, visit
from tests.running import Outrider, outrider, short_directory
from tests.sink import Sink

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("works_when_half_of_it_is_down"),
    pytest.mark.timeout(240),
]

LINK = "https://example.com/?a=1&b=2"

#: Seconds in which what was given back is used again; leases of a killed process run out within 60.
RECOVERY = 90.0
AMS_LEASE = 120.0
SOAK = bool(os.environ.get("OUTRIDER_TEST_SOAK"))


class Scene:
    """An Outrider, its upstream and its AMS."""

    def __init__(self, target: Outrider, sink: Sink, ams: StandinAms) -> None:
        self.target = target
        self.sink = sink
        self.ams = ams
        self._door = AsyncExitStack()

    async def open_upstream(self) -> None:
        """Let the upstream listen, on the same port every time."""
        await self._door.enter_async_context(self.sink.listening(self.sink.port))

    async def close_upstream(self) -> None:
        """Let the upstream refuse connections, and end those that are open."""
        await self._door.aclose()

    async def sent(self, name: str, *, campaign: str) -> tuple[str, Tracked]:
        """Submit a message that is sent at once; return its key, and what of ours left in it."""
        recipient = f"{name}@example.net"
        key = await accepted(self.target.smtp, mail(f"{name}@mailer.example.com", campaign=campaign), recipient)
        (left,) = self.kept(name)
        return key, tracked(left)

    def kept(self, name: str) -> list[bytes]:
        """Return what the upstream took for a recipient."""
        return [one.content for one in self.sink.kept if one.recipient == f"{name}@example.net"]

    async def expire_leases(self) -> None:
        """Let what a killed process held be free at once: time does the same, and is waited for in the long rounds."""
        async with self.target.ledger() as ledger, ledger.session() as session:
            await session._connection.execute("UPDATE lease SET lease_until = now()")

    async def message(self, key: str) -> dict[str, Any]:
        """Return what the console knows of a message."""
        shown: dict[str, Any] = await asked(self.target, f"/api/messages/{key}")
        return shown

    async def engaged(self, key: str) -> bool:
        """Tell whether one open, one click and the unsubscribe of a message are recorded, each once."""
        message = await self.message(key)
        counts = {name: message["engagement"][name] for name in ("opens", "clicks", "unsubscribed")}
        assert counts["opens"] <= 1
        assert counts["clicks"] <= 1
        return bool(counts == {"opens": 1, "clicks": 1, "unsubscribed": True} and len(message["events"]) == 3)

    async def told(self, name: str) -> list[str]:
        """Return what AMS heard of a recipient."""
        return sorted(item.url for item in self.ams.received if item.email == f"{name}@example.net")

    async def degraded(self, word: str) -> bool:
        """Tell whether the tracker says that it works without something; it never stops being ready."""
        status, said = await ready(self.target.http)
        assert (status, said["ready"]) == (200, True)
        return any(word in reason for reason in said["degraded"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene() -> AsyncIterator[Scene]:
    """Run everything once for this file."""
    with short_directory() as data_dir:
        sink = Sink()
        sink.port = next_port()
        async with (
            StandinAms(api_key="k") as ams,
            outrider(
                data_dir,
                next_port,
                relay__upstream=f"smtp://127.0.0.1:{sink.port}?starttls=off",
                relay__ledger_wait="2",
                relay__retry_first="0.2",
                ams__url=ams.url,
                ams__api_key="k",
                ams__interval="0.2",
            ) as target,
        ):
            made = Scene(target, sink, ams)
            await made.open_upstream()
            yield made
            await made.close_upstream()


@asynccontextmanager
async def away(target: Outrider, *names: str, how: str) -> AsyncIterator[None]:
    """Let servers or roles be gone, or hang, for the time of the block."""
    async with AsyncExitStack() as stack:
        for name in names:
            if how == "gone":
                await stack.enter_async_context(target.without(name))
            else:
                stack.enter_context(target.frozen(name))
        yield


async def engage(ours: Tracked) -> None:
    """Open, click and unsubscribe; each is answered as ever."""
    opened = await visit(ours.pixel)
    assert (opened.status, opened.content_type, len(opened.body)) == (200, "image/gif", 43)
    clicked = await visit(ours.links[0])
    assert (clicked.status, clicked.location) == (302, LINK)
    left = await unsubscribe(ours.unsubscribe)
    assert left.status == 200
    assert re.search(rb"unsubscribed", left.body, re.IGNORECASE)


@pytest.mark.parametrize("how", ["gone", "hanging"])
async def test_without_redis_hits_are_kept_and_mail_flows(scene: Scene, eventually: Eventually, how: str) -> None:
    """Opens, clicks and unsubscribes are answered, kept on the tracker's own disk, and recorded once it is back."""
    name = f"redis.{how}"
    key, ours = await scene.sent(name, campaign="901")
    async with away(scene.target, "redis", how=how):
        await engage(ours)
        await eventually(lambda: scene.degraded("redis"), timeout=30)
        await scene.sent(f"{name}.2", campaign="902")
    await eventually(lambda: scene.engaged(key), timeout=RECOVERY)

    async def healed() -> bool:
        return bool((await ready(scene.target.http))[1]["degraded"] == [])

    await eventually(healed, timeout=RECOVERY)
    await eventually(lambda: _heard_all(scene, name), timeout=RECOVERY)


async def _heard_all(scene: Scene, name: str) -> bool:
    expected = sorted(["open_trace", LINK, "Unsubscribe_Click:DC,AE{|;"])
    told = await scene.told(name)
    assert len(told) <= len(expected), "AMS heard something twice"
    return told == expected


@pytest.mark.parametrize("how", ["gone", "hanging"])
async def test_without_postgresql_hits_are_answered_and_recorded_later(
    scene: Scene, eventually: Eventually, how: str
) -> None:
    """The tracker needs no ledger; the console says what is missing; the hits are recorded once it is back."""
    name = f"postgresql.{how}"
    key, ours = await scene.sent(name, campaign="903")

    async def console_says() -> tuple[int, Any]:
        status, said = await ready(scene.target.console)
        return status, said.get("missing")

    async def missing() -> bool:
        return await console_says() == (503, {"postgresql": "does not answer"})

    async def ready_again() -> bool:
        return await console_says() == (200, None)

    async with away(scene.target, "postgresql", how=how):
        await engage(ours)
        await eventually(missing, timeout=15)
        assert (await ready(scene.target.http))[0] == 200
    await eventually(ready_again, timeout=RECOVERY)
    await eventually(lambda: scene.engaged(key), timeout=RECOVERY)


async def test_without_postgresql_mail_is_deferred_and_fine_afterwards(scene: Scene, eventually: Eventually) -> None:
    """451 once LEDGER_WAIT is over and nothing sent; the mailer's retry after it is back is sent once."""
    content = mail("deferred@mailer.example.com", campaign="904")
    async with scene.target.without("postgresql"):
        code, text = await submit(scene.target.smtp, content, "deferred@example.net")
        assert (code, text) == (451, "4.3.0 Local error in processing, try again later")
    assert scene.kept("deferred") == []

    async def taken() -> bool:
        return (await submit(scene.target.smtp, content, "deferred@example.net"))[0] == 250

    await eventually(taken, timeout=RECOVERY)
    assert len(scene.kept("deferred")) == 1


async def test_with_neither_postgresql_nor_redis_a_link_still_leads_where_it_led(
    scene: Scene, eventually: Eventually
) -> None:
    """The tracker alone answers everything that stands in a delivered mail."""
    key, ours = await scene.sent("neither", campaign="905")
    async with away(scene.target, "postgresql", "redis", how="gone"):
        await engage(ours)
        assert (await visit(ours.links[0][:-4] + "AAAA")).status == 404

    async def recorded() -> bool:
        try:
            return await scene.engaged(key)
        except AssertionError as error:
            # The console answers 503 until it has found PostgreSQL again.
            if "503" in str(error):
                return False
            raise

    await eventually(recorded, timeout=RECOVERY)


async def test_without_the_upstream_mail_is_stored_and_sent_later(scene: Scene, eventually: Eventually) -> None:
    """Connections are refused: 250, the message is queued; the upstream is back: it is sent, once, the same."""
    await scene.close_upstream()
    try:
        content = mail("upstream@mailer.example.com", campaign="906")
        key = await accepted(scene.target.smtp, content, "upstream@example.net")
        assert (await scene.message(key))["status"] in {"queued", "sending"}
        assert (await asked(scene.target, "/api/campaigns/906"))["queued"] == 1
        assert await accepted(scene.target.smtp, content, "upstream@example.net") == key
    finally:
        await scene.open_upstream()

    async def sent() -> bool:
        return bool((await scene.message(key))["status"] == "sent")

    await eventually(sent, timeout=RECOVERY)
    (left,) = scene.kept("upstream")
    assert tracked(left).message_id == f"{key}@shop.example.com"
    campaign = await asked(scene.target, "/api/campaigns/906")
    assert (campaign["accepted"], campaign["queued"], campaign["sent"]) == (1, 0, 1)


async def test_without_ams_its_events_wait_for_it(scene: Scene, eventually: Eventually) -> None:
    """AMS refuses connections: events are recorded and pending, the error is shown; it is back: each arrives once."""
    name = "ams"
    key, ours = await scene.sent(name, campaign="907")
    await scene.ams.stop()
    try:
        await engage(ours)

        async def waiting() -> bool:
            said = (await asked(scene.target, "/api/campaigns/907"))["ams"]
            return said["pending"] == 3 and said["last_error"] is not None

        await eventually(waiting, timeout=30)
        assert await scene.engaged(key)
        assert await scene.told(name) == []
    finally:
        await scene.ams.start()
    await eventually(lambda: _heard_all(scene, name), timeout=RECOVERY)

    async def delivered() -> bool:
        said = (await asked(scene.target, "/api/campaigns/907"))["ams"]
        return (said["pending"], said["delivered"], said["parked"]) == (0, 3, 0)

    await eventually(delivered, timeout=30)


async def test_without_the_tracker_mail_flows(scene: Scene, eventually: Eventually) -> None:
    """Its process alone was killed: mail is sent; it comes back by itself, and what was sent meanwhile is tracked."""
    async with scene.target.without("tracker"):
        key, ours = await scene.sent("tracker", campaign="908")
        with pytest.raises(OSError, match="onnect"):
            await visit(ours.pixel)

    async def back() -> bool:
        try:
            return (await ready(scene.target.http))[0] == 200
        except OSError:
            return False

    await eventually(back, timeout=RECOVERY)
    await engage(ours)
    await eventually(lambda: scene.engaged(key), timeout=RECOVERY)


async def test_without_the_courier_mail_flows_and_hits_are_answered(scene: Scene, eventually: Eventually) -> None:
    """What comes in while nobody records it waits in the stream; the courier comes back by itself and AMS hears."""
    async with scene.target.without("courier"):
        key, ours = await scene.sent("courier", campaign="909")
        await engage(ours)
    await eventually(lambda: scene.engaged(key), timeout=RECOVERY)
    if not SOAK:
        await scene.expire_leases()
    # A killed courier's lease on AMS outlives the longest call and the time to settle it.
    await eventually(lambda: _heard_all(scene, "courier"), timeout=AMS_LEASE)


async def test_without_the_relay_hits_are_answered_and_mail_comes_back(scene: Scene, eventually: Eventually) -> None:
    """Mailers are refused while it is gone, links lead where they led, and it comes back by itself."""
    key, ours = await scene.sent("relay", campaign="910")
    content = mail("relay.2@mailer.example.com", campaign="910")
    async with scene.target.without("relay"):
        with pytest.raises(OSError, match="onnect"):
            await asyncio.open_connection("127.0.0.1", scene.target.smtp)
        await engage(ours)
        await eventually(lambda: scene.engaged(key), timeout=30)

    async def back() -> bool:
        try:
            return (await submit(scene.target.smtp, content, "relay.2@example.net"))[0] == 250
        except OSError:
            return False

    await eventually(back, timeout=RECOVERY)
    assert len(scene.kept("relay.2")) == 1


async def test_without_the_console_everything_else_works(scene: Scene, eventually: Eventually) -> None:
    """The operator's page is nobody's dependency."""
    async with scene.target.without("console"):
        key, ours = await scene.sent("console", campaign="911")
        await engage(ours)

    async def back() -> bool:
        try:
            return (await ready(scene.target.console))[0] == 200
        except OSError:
            return False

    await eventually(back, timeout=RECOVERY)
    await eventually(lambda: scene.engaged(key), timeout=RECOVERY)
