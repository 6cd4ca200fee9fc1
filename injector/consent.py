"""Hear what a message says about being tracked: in our own header, and in those written for other mail services.

Off wins, at every step. `X-Outrider-Track` stands above everything, because it was written for us: it can switch on
what the settings leave off, as the contract says; of two that disagree, only what both allow is done. Without it the
other services' fields, taken together, can only switch off what the settings switch on. A `yes` among them switches
nothing on: it was written for somebody else, and a setting that says no may be the operator's duty by law. A word that
nobody knows, or JSON that cannot be read, says nothing.

What leaves: `X-Outrider-Track` never does. A field for another service goes when all it asks for is tracking, and the
message leaves with that tracking done here: left in, it would make that service, if it is the upstream, do it a second
time. A field that asks for anything *not* to be tracked stays, because an upstream of that name tracks by its own
settings once nobody tells it not to; to everybody else it is a field like any other. So a refusal is heard twice, and a
wish is granted once. `X-SMTPAPI` and `X-MSYS-API` always stay: they carry more than tracking.
"""

import re
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import msgspec

from injector.fields import Field, Headers

TRACK_HEADER: Final = "x-outrider-track"

#: In octets. A longer JSON value is not read: nobody writes one, and reading must end somewhere.
MAX_JSON: Final = 64 * 1024


class Tracked(NamedTuple):
    """What is tracked in a message."""

    opens: bool
    html_clicks: bool
    #: In text/plain parts; the setting that wraps links there at all stands beside it.
    text_clicks: bool


class Consent(msgspec.Struct, frozen=True, kw_only=True):
    """What is tracked, and by whose word."""

    tracked: Tracked
    #: The fields that were understood, lower-case.
    heard: tuple[str, ...] = ()
    #: The fields that mean tracking but say nothing that is known, lower-case.
    unread: tuple[str, ...] = ()
    #: The fields whose whole request is tracking that is done here.
    granted: tuple[str, ...] = ()


class Said(NamedTuple):
    """What one field says about each kind of tracking; None: nothing."""

    opens: bool | None = None
    html_clicks: bool | None = None
    text_clicks: bool | None = None


_NOTHING: Final = Said()
_WORDS: Final = {
    **dict.fromkeys(("yes", "true", "on", "1", "y", "htmlandtext"), Said(True, True, True)),
    **dict.fromkeys(("no", "false", "off", "0", "n", "none"), Said(False, False, False)),
    "htmlonly": Said(True, True, False),
    "textonly": Said(None, False, True),
}
_OURS: Final = {
    "all": Said(True, True, True),
    "clicks": Said(False, True, True),
    "opens": Said(True, False, False),
    "none": Said(False, False, False),
}

_COMMENT_MARK = re.compile(r"\\.|[()]", re.DOTALL)
_SEPARATORS = re.compile(r"[,;\s]+")


def consent_of(headers: Headers, *, opens: bool, clicks: bool) -> Consent:
    """Return what is tracked in a message whose settings say *opens* and *clicks*.

    A header over the limits says nothing: such a message is never tracked.
    """
    settings = Tracked(opens, clicks, clicks)
    if _FIELDS.isdisjoint(headers.index):
        return Consent(tracked=settings)
    ours = [said for word in headers.all(TRACK_HEADER) if (said := _OURS.get(_word(word)))]
    vendors = {name: _said(headers, name, read) for name, read in _VENDORS.items() if name in headers.index}
    if ours:
        tracked = Tracked(*(bool(word) for word in _strictest(ours)))
    else:
        refused = _strictest(vendors.values())
        tracked = Tracked(*(on and word is not False for on, word in zip(settings, refused, strict=True)))
    heard = tuple(name for name, said in vendors.items() if said != _NOTHING)
    unread = tuple(name for name, said in vendors.items() if said == _NOTHING and name not in _CARRIERS)
    if TRACK_HEADER in headers.index:
        heard, unread = ((TRACK_HEADER, *heard), unread) if ours else (heard, (TRACK_HEADER, *unread))
    return Consent(
        tracked=tracked,
        heard=heard,
        unread=unread,
        granted=tuple(name for name in heard if name in vendors and _is_granted(name, vendors[name], tracked)),
    )


def _is_granted(name: str, said: Said, tracked: Tracked) -> bool:
    if name in _CARRIERS or False in said:
        return False
    # Clicks are done when those in html are: nobody's text links are wrapped by default.
    return (tracked.opens or not said.opens) and (tracked.html_clicks or not (said.html_clicks or said.text_clicks))


def _strictest(words: Iterable[Said]) -> Said:
    each = zip(*words, strict=True)
    return Said(*(False if False in word else True if True in word else None for word in each))


