"""A real SMTP server that plays the upstream: it keeps what it accepts and misbehaves on request."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A message that the sink accepted."""

    sender: str
    recipient: str
    content: bytes


class Sink:
    """Answers are chosen by functions, so that a test can change them while it runs."""

    def __init__(self) -> None:
        self.kept: list[Kept] = []
        self.connections = 0
        self.commands: list[str] = []
        self.port = 0
        #: Empty, here and in the others: the connection is closed without an answer.
        self.banner = "220 sink.example ESMTP"
        #: Verbs that are never answered; `CONNECT`: there is no banner.
        self.silent: set[str] = set()
        self.mail: Callable[[str], str] = lambda _: "250 2.1.0 Ok"
        self.rcpt: Callable[[str], str] = lambda _: "250 2.1.5 Ok"
        #: Empty: the connection is closed before the content is read.
        self.content = "354 Go"
        self.dot: Callable[[str], str] = lambda _: f"250 2.0.0 Ok: queued as SINK{len(self.kept)}X"
        #: Awaited after the final dot and before its answer.
        self.gate: asyncio.Event | None = None
        self.dots = asyncio.Semaphore(0)
        #: The recipients of the contents that arrived, accepted or not.
        self.dotted: list[str] = []
        #: Awaited with a recipient before it is answered, and again with its content after the final dot.
        self.witness: Callable[[str, bytes | None], Awaitable[None]] | None = None
        #: It says 354 also when there is no recipient, and takes a recipient without a sender.
        self.careless = False
        #: How often a content was taken for nobody.
        self.for_nobody = 0
        self.extensions = ["SIZE 52428800", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"]
        self.tls: ssl.SSLContext | None = None
        self.auth = "235 2.7.0 Ok"
        self.auth_methods = "PLAIN LOGIN"
        self._sessions: set[asyncio.Task[None]] = set()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._sessions.add(task)
        self.connections += 1
        try:
            await self._talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._sessions.discard(task)
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(line: str) -> None:
            writer.write(line.encode() + b"\r\n")

        sender, recipient = None, ""
        if "CONNECT" in self.silent:
            await reader.read()
        if not self.banner:
            return
        say(self.banner)
        while line := (await reader.readline()).decode("utf-8", "replace").rstrip("\r\n"):
            self.commands.append(line)
            verb = line.upper()
            if verb[:4] in self.silent:
                await reader.read()
            elif verb.startswith("EHLO"):
                lines = ["sink.example", *self.extensions]
                if self.tls is not None and writer.get_extra_info("ssl_object") is None:
                    lines.append("STARTTLS")
                else:
                    lines.append(f"AUTH {self.auth_methods}")
                for one in lines[:-1]:
                    say(f"250-{one}")
                say(f"250 {lines[-1]}")
            elif verb == "STARTTLS":
                say("220 Go")
                await writer.drain()
                assert self.tls is not None
                await writer.start_tls(self.tls)
            elif verb.startswith("AUTH"):
                if verb == "AUTH LOGIN" or verb.startswith("AUTH LOGIN "):
                    for _ in range(1 + (verb == "AUTH LOGIN")):
                        say("334 VXNlcg==")
                        await writer.drain()
                        self.commands.append((await reader.readline()).decode().strip())
                say(self.auth)
            elif verb.startswith("MAIL"):
                sender, recipient = line[line.index("<") + 1 : line.index(">")], ""
                if not (answer := self.mail(sender)):
                    return
                say(answer)
                sender = sender if answer.startswith("2") else None
            elif verb.startswith("RCPT") and sender is None and not self.careless:
                say("503 5.5.1 MAIL first")
            elif verb.startswith("RCPT"):
                recipient = line[line.index("<") + 1 : line.rindex(">")]
                if self.witness is not None:
                    await self.witness(recipient, None)
                if not (answer := self.rcpt(recipient)):
                    return
                say(answer)
                recipient = recipient if answer.startswith("2") else ""
            elif verb == "DATA" and not recipient and not self.careless:
                say("554 5.5.1 No valid recipients")
            elif verb == "DATA":
                if not self.content:
                    return
                say(self.content)
                await writer.drain()
                if not self.content.startswith("3"):
                    continue
                raw = await _content(reader)
                if not recipient:
                    self.for_nobody += 1
                    say("250 2.0.0 Ok, thrown away")
                    await writer.drain()
                    continue
                self.dotted.append(recipient)
                self.dots.release()
                if self.gate is not None:
                    await self.gate.wait()
                content = (
                    raw.replace(b"\r\n..", b"\r\n.").removeprefix(b".")
                    if raw[:2] == b".."
                    else raw.replace(b"\r\n..", b"\r\n.")
                )
                if self.witness is not None:
                    await self.witness(recipient, content)
                answer = self.dot(recipient)
                if not answer:
                    return
                if answer.startswith("2"):
                    self.kept.append(Kept(sender=sender or "", recipient=recipient, content=content))
                say(answer)
            elif verb == "QUIT":
                say("221 2.0.0 Bye")
                await writer.drain()
                return
            else:
                say("250 2.0.0 Ok")
            await writer.drain()

    async def close(self) -> None:
        for task in list(self._sessions):
            task.cancel()
        if self._sessions:
            await asyncio.wait(self._sessions)

    @asynccontextmanager
    async def listening(self, port: int = 0, *, implicit_tls: bool = False) -> AsyncIterator["Sink"]:
        server = await asyncio.start_server(
            self._session, "127.0.0.1", port, limit=2**26, ssl=self.tls if implicit_tls else None
        )
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await self.close()
            await server.wait_closed()


async def _content(reader: asyncio.StreamReader) -> bytes:
    """Read what follows a 354, without the final dot."""
    first = await reader.readline()
    if first == b".\r\n":
        return b""
    rest = bytearray(first)
    while not rest.endswith(b"\r\n.\r\n"):
        rest += await reader.readuntil(b".\r\n")
    return bytes(rest[:-3])
