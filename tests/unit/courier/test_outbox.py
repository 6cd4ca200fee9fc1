"""What goes into a call, and what a refusal leads to."""

from collections.abc import Callable, Iterator, Sequence
from math import ceil, log2

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from courier.answer import Accepted, Answer, Refused, Unanswered
from courier.outbox import (
    NO_EMAIL,
    OPEN,
    Ending,
    Item,
    Standing,
    ams_url,
    backoff,
    email_of,
    failures_after,
    fill,
    turn,
)
from courier.settings import AmsSettings
from ledger.events import EventType, Hit, encode_hit
from tests.mailings import APPLE, READER, ams_settings, hit

REFUSAL = Refused(code=-32603, message="Invalid email")
REASON = "-32603: Invalid email"
KEY = bytes(16)


def items(count: int) -> list[Item]:
    """Return *count* items."""
    return [Item(id=number, email=f"r{number}@example.net", url=OPEN) for number in range(count)]


class Endpoint:
    """Plays AMS to a plan and notes every call."""

    def __init__(self, judge_call: Callable[[Sequence[Item]], Answer], *, healthy: bool = True) -> None:
        self._judge_call = judge_call
        self._healthy = healthy
        self.calls: list[int] = []
        self.probes = 0
        self.delivered: list[int] = []

    def play(self, batch: Sequence[Item], standing: Standing) -> Ending[Item]:
        plan = turn(batch, standing, secret="")
        try:
            step = next(plan)
            while True:
                if isinstance(step, str):
                    self.probes += 1
                    answer: Answer = Accepted() if self._healthy else REFUSAL
                else:
                    self.calls.append(len(step))
                    answer = self._judge_call(step)
                    if isinstance(answer, Accepted):
                        self.delivered += [item.id for item in step]
                step = plan.send(answer)
        except StopIteration as stop:
            ending: Ending[Item] = stop.value
            return ending


def refusing(*bad: int) -> Callable[[Sequence[Item]], Answer]:
    """Return an AMS that refuses every call with one of these items."""
    return lambda batch: REFUSAL if any(item.id in bad for item in batch) else Accepted()


TWICE = Standing(failures=1, last_error=REASON)


def test_a_good_batch_is_one_call() -> None:
    """Nothing is probed or split when AMS takes what it is given."""
    endpoint = Endpoint(refusing())
    assert endpoint.play(items(5), Standing()) == Ending()
    assert (endpoint.calls, endpoint.probes) == ([5], 0)


def test_a_first_refusal_splits_nothing() -> None:
    """Once may be a moment's trouble."""
    endpoint = Endpoint(refusing(3))
    assert endpoint.play(items(8), Standing()) == Ending(error=REASON)
    assert (endpoint.calls, endpoint.probes) == ([8], 0)


def test_another_error_than_last_time_splits_nothing() -> None:
    """Only the same error twice is about what we sent."""
    endpoint = Endpoint(refusing(3))
    assert endpoint.play(items(8), Standing(failures=1, last_error="-32603: busy")) == Ending(error=REASON)
    assert endpoint.calls == [8]


def test_nothing_is_split_while_ams_is_unwell() -> None:
    """A wrong apiKey refuses everything: the probe finds out before anything is split."""
    endpoint = Endpoint(refusing(3), healthy=False)
    assert endpoint.play(items(8), TWICE) == Ending(error=REASON)
    assert (endpoint.calls, endpoint.probes) == ([8], 1)


@given(st.integers(2, 400), st.data())
def test_one_bad_item_is_found_and_parked_alone(count: int, draw: st.DataObject) -> None:
    """Invariant: the bad item is parked, every other delivered once, in 2 log2(n) + 1 extra calls."""
    bad = draw.draw(st.integers(0, count - 1))
    endpoint = Endpoint(refusing(bad))
    ending = endpoint.play(items(count), TWICE)
    assert [(item.id, reason) for item, reason in ending.parked] == [(bad, REASON)]
    assert (ending.error, ending.held) == (None, None)
    assert sorted(endpoint.delivered) == [number for number in range(count) if number != bad]
    assert len(endpoint.calls) - 1 <= 2 * ceil(log2(count)) + 1


