"""The tracker's sockets: what is not HTTP, too long or too slow ends here, without a word of it in a log.

aiohttp bounds lines and headers, but it logs and echoes what broke them, tokens included, and waits for a slow header
as long as for the next request. This protocol of our own decides both.
"""

import asyncio
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import web
from prometheus_client import Counter

from tracker.lane import LANE, Asked, Lane
from tracker.pages import plain

log = structlog.get_logger()

BAD_REQUESTS = Counter("outrider_bad_requests", "Requests and connections that ended before any route saw them.")

#: Octets of one line: a URL with the longest token that we mint has about 2,200.
MAX_LINE = 8190
MAX_HEADERS = 64
#: Seconds from the first octet of a request, or from the connection, until its header must be complete.
HEADER_SECONDS = 10.0
#: An idle connection is kept longer than a proxy in front of us keeps its own (nginx: 60 s).
IDLE_SECONDS = 75.0
#: Seconds that requests in flight have when the tracker stops.
GRACE_SECONDS = 10.0

_LINGER_SECONDS = 2.0
_BACKLOG = 1024


class Conversation(web.RequestHandler):
    """One connection."""

    __slots__ = (
        "_answerer",
        "_asked",
        "_behind",
        "_closing",
        "_header_seconds",
        "_header_timer",
        "_lane",
        "_next",
        "_partial",
        "_peer",
        "_settled",
    )

    def __init__(
        self, server: web.Server, loop: asyncio.AbstractEventLoop, header_seconds: float, lane: Lane | None
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type] # None is how aiohttp spells "no access log"
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=_LINGER_SECONDS,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=MAX_HEADERS,
        )
        self._header_seconds = header_seconds
        self._header_timer: asyncio.TimerHandle | None = None
        self._lane = lane
        self._peer = ""
        # Half a request is with aiohttp.
        self._partial = False
        # The request that goes the short way now, and what came behind it.
        self._asked: Asked | None = None
        self._behind = b""
        # What answers such requests: one task for all of a connection, because a task costs as much as a token.
        self._answerer: asyncio.Task[None] | None = None
        self._next: asyncio.Future[None] | None = None
        self._settled: asyncio.Future[None] | None = None
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first header."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if isinstance(peer, tuple) else ""
        self._expect_header()

    def data_received(self, data: bytes) -> None:
        """Take what came in; the time of a header runs from its first octet, however slowly the rest comes."""
        if self._asked is not None:
            # One at a time, in their order: what comes behind waits, and so does its sender.
            self._behind += data
            self._pause_transport_reading()
            return
        if self._is_idle() and self._lane is not None and (asked := self._lane.read(data, self._peer)) is not None:
            self._header_came()
            self._stay()
            self._asked = asked
            if self._answerer is None:
                self._answerer = self._loop.create_task(self._answer(self._lane))
            elif self._next is not None:
                self._next.set_result(None)
            return
        before = self._request_count
        super().data_received(data)
        self._partial = self._request_count == before
        if self._request_count > before:
            self._header_came()
        elif self._header_timer is None and self._waiter is not None:
            self._expect_header()

    def close(self) -> None:
        """Close when what is being answered is answered."""
        if self._asked is None:
            super().close()
        self._closing = True

    async def shutdown(self, timeout: float | None = GRACE_SECONDS) -> None:  # noqa: ASYNC109 - aiohttp's signature
        """Answer what is being answered, within *timeout* seconds, and close."""
        if self._asked is not None:
            self._settled = self._loop.create_future()
            await asyncio.wait([self._settled], timeout=timeout)
        await super().shutdown(timeout)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the deadline, and answer no more."""
        self._header_came()
        super().connection_lost(exc)
        if self._next is not None and not self._next.done():
            self._next.set_result(None)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,  # noqa: ARG002 - aiohttp's signature; it may hold a token
        message: str | None = None,  # noqa: ARG002 - the same
    ) -> web.StreamResponse:
        """Answer with the status alone and close: what was sent is neither echoed nor logged."""
        if request.writer.output_size > 0:
            raise ConnectionError("half of an answer is on its way")
        BAD_REQUESTS.inc()
        response = plain(status, f"{status} {HTTPStatus(status).phrase}")
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the answer; one that aiohttp made before our routes (417) would echo the request."""
        if isinstance(resp, web.HTTPException):
            resp = plain(resp.status, f"{resp.status} {resp.reason}")
        return await super().finish_response(request, resp, start_time)

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ARG002 - aiohttp's texts may hold a path
        """Say that something went wrong, and of what type."""
        log.error("connection_failed", error=type(kw.get("exc_info")).__name__)

    def _is_idle(self) -> bool:
        """Whether aiohttp waits for the beginning of a request, and for nothing else."""
        return self._waiter is not None and not self._waiter.done() and not self._messages and not self._partial

    def _stay(self) -> None:
        """Keep the connection for as long as aiohttp would after an answer."""
        self._keepalive = True
        self._next_keepalive_close_time = self._loop.time() + IDLE_SECONDS
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)

    async def _answer(self, lane: Lane) -> None:
        """Answer what goes the short way, one request after the other, until the connection ends."""
        while self._asked is not None:
            await self._answer_one(lane, self._asked)
            self._asked = None
            if self._settled is not None and not self._settled.done():
                self._settled.set_result(None)
            if self._closing:
                super().close()
            elif self._behind and self.transport is not None:
                behind, self._behind = self._behind, b""
                self._resume_transport_reading()
                self.data_received(behind)
            if self._asked is None and self.transport is not None:
                self._next = self._loop.create_future()
                await self._next
                self._next = None

    async def _answer_one(self, lane: Lane, asked: Asked) -> None:
        try:
            octets = await lane.answer(asked)
            if self.transport is not None:
                self.transport.write(octets)
                # Whoever asks on without reading waits here.
                if self.writing_paused:
                    await self._drain_helper()
        except ConnectionError:
            self.force_close()

    def _expect_header(self) -> None:
        self._header_timer = self._loop.call_later(self._header_seconds, self._too_slow)

    def _header_came(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _too_slow(self) -> None:
        self._header_timer = None
        BAD_REQUESTS.inc()
        self.force_close()


class _Site(web.BaseSite):
    """One listening address whose connections are `Conversation`s."""

    def __init__(
        self,
        runner: web.AppRunner,
        host: str,
        port: int,
        *,
        lane: Lane | None,
        reuse_port: bool,
        header_seconds: float,
    ) -> None:
        super().__init__(runner, backlog=_BACKLOG)
        self._lane = lane
        self._host = host
        self._port = port
        self._reuse_port = reuse_port
        self._header_seconds = header_seconds

    @property
    def name(self) -> str:
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        await super().start()
        server = self._runner.server
        assert server is not None, "setup() stands before start()"  # noqa: S101 - tells mypy so
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Conversation(server, loop, self._header_seconds, self._lane),
            self._host,
            self._port,
            backlog=self._backlog,
            reuse_port=self._reuse_port or None,
        )


async def serve(
    app: web.Application, host: str, port: int, *, reuse_port: bool = False, header_seconds: float = HEADER_SECONDS
) -> web.AppRunner:
    """Listen on *host* and *port*; `runner.cleanup()` closes the door, finishes what came in, and returns.

    `runner.addresses` names the port that 0 became. Raises `OSError` when the address cannot be had.
    """
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=GRACE_SECONDS)
    await runner.setup()
    try:
        await _Site(
            runner, host, port, lane=app.get(LANE), reuse_port=reuse_port, header_seconds=header_seconds
        ).start()
    except BaseException:
        await runner.cleanup()
        raise
    return runner