def _said(headers: Headers, name: str, read: Callable[[str], Said]) -> Said:
    return _strictest(read(_value(headers, name, field)) for field in headers.fields(name))


def _value(headers: Headers, name: str, field: Field) -> str:
    too_long = name in _CARRIERS and field.end - field.value > MAX_JSON
    return "" if too_long else headers.text(field)


def _word(value: str) -> str:
    """Return *value* without comments (RFC 5322 3.2.2), in lower case."""
    if "(" in value:
        kept: list[str] = []
        depth = at = 0
        for mark in _COMMENT_MARK.finditer(value):
            if mark[0] == "(":
                if not depth:
                    kept.append(value[at : mark.start()])
                depth += 1
            elif mark[0] == ")" and depth:
                depth -= 1
                at = mark.end()
        value = " ".join(kept) if depth else " ".join((*kept, value[at:]))
    return value.strip().lower()


def _all(value: str) -> Said:
    return _WORDS.get(_word(value), _NOTHING)


def _opens(value: str) -> Said:
    return Said(opens=_all(value).opens)


def _clicks(value: str) -> Said:
    return _all(value)._replace(opens=None)


def _mandrill(value: str) -> Said:
    # A list of what is on: what it does not name is off.
    words = frozenset(_SEPARATORS.split(_word(value)))
    everywhere = not words.isdisjoint({"clicks", "clicks_all"})
    return Said("opens" in words, everywhere or "clicks_htmlonly" in words, everywhere or "clicks_textonly" in words)


def _symfony(value: str) -> Said:
    # `opens=false; clicks=default`, which Symfony writes for a plain SMTP transport; a lone word means both.
    if "=" not in value:
        return _all(value)
    pairs = {name.strip(): _all(word) for name, _, word in (each.partition("=") for each in _word(value).split(";"))}
    clicks = pairs.get("clicks", _NOTHING)
    return clicks._replace(opens=pairs.get("opens", _NOTHING).opens)


def _sparkpost(value: str) -> Said:
    options = _inside(_json(value), "options")
    clicks = _switch(options, "click_tracking")
    return Said(_switch(options, "open_tracking"), clicks, clicks)


def _sendgrid(value: str) -> Said:
    filters = _inside(_json(value), "filters")
    clicks = _inside(_inside(filters, "clicktrack"), "settings")
    on = _switch(clicks, "enable")
    return Said(
        _switch(_inside(_inside(filters, "opentrack"), "settings"), "enable"),
        on,
        False if on is False else _switch(clicks, "enable_text"),
    )


def _json(value: str) -> object:
    # A fold inside a string leaves a tab, which JSON forbids there; octets that are no UTF-8 stand in somebody's name.
    octets = value.replace("\t", " ").encode("utf-8", "replace")
    try:
        return msgspec.json.decode(octets)
    except (msgspec.DecodeError, RecursionError):
        return None


def _inside(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


def _switch(value: object, name: str) -> bool | None:
    word = _inside(value, name)
    if isinstance(word, str):
        return _all(word).html_clicks
    return bool(word) if isinstance(word, int) and word in {0, 1} else None


#: Who asks in which field. Amazon SES, Azure, Brevo and Resend have none.
_VENDORS: Final[dict[str, Callable[[str], Said]]] = {
    "x-mc-track": _mandrill,
    "x-mailgun-track": _all,
    "x-mailgun-track-clicks": _clicks,
    "x-mailgun-track-opens": _opens,
    "x-pm-tracklinks": _clicks,
    "x-pm-trackopens": _opens,
    "x-msys-api": _sparkpost,
    "x-smtpapi": _sendgrid,
    "x-mailjet-trackclick": _clicks,
    "x-mailjet-trackopen": _opens,
    "trackclicks": _clicks,  # Elastic Email
    "trackopens": _opens,
    "x-infobip-track": _all,
    "x-infobip-trackclicks": _clicks,
    "x-infobip-trackopens": _opens,
    "x-smtpeter-trackclicks": _clicks,
    "x-smtpeter-trackopens": _opens,
    "ahasend-track-clicks": _clicks,
    "ahasend-track-opens": _opens,
    "x-unosend-track-clicks": _clicks,
    "x-unosend-track-opens": _opens,
    "x-track": _symfony,
    "x-track-click": _clicks,
    "x-track-clicks": _clicks,
    "x-track-links": _clicks,
    "x-track-open": _opens,
    "x-track-opens": _opens,
}
# Substitutions, categories, recipients and arguments of the upstream stand in them too.
_CARRIERS: Final = frozenset({"x-msys-api", "x-smtpapi"})
_FIELDS: Final = frozenset({TRACK_HEADER, *_VENDORS})
