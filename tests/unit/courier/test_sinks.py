"""Who hears of an event, what an answer means, and that a sink's plan loses nothing and parks no innocent."""

import itertools
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from courier.answer import Accepted, Refused, Unanswered
from courier.outbox import Ending, Standing, failures_after
from courier.settings import ListmonkSettings, SinkSettings
from courier.sinks import (
    Answer,
    Closed,
    Doubtful,
    Later,
    Plan,
    Rule,
    Step,
    Telling,
    TooLarge,
    bounce_kind,
    fill,
    read_status,
    rules,
    singly,
    tellings,
    turn,
)
from ledger.sinks import StoredEvent

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

EVENT = StoredEvent(
    message=1,
    event=b"e" * 16,
    recorded_at=NOW,
    type="clicked",
    teller="tracker",
    machine=False,
    bounce=None,
    injected=True,
    source="shop",
    campaign_id="spring-2026",
    subscribed=False,
)


def event(**changed: object) -> StoredEvent:
    """Return an event that differs from `EVENT` so."""
    return msgspec.structs.replace(EVENT, **changed)


class TestFilters:
    """Each narrows; what is empty does not."""

    @pytest.mark.parametrize(
        ("rule", "heard", "unheard"),
        [
            (Rule(name="a"), event(type="unknown", campaign_id=None), None),
            (Rule(name="a", events=frozenset({"clicked", "bounced"})), event(type="bounced"), event(type="opened")),
            (Rule(name="a", campaigns=("spring-*", "65")), event(campaign_id="65"), event(campaign_id="autumn-2026")),
            (Rule(name="a", campaigns=("*",)), EVENT, event(campaign_id=None)),
            (Rule(name="a", sources=("shop",)), EVENT, event(source="shop2")),
            (Rule(name="a", machines=False), EVENT, event(machine=True)),
            (Rule(name="a"), EVENT, event(teller="import:csv", type="bounced")),
            # A provider's view of what we saw is told once, by us; where nothing of ours stood, by the provider.
            (Rule(name="a"), event(teller="ses", injected=False), event(teller="ses")),
            (Rule(name="a"), event(teller="ses", type="bounced"), event(teller="ses", type="opened")),
            (Rule(name="listmonk"), event(type="complained", subscribed=True), event(type="complained")),
            (Rule(name="listmonk"), event(type="bounced", subscribed=True), event(subscribed=True)),
        ],
    )
    def test_one_lets_through_and_keeps_out(self, rule: Rule, heard: StoredEvent, unheard: StoredEvent | None) -> None:
        assert rule.kind(heard) is not None
        assert unheard is None or rule.kind(unheard) is None

    def test_every_sink_is_asked(self) -> None:
        made = rules({"b": SinkSettings(), "a": SinkSettings(machines="exclude")}, ListmonkSettings(url="http://x"))
        assert [rule.name for rule in made] == ["a", "b", "listmonk"]
        asked = tellings(made, [event(type="bounced", bounce="hard", subscribed=True), event(machine=True)])
        assert [(one.sink, one.kind) for one in asked] == [("a", ""), ("b", ""), ("listmonk", "hard"), ("b", "")]

    def test_none_is_asked_where_none_is_configured(self) -> None:
        assert rules({}, ListmonkSettings()) == ()

    @pytest.mark.parametrize(
        ("what", "bounce", "kind"),
        [
            ("bounced", "hard", "hard"),
            ("bounced", "soft", "soft"),
            ("bounced", "block", "soft"),
            ("bounced", "suppressed", "soft"),
            ("bounced", None, "soft"),
            ("rejected", "hard", "hard"),
            ("failed", "unknown", "soft"),
            # The relay's own, of which the mailer hears by SMTP or a DSN.
            ("failed", None, None),
            ("deferred", "soft", None),
            ("complained", None, "complaint"),
            ("unsubscribed", None, None),
        ],
    )
    def test_only_what_is_known_to_be_hard_is(self, what: str, bounce: str | None, kind: str | None) -> None:
        assert bounce_kind(what, bounce) == kind


