"""Providers' events in: authenticate, parse, keep, answer. 2xx only when everything in the request is durable.

A provider that is unknown and one that nothing proves look alike. What a provider's file cannot foresee is a fault of
ours, never a refusal: the provider then sends it again. No query, header or body of a request is ever logged.
"""

import asyncio
import time
from collections import Counter as Tally
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec
import structlog
from aiohttp import web
from prometheus_client import Counter

from providers.notice import Notice, encode_notice
from providers.webhook import Answer, DeniedError, MalformedError, Parsed, Proven, Provider, Request, Trust
from tracker.bodies import SMALL, Bodies
from tracker.documents import AGAIN_SECONDS, Documents
from tracker.fetch import DocumentError
from tracker.keep import BufferUnavailableError
from tracker.once import Once, Word
from tracker.outcome import Outcome, RefusedError, refusal
from tracker.pages import BASE_HEADERS, Page, page
from tracker.segment import MAX_PAYLOAD

log = structlog.get_logger()

REQUESTS = Counter("outrider_webhook_requests", "Providers' requests, by what became of them.", ["provider", "answer"])
EVENTS = Counter("outrider_webhook_events", "Events that providers reported and that were kept.", ["provider", "type"])

PATH = "/webhooks/"

_MAX_DOCUMENTS = 3
_MAX_PARAMETERS = 50
# Octets of all notices of a request: each carries its own part of the body, and a little more.
_MAX_KEPT = 32 * 1024 * 1024
_MAX_NAMES = 8

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")


class NoticeBuffer(Protocol):
    """Where notices wait for the courier."""

    async def append_notices(self, notices: Sequence[bytes]) -> None:
        """Return once all of *notices*, encoded, are durable; raise `BufferUnavailableError` when they are not."""
        ...


class _Door(msgspec.Struct, frozen=True):
    provider: Provider
    trust: Trust


class _Read(msgspec.Struct, frozen=True):
    parsed: Parsed
    encoded: list[bytes]


class Webhooks:
    """`/webhooks/{provider}` of every provider that can be proved; `close` it at the end."""

    def __init__(
        self,
        doors: Mapping[str, _Door],
        *,
        buffer: NoticeBuffer,
        once: Once,
        documents: Documents,
        bodies: Bodies,
        clock: Callable[[], float],
        bases: Sequence[str],
    ) -> None:
        self._doors = doors
        self._buffer = buffer
        self._once = once
        self._documents = documents
        self._bodies = bodies
        self._clock = clock
        # One: however many large requests come, the loop shares the interpreter with no more than this.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="webhooks")
        self.routes = [web.route("*", base + PATH + "{provider}", self.__call__) for base in bases]

    async def __call__(self, request: web.Request) -> web.Response:
        """Answer one request, whatever its method."""
        door = self._doors.get(request.rel_url.raw_path.rpartition("/")[2])
        if door is None:
            return page(request, Page.UNKNOWN, 404)
        name = door.provider.name
        try:
            outcome, response = await self._answer(door, request)
        except RefusedError as refused:
            outcome, response = refused.outcome, refusal(refused.outcome)
        except DeniedError:
            outcome, response = Outcome.UNAUTHENTIC, refusal(Outcome.UNAUTHENTIC)
        except MalformedError:
            outcome, response = Outcome.MALFORMED, refusal(Outcome.MALFORMED)
        # A bug in a provider's file, most likely. Its words may hold an address, so that only its type is told.
        except Exception as error:  # noqa: BLE001
            log.error("webhook_failed", provider=name, error=type(error).__name__)  # noqa: TRY400
            outcome, response = Outcome.FAILED, refusal(Outcome.FAILED)
        REQUESTS.labels(name, outcome).inc()
        return response

    async def close(self) -> None:
        """End the thread of the large requests."""
        self._thread.shutdown(cancel_futures=True)

    async def _answer(self, door: _Door, request: web.Request) -> tuple[Outcome, web.Response]:
        if request.method == "HEAD":
            return Outcome.PROBED, _response(Answer())
        if request.method in {"GET", "OPTIONS"}:
            return Outcome.PROBED, _response(_probed(door, request))
        if request.method != "POST":
            raise RefusedError(Outcome.METHOD)
        async with self._bodies.read(request) as body:
            return await self._record(door, _asked(request, body))

    async def _record(self, door: _Door, request: Request) -> tuple[Outcome, web.Response]:
        proven = await self._proven(door, request)
        if not proven.once:
            return await self._keep(door, request)
        async with self._once.spend(door.provider.name, proven.once) as known:
            match known:
                case Word.FREE:
                    return await self._keep(door, request)
                case Word.HELD:
                    raise RefusedError(Outcome.BUSY)
                case Word.BURNT:
                    return Outcome.REPEATED, _response(Answer())

    async def _keep(self, door: _Door, request: Request) -> tuple[Outcome, web.Response]:
        name = door.provider.name
        read = await self._run(len(request.body), _read, door.provider, request, self._clock())
        if read.encoded:
            try:
                await self._buffer.append_notices(read.encoded)
            except BufferUnavailableError:
                raise RefusedError(Outcome.NOT_KEPT) from None
        for what, count in Tally(notice.what for notice in read.parsed.notices).items():
            EVENTS.labels(name, what).inc(count)
        if read.parsed.visit:
            self._documents.visit(read.parsed.visit, name)
        return Outcome.RECORDED, _response(read.parsed.answer or Answer())

    async def _proven(self, door: _Door, request: Request) -> Proven:
        """Return what proves the request, fetching what the proof needs; raise `DeniedError` or `RefusedError`."""
        documents: dict[str, bytes] = {}
        now = self._clock()
        while len(documents) <= _MAX_DOCUMENTS:
            try:
                verdict = await self._run(
                    len(request.body), door.provider.authenticate, request, door.trust, now, documents
                )
                if isinstance(verdict, Proven):
                    return verdict
                if verdict.url in documents:
                    break
                documents[verdict.url] = await self._documents.get(verdict.url)
            except DeniedError:
                if not await self._renewed(documents):
                    raise
            except DocumentError:
                raise RefusedError(Outcome.UNPROVABLE) from None
        raise LookupError("the proof asks for documents without end")

    async def _renewed(self, documents: dict[str, bytes]) -> bool:
        """Ask again for documents that proved nothing: a key may have been changed; say whether one is another now."""
        before = dict(documents)
        for url in before:
            documents[url] = await self._documents.get(url, older_than=AGAIN_SECONDS)
        return documents != before

    async def _run(
        self, octets: int, work: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Result:
        """Do what takes long with a large body in the thread: pixels are answered meanwhile."""
        if octets <= SMALL:
            return work(*arguments, **named)
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(*arguments, **named))


