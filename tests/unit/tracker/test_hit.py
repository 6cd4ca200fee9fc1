"""A hit says what the request said, and nothing that would name a person."""

import ipaddress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from injector.tokens import Claim
from ledger.events import EventType, Hit, decode_hit, encode_hit
from ledger.visitors import network_of, printable
from tracker.hit import PURPOSE_CHARS, USER_AGENT_CHARS, Facts, Proxies, make_hit

CLAIM = Claim(key=b"k" * 16, link=4, url="https://example.com/as-written")
NOBODY = Proxies(())
PROXIES = Proxies(("10.0.0.0/8", "2001:db8:ffff::/48", "192.0.2.1"))


def hit_of(facts: Facts, proxies: Proxies = NOBODY) -> Hit:
    """Return the hit of a click with *facts*."""
    return make_hit(
        EventType.CLICKED,
        CLAIM,
        facts,
        proxies=proxies,
        hit_id=b"i" * 16,
        at_ms=1_700_000_000_123,
        url="https://a.example/",
    )


def test_a_hit_is_request_claim_and_time() -> None:
    """Nothing is added, nothing is left out, and the destination is the one that was answered."""
    facts = Facts(method="GET", peer="198.51.100.77", user_agent="Mozilla/5.0", purpose="prefetch")
    assert hit_of(facts) == Hit(
        id=b"i" * 16,
        type=EventType.CLICKED,
        key=b"k" * 16,
        at_ms=1_700_000_000_123,
        link=4,
        url="https://a.example/",
        method="GET",
        network="198.51.100.0/24",
        user_agent="Mozilla/5.0",
        purpose="prefetch",
    )


@pytest.mark.parametrize(
    ("client", "network"),
    [
        ("198.51.100.77", "198.51.100.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
        ("::ffff:198.51.100.77", "198.51.100.0/24"),
        ("fe80::1%eth0", "fe80::/48"),
        ("", ""),
        ("localhost", ""),
        ("198.51.100.077", ""),
        ("198.51.100.77, 10.0.0.1", ""),
        ("\ud800", ""),
    ],
)
def test_an_address_becomes_a_network(client: str, network: str) -> None:
    """/24 and /48; what is no address is unknown, never an error."""
    assert network_of(client) == network


@given(st.ip_addresses())
def test_no_whole_address_is_kept(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Invariant: at most 256 or 2**80 clients share what is kept of one."""
    kept = ipaddress.ip_network(hit_of(Facts(method="GET", peer=str(address))).network)
    assert kept.prefixlen == (24 if kept.version == 4 else 48)


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        # Nobody else's word is taken.
        ("198.51.100.1", ("203.0.113.9",), "198.51.100.1"),
        ("", ("203.0.113.9",), ""),
        # A trusted proxy's is: the rightmost hop that is not itself trusted.
        ("10.0.0.1", ("203.0.113.9",), "203.0.113.9"),
        ("10.0.0.1", ("1.2.3.4, 203.0.113.9, 10.9.9.9",), "203.0.113.9"),
        ("10.0.0.1", ("1.2.3.4", "203.0.113.9"), "203.0.113.9"),
        ("::ffff:10.0.0.1", ("203.0.113.9",), "203.0.113.9"),
        ("2001:db8:ffff::1", ("2001:db8:2::9",), "2001:db8:2::9"),
        ("192.0.2.1", ("203.0.113.9:4711",), "203.0.113.9"),
        ("192.0.2.1", ("[2001:db8:2::9]:4711",), "2001:db8:2::9"),
        # All of it trusted: the farthest.
        ("10.0.0.1", ("10.0.0.3, 10.0.0.2",), "10.0.0.3"),
        ("10.0.0.1", (), "10.0.0.1"),
        # What it cannot read is unknown; what stands left of it is not asked.
        ("10.0.0.1", ("203.0.113.9, unknown",), ""),
        ("10.0.0.1", ("",), ""),
        ("10.0.0.1", ("garbage " * 500,), ""),
        ("10.0.0.1", (", ".join(["203.0.113.9"] * 500),), "203.0.113.9"),
        # Bounded: a chain of trusted hops longer than any real one is not walked to its end.
        ("10.0.0.1", (", ".join(["203.0.113.9", *["10.0.0.2"] * 500]),), "10.0.0.2"),
    ],
)
def test_the_client_behind_trusted_proxies(peer: str, forwarded: tuple[str, ...], client: str) -> None:
    """X-Forwarded-For is read from the right, and only as far as it can be believed."""
    assert PROXIES.client(peer, forwarded) == client


@given(st.text(), st.lists(st.text(), max_size=5))
def test_reading_a_request_never_fails(peer: str, forwarded: list[str]) -> None:
    """Invariant: whatever the headers say, there is a client, possibly unknown."""
    assert isinstance(network_of(PROXIES.client(peer, forwarded)), str)
    assert isinstance(network_of(PROXIES.client("10.0.0.1", forwarded)), str)


def test_a_proxy_network_that_is_none_names_its_setting() -> None:
    """The operator who meets this knows what to correct."""
    with pytest.raises(ValueError, match="OUTRIDER_TRACKER__TRUSTED_PROXIES"):
        Proxies(("10.0.0.0/33",))


@given(st.text(st.characters(codec=None)), st.integers(0, 20))
def test_texts_are_cut_and_printable(text: str, limit: int) -> None:
    """Invariant: one line, no controls, no surrogates, at most the limit, and text that needs nothing is kept."""
    kept = printable(text, limit)
    assert len(kept) <= limit
    assert kept.isprintable()
    kept.encode()
    if text.isprintable():
        assert kept == text[:limit]


@given(st.text(st.characters(codec=None)), st.text(st.characters(codec=None)))
def test_every_hit_can_travel(user_agent: str, purpose: str) -> None:
    """Invariant: whatever a client sends, its hit is encoded and read back unchanged, and is bounded."""
    hit = hit_of(Facts(method="GET", peer="", user_agent=user_agent, purpose=purpose))
    assert decode_hit(encode_hit(hit)) == hit
    assert len(hit.user_agent) <= USER_AGENT_CHARS
    assert len(hit.purpose) <= PURPOSE_CHARS
    assert msgspec.structs.replace(hit, user_agent="", purpose="") == hit_of(Facts(method="GET", peer=""))
