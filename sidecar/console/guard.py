"""Who may come in, and what every answer carries: the token, the Host check, errors and headers.

The API takes the token in the Authorization header alone, so that no page of another origin can make a browser use
it. Pages take a cookie that a login sets; the token itself is in neither, and in no URL but the one that brings it.
"""

import hashlib
import hmac
import ipaddress
import re
import time
from collections.abc import Iterable

import msgspec
import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from ledger.store import UNAVAILABLE
from sidecar.console.asked import ProblemError
from sidecar.console.pages import login_page, problem_page

log = structlog.get_logger()

COOKIE = "outrider_console"

#: Seconds after which a browser logs in again.
SESSION_SECONDS = 12 * 3600

_OPEN = frozenset({"/healthz", "/readyz", "/login"})
_API = re.compile(r"\A/(?:api(?:/|\Z)|metrics\Z|healthz\Z|readyz\Z)")
_HOST = re.compile(r"\A(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::[0-9]{1,5})?\Z")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

_CODES = {403: "forbidden", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}

#: What every answer carries: nothing is kept, framed, sniffed, or told to another site.
HEADERS = {
    hdrs.CACHE_CONTROL: "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; frame-src 'self'; "
        "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
}


class Doorkeeper:
    """Knows the token, and the names under which this console may be asked for."""

    def __init__(self, token: str, hosts: Iterable[str]) -> None:
        if not token:
            raise ValueError("the console needs a token")
        self._token = token.encode("utf-8", "replace")
        names = {host.strip("[]").rstrip(".").lower() for host in hosts}
        # Bound to every address, it is asked for by any of them; a rebinding attack comes with a name.
        self._any_address = not names.isdisjoint({"0.0.0.0", "::"})
        self._hosts = names | _LOOPBACK

    def knows(self, token: str) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(token.encode("utf-8", "replace"), self._token)

    def bears_token(self, request: web.Request) -> bool:
        """Whether the Authorization header brings the token."""
        scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        return scheme.lower() == "bearer" and self.knows(token.strip())

    def session(self, now: float) -> str:
        """Return a cookie's value that is good for `SESSION_SECONDS`."""
        ends = str(int(now) + SESSION_SECONDS)
        return f"{ends}.{self._seal(ends)}"

    def in_session(self, request: web.Request, now: float) -> bool:
        """Whether the request brings a cookie of ours that has not run out."""
        ends, _, seal = request.cookies.get(COOKIE, "").partition(".")
        if not hmac.compare_digest(seal.encode("utf-8", "replace"), self._seal(ends).encode("ascii")):
            return False
        return int(ends) > now

    def admits_host(self, host: str | None) -> bool:
        """Whether the Host header names this console: against pages whose own name is made to point here."""
        match = _HOST.match(host or "")
        if match is None:
            return False
        name = (match["v6"] or match["name"]).rstrip(".").lower()
        return name in self._hosts or (self._any_address and _is_address(name))

    def _seal(self, ends: str) -> str:
        return hmac.digest(
            self._token, b"outrider console session 1:" + ends.encode("utf-8", "replace"), hashlib.sha256
        ).hex()


def guarded(doorkeeper: Doorkeeper) -> Middleware:
    """Return the middleware that every request passes."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        is_page = _API.match(request.path) is None
        try:
            response = await _enter(request, handler, doorkeeper, is_page=is_page)
        except ProblemError as problem:
            response = _refusal(problem, is_page=is_page)
        except web.HTTPException as error:
            response = _foreign(error, is_page=is_page)
        except UNAVAILABLE as error:
            # Its words may hold values; its kind is enough to see what is wrong.
            log.warning("console_lost_ledger", route=_route(request), error=type(error).__name__)
            lost = ProblemError(503, "unavailable", "PostgreSQL cannot be reached; try again in a moment")
            response = _refusal(lost, is_page=is_page)
        # Whatever breaks, the operator gets an answer, and the reason stands in the log.
        except Exception as error:  # noqa: BLE001 - no exception's words leave here
            kind = type(error).__name__
            log.error("console_failed", route=_route(request), error=kind)  # noqa: TRY400 - its text may hold values
            response = _refusal(ProblemError(500, "internal", "this is a defect; the log names it"), is_page=is_page)
        if not response.prepared:
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
        return response

    return guard


async def _enter(
    request: web.Request, handler: Handler, doorkeeper: Doorkeeper, *, is_page: bool
) -> web.StreamResponse:
    if request.path in {"/healthz", "/readyz"}:
        # Probes come under any name, and read nothing but a word.
        return await handler(request)
    if not doorkeeper.admits_host(request.headers.get(hdrs.HOST)):
        raise ProblemError(421, "wrong_host", "this console answers to its listen address and to localhost alone")
    if request.path in _OPEN or request.path.startswith("/static/") or doorkeeper.bears_token(request):
        return await handler(request)
    if not is_page:
        raise ProblemError(401, "unauthorized", "send the console's token: Authorization: Bearer TOKEN")
    if (brought := request.query.get("token")) is not None and request.method in {"GET", "HEAD"}:
        if doorkeeper.knows(brought):
            return enter(request, doorkeeper, _local(request.rel_url.without_query_params("token").raw_path_qs))
    elif doorkeeper.in_session(request, time.time()):
        return await handler(request)
    target = request.rel_url.without_query_params("token").raw_path_qs if request.method == "GET" else "/"
    return login_page(target=_local(target), wrong=brought is not None)


def enter(request: web.Request, doorkeeper: Doorkeeper, target: str) -> web.Response:
    """Answer a right token: set the cookie, and go on to *target*, whose URL does not hold it."""
    response = web.Response(status=303, headers={hdrs.LOCATION: _local(target)})
    response.set_cookie(
        COOKIE,
        doorkeeper.session(time.time()),
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="Strict",
        secure=request.secure,
        path="/",
    )
    return response


def _local(target: str) -> str:
    # A path of ours and nothing that a browser reads as another site: `//evil`, `/\\evil`.
    safe = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isascii() and target.isprintable()
    return target if safe else "/"


def _refusal(problem: ProblemError, *, is_page: bool) -> web.Response:
    if is_page:
        return problem_page(problem)
    body = msgspec.json.encode({"error": {"code": problem.code, "message": problem.message}})
    response = web.Response(status=problem.status, body=body, content_type="application/json")
    if problem.status == 401:
        response.headers[hdrs.WWW_AUTHENTICATE] = 'Bearer realm="outrider"'
    return response


def _foreign(error: web.HTTPException, *, is_page: bool) -> web.Response:
    code = _CODES.get(error.status, "refused" if error.status < 500 else "internal")
    response = _refusal(ProblemError(error.status, code, error.reason), is_page=is_page)
    if hdrs.ALLOW in error.headers:
        response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
    return response


def _route(request: web.Request) -> str:
    # The pattern, not the path: a path may hold an id that holds an address.
    resource = request.match_info.route.resource
    return "none" if resource is None else resource.canonical


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
