"""Whence and when a hit came, and what a burst takes back: by the times of the hits, in any batches."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from courier.classify import OwnNetworks, Reason, Verdict
from courier.rules import Rules
from courier.settings import CourierSettings
from courier.sighting import Sighting
from ledger.engagements import StoredHit
from ledger.events import EventType, encode_hit
from ledger.visitors import network_of
from providers.notice import Notice, What, encode_notice
from tests.judging import stored
from tests.mailings import APPLE, NOON_MS, READER, hit
from tests.visitors import ACCEPTED as NOON

PROMPT = CourierSettings(early_seconds=1.0)
OPENED, CLICKED, UNSUBSCRIBED = EventType.OPENED, EventType.CLICKED, EventType.UNSUBSCRIBED


def judged(
    settings: CourierSettings,
    kind: EventType = OPENED,
    *,
    after: float = 3600,
    network: str = "192.0.2.0/24",
    method: str = "GET",
) -> tuple[Verdict, Reason]:
    """Return what is made of a browser's hit so many seconds after its message was accepted."""
    made = hit(bytes(16), kind, at_ms=NOON_MS + round(after * 1000), method=method)
    sighting = READER.read(encode_hit(msgspec.structs.replace(made, network=network)))
    assert sighting is not None
    judgement = Rules(settings).placed(sighting, accepted_at=NOON).judgement
    assert judgement is not None
    return judgement.verdict, judgement.reason


class TestEarly:
    """Nobody has a message that was accepted a moment ago."""

    @pytest.mark.parametrize("kind", [OPENED, CLICKED])
    @pytest.mark.parametrize(
        ("after", "reason"),
        [(0.0, "early"), (0.999, "early"), (1.0, "browser"), (-0.999, "early"), (-1.0, "browser"), (-86400, "browser")],
    )
    def test_a_hit_within_the_first_second(self, kind: EventType, after: float, reason: str) -> None:
        """Clocks that differ by less than that do not matter; a hit from long before shows a wrong clock alone."""
        assert judged(PROMPT, kind, after=after)[1] == reason

    def test_it_is_off_as_it_comes(self) -> None:
        """Whoever tries out a mailing opens it at once."""
        assert judged(CourierSettings(), after=0) == (Verdict.PERSON, Reason.BROWSER)

    def test_an_unsubscribe_is_never_early(self) -> None:
        assert judged(PROMPT, UNSUBSCRIBED, after=0) == (Verdict.PERSON, Reason.POSTED)

    def test_what_a_machine_says_of_itself_stays(self) -> None:
        assert judged(CourierSettings(), after=0, method="HEAD") == (Verdict.MACHINE, Reason.HEAD_REQUEST)

    def test_a_providers_clock_is_not_ours(self) -> None:
        """It may count whole seconds, or be slow."""
        notice = Notice(
            provider="ses", what=What.OPENED, dedupe="e-1", at_ms=NOON_MS, user_agent="Mozilla/5.0 (X11; Linux)"
        )
        sighting = READER.read(encode_notice(notice))
        assert sighting is not None
        assert Rules(CourierSettings()).placed(sighting, accepted_at=NOON) is sighting


class TestOwnNetworks:
    """The operator's own people do not count, as far as a truncated address tells them."""

    @pytest.mark.parametrize(
        ("client", "reason"),
        [
            ("192.0.2.1", "own_network"),
            ("192.0.2.255", "own_network"),
            ("192.0.3.1", "browser"),
            ("10.77.1.2", "own_network"),
            ("2001:db8:1:ffff::1", "own_network"),
            ("2001:db8:2::1", "browser"),
            ("::ffff:192.0.2.9", "own_network"),
            ("", "browser"),
        ],
    )
    def test_an_address_is_compared_by_what_is_kept_of_it(self, client: str, reason: str) -> None:
        own = CourierSettings(own_networks=("192.0.2.0/24", "10.0.0.0/8", "2001:db8:1::/48"))
        verdict = Verdict.MACHINE if reason == "own_network" else Verdict.PERSON
        assert judged(own, CLICKED, network=network_of(client)) == (verdict, reason)

    @pytest.mark.parametrize("network", ["", "rubbish", "192.0.0.0/16", "0.0.0.0/0", "::/0", "192.0.2.1/24"])
    def test_what_is_not_wholly_in_it_is_not_ours(self, network: str) -> None:
        assert not OwnNetworks(["192.0.2.0/24"]).hold(network)

    def test_an_unsubscribe_is_an_act_wherever_it_came_from(self) -> None:
        assert judged(CourierSettings(own_networks=("192.0.2.0/24",)), UNSUBSCRIBED)[0] is Verdict.PERSON


