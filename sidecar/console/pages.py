"""Turn values into pages: templates that escape everything, plain HTML, nothing from another host."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
from aiohttp import web

from sidecar.console.asked import ProblemError

_HERE = Path(__file__).resolve().parent

_FILES = {"console.css": "text/css", "console.js": "text/javascript", "icon.svg": "image/svg+xml"}

#: Our own files and their types, read once.
STATIC = {name: ((_HERE / "static" / name).read_bytes(), kind) for name, kind in _FILES.items()}

_SIZES = ("bytes", "KB", "MB", "GB")


def _moment(value: datetime | None) -> str:
    return "" if value is None else value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _octets(value: int) -> str:
    size, unit = float(value), 0
    while size >= 1000 and unit < len(_SIZES) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.0f} {_SIZES[unit]}" if unit == 0 else f"{size:.1f} {_SIZES[unit]}"


_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_environment.filters["moment"] = _moment
_environment.filters["octets"] = _octets


def page(template: str, *, status: int = 200, **values: Any) -> web.Response:
    """Return *template* filled with *values* as an HTML answer."""
    text = _environment.get_template(template).render(**values)
    # A captured message may hold anything, also what UTF-8 cannot.
    body = text.encode("utf-8", "replace")
    return web.Response(status=status, body=body, content_type="text/html", charset="utf-8")


def login_page(*, target: str, wrong: bool) -> web.Response:
    """Ask for the token; *target* is where to go on."""
    response = page("login.html", status=401, target=target, wrong=wrong)
    response.headers["WWW-Authenticate"] = 'Bearer realm="outrider"'
    return response


def problem_page(problem: ProblemError) -> web.Response:
    """Say what went wrong."""
    return page("problem.html", status=problem.status, problem=problem)
