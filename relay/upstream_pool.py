"""Keep connections to one upstream: so many at once, each for a while and for some messages.

A connection is used again without a word when it was used a moment ago, asked first when it has been idle, and cut
whenever its state is unknown.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator

import aiosmtplib
import msgspec
import structlog
from prometheus_client import Gauge

from relay.rendering import BUDGET
from relay.upstream import ATTEMPTS, BeforeDot, Letter, Outcome, Trouble, Verdict, label_of
from relay.upstream_address import UpstreamAddress
from relay.upstream_connection import Connector
from relay.upstream_conversation import COMMAND_SECONDS, converse

log = structlog.get_logger()

CONNECTIONS = Gauge("outrider_upstream_connections", "Open connections to the upstreams.", multiprocess_mode="livesum")

# Seconds that an upstream has to answer QUIT.
_QUIT_SECONDS = 5.0


class PooledLine:
    """One connection with what the pool must know of it."""

    def __init__(self, client: aiosmtplib.SMTP, connector: Connector) -> None:
        self._connector = connector
        self.client = client
        self.dirty = False
        self._began()

    def _began(self) -> None:
        CONNECTIONS.inc()
        self._open = True
        self.opened = self.used = time.monotonic()
        self.messages = 0
        self.dirty = False

    @property
    def reused(self) -> bool:
        """It carried a message before."""
        return self.messages > 0

    async def renew(self) -> Trouble | None:
        """Open another connection in its place."""
        self.cut()
        client = await self._connector.open()
        if isinstance(client, Trouble):
            return client
        self.client = client
        self._began()
        return None

    async def is_alive(self) -> bool:
        """Ask the upstream, which also ends what was begun and not ended."""
        try:
            reply = await self.client.execute_command(b"RSET", timeout=COMMAND_SECONDS)
        except (aiosmtplib.SMTPException, OSError):
            return False
        self.dirty = False
        return reply.code == 250

    async def take_leave(self) -> None:
        """Say QUIT, and hang up."""
        try:
            with contextlib.suppress(aiosmtplib.SMTPException, OSError):
                await self.client.quit(timeout=_QUIT_SECONDS)
        finally:
            self.cut()

    def cut(self) -> None:
        """Hang up; twice is once."""
        if self._open:
            self._open = False
            CONNECTIONS.dec()
            self.client.close()


class SmtpUpstream:
    """A pool of connections to one upstream; at most *connections* at once, each for a while and some messages."""

    def __init__(
        self,
        address: UpstreamAddress,
        *,
        hostname: str,
        connections: int = 20,
        max_messages: int = 200,
        max_seconds: float = 300.0,
        idle_seconds: float = 30.0,
        sure_seconds: float = 2.0,
        tls: ssl.SSLContext | None = None,
        connector: Connector | None = None,
    ) -> None:
        self._address = address
        self._provider = address.provider
        self._connector = connector or Connector(address, hostname=hostname, tls=tls)
        self._slots = asyncio.Semaphore(connections)
        self._idle: list[PooledLine] = []
        self._partings: set[asyncio.Task[None]] = set()
        self._max_messages = max_messages
        self._max_seconds = max_seconds
        #: Seconds after which an idle connection is not used again, and up to which it is used without asking.
        self._idle_seconds = idle_seconds
        self._sure_seconds = sure_seconds

    @property
    def name(self) -> str:
        """The upstream's name in the ledger and in logs."""
        return self._address.name

    async def send(self, letter: Letter, before_dot: BeforeDot) -> Outcome:
        """Offer *letter*; *before_dot* is awaited after the upstream said 354 and before a byte of content leaves."""
        doubtful = False
        provider = self._provider

        async def mark() -> None:
            nonlocal doubtful
            await before_dot()
            doubtful = True

        outcome: Outcome
        try:
            # Its room first: a large letter that waits for some keeps no connection from the others.
            async with BUDGET.share(letter.size) as share, self._line() as line:
                outcome = line if isinstance(line, Trouble) else await converse(line, letter, mark, share, provider)
        except aiosmtplib.SMTPResponseException as error:
            outcome = Trouble(reason="reply", reply=f"{error.code} {error.message}", doubtful=doubtful, unwell=True)
        except (aiosmtplib.SMTPTimeoutError, TimeoutError):
            outcome = Trouble(reason="timeout", doubtful=doubtful, unwell=True)
        except ssl.SSLError:
            outcome = Trouble(reason="tls", doubtful=doubtful, unwell=True)
        except (aiosmtplib.SMTPException, OSError):
            outcome = Trouble(reason="lost", doubtful=doubtful, unwell=True)
        ATTEMPTS.labels(label_of(outcome)).inc()
        return msgspec.structs.replace(outcome, provider=provider) if isinstance(outcome, Verdict) else outcome

    async def close(self) -> None:
        """Say QUIT on every idle connection, and wait until each is closed."""
        while self._idle:
            self._part(self._idle.pop())
        if self._partings:
            await asyncio.wait(self._partings)

    @contextlib.asynccontextmanager
    async def _line(self) -> AsyncIterator[PooledLine | Trouble]:
        async with self._slots:
            line = await self._take()
            if isinstance(line, Trouble):
                yield line
                return
            try:
                yield line
            except BaseException:
                # Whatever broke the conversation, its state is unknown.
                line.cut()
                raise
            line.messages += 1
            line.used = time.monotonic()
            if not line.client.is_connected:
                line.cut()
            elif self._is_fresh(line):
                self._idle.append(line)
            else:
                self._part(line)

    def _part(self, line: PooledLine) -> None:
        """Hang up in the background: the verdict does not wait for an answer to QUIT."""
        task = asyncio.create_task(line.take_leave())
        self._partings.add(task)
        task.add_done_callback(self._partings.discard)

    def _is_fresh(self, line: PooledLine) -> bool:
        return line.messages < self._max_messages and time.monotonic() - line.opened < self._max_seconds

    async def _take(self) -> PooledLine | Trouble:
        while self._idle:
            line = self._idle.pop()
            idle = time.monotonic() - line.used
            if not line.client.is_connected or idle > self._idle_seconds:
                line.cut()
            elif (not line.dirty and idle <= self._sure_seconds) or await self._answers(line):
                return line
        client = await self._connector.open()
        return client if isinstance(client, Trouble) else PooledLine(client, self._connector)

    async def _answers(self, line: PooledLine) -> bool:
        """Ask an idle connection; one that the upstream has closed says nothing about the upstream."""
        alive = False
        try:
            alive = await line.is_alive()
        finally:
            if not alive:
                line.cut()
        return alive