def ledger_of(rules: Rules, batches: Sequence[Sequence[Sighting]], seconds: float) -> Mapping[bytes, bool]:
    """Record *batches* one after the other, looking each time only at what is near; return who is a machine."""
    rows: dict[bytes, StoredHit] = {}
    for batch in batches:
        fresh = [sighting for sighting in batch if sighting.id not in rows]
        rows |= {sighting.id: stored(sighting, len(rows)) for sighting in fresh}
        if fresh:
            begin, end = (pick(one.at for one in fresh) for pick in (min, max))
            margin = timedelta(seconds=seconds)
            near = [row for row in rows.values() if begin - margin <= row.occurred_at <= end + margin]
            for row in rules.revised(near):
                rows[row.dedupe] = msgspec.structs.replace(row, machine=True, reason="burst/2")
    return {dedupe: row.machine for dedupe, row in rows.items()}


@st.composite
def lives(draw: st.DrawFn) -> list[Sighting]:
    """Return what happened to one message: people and machines, all within some minutes."""
    facts = st.tuples(
        st.sampled_from([OPENED, CLICKED, CLICKED]),
        st.integers(0, 300_000) | st.integers(0, 2000),
        st.integers(0, 5),
        st.sampled_from(["GET", "GET", "GET", "HEAD"]),
        st.sampled_from(["Mozilla/5.0 (X11; Linux x86_64)", "Mozilla/5.0 (iPhone)", APPLE]),
    )
    read = [
        READER.read(encode_hit(hit(bytes(16), kind, at_ms=NOON_MS + at, link=link, method=method, user_agent=agent)))
        for kind, at, link, method, agent in draw(st.lists(facts, max_size=30))
    ]
    rules = Rules(CourierSettings())
    return [rules.placed(sighting, accepted_at=NOON) for sighting in read if sighting is not None]


@given(lives(), st.integers(2, 5), st.sampled_from([1, 20, 60]), st.randoms(use_true_random=False))
def test_any_order_and_batching_and_any_copies_give_the_same_verdicts(
    life: list[Sighting], links: int, seconds: int, random: Random
) -> None:
    """Invariant: all at once is the definition; nothing that happens in between shows at the end."""
    rules = Rules(CourierSettings(burst_links=links, burst_seconds=seconds))
    expected = ledger_of(rules, [life], seconds)
    arriving = [*life, *random.choices(life, k=len(life))] if life else []
    random.shuffle(arriving)
    cuts = sorted(random.sample(range(len(arriving) + 1), k=min(4, len(arriving) + 1)))
    batches = [arriving[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(arriving)], strict=True)]
    assert ledger_of(rules, batches, seconds) == expected


def test_machines_that_say_so_make_no_burst_and_early_ones_do() -> None:
    """HEAD requests for all links beside one click leave the click a person's; a scan that began too early is one."""
    rules = Rules(PROMPT)

    def life(*facts: tuple[float, str]) -> list[StoredHit]:
        read = [
            READER.read(
                encode_hit(hit(bytes(16), CLICKED, link=link, at_ms=NOON_MS + round(after * 1000), method=method))
            )
            for link, (after, method) in enumerate(facts)
        ]
        placed = [rules.placed(sighting, accepted_at=NOON) for sighting in read if sighting is not None]
        return [stored(sighting, number) for number, sighting in enumerate(placed)]

    assert rules.revised(life((5, "HEAD"), (6, "HEAD"), (7, "HEAD"), (8, "GET"))) == []
    scan = life((0.3, "GET"), (0.8, "GET"), (1.3, "GET"), (1.8, "GET"))
    # The first two are told apart already, and stay what they are.
    assert rules.revised(scan) == scan[2:]
