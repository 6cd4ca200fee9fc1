"""A receiver of webhooks on loopback, and a listmonk: each believes nothing that is not proved, and fails on demand."""

import asyncio
import base64
import hashlib
import hmac
import json
import re
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import msgspec
from aiohttp import web

#: A key of 32 octets.
SECRET = "whsec_" + base64.b64encode(b"a key of thirty-two octets here!").decode()
OLD_SECRET = "whsec_" + base64.b64encode(b"another key of 32 octets is here").decode()

_TOLERANCE = 300
_UUID = re.compile(r"\A[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


def verify(secret: str, headers: Any, body: bytes, now: float) -> bool:
    """Verify as the Standard Webhooks specification says, written from it and not from our side."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    stamp = headers["webhook-timestamp"]
    if abs(now - int(stamp)) > _TOLERANCE:
        return False
    content = f"{headers['webhook-id']}.{stamp}.{body.decode()}"
    expected = base64.b64encode(hmac.new(key, content.encode(), hashlib.sha256).digest()).decode()
    given = [one.split(",", 1) for one in headers["webhook-signature"].split(" ")]
    return any(version == "v1" and hmac.compare_digest(expected, signature) for version, signature in given)


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What is answered in place of 204."""

    status: int = 204
    text: str = ""
    headers: dict[str, str] = {}
    #: The request is taken, and the connection ends without an answer.
    lost: bool = False
    #: Nothing is ever said.
    silent: bool = False


TAKEN = Reply()


class Server:
    """What both have in common: a port that stays the same over a stop and a start, and a reply that is set."""

    path = "/"

    def __init__(self) -> None:
        #: Decides what is answered to a request with so many items; `TAKEN` takes it.
        self.judge: Callable[[list[dict[str, Any]]], Reply] = lambda _: TAKEN
        #: What happens elsewhere while a request is being answered.
        self.meanwhile: Callable[[], Awaitable[None]] | None = None
        self.calls = 0
        self.in_flight = self.most_in_flight = 0
        self.port = 0
        self._runner: web.AppRunner | None = None
        self._silence = asyncio.Event()

    @property
    def base(self) -> str:
        """The address without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Where requests are taken."""
        return self.base + self.path

    async def start(self) -> None:
        """Listen, on the same port as before."""
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_post(self.path, self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Refuse connections."""
        self._silence.set()
        self._silence = asyncio.Event()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _handle(self, request: web.Request) -> web.Response:
        self.calls += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            body = await request.read()
            items, refusal = self.read(request, body)
            reply = refusal or self.judge(items)
            if self.meanwhile is not None:
                await self.meanwhile()
            if reply.silent:
                await self._silence.wait()
            if reply.lost or reply.status < 300:
                self.take(items)
            # Who was killed has closed it already.
            if (reply.lost or reply.silent) and request.transport is not None:
                request.transport.close()
            return web.Response(status=reply.status, text=reply.text, headers=reply.headers)
        finally:
            self.in_flight -= 1

    def read(self, request: web.Request, body: bytes) -> tuple[list[dict[str, Any]], Reply | None]:
        """Return the items of a request, and why it is refused whatever `judge` says."""
        raise NotImplementedError

    def take(self, items: list[dict[str, Any]]) -> None:
        """Take *items*."""
        raise NotImplementedError


class Receiver(Server):
    """A webhook's receiver: it verifies, keeps what it took, and tells copies by the events' ids."""

    path = "/hooks"

    def __init__(self, secret: str = SECRET) -> None:
        super().__init__()
        self.secret = secret
        #: How often each event was taken, by its id, and the first of each.
        self.taken: Counter[str] = Counter()
        self.events: dict[str, dict[str, Any]] = {}
        #: The webhook-id, the ids of the events and the timestamp of every request that was proved.
        self.batches: list[tuple[str, tuple[str, ...]]] = []

    def read(self, request: web.Request, body: bytes) -> tuple[list[dict[str, Any]], Reply | None]:
        if not verify(self.secret, request.headers, body, time.time()):
            return [], Reply(status=401, text="no such signature")
        document = json.loads(body)
        assert document["type"] == "outrider.events"
        items: list[dict[str, Any]] = document["data"]["events"]
        assert document["timestamp"] == max(item["recorded_at"] for item in items)
        self.batches.append((request.headers["webhook-id"], tuple(item["id"] for item in items)))
        return items, None

    def take(self, items: list[dict[str, Any]]) -> None:
        for item in items:
            self.taken[item["id"]] += 1
            self.events.setdefault(item["id"], item)


class Listmonk(Server):
    """listmonk's `/webhooks/bounce`: it proves its user, checks as listmonk does, and counts every copy."""

    path = "/webhooks/bounce"

    def __init__(self) -> None:
        super().__init__()
        self.bounces: list[dict[str, Any]] = []

    def read(self, request: web.Request, body: bytes) -> tuple[list[dict[str, Any]], Reply | None]:
        if request.headers["Authorization"] != "Basic " + base64.b64encode(b"outrider:T-1").decode():
            return [], Reply(status=403, text='{"message":"invalid API credentials"}')
        bounce = json.loads(body)
        assert isinstance(bounce["meta"], dict)
        if not _UUID.match(bounce["subscriber_uuid"]) or bounce["type"] not in {"hard", "soft", "complaint"}:
            return [bounce], Reply(status=400, text='{"message":"Invalid fields"}')
        uuid.UUID(bounce["campaign_uuid"])
        return [bounce], None

    def take(self, items: list[dict[str, Any]]) -> None:
        self.bounces += items

    @property
    def kinds(self) -> list[tuple[str, str]]:
        """Subscriber and type of every bounce, in order."""
        return [(bounce["subscriber_uuid"], bounce["type"]) for bounce in self.bounces]