def make_webhooks(
    *,
    providers: Mapping[str, Provider],
    trust: Callable[[str], Trust],
    buffer: NoticeBuffer,
    once: Once,
    documents: Documents,
    bodies: Bodies | None = None,
    clock: Callable[[], float] = time.time,
    public_url: str = "",
) -> Webhooks:
    """Return the webhooks of those of *providers* that what *trust* says of them can prove; the rest do not exist.

    Where *public_url* has a path, they answer under it too. *clock* counts seconds since 1970.
    """
    doors = {name: _Door(one, trust(name)) for name, one in providers.items() if one.configured(trust(name))}
    return Webhooks(
        doors,
        buffer=buffer,
        once=once,
        documents=documents,
        bodies=bodies or Bodies(),
        clock=clock,
        bases=list(dict.fromkeys(("", urlsplit(public_url).path.rstrip("/")))),
    )


def _probed(door: _Door, request: web.Request) -> Answer:
    answer = door.provider.probe(_asked(request, b""), door.trust)
    if answer is None:
        raise RefusedError(Outcome.METHOD)
    return answer


def _asked(request: web.Request, body: bytes) -> Request:
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        known = headers.get(name.lower())
        headers[name.lower()] = value if known is None else f"{known}, {value}"
    query: dict[str, str] = {}
    for pair in request.rel_url.raw_query_string.split("&", _MAX_PARAMETERS)[:_MAX_PARAMETERS]:
        name, _, value = pair.partition("=")
        # A plus sign is one: secrets in base64 are put into URLs as they are.
        query.setdefault(unquote(name), unquote(value))
    return Request(method=request.method, headers=headers, query=query, body=body)


def _read(provider: Provider, request: Request, now: float) -> _Read:
    parsed = provider.parse(request)
    arrived = round(now * 1000)
    encoded: list[bytes] = []
    octets = 0
    for notice in parsed.notices:
        dated = notice if notice.at_ms is not None else msgspec.structs.replace(notice, at_ms=arrived)
        encoded.append(_fitted(dated))
        octets += len(encoded[-1])
        if octets > _MAX_KEPT:
            raise RefusedError(Outcome.TOO_LARGE)
    return _Read(parsed, encoded)


def _fitted(notice: Notice) -> bytes:
    """Return the notice as it travels; one that is too long loses what nothing is decided by."""
    encoded = encode_notice(notice)
    if len(encoded) <= MAX_PAYLOAD:
        return encoded
    bare = msgspec.structs.replace(notice, raw=b"", tags=(), metadata={}, names=notice.names[:_MAX_NAMES])
    encoded = encode_notice(bare)
    if len(encoded) > MAX_PAYLOAD:
        raise MalformedError("an event is too long")
    return encoded


def _response(answer: Answer) -> web.Response:
    headers = {**BASE_HEADERS, **answer.headers, "Content-Type": answer.content_type}
    return web.Response(status=answer.status, body=answer.body, headers=headers)
