"""Put the console together: routes, the guard before all of them, health and metrics."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

from aiohttp import hdrs, web

from ledger.store import Ledger
from ledger.windows import Window
from sidecar.console.api import Api
from sidecar.console.asked import ProblemError, not_found
from sidecar.console.guard import COOKIE, Doorkeeper, enter, guarded
from sidecar.console.inbox import Inbox
from sidecar.console.pages import STATIC, login_page
from sidecar.health import health_routes
from sidecar.readiness import Readiness

# Nothing larger than a login is ever sent here.
_LARGEST_BODY = 16_384


def make_console(
    *,
    ledger: Ledger,
    identity_key: bytes,
    token: str,
    capture_dir: Path | None,
    public_url: str,
    readiness: Readiness,
    windows: Sequence[Window] = (),
    hosts: Iterable[str],
) -> web.Application:
    """Return the console's application.

    *capture_dir* is where the capture upstream writes, none with a real one. *hosts* are the names under which it may
    be asked for, beside loopback: the listen host and what is configured. *windows* say when campaign mail may be
    sent. Run it without aiohttp's access log, which
    would write the URL that brings a token.
    """
    doorkeeper = Doorkeeper(token, hosts)
    app = web.Application(middlewares=[guarded(doorkeeper)], client_max_size=_LARGEST_BODY)
    app.add_routes(Api(ledger, identity_key, windows).routes())
    app.add_routes(Inbox(ledger, capture_dir, public_url).routes())
    app.add_routes(
        [
            *health_routes(readiness),
            web.get("/static/{name}", _static),
            web.get("/login", _ask_login),
            web.post("/login", _log_in(doorkeeper)),
            web.post("/logout", _log_out),
        ]
    )
    return app


async def _static(request: web.Request) -> web.Response:
    found = STATIC.get(request.match_info["name"])
    if found is None:
        raise not_found("page")
    body, kind = found
    return web.Response(body=body, content_type=kind, charset="utf-8", headers={hdrs.CACHE_CONTROL: "no-cache"})


async def _ask_login(_: web.Request) -> web.Response:
    response = login_page(target="/", wrong=False)
    response.set_status(200)
    return response


def _log_in(doorkeeper: Doorkeeper) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def log_in(request: web.Request) -> web.Response:
        if request.content_type != "application/x-www-form-urlencoded":
            raise ProblemError(415, "unsupported", "expected the login form")
        form = await request.post()
        token, target = form.get("token", ""), form.get("target", "/")
        if isinstance(token, str) and isinstance(target, str) and doorkeeper.knows(token.strip()):
            return enter(request, doorkeeper, target)
        return login_page(target="/", wrong=True)

    return log_in


async def _log_out(_: web.Request) -> web.Response:
    response = web.Response(status=303, headers={hdrs.LOCATION: "/login"})
    response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict")
    return response
