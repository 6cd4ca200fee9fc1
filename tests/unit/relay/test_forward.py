"""A verdict is recorded before anybody hears it, whatever goes wrong with the recording for a moment."""

import asyncio

import asyncpg
import pytest

from ledger.mail import Settlement
from relay.forward import Forwarder
from relay.upstream import BeforeDot, Letter, Outcome, Verdict

LETTER = Letter(
    key="k" * 26,
    sender="shop@example.com",
    recipient="ann@example.net",
    smtputf8=False,
    size=2,
    render=lambda: b"\r\n",
)


class Accepting:
    """An upstream that takes everything."""

    name = "example"

    async def send(self, letter: Letter, before_dot: BeforeDot) -> Outcome:
        """Accept *letter*."""
        await before_dot()
        letter.render()
        return Verdict(code=250, text="2.0.0 Ok")

    async def close(self) -> None:
        """Nothing is open."""


class Failing:
    """Results that fail with each of *errors* once before they are kept."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.kept: list[Settlement] = []

    async def mark_dot(self, message: int, turn: int) -> None:
        """Take the intent."""

    async def settle(self, settlement: Settlement) -> bool:
        """Fail, or keep *settlement*."""
        if self._errors:
            raise self._errors.pop(0)
        self.kept.append(settlement)
        return True


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.AdminShutdownError("terminating"),
        ConnectionResetError(),
        # What a loop says of a transport that was closed under a driver's hands; it is no error of a database.
        RuntimeError("unable to perform operation; the handler is closed"),
        asyncpg.InternalClientError("unexpected"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_no_kind_of_trouble_lets_a_verdict_be_told_unrecorded(error: Exception) -> None:
    """The row knows before the mailer does: otherwise a kill in between would leave it `refused` after a 250."""
    results = Failing(error)
    forwarder = Forwarder(Accepting(), results)
    outcome = await forwarder.forward(1, 1, LETTER, dotted=lambda: None)
    assert isinstance(outcome, Verdict)
    assert [settlement.status for settlement in results.kept] == ["sent"]
    await forwarder.close(patience=1)


async def test_a_value_that_can_never_be_stored_is_an_error() -> None:
    """To try it again would be to try it for ever."""
    forwarder = Forwarder(Accepting(), Failing(asyncpg.DataError("no")))
    with pytest.raises(asyncpg.DataError):
        async with asyncio.timeout(5):
            await forwarder.forward(1, 1, LETTER, dotted=lambda: None)
    await forwarder.close(patience=1)
