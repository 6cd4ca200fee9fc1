"""The relay's process: mail in, and the queue."""

import asyncio
import contextlib
import functools
import shutil
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import structlog

from injector.dkim import Signer
from injector.tokens import Keyring
from ledger.campaigns import apply_windows
from ledger.mail import MailLedger
from ledger.processes import my_turn
from ledger.store import UNAVAILABLE, Ledger, open_ledger
from ledger.upstreams import UpstreamState, note_upstreams
from ledger.waiting import within
from ledger.windows import Window, parse_windows
from relay.forward import DOUBTS, Forwarder
from relay.inject import Profile
from relay.notify import Notifier
from relay.patience import surely
from relay.pipeline import Pipeline
from relay.queue import Queue
from relay.upstreams import Upstreams
from sidecar import dkim_keys
from sidecar.readiness import Readiness
from sidecar.settings import Settings, injector_options
from sidecar.wiring import front_door
from sidecar.wiring.presence import DRAIN_SECONDS, Context, alone, background, hostname, present
from sidecar.wiring.stopping import on_hangup
from sidecar.wiring.upstreams import upstream_of

log = structlog.get_logger()

# A body is stored only while this much of the data directory's disk stays free.
_FREE_FLOOR = 256 * 1024 * 1024

_CHORES_SECONDS = 5.0
_TRUST_SECONDS = 20.0
_TURN_SECONDS = 15.0
_CHORES_LIMIT = 30.0


class Room:
    """Whether there is room to store a body: the cap on stored octets and the disk's floor."""

    def __init__(self, directory: Path, *, cap: int) -> None:
        self._directory = directory
        self._cap = cap
        self._stored = 0

    def has(self, octets: int) -> bool:
        """Tell whether a body of *octets* may be stored."""
        return self._stored + octets <= self._cap and shutil.disk_usage(self._directory).free > _FREE_FLOOR + octets

    async def look(self, ledger: MailLedger) -> None:
        """Learn how much is stored."""
        self._stored = await ledger.stored_bytes()


def profile_of(settings: Settings, keyring: Keyring, signer: Signer) -> Profile:
    """Return what rendering depends on: the settings, and the keys that sign now."""
    return Profile(
        options=injector_options(settings),
        signing=keyring.fingerprint,
        strip=settings.relay.strip,
        hostname=hostname(settings),
        dkim_keys=signer.names,
    )


