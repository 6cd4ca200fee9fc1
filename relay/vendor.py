"""Write the header by which an upstream's provider will name our key in its events, merged with what the mailer wrote.

A field that a signature covers is never touched or added, and what cannot be written safely is left as it came: mail
is never lost or delayed because it could not be labelled.
"""

import re
from collections.abc import Iterable

import structlog
from prometheus_client import Counter

import injector
from injector.headers import signed_names
from providers.webhook import Provider

log = structlog.get_logger()

NOT_WRITTEN = Counter(
    "outrider_vendor_headers_not_written_total",
    "Provider's headers that a message left without, or without our key in them, by why.",
    ["reason"],
)

# RFC 5322 2.1.1, without the CRLF: a line should have no more than the one and must have no more than the other.
_PREFERRED, _LONGEST = 76, 998

_PRINTABLE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_WORD = re.compile(r" *[^ ]+")


def vendor_fields(plan: injector.Plan, provider: Provider, key: str, *, strip: Iterable[str] = ()) -> dict[str, bytes]:
    """Return the complete header lines by name, each to stand in place of the field of that name; never raises.

    *strip* are the names of the mailer's fields that do not leave anyway.
    """
    try:
        return _fields(plan, provider, key, strip)
    except Exception as error:  # noqa: BLE001 - mail is never lost because it could not be labelled
        log.error("vendor_header_failed", provider=provider.name, error=type(error).__name__)  # noqa: TRY400 - content
        NOT_WRITTEN.labels("failed").inc()
        return {}


def _fields(plan: injector.Plan, provider: Provider, key: str, strip: Iterable[str]) -> dict[str, bytes]:
    headers = plan.mail.headers
    gone = {name.lower() for name in (*strip, *plan.granted)}
    present = {
        # What a line was folded with is white space, and a tab in a JSON string would be an error.
        name: value.replace("\t", " ")
        for name in provider.stamped
        if name.lower() not in gone and (value := headers.first(name)) is not None
    }
    covered = _covered(plan, provider)
    fields: dict[str, bytes] = {}
    for name, value in provider.stamp(key, present).items():
        if name not in provider.stamped or value == present.get(name):
            continue
        line = None
        if name.lower() in covered:
            reason = "signed"
        elif name in present and headers.count(name) > 1:
            # Which of several the provider reads is not known, so which to merge with is not either.
            reason = "repeated"
        else:
            line, reason = _line(name, value), "unfit"
        if line is None:
            NOT_WRITTEN.labels(reason).inc()
        else:
            fields[name] = line
    return fields


def _covered(plan: injector.Plan, provider: Provider) -> frozenset[str]:
    """Return the lower-case names that a signature covers which has to hold, whether or not the fields are there."""
    if not plan.keeps_message_id:
        return frozenset()
    names = signed_names(plan.mail.headers)
    return frozenset(name.lower() for name in provider.stamped) if names is None else names


def _line(name: str, value: str) -> bytes | None:
    """Return the field, folded at its spaces, which unfolds to *value*; none where no server had to take it."""
    if not _PRINTABLE.fullmatch(value):
        return None
    lines: list[str] = []
    line = f"{name}:"
    for word in _WORD.findall(f" {value}"):
        # The first word stays with the name: a line of white space alone is obsolete (RFC 5322 3.2.2).
        if len(line) + len(word) > _PREFERRED and line != f"{name}:":
            lines.append(line)
            line = word
        else:
            line += word
    lines.append(line)
    if max(map(len, lines)) > _LONGEST:
        return None
    return ("\r\n".join(lines) + "\r\n").encode("ascii")
