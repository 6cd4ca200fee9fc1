"""A stand-in for AMS: a JSON-RPC server on loopback that behaves like the real one, for the demo and the tests.

Like AMS it works through calls one at a time, answers the id "1" with 1, reports every trouble as -32603 inside HTTP
200, and counts a mailing's opens and clicks once per address. Its faults are switched on and off while it runs.
"""

import asyncio
from collections.abc import Collection, Sequence
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

import msgspec
from aiohttp import web

#: The one error code of AMS's manual.
INTERNAL_ERROR = -32603

#: What one call of AMS may hold.
MAX_ITEMS = 20_000

_MAX_BODY = 64 * 1024 * 1024


class Fault(StrEnum):
    """What goes wrong with every call while it is set."""

    NONE = "none"
    #: A login page with status 200, as a proxy in front of AMS gives it.
    HTML = "html"
    #: A redirect, as the same proxy gives it.
    REDIRECT = "redirect"
    #: HTTP 500 without JSON.
    BROKEN = "broken"
    #: A JSON-RPC error: somebody holds the mailing open in AMS's window.
    ERROR = "error"
    #: The connection is taken and nothing is ever said.
    SILENT = "silent"
    #: AMS takes the call; its answer is lost on the way.
    ANSWER_LOST = "answer_lost"
    #: A result, but that of another call.
    OTHER_ID = "other_id"


class ReceivedItem(msgspec.Struct, frozen=True):
    """One element of a call that was accepted."""

    mailing: int
    email: str
    url: str


class ReceivedCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call, accepted or not."""

    method: str
    id: str | int | None
    mailing: int | None
    items: int
    #: The body's octets.
    size: int
    #: What was wrong with AMS then.
    fault: Fault


class _CallError(Exception):
    """A call that AMS answers with an error."""


class StandinAms:
    """The server. Use it as `async with StandinAms(api_key=…) as ams`, or with `start` and `stop`.

    *mailings* are the ids that exist; none means all. *received* and *calls* keep everything, in order.
    """

    def __init__(self, *, api_key: str, mailings: Collection[int] | None = None) -> None:
        self.api_key = api_key
        self.mailings = mailings
        self.fault = Fault.NONE
        #: Addresses that AMS refuses: one of them makes it refuse the whole call.
        self.refused_addresses: set[str] = set()
        #: Mailings on which AMS never answers.
        self.silent_mailings: set[int] = set()
        self.received: list[ReceivedItem] = []
        self.calls: list[ReceivedCall] = []
        #: The most calls that were under way at once.
        self.most_in_flight = 0
        self._in_flight = 0
        self._one_at_a_time = asyncio.Lock()
        self._silence = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._port = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """The endpoint; it stays the same over `stop` and `start`."""
        return f"http://127.0.0.1:{self._port}/api/v1"

    async def start(self) -> None:
        """Listen on a free port of loopback, the same one again after `stop`."""
        self._silence.clear()
        app = web.Application(client_max_size=_MAX_BODY)
        app.router.add_post("/api/v1", self._answer)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening: connections are refused from now on."""
        self._silence.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def progress(self, mailing: int) -> dict[str, int]:
        """Return what AMS shows of a mailing: opens and clicks, each counted once per address."""
        items = [item for item in self.received if item.mailing == mailing]
        opened = {item.email for item in items if item.url == "open_trace"}
        clicked = {item.email for item in items if item.url.startswith(("http://", "https://"))}
        return {"opened": len(opened), "clicked": len(clicked)}

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            body = await request.read()
            async with self._one_at_a_time:
                return await self._serve(request, body)
        finally:
            self._in_flight -= 1

    async def _serve(self, request: web.Request, body: bytes) -> web.StreamResponse:
        call = msgspec.json.decode(body)
        method, params, call_id = call["method"], call["params"], call["id"]
        items = params.get("opensClicksData", [])
        mailing = params.get("mailingID")
        self.calls.append(
            ReceivedCall(method=method, id=call_id, mailing=mailing, items=len(items), size=len(body), fault=self.fault)
        )
        match self.fault:
            case Fault.HTML:
                return web.Response(text="<!doctype html><title>Log in</title>", content_type="text/html")
            case Fault.REDIRECT:
                return web.Response(status=302, headers={"Location": self.url})
            case Fault.BROKEN:
                return web.Response(status=500, text="Internal Server Error")
            case Fault.ERROR:
                return _reply(call_id, error="The mailing is being edited, repeat later")
            case Fault.OTHER_ID:
                return _reply("0", result="OK")
        if self.fault is Fault.SILENT or mailing in self.silent_mailings:
            # Until the client gives up, which cancels this, or the server stops.
            await self._silence.wait()
            return _hang_up(request)
        try:
            result = self._do(method, params)
        except _CallError as error:
            return _reply(call_id, error=str(error))
        if self.fault is Fault.ANSWER_LOST:
            return _hang_up(request)
        return _reply(call_id, result=result)

    def _do(self, method: str, params: dict[str, Any]) -> object:
        if params.get("apiKey") != self.api_key:
            raise _CallError("Access denied")
        match method:
            case "isSchedulerRunning":
                return True
            case "getMailings":
                known = self.mailings or {item.mailing for item in self.received}
                counted = {mailing: self.progress(mailing) for mailing in sorted(known)}
                return [
                    {"id": mailing, "progressInfo": {"opened": count["opened"], "clicks": count["clicked"]}}
                    for mailing, count in counted.items()
                ]
            case "postMailingOpenClicksData":
                return self._take(params["mailingID"], params["opensClicksData"])
            case _:
                raise _CallError(f"Method {method} not found")

    def _take(self, mailing: object, items: Sequence[dict[str, str]]) -> str:
        if not isinstance(mailing, int):
            raise _CallError("mailingID is not a valid integer value")
        if self.mailings is not None and mailing not in self.mailings:
            raise _CallError(f"Mailing with id={mailing} not exists")
        if not 0 < len(items) <= MAX_ITEMS:
            raise _CallError(f"opensClicksData has {len(items)} items")
        for item in items:
            if item["email"] in self.refused_addresses:
                raise _CallError(f"Invalid email {item['email']}")
        self.received.extend(ReceivedItem(mailing, item["email"], item["url"]) for item in items)
        return "OK"


def _hang_up(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _reply(call_id: object, *, result: object = None, error: str | None = None) -> web.Response:
    # The manual's samples send "1" and get 1.
    spoken_id = int(call_id) if isinstance(call_id, str) and call_id.isdecimal() else call_id
    answer: dict[str, object] = {"jsonrpc": "2.0"}
    if error is None:
        answer["result"] = result
    else:
        answer["error"] = {"code": INTERNAL_ERROR, "message": error}
    return web.Response(body=msgspec.json.encode(answer | {"id": spoken_id}), content_type="application/json")