async def relay(context: Context) -> None:
    """Listen for mailers, forward, and work on the queue, until told to stop."""
    settings, keys = context.settings, context.keys
    own = settings.relay
    name = hostname(settings)
    windows = parse_windows(own.send_window)
    keyring = Keyring(keys.signing)
    # Held also when nothing new is signed again: the queue may have what was planned before.
    signer = dkim_keys.load_signer(settings.inject.dkim_keys)
    profile = profile_of(settings, keyring, signer)
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(
            open_ledger(settings.database_url, connections=12, sealer=keys.sealer, by_index=True)
        )
        process = await stack.enter_async_context(present(ledger, "relay"))
        mail = MailLedger(ledger, process, all_sources=own.suppress_scope == "all", windows=windows)
        await surely(lambda: mail.remember_profile(profile.digest, profile.encode()))
        where = upstream_of(settings, name)
        forwarder = Forwarder(where, mail, settle_wait=own.ledger_wait)
        room = Room(settings.data_dir, cap=own.queue_max_bytes)

        notifier = Notifier(upstream=where.name)
        pipeline = Pipeline(
            ledger=mail,
            forwarder=forwarder,
            settings=own,
            ams_headers=settings.ams.headers,
            identity_key=keys.identity,
            keyring=keyring,
            signer=signer,
            profile=profile,
            has_room=room.has,
            tell=notifier.tell,
        )
        queue = Queue(
            ledger=mail,
            forwarder=forwarder,
            settings=own,
            ams_headers=settings.ams.headers,
            keyring=keyring,
            signer=signer,
            tell=notifier.tell,
            room=where.room if isinstance(where, Upstreams) else None,
        )
        if own.dsn != "off":
            notifier.acceptor = pipeline
        chores = Chores(
            ledger,
            mail,
            room,
            queue,
            windows,
            in_hand=lambda: pipeline.in_hand | queue.in_hand,
            states=where.states if isinstance(where, Upstreams) else list,
        )
        readiness = await stack.enter_async_context(alone(context, own.admin_listen, "postgresql"))
        front = await front_door.opened(pipeline, settings, name, mail, keys.identity)
        on_hangup(lambda: front_door.reload(front, own))
        log.info("relay_listening", listen=own.listen, upstream=where.name)
        context.ready()
        async with background(lambda: chores.run(readiness), lambda: queue.run(context.stopping)):
            await context.stopping.wait()
            readiness.drain()
            # The door first, then all that came through it; each step has what the others left of the time.
            clock = asyncio.get_running_loop().time
            until = clock() + DRAIN_SECONDS
            await front.drain(seconds=DRAIN_SECONDS)
            for close in (queue.close, pipeline.close, notifier.close, forwarder.close):
                await close(patience=max(1.0, until - clock()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(1.0, until - clock())):
                    await mail.close()


class Chores:
    """What a relay does beside mail: take over, find orphans, free what nobody needs, say how it all stands."""

    def __init__(
        self,
        ledger: Ledger,
        mail: MailLedger,
        room: Room,
        queue: Queue,
        windows: Sequence[Window],
        *,
        in_hand: Callable[[], set[int]],
        states: Callable[[], Sequence[UpstreamState]],
    ) -> None:
        self._ledger = ledger
        self._mail = mail
        self._room = room
        self._queue = queue
        self._windows = windows
        self._in_hand = in_hand
        self._states = states
        self._suspects: set[tuple[int, int]] = set()

    async def run(self, readiness: Readiness) -> None:
        """Do them all, for ever."""
        clock = asyncio.get_running_loop().time
        # At the start, and after an outage, everybody's lease may have run out: they are given time to renew it.
        trusted_at = clock() + _TRUST_SECONDS
        while True:
            trusted = clock() >= trusted_at
            try:
                await within(_CHORES_LIMIT, functools.partial(self._round, trusted=trusted))
            except UNAVAILABLE as error:
                trusted_at = clock() + _TRUST_SECONDS
                readiness.miss("postgresql", "does not answer")
                log.warning("ledger_unavailable", error=type(error).__name__)
            else:
                readiness.have("postgresql")
            await asyncio.sleep(_CHORES_SECONDS)

    async def _round(self, *, trusted: bool) -> None:
        if trusted and await self._is_our_turn("take_over"):
            await self._take_over()
        await self._find_orphans()
        await note_upstreams(self._ledger, self._mail.process, self._states())
        if await self._is_our_turn("queue"):
            await apply_windows(self._ledger, self._windows, datetime.now(UTC))
            await self._mail.free_bodies()
            # Resuming releases at once; this finds what was set aside at that very moment.
            await self._mail.release_held()
            await self._queue.observe()
        await self._room.look(self._mail)

    async def _is_our_turn(self, chore: str) -> bool:
        """Tell whether this relay does what one of them is enough for."""
        return await my_turn(self._ledger, chore, self._mail.process, _TURN_SECONDS)

    async def _take_over(self) -> None:
        queued, doubtful, refused = await self._mail.take_over()
        if queued or refused:
            log.warning("work_taken_over", queued=queued, doubtful=doubtful, refused=refused)
            DOUBTS.inc(doubtful)

    async def _find_orphans(self) -> None:
        """Let go of what the ledger says we have in hand and we have not: a commit whose answer was lost."""
        held = await self._mail.held()
        in_hand = self._in_hand()
        strangers = [one for one in held if one.id not in in_hand]
        # Seen twice: between its commit and our knowing of it a row is a stranger too.
        orphans = [one for one in strangers if (one.id, one.turn) in self._suspects]
        self._suspects = {(one.id, one.turn) for one in strangers}
        if orphans:
            log.warning("orphans_found", count=len(orphans))
            await self._mail.put_back(orphans)
