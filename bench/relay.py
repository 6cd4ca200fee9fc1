"""Measure the relay's whole job beside other relays: the same mail, from the same mailer, into the same sink.

The whole job is a committed correlation, tokens, rewriting and the forward, with the reply after the upstream's. The
others commit nothing, and only the Haraka with our plugin rewrites.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

import asyncpg
import msgspec

from bench import mails, peers, programs
from bench.course import PUBLIC_URL, Course, Target, newsletter
from bench.injector import pace
from bench.mailer import Batch, smtp_source
from bench.paired import Bar, Load, Outcome
from bench.report import Found, of_loads
from bench.servers import Stores, free_port, outrider, role, stores
from bench.sink import sink
from bench.stage import Stage
from relay.settings import RelaySettings
from sidecar.settings import Settings, relay_workers
from tracker.settings import TrackerSettings

_ROUNDS: Final = 5
_PACKAGES: Final = ("aiosmtpd", "aiosmtplib", "asyncpg", "msgspec", "uvloop")

_SESSIONS: Final = 20
_LARGE_OCTETS: Final = 1_000_000
#: Mail from here goes to smtp-sink, where it is installed.
_LARGE_SENDER: Final = "bounce@large.example.com"
_IDLE_SECONDS: Final = 0.5

_STRAIGHT: Final = "no relay"
_POSTFIX: Final = "Postfix, a proxy doing nothing"
_HARAKA: Final = "Haraka, forwarding"
_HARAKA_TRACKING: Final = "Haraka, rewriting"
_ONE: Final = "whole job, one worker"
_ALL: Final = "whole job, a worker a core"
_IDLE: Final = "a worker without work"
_FRESH: Final = "fresh connections: "
_ANSWERS: Final = "answers at 20 sessions: "
_LARGE: Final = "1 MB, 50 at a time: "

#: Messages of a load: each lasts about as long as the others.
_MESSAGES: Final[Mapping[str, int]] = {
    _STRAIGHT: 5_000,
    _POSTFIX: 1_600,
    _HARAKA: 500,
    _HARAKA_TRACKING: 250,
    _ONE: 800,
    _ALL: 1_000,
}

_IDLE_BAR: Final = Bar(peak_mib=60)
_BARS: Final = {_ONE: Bar(cpu_us=750, peak_mib=120)}
_LARGE_BAR: Final = Bar(peak_mib=220)
#: Whom a load is measured against, and how many times as fast it has to be; 0: that is not asked.
_TO: Final[Mapping[str, Mapping[str, float]]] = {
    _ONE: {_HARAKA: 0, _POSTFIX: 0, _STRAIGHT: 0},
    _ALL: {_HARAKA: 4, _HARAKA_TRACKING: 6, _POSTFIX: 0.9, _STRAIGHT: 0},
}
_FRESH_TO: Final[Mapping[str, float]] = {_HARAKA: 3.5, _POSTFIX: 0, _STRAIGHT: 0}


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """All who are offered mail, by the names of their loads."""

    course: Course
    targets: Mapping[str, Target]
    #: Where large mail goes without a relay, and whether what it counts is asked for.
    large: Target
    large_is_counted: bool
    idle: tuple[int, ...]
    programs: dict[str, str]
    left_out: tuple[str, ...]


async def bench(stage: Stage) -> Found:
    """Measure the relay beside the peers that are here."""
    async with (
        stores(stage.servers) as place,
        outrider(place) as base,
        _field(stage, place, base) as field,
    ):
        return await of_loads(
            list(_loads(stage, field)),
            rounds=stage.rounds or _ROUNDS,
            packages=_PACKAGES,
            pace=pace,
            programs=field.programs,
            left_out=field.left_out,
        )


@asynccontextmanager
async def _field(stage: Stage, place: Stores, base: Settings) -> AsyncIterator[Field]:
    async with AsyncExitStack() as stack:
        counting = await stack.enter_async_context(sink())
        targets = {_STRAIGHT: Target(port=counting.port)}
        large = await _smtp_sink(stack, place)
        upstream = f"smtp://127.0.0.1:{counting.port}?starttls=off"
        routes = () if large is None else (f"from:large.example.com=smtp://127.0.0.1:{large.port}?starttls=off",)
        settings = msgspec.structs.replace(
            base,
            relay=RelaySettings(upstream=(upstream,), routes=routes),
            tracker=TrackerSettings(public_url=PUBLIC_URL),
        )
        for name, processes in ((_ONE, 1), (_ALL, relay_workers(base))):
            targets[name] = await _relay(stack, settings, processes)
        idle = await _relay(stack, settings, 1)
        versions, left_out = await _peers(stack, stage, place, sink_port=counting.port, targets=targets)
        connection = await asyncpg.connect(base.database_url)
        stack.push_async_callback(connection.close)
        yield Field(
            course=Course(counting, connection, place.directory),
            targets=targets,
            large=large or targets[_STRAIGHT],
            large_is_counted=large is None,
            idle=idle.pids,
            programs=versions,
            left_out=tuple(left_out),
        )


async def _relay(stack: AsyncExitStack, settings: Settings, processes: int) -> Target:
    port = free_port()
    own = msgspec.structs.replace(settings.relay, listen=f"127.0.0.1:{port}")
    running = role(msgspec.structs.replace(settings, relay=own), "relay", processes=processes)
    pids = await stack.enter_async_context(running)
    return Target(port=port, pids=pids, tracks=True, correlates=True)


async def _smtp_sink(stack: AsyncExitStack, place: Stores) -> Target | None:
    program = programs.find("smtp-sink")
    if program is None:
        return None
    port = free_port()
    argv = (program, "-u", "nobody", f"127.0.0.1:{port}", "1024")
    pid = await stack.enter_async_context(programs.server(argv, port=port, log=place.directory / "smtp-sink.log"))
    return Target(port=port, pids=(pid,))


async def _peers(
    stack: AsyncExitStack, stage: Stage, place: Stores, *, sink_port: int, targets: dict[str, Target]
) -> tuple[dict[str, str], list[str]]:
    """Start the peers that are asked for and here; return their versions, and who is left out."""
    versions: dict[str, str] = {}
    left_out = [] if smtp_source() else ["smtp-source and smtp-sink: not installed; our own mailer is slower"]
    if (postconf := programs.find("postconf")) is not None:
        versions["Postfix"] = await programs.version(postconf, "-d", "mail_version")
    if "postfix" in stage.against:
        if (why := peers.why_no_postfix()) is None:
            proxy = await stack.enter_async_context(peers.postfix(place.directory, sink=sink_port))
            targets[_POSTFIX] = Target(port=proxy.port, pids=(proxy.pid,))
        else:
            left_out.append(why)
    if "haraka" in stage.against:
        program = peers.haraka_program(stage.haraka)
        if program is None:
            left_out.append("haraka: not installed (npm install Haraka, and --haraka DIR)")
            return versions, left_out
        versions["Haraka"] = await programs.version(program, "--version")
        versions["Node.js"] = await programs.version("node", "--version")
        for name, tracks in ((_HARAKA, False), (_HARAKA_TRACKING, True)):
            peer = await stack.enter_async_context(
                peers.haraka(program, place.directory, sink=sink_port, tracks=tracks)
            )
            targets[name] = Target(port=peer.port, pids=(peer.pid,), tracks=tracks)
    return versions, left_out


def _loads(stage: Stage, field: Field) -> Iterator[Load]:
    """Yield every load, those that others are measured against before them."""
    usual = Batch(content=newsletter(), messages=1, sessions=_SESSIONS)
    fresh = msgspec.structs.replace(usual, reuse=False)
    here = [name for name in _MESSAGES if name in field.targets]
    yield Load(name=_IDLE, run=_idle, pids=field.idle, bar=_IDLE_BAR)
    for name in here:
        yield _load(stage, field, name, name, usual, _MESSAGES[name], bar=_BARS.get(name), to=_TO.get(name))
    for name in (name for name in here if name in _FRESH_TO or name == _ALL):
        to = _FRESH_TO if name == _ALL else None
        yield _load(stage, field, f"{_FRESH}{name}", name, fresh, _MESSAGES[name] // 2, to=to, beside=_FRESH)
    many = msgspec.structs.replace(usual, recipients=100)
    yield _load(stage, field, "100 recipients a submission", _ALL, many, 60, to={_ALL: 3.0})
    for name in here:
        if name not in {_STRAIGHT, _HARAKA_TRACKING}:
            yield _load(stage, field, f"{_ANSWERS}{name}", name, usual, 300, watched=True)
    yield from _large_loads(stage, field, usual)


def _load(
    stage: Stage,
    field: Field,
    name: str,
    of: str,
    batch: Batch,
    messages: int,
    *,
    bar: Bar | None = None,
    to: Mapping[str, float] | None = None,
    beside: str = "",
    watched: bool = False,
) -> Load:
    """Return the load *name* of so many *messages* like *batch* to the target *of*.

    *to* names those that it is measured against, and how many times their speed is asked for, where they are here; the
    loads of theirs that count have names that *beside* begins.
    """
    target = field.targets[of]
    sized = msgspec.structs.replace(batch, messages=stage.scaled(messages))
    warm = msgspec.structs.replace(sized, messages=min(sized.messages, 2 * sized.sessions))
    return Load(
        name=name,
        run=partial(field.course.run, sized, target, watched=watched),
        warm_up=partial(field.course.run, warm, target, watched=watched),
        pids=target.pids,
        bar=bar,
        also={f"{beside}{each}": times for each, times in (to or {}).items() if each in field.targets},
    )


def _large_loads(stage: Stage, field: Field, usual: Batch) -> Iterator[Load]:
    large = mails.with_attachment(usual.content, _LARGE_OCTETS)
    batch = msgspec.structs.replace(usual, content=large, sessions=50, messages=stage.scaled(100), sender=_LARGE_SENDER)
    for name, target, to in (
        (_STRAIGHT, field.large, {}),
        (_ALL, field.targets[_ALL], {f"{_LARGE}{_STRAIGHT}": 0.75}),
        (_ONE, field.targets[_ONE], {f"{_LARGE}{_STRAIGHT}": 0.0}),
    ):
        run = partial(field.course.run, batch, target, counted=field.large_is_counted)
        # The sink's own memory and CPU are nobody's business.
        pids = () if name == _STRAIGHT else target.pids
        yield Load(name=f"{_LARGE}{name}", run=run, warm_up=run, pids=pids, also=to, bar=_LARGE_BAR if pids else None)


async def _idle() -> Outcome:
    await asyncio.sleep(_IDLE_SECONDS)
    return Outcome(units=1, seconds=_IDLE_SECONDS)
