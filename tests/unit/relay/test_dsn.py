"""A notification that any mailer can read (RFC 3464)."""

from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default

from relay.dsn import Failure, notification

ORIGINAL = b"From: a@example.com\r\nSubject: x\r\n\r\nsecret body\r\n"


def _parts(*failures: Failure) -> list[str]:
    content = notification(
        sender="a@example.com",
        failures=failures,
        original=ORIGINAL,
        hostname="relay.example.com",
        upstream="smtp.example.net:25",
        now=datetime(2026, 11, 22, tzinfo=UTC),
    )
    assert b"\n" not in content.replace(b"\r\n", b"")
    mail = message_from_bytes(content, policy=default)
    assert mail.get_content_type() == "multipart/report"
    assert mail["Auto-Submitted"] == "auto-replied"
    return [part.as_string() for part in mail.iter_parts()]


def test_each_failure_has_its_group() -> None:
    """Status from the upstream's enhanced code, 5.0.0 where it gave none."""
    text, status, headers = _parts(
        Failure(recipient="b@example.net", code=550, text="5.1.1 Unknown\nuser"),
        Failure(recipient="c@example.net", code=554, text="no"),
    )
    assert "<b@example.net>: 550 5.1.1 Unknown user" in text
    assert "Final-Recipient: rfc822; b@example.net" in status
    assert "Status: 5.1.1" in status
    assert "Status: 5.0.0" in status
    assert "Remote-MTA: dns; smtp.example.net" in status
    assert "Subject: x" in headers


def test_the_body_is_not_returned() -> None:
    """Headers are enough to know which message it was."""
    assert not any("secret body" in part for part in _parts(Failure(recipient="b@example.net", code=550, text="no")))


def test_an_address_outside_ascii_is_named() -> None:
    """A utf-8 address type (RFC 6533), in a notification that still is ASCII."""
    _, status, _ = _parts(Failure(recipient="почта@example.net", code=553, text="5.6.7 no"))
    assert "Final-Recipient: utf-8;" in status