@pytest.mark.parametrize("bad", range(0, 20_000, 1_999))
def test_a_full_batch_is_searched_in_few_calls(bad: int) -> None:
    """20,000 items, one bad: 2 log2(n) + 1 extra calls at most."""
    endpoint = Endpoint(refusing(bad))
    assert len(endpoint.play(items(20_000), TWICE).parked) == 1
    assert len(endpoint.calls) - 1 <= 2 * log2(20_000) + 1


@given(st.sets(st.integers(0, 63), min_size=1, max_size=10))
def test_nothing_is_lost_and_no_innocent_is_parked(bad: set[int]) -> None:
    """Invariant: whatever AMS refuses, what is parked is bad, and what is good is delivered or still waits."""
    endpoint = Endpoint(refusing(*bad))
    ending = endpoint.play(items(64), TWICE)
    parked = [item.id for item, _ in ending.parked]
    assert set(parked) <= bad
    assert not bad.intersection(endpoint.delivered)
    assert len(set(parked)) == len(parked)
    if ending.error is None:
        assert sorted([*parked, *endpoint.delivered]) == list(range(64))


def test_halves_that_fail_alike_hold_the_mailing() -> None:
    """A mailing that AMS does not know refuses both halves: nobody in it is parked."""
    refusal = Refused(code=-32603, message="Mailing with id=42 not exists")
    endpoint = Endpoint(lambda _: refusal)
    reason = "-32603: Mailing with id=42 not exists"
    standing = Standing(failures=1, last_error=reason)
    assert endpoint.play(items(100), standing) == Ending(error=reason, held=reason)
    assert (endpoint.calls, endpoint.probes) == ([100, 50, 50], 1)


def test_a_single_item_that_nothing_vouches_for_is_held() -> None:
    """With one item waiting, item and mailing cannot be told apart, so the mailing waits."""
    assert Endpoint(refusing(0)).play(items(1), TWICE) == Ending(error=REASON, held=REASON)


def test_a_held_mailing_sends_a_scout_first() -> None:
    """One call with one item finds out whether AMS takes the mailing again, another item each time."""
    for failures in range(3):
        endpoint = Endpoint(lambda _: REFUSAL)
        assert endpoint.play(items(3), Standing(failures=failures, last_error=REASON, held=REASON)) == Ending(
            error=REASON, held=REASON
        )
        assert endpoint.calls == [1]
    sent: list[int] = []

    def note(batch: Sequence[Item]) -> Answer:
        sent.extend(item.id for item in batch)
        return REFUSAL

    for failures in range(3):
        Endpoint(note).play(items(3), Standing(failures=failures, held=REASON))
    assert sent == [0, 1, 2]


def test_a_hold_ends_when_the_scout_comes_through() -> None:
    """Bad items in both halves hold a mailing; a good scout vouches for it, and then each bad one is found."""
    endpoint = Endpoint(refusing(1, 9))
    assert endpoint.play(items(12), TWICE).held == REASON
    assert endpoint.delivered == []
    ending = endpoint.play(items(12), Standing(failures=2, last_error=REASON, held=REASON))
    assert sorted(item.id for item, _ in ending.parked) == [1, 9]
    assert sorted(endpoint.delivered) == [0, 2, 3, 4, 5, 6, 7, 8, 10, 11]
    assert (ending.error, ending.held) == (None, None)


def test_a_hold_stays_while_ams_is_away() -> None:
    """No answer says nothing about the mailing."""
    endpoint = Endpoint(lambda _: Unanswered(reason="timeout"))
    ending = endpoint.play(items(3), Standing(failures=4, last_error=REASON, held=REASON))
    assert ending == Ending(error="no answer: timeout", held=REASON)


def test_an_outage_ends_the_search() -> None:
    """When AMS goes away in between, what is beyond doubt is kept and the rest waits."""
    answers: Iterator[Answer] = iter([REFUSAL, Accepted(), Unanswered(reason="timeout")])
    endpoint = Endpoint(lambda _: next(answers))
    assert endpoint.play(items(8), TWICE) == Ending(error="no answer: timeout")
    assert endpoint.delivered == [0, 1, 2, 3]


