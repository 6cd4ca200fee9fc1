"""A circuit opens on trouble in a row, asks once for each pause, and closes with the first success."""

import pytest

from relay.circuit import Circuit, Permit


class Clock:
    """Time as the test wants it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def opened(clock: Clock) -> Circuit:
    """Return a circuit that one failure has opened."""
    circuit = Circuit(clock, first_pause=5.0, longest_pause=300.0)
    assert circuit.fail(entered(circuit), at_once=True)
    return circuit


def entered(circuit: Circuit) -> Permit:
    """Return a permit."""
    permit = circuit.enter()
    assert permit is not None
    return permit


def test_three_failures_in_a_row_open_it() -> None:
    """Two are no outage, and a success in between begins anew."""
    circuit = Circuit(Clock(), in_a_row=3)
    for _ in range(2):
        assert not circuit.fail(entered(circuit), at_once=False)
    assert not circuit.succeed(entered(circuit))
    for _ in range(2):
        assert not circuit.fail(entered(circuit), at_once=False)
    assert circuit.fail(entered(circuit), at_once=False)
    assert circuit.is_open
    assert circuit.enter() is None


def test_one_message_is_let_in_for_each_pause() -> None:
    """The next waits for a pause more, also while nothing is known of the first."""
    clock = Clock()
    circuit = opened(clock)
    assert circuit.wait == 5.0
    clock.now += 5.0
    assert circuit.wait == 0.0
    entered(circuit)
    assert circuit.enter() is None
    clock.now += 5.0
    entered(circuit)


def test_the_pause_doubles_up_to_its_limit_and_begins_anew() -> None:
    """5, 10, 20 … 300 s; after a success the next opening begins with 5 s."""
    clock = Clock()
    circuit = opened(clock)
    pauses = []
    for _ in range(8):
        pauses.append(circuit.wait)
        clock.now += circuit.wait
        assert not circuit.fail(entered(circuit), at_once=True)
    assert pauses == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]
    clock.now += circuit.wait
    assert circuit.succeed(entered(circuit))
    assert not circuit.is_open
    assert circuit.fail(entered(circuit), at_once=True)
    assert circuit.wait == 5.0


@pytest.mark.parametrize("late", ["success", "failure"])
def test_what_was_let_in_before_says_nothing(late: str) -> None:
    """A word about the time before the circuit opened neither closes it nor lengthens its pause."""
    clock = Clock()
    circuit = Circuit(clock, first_pause=5.0)
    before = entered(circuit)
    assert circuit.fail(entered(circuit), at_once=True)
    assert not (circuit.succeed(before) if late == "success" else circuit.fail(before, at_once=True))
    assert circuit.is_open
    assert circuit.wait == 5.0


def test_nothing_learnt_lets_the_next_one_in() -> None:
    """The message that was to find out never got there."""
    clock = Clock()
    circuit = opened(clock)
    clock.now += 5.0
    circuit.leave(entered(circuit))
    entered(circuit)
