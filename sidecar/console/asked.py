"""Read what a request asks for; what cannot be understood is refused by the name of its parameter, never guessed.

An empty parameter counts as absent; an unknown one is refused, because a misspelt filter would answer everything.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

import msgspec
from aiohttp import web

from ledger.ids import MessageKey, key_bytes
from sidecar.cursors import position_of

Choice = TypeVar("Choice", bound=StrEnum)
Position = TypeVar("Position")
Body = TypeVar("Body", bound=msgspec.Struct)

DEFAULT_LIMIT, LARGEST_LIMIT = 100, 500

#: RFC 5321 4.5.3.1.3 allows 256 octets for an address and RFC 5322 2.1.1 998 for a line that holds a Message-ID.
_LONGEST_VALUE = 1000

_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


class ProblemError(Exception):
    """A request that is answered with an error: its HTTP status, a code for programs, a sentence for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def not_found(what: str) -> ProblemError:
    """Return the problem of a thing that is not there."""
    return ProblemError(404, "not_found", f"no such {what}")


def bad(name: str, expected: str) -> ProblemError:
    """Return the problem of a parameter's value."""
    return ProblemError(400, "bad_parameter", f"{name}: expected {expected}")


async def json_body(request: web.Request, kind: type[Body]) -> Body:
    """Return the JSON that *request* brings as *kind*; raise `ProblemError` for anything else."""
    try:
        return msgspec.json.decode(await request.read(), type=kind)
    except msgspec.MsgspecError as error:
        raise ProblemError(400, "bad_request", f"the body is not what is expected: {error}") from None


class Asked:
    """The query of one request."""

    def __init__(self, request: web.Request, allowed: Iterable[str]) -> None:
        """Take the query of *request*; raise `ProblemError` for a parameter that is not *allowed* or stands twice."""
        known = frozenset(allowed)
        self._values: dict[str, str] = {}
        for name, value in request.query.items():
            if name not in known:
                shown = _CONTROLS.sub("?", name[:40])
                raise ProblemError(
                    400, "unknown_parameter", f"{shown}: unknown; known here: {', '.join(sorted(known))}"
                )
            if not value:
                continue
            if name in self._values:
                raise bad(name, "one value")
            if len(value) > _LONGEST_VALUE or _CONTROLS.search(value):
                raise bad(name, f"at most {_LONGEST_VALUE} characters, none of them a control")
            self._values[name] = value

    def text(self, name: str) -> str | None:
        """Return a value as it stands."""
        return self._values.get(name)

    def limit(self) -> int:
        """Return how many items a page holds."""
        value = self._values.get("limit")
        if value is None:
            return DEFAULT_LIMIT
        if not (value.isascii() and value.isdigit() and len(value) <= 3 and 1 <= int(value) <= LARGEST_LIMIT):
            raise bad("limit", f"a number from 1 to {LARGEST_LIMIT}")
        return int(value)

    def choice(self, name: str, kind: type[Choice]) -> Choice | None:
        """Return one word of *kind*."""
        value = self._values.get(name)
        if value is None:
            return None
        try:
            return kind(value)
        except ValueError:
            raise bad(name, f"one of {', '.join(kind)}") from None

    def time(self, name: str) -> datetime | None:
        """Return a time in ISO 8601; one without an offset is UTC."""
        value = self._values.get(name)
        if value is None:
            return None
        moment = parse_time(value)
        if moment is None:
            raise bad(name, "a time in ISO 8601, such as 2026-01-31T08:00:00Z")
        return moment

    def key(self, name: str) -> MessageKey | None:
        """Return a message's or a submission's key."""
        value = self._values.get(name)
        if value is None:
            return None
        try:
            key_bytes(value)
        except ValueError:
            raise bad(name, "a key of 26 characters a-z and 2-7") from None
        return MessageKey(value)

    def cursor(self, kind: msgspec.msgpack.Decoder[Position]) -> Position | None:
        """Return the position that an earlier page of this *kind* ended at."""
        value = self._values.get("cursor")
        if value is None:
            return None
        try:
            return position_of(value, kind)
        except ValueError:
            raise bad("cursor", "the `next` of an earlier answer to the same request") from None


def parse_time(text: str) -> datetime | None:
    """Return the time of an ISO 8601 text, in UTC when it names no offset; none when it is not one."""
    try:
        # A plus sign that was not escaped in a query arrives as a space.
        moment = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
        # PostgreSQL keeps what Python can say, but an offset may lead out of Python's own range.
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
