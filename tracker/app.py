"""The tracker's web application: its routes, and what every answer has in common.

An error is a short page of ours: no exception's words, no echo of the request, and nothing of it in a log.
"""

from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from injector.tokens import Keyring
from tracker.click import Click
from tracker.health import Health, HealthRoutes
from tracker.hit import Proxies
from tracker.keep import HitBuffer, Keeper
from tracker.lane import LANE, Form, Lane
from tracker.open import GIF, HEADERS, Open
from tracker.pages import BASE_HEADERS, OURS, PAGES, Page, Pages, page, plain
from tracker.settings import TrackerSettings
from tracker.unsubscribe import Unsubscribe

log = structlog.get_logger()

_HEALTH = web.AppKey("health", HealthRoutes)
# All of the rest: what is no token gets the answer of a bad token.
_REST = "{token:(?s:.*)}"
_HSTS = "max-age=31536000"
_FAILED = "500 Internal Server Error\n"


def make_app(
    *,
    keyring: Keyring,
    buffer: HitBuffer,
    settings: TrackerSettings,
    public_url: str,
    health: Callable[[], Health],
    routes: Iterable[web.AbstractRouteDef] = (),
    pages: Pages = OURS,
) -> web.Application:
    """Return the application; *routes* are added to its own (the webhooks), people see *pages*.

    Where *public_url* has a path, every route answers under it too. Raises `ValueError` for a proxy network that
    is none.
    """
    keeper = Keeper(keyring=keyring, buffer=buffer, proxies=Proxies(settings.trusted_proxies))
    opens, clicks, leaves = Open(keeper), Click(keeper), Unsubscribe(keeper)
    probes = HealthRoutes(health)
    public = urlsplit(public_url)
    common = {"Strict-Transport-Security": _HSTS} if public.scheme == "https" else {}
    app = web.Application(middlewares=[_guarded(common)])
    app[_HEALTH] = probes
    app[PAGES] = pages
    bases = tuple(dict.fromkeys(("", public.path.rstrip("/"))))
    for base in bases:
        app.add_routes(
            [
                # HEAD comes with GET, by the same handler: it is evidence of a machine.
                web.get(base + opens.PATH + _REST, opens.__call__),
                web.get(base + clicks.PATH + _REST, clicks.__call__),
                web.get(base + leaves.PATH + _REST, leaves.ask),
                web.post(base + leaves.PATH + _REST, leaves.act),
                web.get(base + "/", _front),
            ]
        )
    app.add_routes(
        [
            web.get("/robots.txt", _robots),
            web.get("/healthz", probes.healthz),
            web.get("/readyz", probes.readyz),
            *routes,
        ]
    )
    app[LANE] = Lane(
        keeper,
        bases=bases,
        pixel=Form(200, {**HEADERS, **common}, GIF),
        click=Form(302, {**BASE_HEADERS, **common}),
        failed=Form(500, {**BASE_HEADERS, **common, "Content-Type": "text/plain; charset=utf-8"}, _FAILED.encode()),
    )
    return app


def drain(app: web.Application) -> None:
    """Let `/readyz` answer 503 from now on, so that nobody sends new visitors; everything is answered as before."""
    app[_HEALTH].drain()


async def _front(request: web.Request) -> web.Response:
    return page(request, Page.FRONT)


async def _robots(request: web.Request) -> web.Response:  # noqa: ARG001 - a handler's signature
    return plain(200, "User-agent: *\nDisallow: /")


def _guarded(headers: Mapping[str, str]) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = await handler(request)
        except web.HTTPException as refusal:
            response = _refused(request, refusal)
        # Whatever a handler did not foresee must neither reach the visitor nor, with a token in it, a log.
        except Exception as error:  # noqa: BLE001
            log.error("request_failed", error=type(error).__name__)  # noqa: TRY400
            response = plain(500, _FAILED.rstrip())
        response.headers.update(headers)
        return response

    return guard


def _refused(request: web.Request, refusal: web.HTTPException) -> web.Response:
    if refusal.status == HTTPStatus.NOT_FOUND:
        return page(request, Page.UNKNOWN, 404)
    response = plain(refusal.status, f"{refusal.status} {HTTPStatus(refusal.status).phrase}")
    if "Allow" in refusal.headers:
        response.headers["Allow"] = refusal.headers["Allow"]
    return response
