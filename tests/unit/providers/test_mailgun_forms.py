"""Mailgun's older webhooks, which are forms: every event, the mailer's variables among its fields, and the proof."""

from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.mailgun import PROVIDER
from providers.notice import Bounce, Name, Notice, Step, What
from providers.webhook import DeniedError, MalformedError, Proven, Request, Trust
from tests.unit.providers.samples import mailgun as samples
from tests.unit.providers.walk import read

NOW = 1_767_323_100.0
OURS = Name(Step.MESSAGE_ID, samples.MESSAGE_ID)
TOKEN = Name(Step.TOKEN, samples.KEY)
FORM = {"content-type": "application/x-www-form-urlencoded"}


def _ask(body: bytes, *, headers: dict[str, str]) -> Proven:
    request = Request(method="POST", headers=headers, query={}, body=body)
    proven = PROVIDER.authenticate(request, Trust(secrets=(samples.SECRET,)), NOW, {})
    assert isinstance(proven, Proven)
    return proven


FIELDS = [
    ("event", "clicked"),
    ("recipient", "ann@example.net"),
    ("domain", "example.org"),
    ("ip", "192.0.2.1"),
    ("user-agent", "UA"),
    ("tag", "t1"),
    ("tag", "t2"),
    ("url", "https://example.org/page?a=1"),
    ("message-id", samples.MESSAGE_ID),
    ("outrider", samples.KEY),
    ("order", "17"),
    # Variables of the names of Mailgun's own fields.
    ("token", "the mailer's"),
    ("timestamp", "the mailer's"),
    ("recipient", "the mailer's"),
    ("event", "the mailer's"),
]


def test_an_old_form_is_believed_and_read() -> None:
    """Mailgun's own fields come first, its proof last."""
    body = samples.form(FIELDS, NOW)
    (notice,) = read(PROVIDER, body, FORM)
    assert _ask(body, headers=FORM) == Proven(once=notice.dedupe)
    assert notice == Notice(
        provider="mailgun",
        what=What.CLICKED,
        dedupe=notice.dedupe,
        at_ms=int(NOW) * 1000,
        recipient="ann@example.net",
        names=(OURS, TOKEN),
        url="https://example.org/page?a=1",
        user_agent="UA",
        ip="192.0.2.1",
        tags=("t1", "t2"),
        metadata=samples.VARIABLES,
        raw=notice.raw,
    )
    assert len(notice.dedupe) == 50
    assert msgspec.json.decode(notice.raw)["order"] == ["17"]


def test_an_old_form_with_files_is_read_the_same() -> None:
    """A bounce comes as multipart/form-data, with the mail's attachments."""
    kind, body = samples.multipart(FIELDS, NOW)
    headers = {"content-type": kind}
    (notice,) = read(PROVIDER, body, headers)
    assert _ask(body, headers=headers) == Proven(once=notice.dedupe)
    (plain,) = read(PROVIDER, samples.form(FIELDS, NOW), FORM)
    assert (notice.names, notice.tags, notice.metadata) == (plain.names, plain.tags, plain.metadata)
    assert "attachment-1" not in notice.metadata


