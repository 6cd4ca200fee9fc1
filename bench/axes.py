"""The axes along which cost is measured, and the servers that each needs: what waits in a ledger, what mail asks for.

A step of an axis differs from the one before it in one thing. After each round it is counted what arrived, as in every
bench.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import asyncpg
import msgspec

from bench import mails
from bench.correlating import Correlating
from bench.course import PUBLIC_URL, newsletter, tracked
from bench.filled import fill
from bench.gauge import Gauge, PostgresGauge, ValkeyGauge, Written
from bench.hitting import Hitting
from bench.mailer import Batch, submit_watched
from bench.mailing import Connection
from bench.paired import Load, Outcome
from bench.servers import Stores, free_port, outrider, role
from bench.sink import Sink, sink
from bench.stage import Stage
from ledger.stream import connect
from relay.settings import RelaySettings
from sidecar.settings import Settings
from tracker.settings import TrackerSettings

LEDGER: Final = "ledger"
CORRELATIONS: Final = "correlations"
SETTLED: Final = "settled"
RECIPIENTS: Final = "recipients"
LINKS: Final = "links"
BODY: Final = "body"
CONNECTIONS: Final = "connections"
WORKERS: Final = "workers"
HITS: Final = "hits"

_SIZES: Final = (0, 100_000, 1_000_000, 10_000_000)
_SESSIONS: Final = 20
_SUBMIT_SECONDS: Final = 300.0
#: How many sessions submit what is large: more of them would only wait for each other.
_FEW: Final = 4
#: The page that has links, and the one that has a body around it.
_LINKS_OCTETS, _BODY_OCTETS = 400_000, 1_000
#: Steps, and how many messages each is measured with.
_RECIPIENTS: Final = {1: 300, 10: 40, 100: 8, 1_000: 4}
_LINKS: Final = {1: 40, 10: 40, 100: 40, 1_000: 20}
_BODIES: Final = {2_000: 300, 20_000: 300, 200_000: 100, 2_000_000: 20, 25_000_000: 4}
_CONNECTIONS: Final = {1: 150, 10: 400, 100: 600, 1_000: 1_500}
_WORKERS: Final = {1: 800, 2: 800, 3: 800, 4: 800}
_HITS: Final = {1: 3_000, 10: 20_000, 100: 50_000, 1_000: 50_000}


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One point of an axis."""

    name: str
    at: int
    run: Callable[[], Awaitable[Outcome]]
    gauge: Gauge
    pids: tuple[int, ...] = ()

    def load(self, keep: Callable[[Written], None]) -> Load:
        """Return it as a load; what each of its rounds costs the store is kept."""

        async def run() -> Outcome:
            written = await self.gauge.written(self.run)
            keep(written)
            return written.outcome

        return Load(name=self.name, run=run, pids=self.pids, warm_up=self.run)


class Axis(msgspec.Struct, frozen=True, kw_only=True):
    """Steps that differ in one thing."""

    name: str
    steps: Sequence[Step]


class Letterbox:
    """A relay with its ledger, in front of a sink: submits batches, and looks at what arrived."""

    def __init__(self, connection: Connection, counting: Sink, port: int) -> None:
        self._connection = connection
        self._sink = counting
        self._port = port

    async def run(self, batch: Batch, *, links: int) -> Outcome:
        """Submit *batch*, whose messages have so many *links*."""
        last = await self._connection.fetchval("SELECT coalesce(max(id), 0) FROM message")
        await self._sink.begin()
        submitted = await submit_watched(
            msgspec.structs.replace(batch, own_ids=True), port=self._port, seconds=_SUBMIT_SECONDS
        )
        flaw = submitted.flaw or await self._flaw(batch, int(last), links)
        return Outcome(units=batch.units, seconds=submitted.seconds, latencies_us=submitted.latencies_us, flaw=flaw)

    async def _flaw(self, batch: Batch, last: int, links: int) -> str | None:
        arrived = await self._sink.report()
        sent = await self._connection.fetchval(
            "SELECT count(*) FROM message JOIN delivery ON message = id WHERE id > $1 AND status = 'sent'", last
        )
        found = (arrived.messages, arrived.recipients, arrived.message_ids, int(sent))
        if set(found) != {batch.units}:
            return f"{found} messages, recipients, Message-IDs and rows, not {batch.units}"
        clicks, opens = tracked(arrived.content)
        return None if (clicks, opens) == (links, 1) else f"{clicks} links and {opens} pixels, not {links} and 1"


