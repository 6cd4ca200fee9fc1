"""Mailgun's older webhooks: one event as a form, its fields and the mailer's variables side by side.

A variable of a field's name does not hide it: Mailgun's value comes first, but last in `timestamp`, `token` and
`signature`, which Mailgun adds at the end.
"""

import hashlib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from providers.fields import TOKEN_FIELD, codes, encoded, first, named, strings, text, texts, time_ms
from providers.mailgun_refusals import refusal
from providers.notice import Bounce, Notice, Step, What
from providers.webhook import MalformedError, Request

NAME = "mailgun"

_FIELDS_AT_MOST = 1000

# RFC 7578. It does not nest, so that nothing here needs to.
_BOUNDARY = re.compile(r"boundary=\"?([^\";,]{1,70})", re.IGNORECASE)
_FIELD = re.compile(rb";\s*name=\"([^\"\r\n]{1,256})\"", re.IGNORECASE)

_EVENTS: Mapping[str, What] = MappingProxyType(
    {
        "delivered": What.DELIVERED,
        "dropped": What.BOUNCED,
        "bounced": What.BOUNCED,
        "complained": What.COMPLAINED,
        "unsubscribed": What.UNSUBSCRIBED,
        "opened": What.OPENED,
        "clicked": What.CLICKED,
    }
)
_PROOF = ("timestamp", "token", "signature")

#: Fields of Mailgun's own; what else stands in a form is the mailer's variables.
_OWN = frozenset(
    {
        *_PROOF,
        *("attachment-count", "body-plain", "campaign-id", "campaign-name", "city", "client-name", "client-os"),
        *("client-type", "code", "country", "description", "device-type", "domain", "error", "event", "h", "ip"),
        *("mailing-list", "message-headers", "message-id", "Message-Id", "notification", "reason"),
        *("recipient", "region", "tag", "url", "user-agent", "X-Mailgun-Sid", "X-Mailgun-Tag"),
    }
)


def is_form(request: Request) -> bool:
    """Say whether the request is one of the older kind."""
    kind = request.headers.get("content-type", "").strip().lower()
    return kind.startswith(("application/x-www-form-urlencoded", "multipart/form-data"))


def signature(request: Request) -> dict[str, str]:
    """Return what proves the request; raise `MalformedError`."""
    fields = _fields(request)
    return {name: fields[name][-1] for name in _PROOF if name in fields}


def notice(request: Request) -> Notice:
    """Return the form's event; raise `MalformedError`."""
    fields = _fields(request)
    kept = encoded(fields)
    form = {name: values[-1 if name in _PROOF else 0] for name, values in fields.items()}
    variables = _variables(fields, form)
    what, bounce = _verdict(form)
    smtp_code, enhanced_code = _codes(form)
    return Notice(
        provider=NAME,
        what=what,
        # The form has no other id of the event.
        dedupe=text(form, "token").strip() or hashlib.sha256(kept).hexdigest(),
        at_ms=time_ms(form, "timestamp"),
        recipient=text(form, "recipient").strip(),
        names=named(
            (Step.MESSAGE_ID, first(form, "Message-Id", "message-id")),
            (Step.TOKEN, text(variables, TOKEN_FIELD)),
            (Step.PROVIDER_ID, text(form, "X-Mailgun-Sid")),
        ),
        bounce=bounce,
        smtp_code=smtp_code,
        enhanced_code=enhanced_code,
        description=first(form, "error", "notification", "description", "reason"),
        url=text(form, "url"),
        user_agent=text(form, "user-agent"),
        ip=text(form, "ip"),
        tags=texts(fields, "tag") or texts(fields, "X-Mailgun-Tag"),
        metadata=variables,
        raw=kept,
    )


def _fields(request: Request) -> dict[str, list[str]]:
    kind = request.headers.get("content-type", "")
    pairs = _multipart(kind, request.body) if "multipart" in kind.lower() else _urlencoded(request.body)
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    if not fields:
        raise MalformedError("the body is not a form")
    return fields


def _urlencoded(body: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            body.decode("utf-8", "replace"),
            keep_blank_values=True,
            errors="replace",
            max_num_fields=_FIELDS_AT_MOST,
        )
    except ValueError:
        raise MalformedError("the form has too many fields") from None


def _multipart(kind: str, body: bytes) -> list[tuple[str, str]]:
    """Return the fields that are no files: a bounce came with the mail's attachments."""
    boundary = _BOUNDARY.search(kind)
    if boundary is None:
        raise MalformedError("the body is not a form")
    parts = body.split(b"--" + boundary[1].strip().encode("utf-8", "replace"), _FIELDS_AT_MOST)
    pairs = []
    for part in parts[1:]:
        head, _, value = part.partition(b"\r\n\r\n")
        name = _FIELD.search(head)
        if name is not None and b"filename" not in head.lower():
            pairs.append((name[1].decode("utf-8", "replace"), value.removesuffix(b"\r\n").decode("utf-8", "replace")))
    return pairs


def _variables(fields: dict[str, list[str]], form: dict[str, str]) -> dict[str, str]:
    """Return the mailer's variables: from the mail's own headers, where the form repeats them."""
    found: dict[str, str] = {}
    for one in _listed(form.get("message-headers", "")):
        if isinstance(one, list) and len(one) == 2 and one[0] == "X-Mailgun-Variables":
            found |= strings(_json(one[1]))
    return found or strings({name: values[-1] for name, values in fields.items() if name not in _OWN})


def _listed(spelt: str) -> list[Any]:
    found = _json(spelt)
    return found if isinstance(found, list) else []


def _json(spelt: object) -> Any:
    try:
        return msgspec.json.decode(spelt) if isinstance(spelt, str) else None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _codes(form: dict[str, str]) -> tuple[str, str]:
    """Return the codes; `code` holds either."""
    code, enhanced = codes(text(form, "code"))
    in_words = codes(first(form, "error", "notification", "description"))
    return code or in_words[0], enhanced or in_words[1]


def _verdict(form: dict[str, str]) -> tuple[What, Bounce | None]:
    what = _EVENTS.get(text(form, "event").strip().lower(), What.UNKNOWN)
    return what, refusal(text(form, "code"), text(form, "reason"), *_codes(form)) if what is What.BOUNCED else None
