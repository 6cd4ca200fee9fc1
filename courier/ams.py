"""Make one JSON-RPC call to AMS.

AMS works through calls one at a time on the thread of its window, so the caller makes one and waits. A body holds the
apiKey and addresses: nothing of it is logged, no redirect is followed with it, and TLS is verified.
"""

import io
import secrets
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp
import msgspec
from prometheus_client import Counter

from courier.answer import Accepted, Answer, Refused, Unanswered, read_answer, read_progress
from courier.outbox import Item
from courier.settings import AmsSettings

CALLS = Counter("outrider_ams_calls", "Calls to AMS by what became of them.", ["outcome"])
ITEMS = Counter("outrider_ams_accepted_items", "Items that AMS has confirmed.")

#: More than any answer of AMS; the rest of a longer one is not read.
_ANSWER_LIMIT = 1024 * 1024

# Ids stay below 2^31: AMS turns the text into a number, and nobody says how wide.
_ID_RANGE = 2**31


class _Hit(msgspec.Struct, frozen=True):
    email: str
    url: str


class _Batch(msgspec.Struct, frozen=True, kw_only=True):
    api_key: str = msgspec.field(name="apiKey")
    mailing: int = msgspec.field(name="mailingID")
    hits: list[_Hit] = msgspec.field(name="opensClicksData")


class _Probe(msgspec.Struct, frozen=True, kw_only=True):
    api_key: str = msgspec.field(name="apiKey")


class _Call(msgspec.Struct, frozen=True, kw_only=True):
    jsonrpc: str = "2.0"
    id: str
    method: str
    params: _Batch | _Probe


_encode = msgspec.json.Encoder().encode


class Ams:
    """AMS's endpoint. Open it with `open_ams`."""

    def __init__(self, session: aiohttp.ClientSession, settings: AmsSettings) -> None:
        self._session = session
        self._settings = settings
        self._next_id = secrets.randbelow(_ID_RANGE)

    async def post(self, mailing: int, items: Sequence[Item]) -> Answer:
        """Tell AMS of *items* of one mailing, and return what it answered; raise nothing."""
        hits = [_Hit(item.email, item.url) for item in items]
        answer = await self._call(
            "postMailingOpenClicksData", _Batch(api_key=self._settings.api_key, mailing=mailing, hits=hits)
        )
        if isinstance(answer, Accepted):
            ITEMS.inc(len(items))
        return answer

    async def probe(self) -> Answer:
        """Ask AMS the cheapest question that needs a good apiKey."""
        return await self._call("isSchedulerRunning", _Probe(api_key=self._settings.api_key))

    async def progress(self) -> dict[int, tuple[int, int]]:
        """Return how many addresses AMS shows as opened and as clicked, by mailing; empty when it does not answer."""
        body = bytearray()
        answer = await self._call("getMailings", _Probe(api_key=self._settings.api_key), body)
        return read_progress(bytes(body)) if isinstance(answer, Accepted) else {}

    async def _call(self, method: str, params: _Batch | _Probe, said: bytearray | None = None) -> Answer:
        """Make the call and return what became of it; the octets of the answer go to *said*."""
        self._next_id = (self._next_id + 1) % _ID_RANGE
        call_id = str(self._next_id)
        answer = await self._exchange(_encode(_Call(id=call_id, method=method, params=params)), call_id, said)
        match answer:
            case Accepted():
                CALLS.labels("accepted").inc()
            case Refused():
                CALLS.labels("refused").inc()
            case Unanswered():
                CALLS.labels("unanswered").inc()
        return answer

    async def _exchange(self, body: bytes, call_id: str, said: bytearray | None) -> Answer:
        try:
            async with self._session.post(
                self._settings.url,
                # A file and not bytes: aiohttp sends it in blocks, and writes no warning for a body over 1 MiB.
                data=io.BytesIO(body),
                headers={"Content-Type": "application/json"},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=self._settings.timeout),
            ) as response:
                content = await _read(response)
                if content is None:
                    return Unanswered(reason="the answer is too long")
                if said is not None:
                    said += content
                return read_answer(response.status, content, call_id)
        except TimeoutError:
            return Unanswered(reason="timeout")
        except (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch):
            return Unanswered(reason="TLS failed or the certificate is not trusted")
        except aiohttp.ClientConnectorError:
            return Unanswered(reason="no connection")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # The exception's own words may hold the URL, and with it a password.
            return Unanswered(reason=type(error).__name__)


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > _ANSWER_LIMIT:
            return None
    return bytes(content)


def _trust(settings: AmsSettings) -> ssl.SSLContext | aiohttp.Fingerprint:
    if settings.fingerprint:
        # Compared before anything is sent.
        return aiohttp.Fingerprint(bytes.fromhex(settings.fingerprint.replace(":", "")))
    return ssl.create_default_context(cafile=settings.ca_file or None)


@asynccontextmanager
async def open_ams(settings: AmsSettings) -> AsyncIterator[Ams]:
    """Make a client for the endpoint in *settings*; raises `OSError` or `ssl.SSLError` for an unusable `ca_file`."""
    trust = _trust(settings)
    # A connection per call: calls are seconds apart, and one that AMS has closed meanwhile would look like a failure.
    connector = aiohttp.TCPConnector(limit=1, ssl=trust, force_close=True)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield Ams(session, settings)