async def ledgers(stage: Stage, place: Stores, stack: AsyncExitStack, *, sizes: Sequence[int] = _SIZES) -> list[Axis]:
    """Return the axes of what a ledger holds already.

    They are the relay's answers, correlations by themselves, and all that a message leaves in the ledger.
    """
    counting = await stack.enter_async_context(sink())
    batch = Batch(content=newsletter(), messages=stage.scaled(500), sessions=_SESSIONS)
    answers: list[Step] = []
    correlations: list[Step] = []
    settled: list[Step] = []
    for size in (stage.scaled(size) if size else 0 for size in sizes):
        settings = await _settings(stack, place, counting)
        connection = await _connection(stack, settings)
        await fill(connection, size)
        gauge = await PostgresGauge.of(connection, afresh=True)
        port, pids = await _relay(stack, settings, 1)
        run = partial(Letterbox(connection, counting, port).run, batch, links=20)
        answers.append(Step(name=_name(LEDGER, size), at=size, run=run, gauge=gauge, pids=pids))
        correlating = await stack.enter_async_context(Correlating.on(settings.database_url, connection))
        for steps, name, total, whole in (
            (correlations, CORRELATIONS, 5_000, False),
            (settled, SETTLED, 2_500, True),
        ):
            alone = partial(correlating.run, stage.scaled(total), waiting=100, whole=whole)
            steps.append(Step(name=_name(name, size), at=size, run=alone, gauge=gauge))
    return [
        Axis(name=LEDGER, steps=answers),
        Axis(name=CORRELATIONS, steps=correlations),
        Axis(name=SETTLED, steps=settled),
    ]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What an axis of mail asks for, step by step."""

    #: The steps, and how many messages each is measured with.
    steps: Mapping[int, int]
    batch: Callable[[int], Batch]
    #: How many links a message has at a step.
    links: Callable[[int], int] = lambda _: 20
    #: How many processes the relay has at a step.
    workers: Callable[[int], int] = lambda _: 1


async def mail(stage: Stage, place: Stores, stack: AsyncExitStack, *, name: str) -> list[Axis]:
    """Return one of the axes of `MAIL`, on a ledger and relays that nobody else uses."""
    asked = MAIL[name]
    counting = await stack.enter_async_context(sink())
    settings = await _settings(stack, place, counting)
    connection = await _connection(stack, settings)
    gauge = await PostgresGauge.of(connection, afresh=False)
    relays = {workers: await _relay(stack, settings, workers) for workers in sorted({*map(asked.workers, asked.steps)})}
    steps = []
    for at, messages in asked.steps.items():
        port, pids = relays[asked.workers(at)]
        batch = msgspec.structs.replace(asked.batch(at), messages=stage.scaled(messages))
        run = partial(Letterbox(connection, counting, port).run, batch, links=asked.links(at))
        steps.append(Step(name=_name(name, at), at=at, run=run, gauge=gauge, pids=pids))
    return [Axis(name=name, steps=steps)]


async def hits(stage: Stage, place: Stores, stack: AsyncExitStack) -> list[Axis]:
    """Return the axis of how many hits share a write to the stream."""
    client = connect(place.redis_url)
    stack.push_async_callback(client.aclose)
    gauge, hitting = ValkeyGauge(client), Hitting(client)
    steps = [
        Step(name=_name(HITS, at), at=at, run=partial(hitting.run, stage.scaled(total), group=at), gauge=gauge)
        for at, total in _HITS.items()
    ]
    return [Axis(name=HITS, steps=steps)]


def _body(octets: int) -> bytes:
    small = mails.plain(_BODY_OCTETS, links=1)
    return small if octets <= len(small) else mails.with_attachment(small, octets)


def _batch(sessions: int, *, content: bytes | None = None, recipients: int = 1) -> Batch:
    return Batch(content=content or newsletter(), messages=1, sessions=sessions, recipients=recipients)


#: The axes of what a submission and a mailer ask for, and that of a relay's processes.
MAIL: Final[Mapping[str, Asked]] = {
    RECIPIENTS: Asked(steps=_RECIPIENTS, batch=lambda at: _batch(_FEW, recipients=at)),
    LINKS: Asked(
        steps=_LINKS, batch=lambda at: _batch(_FEW, content=mails.plain(_LINKS_OCTETS, links=at)), links=lambda at: at
    ),
    BODY: Asked(steps=_BODIES, batch=lambda at: _batch(_FEW, content=_body(at)), links=lambda _: 1),
    CONNECTIONS: Asked(steps=_CONNECTIONS, batch=_batch),
    WORKERS: Asked(steps=_WORKERS, batch=lambda _: _batch(_SESSIONS), workers=lambda at: at),
}
#: Each makes its servers, and the axes that are measured on them.
GROUNDS: Final[Sequence[Callable[[Stage, Stores, AsyncExitStack], Awaitable[Sequence[Axis]]]]] = (
    ledgers,
    *(partial(mail, name=name) for name in MAIL),
    hits,
)


def _name(axis: str, at: int) -> str:
    return f"{axis}: {at:,}"


async def _settings(stack: AsyncExitStack, place: Stores, counting: Sink) -> Settings:
    base = await stack.enter_async_context(outrider(place))
    upstream = f"smtp://127.0.0.1:{counting.port}?starttls=off"
    own = RelaySettings(upstream=(upstream,))
    return msgspec.structs.replace(base, relay=own, tracker=TrackerSettings(public_url=PUBLIC_URL))


async def _connection(stack: AsyncExitStack, settings: Settings) -> Connection:
    connection = await asyncpg.connect(settings.database_url, timeout=60)
    stack.push_async_callback(connection.close)
    return connection


async def _relay(stack: AsyncExitStack, settings: Settings, processes: int) -> tuple[int, tuple[int, ...]]:
    port = free_port()
    own = msgspec.structs.replace(settings.relay, listen=f"127.0.0.1:{port}")
    running = role(msgspec.structs.replace(settings, relay=own), "relay", processes=processes)
    return port, await stack.enter_async_context(running)
