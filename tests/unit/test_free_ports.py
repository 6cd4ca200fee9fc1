"""Ports that tests hand out, before anybody listens there."""

from collections.abc import Callable

from tests.conftest import next_port


def test_no_two_who_ask_are_given_the_same_port(free_port: Callable[[], int]) -> None:
    """Whoever asks, through the fixture or beside it: several commands may start at the same time."""
    given = [ask() for _ in range(60) for ask in (free_port, next_port)]
    assert len(set(given)) == len(given)
