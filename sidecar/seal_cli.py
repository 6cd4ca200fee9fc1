"""What `seal` does: bring the addresses of older rows to the newest key, or decrypt them for good.

It runs beside a running Outrider, but not beside processes that would go on sealing as before.
"""

import argparse

from ledger.processes import check_addresses, check_keys
from ledger.resealing import UNREADABLE, older_processes, reseal, retire
from ledger.sealing import Sealer
from ledger.store import open_ledger
from sidecar.answers import say, say_json
from sidecar.failures import CommandError
from sidecar.keys import load_keys
from sidecar.settings import Settings
from sidecar.tables import table

_WORDS = {
    "messages": "messages",
    "replies": "upstream replies",
    "events": "events",
    "suppressions": "suppressions",
    "parked_events": "parked events",
    "bodies": "stored submissions",
    UNREADABLE: "that no key opens, left as they are",
}


async def seal(settings: Settings, given: argparse.Namespace) -> int:
    """Seal everything with the newest key, or open it; afterwards older keys need not be given any more."""
    keys = load_keys(settings)
    if not keys.addresses:
        raise CommandError("seal: set OUTRIDER_KEYS__ADDRESSES to the key, or keys, of the addresses first", code=2)
    newest = None if given.open else keys.addresses[0]
    sealer = Sealer(keys.addresses, seals=not given.open)
    async with open_ledger(settings.database_url, connections=2, sealer=sealer) as ledger:
        await check_addresses(ledger, keys.addresses)
        if older := await older_processes(ledger, newest):
            ran = "stop them first" if given.open else "restart them with the keys that were given here first"
            raise CommandError(f"seal: running processes that would go on as before: {older}; {ran}")
        if newest is not None:
            await check_keys(ledger, identity=keys.identity, signing=keys.signing, addresses=keys.addresses)
        counts = await reseal(ledger)
        unreadable = counts[UNREADABLE]
        # What is left under a key must not lose it.
        retired = 0 if unreadable else await retire(ledger, [] if newest is None else [newest])
    if given.json:
        say_json({**{name: counts[name] for name in _WORDS}, "retired_keys": retired})
    else:
        rows = [(counts[name], words) for name, words in _WORDS.items() if counts[name]]
        say([*table((), rows), *_ending(retired)] or ["everything is as it should be"])
    return 1 if unreadable else 0


def _ending(retired: int) -> list[str]:
    if not retired:
        return []
    which, them = ("key is", "it") if retired == 1 else ("keys are", "them")
    return [f"{retired} {which} not needed any more: take {them} out of the setting"]
