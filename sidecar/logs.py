"""Say what happened on standard error: one JSON object a line, or readable text where a person watches.

Addresses, tokens, credentials and the texts of exceptions never get through, whoever logs them: exceptions are shown
as their types and places, and what libraries log as its first line.
"""

import logging
import os
import sys
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import msgspec
import structlog

from sidecar.redaction import redact

#: Libraries that log, and from which level they are heard. aiohttp's access log and aiosmtpd's session log hold
#: tokens and addresses, and are never heard.
LIBRARIES: Mapping[str, int] = {
    "aiohttp.access": logging.CRITICAL + 1,
    "aiohttp.client": logging.WARNING,
    "aiohttp.internal": logging.WARNING,
    "aiohttp.server": logging.ERROR,
    "aiohttp.web": logging.ERROR,
    "aiosmtplib": logging.WARNING,
    "asyncio": logging.WARNING,
    "asyncpg": logging.WARNING,
    "mail.debug": logging.CRITICAL + 1,
    "mail.error": logging.ERROR,
    "mail.log": logging.CRITICAL + 1,
    "redis": logging.WARNING,
}

_SECRET_FIELDS = frozenset({"api_key", "apikey", "authorization", "cookie", "password", "secret", "token"})
_ADDRESS_FIELDS = frozenset({"address", "email", "from", "mail_from", "rcpt_to", "recipient", "sender", "to"})

# Enough to find the place; a recursion error has a thousand.
_FRAMES = 12

_Entry = MutableMapping[str, Any]
_Failure = tuple[type[BaseException], BaseException, TracebackType | None]


def configure(role: str = "outrider", *, stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Send every log line of this process to *stream* (standard error), marked with *role*.

    For a process that logs all day: its loggers keep what is configured when they are first used.
    """
    _configure(role, sys.stderr if stream is None else stream, level=level, keep=True)


def configure_command(name: str, *, stream: TextIO | None = None) -> None:
    """Let a command that prints an answer say nothing but what goes wrong, on *stream* (standard error)."""
    _configure(name, sys.stderr if stream is None else stream, level=logging.WARNING, keep=False)


def _configure(role: str, out: TextIO, *, level: int, keep: bool) -> None:
    renderer: Callable[[Any, str, _Entry], str] = structlog.dev.ConsoleRenderer() if out.isatty() else _json
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _mark(role),
            _show_failure,
            redact_entry,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=keep,
    )
    _listen_to_libraries()
    sys.excepthook = _log_crash


def redact_entry(_logger: Any, _method: str, entry: _Entry) -> _Entry:
    """Return *entry* without anything that names a person or opens a door."""
    return {key: _redacted(key, value) for key, value in entry.items()}


def _redacted(key: str, value: Any) -> Any:
    name = key.lower()
    if name in _SECRET_FIELDS and value is not None:
        return "[secret]"
    if name in _ADDRESS_FIELDS and value is not None:
        return "[address]"
    match value:
        case None | bool() | int() | float():
            return value
        case Enum():
            return _redacted("", value.value)
        case str():
            return redact(value)
        case bytes():
            return redact(value.decode("utf-8", "backslashreplace"))
        case Mapping():
            return {str(inner): _redacted(str(inner), item) for inner, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_redacted("", item) for item in value]
        case BaseException():
            return type(value).__name__
        case _:
            return redact(str(value))


def _json(_logger: Any, _method: str, entry: _Entry) -> str:
    # Surrogates stand for bytes that were no UTF-8; JSON has no place for them.
    first = {"timestamp": entry.pop("timestamp"), "level": entry.pop("level"), "event": entry.pop("event")}
    try:
        return msgspec.json.encode(first | dict(entry)).decode()
    except UnicodeEncodeError:
        return msgspec.json.encode(_escaped(first | dict(entry))).decode()


def _escaped(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_escaped(key): _escaped(item) for key, item in value.items()}
        case list():
            return [_escaped(item) for item in value]
        case _:
            return value


def _mark(role: str) -> Callable[[Any, str, _Entry], _Entry]:
    def mark(_logger: Any, _method: str, entry: _Entry) -> _Entry:
        entry["role"] = role
        entry["pid"] = os.getpid()
        return entry

    return mark


def _show_failure(_logger: Any, _method: str, entry: _Entry) -> _Entry:
    failure = entry.pop("exc_info", None)
    if failure is True:
        failure = sys.exc_info()
    elif isinstance(failure, BaseException):
        failure = (type(failure), failure, failure.__traceback__)
    if isinstance(failure, tuple) and failure[0] is not None:
        entry.update(_failure_fields(failure))
    return entry


def _failure_fields(failure: _Failure) -> dict[str, Any]:
    """Name the exception's type, its causes' and where it was raised: its text may hold what nobody may read."""
    kind, error, place = failure
    causes: list[str] = []
    cause = error.__cause__ or error.__context__
    while cause is not None and len(causes) < _FRAMES:
        causes.append(type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    frames = [
        f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(place)[-_FRAMES:]
    ]
    fields: dict[str, Any] = {"error": kind.__name__, "frames": frames}
    return fields | {"causes": causes} if causes else fields


class _Library(logging.Handler):
    """Bring what libraries log into our own lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log the first line of the record's template: the arguments may be a path with a token, or an address."""
        said = str(record.msg).partition("\n")[0]
        log = structlog.get_logger()
        log.log(record.levelno, "library_spoke", library=record.name, said=said, exc_info=record.exc_info or None)


def _listen_to_libraries() -> None:
    logging.basicConfig(handlers=[_Library()], level=logging.WARNING, force=True)
    logging.captureWarnings(capture=True)
    for name, level in LIBRARIES.items():
        logging.getLogger(name).setLevel(level)


def _log_crash(kind: type[BaseException], error: BaseException, place: TracebackType | None) -> None:
    structlog.get_logger().critical("process_crashed", exc_info=(kind, error, place))
