"""Cut what is to be kept into packs of bounded length, so that no write is as long as a stranger's request; pure."""

from collections.abc import Iterator, Sequence

#: Entries of a pack, and about its octets: a single entry may be longer.
COUNT = 500
OCTETS = 262_144


def packs(payloads: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Yield *payloads* in their order, at most `COUNT` at a time and no more octets than `OCTETS` where it can be."""
    pack: list[bytes] = []
    octets = 0
    for payload in payloads:
        if pack and (len(pack) == COUNT or octets + len(payload) > OCTETS):
            yield pack
            pack, octets = [], 0
        pack.append(payload)
        octets += len(payload)
    if pack:
        yield pack
