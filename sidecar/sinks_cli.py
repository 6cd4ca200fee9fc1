"""What the operator's commands answer about the sinks beside AMS."""

import argparse

from courier.replay import replay_sink_parked, replay_sink_since
from courier.sinks import rules
from ledger import sinks
from ledger.sinks import SinkStanding
from ledger.store import Ledger
from sidecar.answers import say, say_json
from sidecar.failures import CommandError
from sidecar.reach import opened
from sidecar.settings import Settings
from sidecar.tables import table


async def refused(settings: Settings, given: argparse.Namespace) -> int:
    """List what a sink refused, newest first, with the reason."""
    async with opened(settings) as ledger:
        await _known(ledger, settings, given.sink)
        parked = await sinks.parked(ledger, given.sink, given.limit)
    if given.json:
        say_json({"sink": given.sink, "parked": parked})
        return 0
    rows = [(one.id, one.parked_at, one.type or "-", one.key or "-", one.reason) for one in parked]
    say(table(("id", "parked at", "event", "message", "reason"), rows) or [f"{given.sink} refused nothing"])
    return 0


async def replay(settings: Settings, given: argparse.Namespace) -> int:
    """Let a sink's parked items go to it again, or build those of a time when it was off."""
    async with opened(settings) as ledger:
        await _known(ledger, settings, given.sink)
        rule = {rule.name: rule for rule in rules(settings.sinks, settings.listmonk)}.get(given.sink)
        if given.since is None:
            queued = await replay_sink_parked(ledger, given.sink)
        elif rule is None:
            raise CommandError(f"--sink {given.sink}: it is not in the settings, so nobody knows what it hears", code=2)
        else:
            queued = await replay_sink_since(ledger, given.since, rule)
    if given.json:
        say_json({"sink": given.sink, "queued": queued})
        return 0
    say([f"{queued} {'item' if queued == 1 else 'items'} queued for {given.sink}"])
    if rule is None:
        say([f"{given.sink} is not in the settings: they wait until it is"])
    return 0


def standing_line(sink: SinkStanding) -> str:
    """Return how one sink stands, for somebody to read."""
    oldest = f", the oldest for {sink.oldest_seconds:.0f} s" if sink.pending else ""
    line = f"sink {sink.name}: {sink.pending} pending{oldest}, {sink.parked} parked"
    if not sink.configured:
        return f"{line}; it is not in the settings"
    if sink.held is not None:
        return f"{line}; held: {sink.held}"
    return line if sink.last_error is None else f"{line}; last error: {sink.last_error}"


async def _known(ledger: Ledger, settings: Settings, name: str) -> None:
    """Raise `CommandError` unless the sink is configured or has something left to hear."""
    named = {rule.name for rule in rules(settings.sinks, settings.listmonk)}
    named |= {standing.name for standing in await sinks.standings(ledger)}
    if name not in named:
        known = f"expected one of {', '.join(sorted(named))}" if named else "there is none"
        raise CommandError(f"--sink: no such sink; {known}", code=2)
