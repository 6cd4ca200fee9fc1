"""A verdict is recorded before anybody hears it, whatever goes wrong with the recording for a moment."""

import asyncio

import asyncpg
import msgspec
import pytest
from structlog.testing import capture_logs

from ledger.ids import alias_digest
from ledger.mail_rows import Settlement
from providers.webhook import Provider
from relay.forward import Forwarder
from relay.upstream import BeforeDot, Letter, Outcome, Verdict
from tests.vendors import TAGS

LETTER = Letter(
    key="k" * 26,
    sender="shop@example.com",
    recipient="ann@example.net",
    smtputf8=False,
    size=2,
    render=lambda _: b"\r\n",
)


class Accepting:
    """An upstream that takes everything, and says *text*."""

    name = "example"

    def __init__(self, text: str = "2.0.0 Ok", provider: Provider | None = None) -> None:
        self._verdict = Verdict(code=250, text=text, provider=provider)

    async def send(self, letter: Letter, before_dot: BeforeDot) -> Outcome:
        """Accept *letter*."""
        await before_dot()
        letter.render(None)
        return self._verdict

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


class Hanging(Failing):
    """Results that are kept when *answering* is set, and not before."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__(*errors)
        self.asked = asyncio.Event()
        self.answering = asyncio.Event()

    async def settle(self, settlement: Settlement) -> bool:
        """Keep *settlement* in the end."""
        self.asked.set()
        await self.answering.wait()
        return await super().settle(settlement)


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


async def test_a_verdict_that_nobody_waits_for_any_more_is_recorded() -> None:
    """Called off while its record was under way, the message was sent all the same."""
    results = Hanging()
    forwarder = Forwarder(Accepting(), results)
    flight = asyncio.create_task(forwarder.forward(1, 1, LETTER, dotted=lambda: None))
    await results.asked.wait()
    flight.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flight
    results.answering.set()
    await forwarder.close(patience=10.0)
    assert [settlement.status for settlement in results.kept] == ["sent"]


async def test_who_closes_waits_for_a_verdict_that_is_being_recorded() -> None:
    """And for the second try where the first one fails."""
    results = Hanging(ConnectionResetError())
    forwarder = Forwarder(Accepting(), results)
    flight = asyncio.create_task(forwarder.forward(1, 1, LETTER, dotted=lambda: None))
    await results.asked.wait()
    closing = asyncio.create_task(forwarder.close(patience=10.0))
    results.answering.set()
    await closing
    assert len(results.kept) == 1
    assert isinstance(await flight, Verdict)


async def test_a_mailer_hears_the_verdict_although_the_ledger_hangs() -> None:
    """It is recorded when the ledger answers again."""
    results = Hanging()
    forwarder = Forwarder(Accepting(), results, settle_wait=0.01)
    assert isinstance(await forwarder.forward(1, 1, LETTER, dotted=lambda: None), Verdict)
    assert results.kept == []
    results.answering.set()
    await forwarder.close(patience=10.0)
    assert len(results.kept) == 1


async def test_a_value_that_can_never_be_stored_is_an_error() -> None:
    """To try it again would be to try it for ever."""
    forwarder = Forwarder(Accepting(), Failing(asyncpg.DataError("no")))
    with pytest.raises(asyncpg.DataError):
        async with asyncio.timeout(5):
            await forwarder.forward(1, 1, LETTER, dotted=lambda: None)
    await forwarder.close(patience=1)


@pytest.mark.parametrize(
    ("provider", "text", "named"),
    [
        (None, "2.0.0 Ok: queued as ABC1234", ("example", "ABC1234")),
        (None, "Taken as ABC1234", None),
        (TAGS, "Taken as ABC1234", ("tags", "ABC1234")),
        # What somebody else's words would mean is no business of a provider's.
        (TAGS, "2.0.0 Ok: queued as ABC1234", None),
    ],
)
async def test_the_reply_names_the_message_in_its_providers_words(
    provider: Provider | None, text: str, named: tuple[str, str] | None
) -> None:
    """The provider's events carry that id, whichever of its servers took the message."""
    results = Failing()
    forwarder = Forwarder(Accepting(text, provider), results)
    await forwarder.forward(1, 1, LETTER, dotted=lambda: None)
    assert [one.alias for one in results.kept] == [None if named is None else alias_digest("upstream", *named)]
    await forwarder.close(patience=1)


async def test_a_reply_that_cannot_be_read_loses_no_verdict() -> None:
    """The upstream has the message, whatever a provider's file makes of its words."""

    def fail(text: str) -> str | None:
        raise ValueError(text)

    results = Failing()
    forwarder = Forwarder(Accepting("Ok", msgspec.structs.replace(TAGS, reply_id=fail)), results)
    with capture_logs() as logs:
        await forwarder.forward(1, 1, LETTER, dotted=lambda: None)
    assert [(one.status, one.alias) for one in results.kept] == [("sent", None)]
    assert [(one["event"], one["error"]) for one in logs] == [("reply_not_read", "ValueError")]
    await forwarder.close(patience=1)