@pytest.mark.parametrize(
    ("fields", "what", "more"),
    [
        ({"event": "delivered"}, What.DELIVERED, {}),
        ({"event": "opened"}, What.OPENED, {}),
        ({"event": "unsubscribed"}, What.UNSUBSCRIBED, {}),
        ({"event": "complained"}, What.COMPLAINED, {}),
        ({"event": "teleported"}, What.UNKNOWN, {}),
        ({}, What.UNKNOWN, {}),
        (
            {"event": "dropped", "code": "605", "reason": "hardfail", "description": "previously bounced"},
            What.BOUNCED,
            {"bounce": Bounce.SUPPRESSED, "description": "previously bounced"},
        ),
        (
            {"event": "dropped", "code": "607", "reason": "hardfail", "description": "marked as spam"},
            What.BOUNCED,
            {"bounce": Bounce.SUPPRESSED, "description": "marked as spam"},
        ),
        (
            {"event": "dropped", "code": "499", "reason": "old", "description": "Unable to connect"},
            What.BOUNCED,
            {"bounce": Bounce.SOFT, "smtp_code": "499", "description": "Unable to connect"},
        ),
        (
            {"event": "bounced", "code": "550", "error": "550 5.1.1 no such user"},
            What.BOUNCED,
            {
                "bounce": Bounce.HARD,
                "smtp_code": "550",
                "enhanced_code": "5.1.1",
                "description": "550 5.1.1 no such user",
            },
        ),
        (
            {"event": "bounced", "code": "5.1.1", "error": "smtp;550 not found"},
            What.BOUNCED,
            {"bounce": Bounce.HARD, "smtp_code": "550", "enhanced_code": "5.1.1", "description": "smtp;550 not found"},
        ),
    ],
)
def test_each_old_event_becomes_one_notice(fields: dict[str, str], what: What, more: dict[str, Any]) -> None:
    """Dropped and bounced are told apart by their codes."""
    headers = msgspec.json.encode([["X-Mailgun-Variables", f'{{"outrider": "{samples.KEY}"}}'], ["To", "x"], 7])
    given_fields = [*fields.items(), ("Message-Id", f"<{samples.MESSAGE_ID}>"), ("X-Mailgun-Sid", "sid-1")]
    body = samples.form([*given_fields, ("message-headers", headers.decode()), ("outrider", samples.KEY)], NOW)
    (notice,) = read(PROVIDER, body, FORM)
    common: dict[str, Any] = {
        "dedupe": notice.dedupe,
        "at_ms": int(NOW) * 1000,
        "names": (OURS, TOKEN, Name(Step.PROVIDER_ID, "sid-1")),
        "metadata": {"outrider": samples.KEY},
        "raw": notice.raw,
    }
    assert notice == Notice(provider="mailgun", what=what, **(common | more))


@pytest.mark.parametrize("value", ["", "x", "[", "\0", "9" * 5000, "\u00e9", "{}", '[["X-Mailgun-Variables", "x"]]'])
@pytest.mark.parametrize("name", [*dict(FIELDS), "code", "message-headers", "X-Mailgun-Variables"])
def test_a_strange_value_in_a_form_is_survived(name: str, value: str) -> None:
    """Invariant: every notice is sane."""
    fields = [(one, value if one == name else said) for one, said in FIELDS]
    assert len(read(PROVIDER, samples.form([*fields, (name, value)], NOW), FORM)) == 1


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/x-www-form-urlencoded", b""),
        ("application/x-www-form-urlencoded", b"&".join([b"a=1"] * 1002)),
        ("multipart/form-data", b"--xyz\r\n"),
        ("multipart/form-data; boundary=", b""),
        ("multipart/form-data; boundary=xyz", b"--xyz\r\n--xyz--\r\n"),
        ("multipart/form-data; boundary=\udcff", b"x"),
    ],
)
def test_what_is_no_form_is_malformed_and_denied(kind: str, body: bytes) -> None:
    """Whatever its content type says."""
    headers = {"content-type": kind}
    with pytest.raises(MalformedError):
        PROVIDER.parse(Request(method="POST", headers=headers, query={}, body=body))
    with pytest.raises(DeniedError):
        _ask(body, headers=headers)


def test_the_form_of_a_stranger_is_denied() -> None:
    """A wrong key, no proof, and a proof that stands before a variable of the same name."""
    stranger = urlencode([*FIELDS, *samples.triplet(NOW, "another").items()]).encode()
    before = urlencode([*samples.triplet(NOW).items(), ("token", "later")]).encode()
    for body in (stranger, urlencode(FIELDS).encode(), before):
        with pytest.raises(DeniedError):
            _ask(body, headers=FORM)


@given(st.binary(max_size=120), st.text(max_size=30))
def test_any_form_parses_or_is_malformed(body: bytes, more: str) -> None:
    """Invariant: parse raises nothing but MalformedError, and authenticate denies."""
    framed = b'--xyz\r\nContent-Disposition: form-data; name="token"\r\n\r\n' + body + b"--xyz--"
    for kind, content in (("boundary=xyz", framed), (more, body), (f"boundary={more}", framed)):
        headers = {"content-type": f"multipart/form-data; {kind}"}
        with suppress(MalformedError):
            read(PROVIDER, content, headers)
        with pytest.raises(DeniedError):
            _ask(content, headers=headers)