class TestAnswers:
    """By the status: whose fault it is, and when to come again."""

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (200, Accepted),
            (204, Accepted),
            (302, Closed),
            (400, Refused),
            (401, Closed),
            (403, Closed),
            (404, Closed),
            (405, Closed),
            (408, Doubtful),
            (410, Closed),
            (413, TooLarge),
            (422, Refused),
            (425, Later),
            (429, Later),
            (500, Later),
            (502, Later),
            (503, Later),
            (504, Doubtful),
        ],
    )
    def test_a_status_has_one_meaning(self, status: int, kind: type[Answer]) -> None:
        assert type(read_status(status, "words", None, NOW)) is kind

    @pytest.mark.parametrize(
        ("said", "seconds"),
        [
            ("120", 120.0),
            (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
            (format_datetime(NOW - timedelta(days=1), usegmt=True), 0.0),
            ("99999999999", 86_400.0),
            ("soon", None),
            ("-5", None),
            ("1.5", None),
            ("Sun, 01 Mar 2026 12:01:00 -0000", None),
            (None, None),
        ],
    )
    def test_when_to_come_again(self, said: str | None, seconds: float | None) -> None:
        assert read_status(503, "", said, NOW) == Later(reason="HTTP 503", seconds=seconds)

    def test_a_refusal_without_words_has_those_of_http(self) -> None:
        assert read_status(400, "", None, NOW) == Refused(code=400, message="Bad Request")
        assert read_status(499, "", None, NOW) == Closed(
            reason="HTTP 499", refusal=Refused(code=499, message="no such status")
        )


def items(count: int, *, size: int = 10) -> list[Telling]:
    """Return items, numbered from 0."""
    return [Telling(id=number, content=b"x" * size, at=NOW) for number in range(count)]


class Endpoint:
    """Plays a receiver that refuses requests with certain items in them, over turns, as the loop would."""

    def __init__(self, bad: frozenset[int] = frozenset(), *, answer: Answer | None = None) -> None:
        self.bad = bad
        self.answer: Answer = answer or Refused(code=422, message="bad item")
        self.told: list[int] = []
        self.calls = 0

    def ask(self, step: Step) -> Answer:
        """Answer one request."""
        self.calls += 1
        ids = [item.id for item in step]
        if self.bad.isdisjoint(ids):
            self.told += ids
            return Accepted()
        return self.answer

    def play(self, plan: Plan) -> Ending[Telling]:
        """Run a plan to its end."""
        try:
            step = next(plan)
            while True:
                step = plan.send(self.ask(step))
        except StopIteration as stop:
            ending: Ending[Telling] = stop.value
            return ending

    def drain(self, waiting: list[Telling], *, single: bool = False, turns: int = 200) -> tuple[list[int], Standing]:
        """Take turns until nothing waits, or so many were taken; return what was parked, and how it stands."""
        standing, parked = Standing(), list[int]()
        for _ in range(turns):
            if not waiting:
                break
            plan = singly(waiting, standing, once=False) if single else turn(waiting, standing)
            ending = self.play(plan)
            parked += [item.id for item, _ in ending.parked]
            waiting = [item for item in waiting if item.id not in {*self.told, *parked}]
            standing = (
                Standing()
                if ending.error is None
                else Standing(
                    failures=failures_after(standing, ending.error), last_error=ending.error, held=ending.held
                )
            )
        return parked, standing


class TestTurns:
    """A turn of a sink that takes batches."""

    @given(st.integers(1, 40), st.sets(st.integers(0, 39), max_size=6))
    def test_the_bad_are_parked_alone_and_all_others_are_told_once(self, count: int, drawn: set[int]) -> None:
        """Invariant: told or parked or held with nothing taken; each told once."""
        bad = frozenset(number for number in drawn if number < count)
        endpoint = Endpoint(bad)
        parked, standing = endpoint.drain(items(count))
        if len(bad) == count:
            # Nobody knows whether it is they or the sink.
            assert (parked, standing.held) == ([], "422: bad item")
        else:
            assert sorted(parked) == sorted(bad)
            assert sorted(endpoint.told) == sorted(set(range(count)) - bad)

    def test_one_bad_item_of_500_is_found_in_few_requests(self) -> None:
        endpoint = Endpoint(frozenset({123}))
        assert endpoint.drain(items(500))[0] == [123]
        assert endpoint.calls < 30

    @pytest.mark.parametrize("status", [401, 403, 404, 410])
    def test_a_sink_that_is_closed_is_held_and_nothing_parked(self, status: int) -> None:
        closed = read_status(status, "go away", None, NOW)
        endpoint = Endpoint(frozenset({0, 1, 2}), answer=closed)
        ending = endpoint.play(turn(items(3), Standing()))
        assert ending == Ending(error=f"{status}: go away", held=f"{status}: go away")
        # Held, it is tried with one item, and goes on when that comes through.
        held = Standing(failures=2, last_error=ending.error, held=ending.held)
        assert endpoint.play(turn(items(3), held)).held is not None
        endpoint.bad = frozenset()
        assert endpoint.play(turn(items(3), held)) == Ending()
        assert sorted(endpoint.told) == [0, 1, 2]

    def test_a_body_too_large_ends_the_turn_and_alone_it_is_parked(self) -> None:
        endpoint = Endpoint(frozenset({0}), answer=TooLarge(code=413, message="no"))
        assert endpoint.play(turn(items(2), Standing())) == Ending()
        (only,) = items(1)
        assert endpoint.play(turn([only], Standing())) == Ending(parked=((only, "413: no"),))

    def test_what_was_refused_once_waits(self) -> None:
        assert Endpoint(frozenset({0})).play(turn(items(2), Standing())) == Ending(error="422: bad item")

    def test_an_outage_parks_nothing(self) -> None:
        endpoint = Endpoint(frozenset({0}), answer=Doubtful(reason="timeout"))
        assert endpoint.play(turn(items(2), Standing())) == Ending(error="no answer: timeout")

    def test_a_request_keeps_both_limits(self) -> None:
        assert len(fill(items(9), max_batch=4, max_bytes=1000)) == 4
        assert len(fill(items(9), max_batch=9, max_bytes=33)) == 3
        assert len(fill(items(9, size=500), max_batch=9, max_bytes=33)) == 1


class TestSingles:
    """A turn of a sink that takes one item at a time."""

    @given(st.integers(1, 12), st.sets(st.integers(0, 11), max_size=12))
    def test_the_bad_are_parked_and_all_others_are_told_once(self, count: int, drawn: set[int]) -> None:
        bad = frozenset(number for number in drawn if number < count)
        endpoint = Endpoint(bad)
        parked, standing = endpoint.drain(items(count), single=True)
        if len(bad) == count:
            assert (parked, standing.held) == ([], "422: bad item")
        else:
            assert sorted(parked) == sorted(bad)
            assert sorted(endpoint.told) == sorted(set(range(count)) - bad)

    def test_a_sink_that_takes_nothing_is_left_after_a_few(self) -> None:
        endpoint = Endpoint(frozenset(range(50)))
        assert endpoint.play(singly(items(50), Standing(), once=True)).held is not None
        assert endpoint.calls == 5

    @pytest.mark.parametrize("answer", [Doubtful(reason="timeout"), read_status(504, "", None, NOW)])
    def test_what_may_have_been_taken_stands_aside_where_a_copy_counts(self, answer: Unanswered) -> None:
        endpoint = Endpoint(frozenset({1}), answer=answer)
        waiting = items(3)
        ending = endpoint.play(singly(waiting, Standing(), once=True))
        assert ending.parked == ((waiting[1], f"in doubt: {answer.reason}"),)
        assert ending.error == f"no answer: {answer.reason}"
        assert endpoint.told == [0]
        assert endpoint.play(singly(waiting, Standing(), once=False)).parked == ()

    @pytest.mark.parametrize("answer", [Later(reason="HTTP 503"), Unanswered(reason="no connection")])
    def test_what_was_surely_not_taken_waits(self, answer: Unanswered) -> None:
        endpoint = Endpoint(frozenset({0}), answer=answer)
        assert endpoint.play(singly(items(2), Standing(), once=True)).parked == ()

    def test_credentials_that_do_not_hold(self) -> None:
        endpoint = Endpoint(frozenset({1}), answer=read_status(403, "token T-1", None, NOW))
        ending = endpoint.play(singly(items(3), Standing(), once=True, secret="T-1"))
        assert ending == Ending(error="403: token ***", held="403: token ***")


def test_many_held_turns_reach_every_item() -> None:
    """A held sink begins each time with another item, so that none stands before the others for ever."""
    seen: set[int] = set()
    for failures in itertools.islice(itertools.count(1), 6):
        plan = singly(items(6), Standing(failures=failures, held="422: bad"), once=True)
        seen.add(next(plan)[0].id)
    assert seen == set(range(6))