def test_an_ams_that_turns_everything_down_midway_parks_nobody() -> None:
    """AMS takes one part, then somebody opens the mailing in its window: the rest is held, not parked."""

    def first_half_only(batch: Sequence[Item]) -> Answer:
        return Accepted() if len(batch) == 512 and batch[0].id == 0 else REFUSAL

    endpoint = Endpoint(first_half_only)
    ending = endpoint.play(items(1024), TWICE)
    assert (ending.parked, ending.held) == ((), REASON)
    assert len(endpoint.calls) < 40


@given(st.lists(st.integers(0, 200), max_size=30), st.integers(1, 10), st.integers(1, 600))
def test_a_call_stays_within_its_limits(lengths: list[int], max_batch: int, max_bytes: int) -> None:
    """Invariant: the oldest first, one at least, and no more than items and octets allow."""
    waiting = [Item(id=n, email="a@example.net", url="u" * length) for n, length in enumerate(lengths)]
    batch = fill(waiting, max_batch=max_batch, max_bytes=max_bytes)
    assert list(batch) == waiting[: len(batch)]
    assert len(batch) <= max_batch
    if waiting:
        assert batch
    encoded = [{"email": item.email, "url": item.url} for item in batch]
    if len(batch) > 1:
        assert len(msgspec.json.encode(encoded)) <= max_bytes + 2


@pytest.mark.parametrize(("failures", "most"), [(1, 1), (2, 2), (5, 16), (11, 900), (1000, 900)])
def test_backoff_is_full_jitter_from_a_second_to_a_quarter_of_an_hour(failures: int, most: float) -> None:
    """The wait doubles with each failure up to its cap, and chance spreads it over all of that."""
    assert backoff(failures, 0.0) == 0
    assert backoff(failures, 0.5) == most / 2
    assert backoff(failures, 1.0) == most


def test_each_kind_of_failure_backs_off_anew() -> None:
    """After a day of outage the first refusal is tried again within a second, not within a quarter of an hour."""
    away = Standing(failures=12, last_error="no answer: timeout")
    assert failures_after(Standing(), REASON) == 1
    assert failures_after(TWICE, REASON) == 2
    assert failures_after(away, "no answer: HTTP 502") == 13
    assert failures_after(away, REASON) == 1
    assert failures_after(TWICE, "no answer: timeout") == 1


def url_of(one: Hit, **changed: str) -> str | None:
    """Return what AMS hears of a hit."""
    settings: AmsSettings = ams_settings(**changed)
    sighting = READER.read(encode_hit(one))
    assert sighting is not None
    return ams_url(sighting, settings, injected=True)


def test_each_kind_of_hit_has_its_url() -> None:
    """An open is `open_trace`, a click its link exactly, an unsubscribe the action of the settings."""
    assert url_of(hit(KEY)) == "open_trace"
    assert url_of(hit(KEY, EventType.CLICKED, url="https://x.example/?a=1&b=%20")) == "https://x.example/?a=1&b=%20"
    assert url_of(hit(KEY, EventType.UNSUBSCRIBED)) == "Unsubscribe_Click:DC,AE{|;"
    assert url_of(hit(KEY, EventType.UNSUBSCRIBED), unsubscribe_action="Unsubscribe_Click:AE") == "Unsubscribe_Click:AE"


def test_machines_are_the_operators_choice_and_head_is_nobodys() -> None:
    """Hits of machines go by the setting; a HEAD request is never told; without an endpoint nothing is."""
    assert url_of(hit(KEY, user_agent=APPLE)) == "open_trace"
    assert url_of(hit(KEY, user_agent=APPLE), machines="exclude") is None
    assert url_of(hit(KEY), machines="exclude") == "open_trace"
    assert url_of(hit(KEY, method="HEAD")) is None
    assert url_of(hit(KEY), url="") is None


def test_the_email_is_the_recipient_as_submitted() -> None:
    """The spelling is kept, none is said as AMS knows it, and what JSON cannot carry is not guessed."""
    assert email_of(b"Ann.O'Neil+x@EXAMPLE.net") == "Ann.O'Neil+x@EXAMPLE.net"
    assert email_of("ё@example.net".encode()) == "ё@example.net"
    assert email_of(None) == email_of(b"") == NO_EMAIL
    assert email_of(b"\xe4@example.net") is None
