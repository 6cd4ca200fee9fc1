"""The SMTP session: which command may come when, and what it is answered (RFC 5321 4.1, 4.3).

A command's method returns its reply and the loop alone sends it, so that every command gets exactly one. An error of
ours is `451 4.3.0`; a fault of the client is counted, and ten of them end the session.
"""

import asyncio
import ipaddress
import re
from datetime import UTC, datetime

import structlog
from aiosmtpd.proxy_protocol import get_proxy
from aiosmtpd.smtp import Envelope

from relay import auth, replies
from relay.channel import Channel
from relay.commands import read_mail, read_rcpt
from relay.intake import DEFAULT_SOURCE, Submission, protocol_word
from relay.reader import DataReader
from relay.reception import Reception
from relay.replies import Reply
from relay.spool import THRESHOLD, Spool

log = structlog.get_logger()

_HTTP_VERBS = frozenset(
    {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI"}
)
_UNSAFE_IN_HELO = re.compile(r"[^A-Za-z0-9.:_\[\]-]")
_HELO_CHARS = 255
# A proxy speaks before anybody else does.
_INTRODUCTION_SECONDS = 5.0


class Transaction(Envelope):
    """aiosmtpd's envelope, told apart from no envelope, and with its recipients once each."""

    def __init__(self) -> None:
        super().__init__()
        self.recipients: dict[str, None] = {}
        self.eight_bit = False
        self.asked = 0

    @property
    def open(self) -> bool:
        """Whether a MAIL command was accepted; the null sender is a sender."""
        return self.mail_from is not None


class OutriderSMTP(Channel):
    """One session with one client."""

    def __init__(self, reception: Reception) -> None:
        super().__init__(reception)
        self._transaction = Transaction()
        self._ending = False
        self._helo = ""
        self._extended = False
        self._user: str | None = None
        self._errors = 0
        self._junk = 0
        self._auth_failures = 0

    async def _handle_client(self) -> None:
        try:
            if self.reception.is_proxy(self.client) and not self.encrypted and not await self._introduced():
                self.abort()
                return
            if self._refusal is not None:
                self.dismiss(self._refusal)
                return
            await self.answer(Reply(220, "", f"{self.hostname} ESMTP"))
            while not self.gone:
                await self._one_command()
        except ConnectionError:
            pass  # The client is gone, and so is everybody who could be answered.
        except Exception as error:  # noqa: BLE001 - a session must not end without a word
            log.error("session_failed", error=type(error).__name__)  # noqa: TRY400 - its text stays out of the log
            self.throw_out(replies.LOCAL_ERROR)
        finally:
            self.hang_up()

    async def _introduced(self) -> bool:
        """Learn from a proxy in front of us who the client is; false when it says nothing that can be read."""
        self.start_timer(_INTRODUCTION_SECONDS)
        try:
            said = await get_proxy(self._reader)
        except (ConnectionError, ValueError, LookupError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return False
        if not said.valid or self.gone:
            return False
        # Without an address it speaks for itself: its own health check.
        if isinstance(said.src_addr, ipaddress.IPv4Address | ipaddress.IPv6Address):
            self.stands_for(str(said.src_addr))
        return True

    async def _one_command(self) -> None:
        if self.reception.draining and not self._transaction.open:
            self.dismiss(replies.SHUTTING_DOWN)
            return
        self.start_timer(self.reception.settings.idle_timeout)
        self.interruptible = not self._transaction.open
        line = await self.read_line()
        self.interruptible = False
        if line is None:
            self.hang_up()
            return
        reply = self._fault(line) if isinstance(line, Reply) else await self._obeyed(line)
        if reply is None:
            return
        if reply == replies.BYE:
            self.dismiss(reply)
        elif self._ending or reply.code == 421:
            self.throw_out(reply)
        else:
            await self.answer(reply)

    async def _obeyed(self, line: bytes) -> Reply | None:
        verb, _, argument = line.partition(b" ")
        try:
            return await self._command(verb.upper(), argument.strip(b" "))
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - any error of ours is temporary
            log.error("command_failed", error=type(error).__name__)  # noqa: TRY400 - its text stays out of the log
            self._reset()
            return replies.LOCAL_ERROR

    async def _command(self, verb: bytes, argument: bytes) -> Reply | None:
        match verb:
            case b"MAIL":
                return self._mail(argument)
            case b"RCPT":
                return await self._rcpt(argument)
            case b"DATA":
                return await self._data(argument)
            case b"RSET":
                self._reset()
                return self._idle_talk(replies.OK)
            case b"EHLO" | b"HELO":
                return self._hello(argument, extended=verb == b"EHLO")
            case b"STARTTLS":
                return await self._starttls(argument)
            case b"AUTH":
                return await self._auth(argument)
        return self._small_talk(verb)

    def _small_talk(self, verb: bytes) -> Reply:
        match verb:
            case b"NOOP":
                return self._idle_talk(replies.OK)
            case b"VRFY":
                return self._idle_talk(replies.CANNOT_VERIFY)
            case b"HELP":
                return self._idle_talk(replies.HELP)
            case b"QUIT":
                self._ending = True
                return replies.BYE
            case b"BDAT":
                # Its chunk follows at once and must not be read as commands (RFC 3030 2).
                self._ending = True
                return replies.NOT_IMPLEMENTED
            case b"EXPN" | b"TURN" | b"ETRN" | b"XCLIENT" | b"XFORWARD":
                return self._fault(replies.NOT_IMPLEMENTED)
        if verb in _HTTP_VERBS:
            # A browser made to post a mail sends commands in its body (cross-protocol scripting).
            self._ending = True
            return replies.NOT_HTTP
        return self._fault(replies.UNKNOWN_COMMAND)

    def _fault(self, reply: Reply) -> Reply:
        self._errors += 1
        return reply if self._errors <= self.reception.settings.max_errors else replies.TOO_MANY_ERRORS

    def _idle_talk(self, reply: Reply) -> Reply:
        self._junk += 1
        return reply if self._junk <= self.reception.settings.max_junk else replies.TOO_MUCH_JUNK

    def _reset(self) -> None:
        self._transaction = Transaction()

    def _hello(self, argument: bytes, *, extended: bool) -> Reply:
        if not argument:
            return self._fault(replies.BAD_ARGUMENTS)
        # Some mailers say a computer's name in their own charset; what we show of it is safe in a Received line.
        self._helo = _UNSAFE_IN_HELO.sub("?", argument.decode("ascii", "replace"))[:_HELO_CHARS]
        self._extended = extended
        self._reset()
        offer = self._offer() if extended else (self.hostname,)
        return self._idle_talk(Reply(250, "", "\n".join(offer)))

    def _offer(self) -> list[str]:
        settings = self.reception.settings
        offer = [self.hostname, f"SIZE {settings.max_bytes}", "8BITMIME", "SMTPUTF8"]
        offer += ["PIPELINING", "ENHANCEDSTATUSCODES"]
        if settings.tls is not None and not self.encrypted:
            offer.append("STARTTLS")
        if self._may_authenticate and self._user is None:
            offer.append(f"AUTH {' '.join(auth.MECHANISMS)}")
        return offer

    @property
    def _may_authenticate(self) -> bool:
        return self.reception.gate is not None and (self.encrypted or self.on_this_machine)

    def _mail(self, argument: bytes) -> Reply:
        if not self._helo:
            return self._fault(replies.HELLO_FIRST)
        if self._transaction.open:
            return self._fault(replies.NESTED_MAIL)
        if self._user is None and not self.trusted:
            offered = self.reception.gate is not None
            return self._fault(replies.AUTHENTICATION_REQUIRED if offered else replies.RELAYING_DENIED)
        sender = read_mail(argument, extended=self._extended, max_bytes=self.reception.settings.max_bytes)
        if isinstance(sender, Reply):
            return self._fault(sender)
        self._transaction.mail_from = sender.address
        self._transaction.smtp_utf8 = sender.smtputf8
        self._transaction.eight_bit = sender.eight_bit
        return replies.SENDER_OK

    async def _rcpt(self, argument: bytes) -> Reply:
        transaction = self._transaction
        if not transaction.open:
            return self._fault(replies.MAIL_FIRST if self._helo else replies.HELLO_FIRST)
        transaction.asked += 1
        recipient = read_rcpt(argument, extended=self._extended, utf8=transaction.smtp_utf8)
        if isinstance(recipient, Reply):
            return self._fault(recipient)
        if recipient in transaction.recipients:
            return self._idle_talk(replies.RECIPIENT_OK)
        limit = self.reception.settings.max_recipients
        if len(transaction.recipients) >= limit:
            # A client may well send them all before it reads an answer; only one that goes on and on is at fault.
            overshot = transaction.asked > 2 * limit
            return self._fault(replies.TOO_MANY_RECIPIENTS) if overshot else replies.TOO_MANY_RECIPIENTS
        unwanted = self.reception.settings.unwanted
        if unwanted is not None and await unwanted(self._user or DEFAULT_SOURCE, recipient):
            return replies.UNWANTED
        transaction.recipients[recipient] = None
        return replies.RECIPIENT_OK

    async def _data(self, argument: bytes) -> Reply | None:
        transaction = self._transaction
        if not transaction.open:
            return self._fault(replies.MAIL_FIRST if self._helo else replies.HELLO_FIRST)
        if not transaction.recipients:
            return self._fault(replies.NO_VALID_RECIPIENT if transaction.asked else replies.RECIPIENT_FIRST)
        if argument:
            return self._fault(replies.BAD_ARGUMENTS)
        await self.answer(replies.START_DATA)
        reader = await self._content()
        if reader is None:
            return None
        if isinstance(reader, Reply):
            self._reset()
            return reader
        # The pipeline's time is not the client's: no timer runs while it works.
        self._stop_timer()
        reply = await self._decided(reader)
        self.start_timer(self.reception.settings.idle_timeout)
        self._reset()
        if reply.outcome == "accepted":
            self._errors = self._junk = 0
        return reply

    async def _decided(self, reader: DataReader) -> Reply:
        """Have a content decided that has come to its end; large ones only so many at a time."""
        if reader.octets <= THRESHOLD:
            content = reader.result()
            return content if isinstance(content, Reply) else await self.reception.accept(self._submission(content))
        async with self.reception.budget.of(reader.octets):
            content = await asyncio.to_thread(reader.result)
            return content if isinstance(content, Reply) else await self.reception.accept(self._submission(content))

    async def _content(self) -> DataReader | Reply | None:
        """Read up to the final dot: its reader, the reply that ends the session, or None when the client has gone."""
        settings = self.reception.settings
        held = Spool(settings.spool)
        reader = DataReader(
            held, max_bytes=settings.max_bytes, max_received=settings.loop_limit, hostname=settings.hostname
        )
        came: DataReader | Reply | None = None
        try:
            came = await self._fed(reader)
        finally:
            if came is not reader:
                held.clear()
        return came

    async def _fed(self, reader: DataReader) -> DataReader | Reply | None:
        settings = self.reception.settings
        deadline = self.loop.time() + settings.data_timeout
        while True:
            self.start_timer(max(min(settings.idle_timeout, deadline - self.loop.time()), 0.001))
            block = await self.read_block()
            if not block:
                self.hang_up()
                return None
            used = reader.feed(block)
            if used is not None:
                self.put_back(block[used:])
                return reader
            if reader.hopeless:
                self._ending = True
                return replies.TOO_BIG
            if reader.octets > THRESHOLD:
                await self.reception.turns.end()

    def _submission(self, content: bytes) -> Submission:
        transaction = self._transaction
        return Submission(
            sender=transaction.mail_from or "",
            recipients=tuple(transaction.recipients),
            content=content,
            source=self._user or DEFAULT_SOURCE,
            client=self.client,
            helo=self._helo,
            protocol=protocol_word(
                extended=self._extended,
                utf8=transaction.smtp_utf8,
                tls=self.encrypted,
                authenticated=self._user is not None,
            ),
            smtputf8=transaction.smtp_utf8,
            eight_bit=transaction.eight_bit,
            received_at=datetime.now(UTC),
        )

    async def _starttls(self, argument: bytes) -> Reply | None:
        context = self.reception.settings.tls
        if context is None or self.encrypted:
            return self._fault(replies.TLS_UNAVAILABLE if context is None else replies.TLS_ALREADY)
        if argument:
            return self._fault(replies.BAD_ARGUMENTS)
        await self.answer(replies.START_TLS)
        try:
            await self.encrypt(context)
        except OSError:
            self.abort()
            return None
        # RFC 3207 4.2: what was said in plain text was never said.
        self._reset()
        self._helo, self._extended, self._user = "", False, None
        return None

    async def _auth(self, argument: bytes) -> Reply:
        gate = self.reception.gate
        if gate is None or not self._extended:
            return self._fault(replies.NOT_IMPLEMENTED if gate is None else replies.HELLO_FIRST)
        if not self._may_authenticate:
            return self._fault(replies.ENCRYPTION_REQUIRED)
        if self._user is not None or self._transaction.open:
            in_use = self._user is not None
            return self._fault(replies.AUTHENTICATED_ALREADY if in_use else replies.AUTH_IN_TRANSACTION)
        if self.reception.lockout.holds(self.client, self.loop.time()):
            return replies.TOO_MANY_FAILURES
        credentials = await auth.exchange(argument, self._ask)
        if isinstance(credentials, Reply) and credentials != replies.BAD_CREDENTIALS:
            return self._fault(credentials)
        if isinstance(credentials, auth.Credentials) and await gate.admits(credentials):
            self._user = credentials.user
            return replies.AUTHENTICATED
        return await self._rejected()

    async def _rejected(self) -> Reply:
        self._auth_failures += 1
        self.reception.lockout.count(self.client, self.loop.time())
        await asyncio.sleep(self.reception.settings.auth_delay)
        if self._auth_failures >= self.reception.settings.max_auth_failures:
            return replies.TOO_MANY_FAILURES
        return replies.BAD_CREDENTIALS

    async def _ask(self, challenge: bytes) -> bytes | Reply:
        await self.answer(Reply(334, "", challenge.decode("ascii")))
        self.start_timer(self.reception.settings.idle_timeout)
        line = await self.read_line()
        if line is None:
            raise ConnectionResetError
        return line
