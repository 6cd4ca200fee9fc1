"""The call to AMS as the contract words it, and what each answer is worth, over real sockets."""

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
import trustme
from aiohttp import web

from courier.ams import Ams, open_ams
from courier.answer import Accepted, Answer, Refused, Unanswered
from courier.outbox import Item
from courier.settings import AmsSettings
from sidecar.standin_ams import Fault, StandinAms
from tests.mailings import ams_settings

API_KEY = "K-1"
ITEMS = [
    Item(id=1, email="ann@example.net", url="open_trace"),
    Item(id=2, email="ann@example.net", url="https://shop.example.com/p?x=1&y=2"),
    Item(id=3, email="no_email", url="Unsubscribe_Click:DC,AE{|;"),
    Item(id=4, email="ё@example.net", url='https://shop.example.com/"\\'),
]


@asynccontextmanager
async def serving(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]], trust: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Serve one handler on loopback and yield its URL."""
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/api/v1", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=trust).start()
        port = runner.addresses[0][1]
        yield f"{'https' if trust else 'http'}://127.0.0.1:{port}/api/v1"
    finally:
        await runner.cleanup()


async def post(settings: AmsSettings) -> Answer:
    """Make one call."""
    async with open_ams(settings) as ams:
        return await ams.post(186, ITEMS)


async def test_the_body_is_the_contracts_to_the_letter() -> None:
    """Names, their order, the integer mailing, the items as they are; an id of digits, another one each time."""
    bodies: list[str] = []
    headers: list[dict[str, str]] = []

    async def keep(request: web.Request) -> web.Response:
        bodies.append(await request.text())
        headers.append(dict(request.headers))
        return web.Response(status=500)

    async with serving(keep) as url, open_ams(ams_settings(url=url)) as ams:
        for _ in range(3):
            await ams.post(186, ITEMS)
        await ams.probe()
    ids = [body.split('"id":"', 1)[1].split('"', 1)[0] for body in bodies]
    assert bodies[0] == (
        '{"jsonrpc":"2.0","id":"' + ids[0] + '","method":"postMailingOpenClicksData","params":{"apiKey":"K-1",'
        '"mailingID":186,"opensClicksData":[{"email":"ann@example.net","url":"open_trace"},'
        '{"email":"ann@example.net","url":"https://shop.example.com/p?x=1&y=2"},'
        '{"email":"no_email","url":"Unsubscribe_Click:DC,AE{|;"},'
        '{"email":"ё@example.net","url":"https://shop.example.com/\\"\\\\"}]}}'
    )
    assert bodies[3] == f'{{"jsonrpc":"2.0","id":"{ids[3]}","method":"isSchedulerRunning","params":{{"apiKey":"K-1"}}}}'
    assert len(set(ids)) == 4
    assert all(one.isdecimal() and int(one) < 2**31 for one in ids)
    assert headers[0]["Content-Type"] == "application/json"
    assert int(headers[0]["Content-Length"]) == len(bodies[0].encode())


async def test_ams_accepts_what_it_is_told() -> None:
    """The stand-in answers the id as a number, like AMS; 20,000 items are one call."""
    async with StandinAms(api_key=API_KEY) as standin, open_ams(ams_settings(url=standin.url)) as ams:
        assert await ams.post(186, ITEMS) == Accepted()
        assert [(item.email, item.url) for item in standin.received] == [(item.email, item.url) for item in ITEMS]
        many = [
            Item(id=n, email=f"r{n}@example.net", url="https://shop.example.com/" + "x" * 60) for n in range(20_000)
        ]
        assert await ams.post(187, many) == Accepted()
        assert len(standin.received) == 20_004
        assert standin.calls[-1].size > 1024 * 1024
        assert await ams.probe() == Accepted()


@pytest.mark.parametrize(
    ("fault", "answer"),
    [
        (Fault.HTML, Unanswered(reason="not JSON-RPC")),
        (Fault.REDIRECT, Unanswered(reason="HTTP 302")),
        (Fault.BROKEN, Unanswered(reason="HTTP 500")),
        (Fault.ERROR, Refused(code=-32603, message="The mailing is being edited, repeat later")),
        (Fault.SILENT, Unanswered(reason="timeout")),
        (Fault.ANSWER_LOST, Unanswered(reason="ServerDisconnectedError")),
        (Fault.OTHER_ID, Unanswered(reason="the answer is to another call")),
    ],
)
async def test_each_fault_is_told_for_what_it_is(fault: Fault, answer: Answer) -> None:
    """Only an error is a refusal; a redirect is not followed, for the body holds the apiKey."""
    async with StandinAms(api_key=API_KEY) as standin:
        standin.fault = fault
        # Long enough for a busy machine to have heard the call that it does not answer.
        assert await post(ams_settings(url=standin.url, timeout=2)) == answer
        assert len(standin.calls) == 1


async def test_nobody_listening_is_no_connection() -> None:
    """A refused connection is no answer, and raises nothing."""
    standin = StandinAms(api_key=API_KEY)
    await standin.start()
    await standin.stop()
    assert await post(ams_settings(url=standin.url)) == Unanswered(reason="no connection")


async def test_a_wrong_key_and_an_unknown_mailing_are_refused() -> None:
    """Both come as -32603, like everything in AMS; only the first makes the probe fail."""
    async with StandinAms(api_key=API_KEY, mailings={5}) as standin:
        async with open_ams(ams_settings(url=standin.url)) as ams:
            assert await ams.post(186, ITEMS) == Refused(code=-32603, message="Mailing with id=186 not exists")
            assert await ams.probe() == Accepted()
        async with open_ams(ams_settings(url=standin.url, api_key="wrong")) as ams:
            assert await ams.probe() == Refused(code=-32603, message="Access denied")


async def test_an_endless_answer_is_cut_off() -> None:
    """Memory stays bounded whatever the endpoint sends."""

    async def flood(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(4096):
            await response.write(b" " * 65536)
        return response

    async with serving(flood) as url:
        assert await post(ams_settings(url=url)) == Unanswered(reason="the answer is too long")


async def test_tls_is_verified(tmp_path: Path) -> None:
    """A certificate that nobody vouches for ends the call before a byte of it left; `ca_file` vouches."""
    authority = trustme.CA()
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(trust)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    reached: list[str] = []

    async def accept(request: web.Request) -> web.Response:
        call = await request.json()
        reached.append(call["id"])
        return web.json_response({"jsonrpc": "2.0", "result": "OK", "id": int(call["id"])})

    # The server's side of a handshake that the client gives up is no failure of this test.
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    async with serving(accept, trust) as url:
        answer = await post(ams_settings(url=url))
        assert answer == Unanswered(reason="TLS failed or the certificate is not trusted")
        assert reached == []
        assert await post(ams_settings(url=url, ca_file=str(ca_file))) == Accepted()
        assert len(reached) == 1


async def test_a_fingerprint_is_believed_alone() -> None:
    """AMS makes itself a certificate, with any name in it: the one that is named is taken, and no other sees a byte."""
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = trustme.CA().issue_cert("ams.example.com")
    certificate.configure_cert(trust)
    reached: list[str] = []

    async def accept(request: web.Request) -> web.Response:
        call = await request.json()
        reached.append(call["id"])
        return web.json_response({"jsonrpc": "2.0", "result": "OK", "id": int(call["id"])})

    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())).hexdigest()
    shown = ":".join(digest[at : at + 2] for at in range(0, 64, 2)).upper()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    async with serving(accept, trust) as url:
        for other in ("00" * 32, shown[:-1] + ("0" if shown[-1] != "0" else "1")):
            answer = await post(ams_settings(url=url, fingerprint=other))
            assert answer == Unanswered(reason="TLS failed or the certificate is not trusted")
        assert reached == []
        assert await post(ams_settings(url=url, fingerprint=shown)) == Accepted()
        assert await post(ams_settings(url=url, fingerprint=digest)) == Accepted()


async def test_a_call_logs_neither_key_nor_address(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever happens to a call, its body and its URL's password stay out of every output."""
    with structlog.testing.capture_logs() as logs:
        async with StandinAms(api_key=API_KEY) as standin:
            with_password = standin.url.replace("http://", "http://user:hunter2@")
            for fault in (Fault.NONE, Fault.HTML, Fault.ERROR, Fault.ANSWER_LOST):
                standin.fault = fault
                await post(ams_settings(url=with_password))
        await post(ams_settings(url=with_password))
    output = capsys.readouterr()
    for secret in (API_KEY, "example.net", "hunter2"):
        assert secret not in str(logs)
        assert secret not in output.out + output.err


async def test_the_client_never_raises_for_a_bad_url() -> None:
    """A URL that cannot be called is no answer like any other."""
    async with open_ams(ams_settings(url="http://[")) as ams:
        assert isinstance(await _probe(ams), Unanswered)


async def _probe(ams: Ams) -> Answer:
    return await ams.probe()
