"""Show what the relay would do to a message, without sending or storing anything.

The relay's own steps read the message, so what is shown is what would happen; keys and URLs are samples, because the
real ones depend on who submits to whom.
"""

import re
from datetime import datetime
from typing import Any

import msgspec

from injector.explain import Report, explain
from injector.explain_text import render_text
from relay import stamp
from relay.campaign import Campaign
from relay.inject import Profile
from relay.intake import Submission
from sidecar.settings import Settings, injector_options

_SAMPLE_KEY = b"a sample, which signs nothing"
_RECIPIENT = "recipient@example.com"

_LINE_END = re.compile(rb"\r?\n")


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A message's campaign, and what becomes of it."""

    campaign: Campaign
    report: Report

    def text(self) -> str:
        """Return it for a person."""
        return f"{_campaign_line(self.campaign)}\n{render_text(self.report)}"

    def document(self) -> dict[str, Any]:
        """Return it for a machine: the report's fields, and `campaign`."""
        return {"campaign": msgspec.to_builtins(self.campaign), **msgspec.to_builtins(self.report)}


def explanation(content: bytes, settings: Settings, *, now: datetime) -> Explanation:
    """Return what becomes of *content*, as a file holds it: its lines may end in LF alone.

    Raises `ValueError` for what holds no message, and for what the relay would refuse to take.
    """
    if not content.strip():
        raise ValueError("it is empty")
    most = settings.relay.max_bytes
    if len(content) <= most:
        content = _LINE_END.sub(b"\r\n", content)
    if len(content) > most:
        raise ValueError(f"the relay refuses it with 552: it is larger than relay.max_bytes, {most}")
    if b"\0" in content or content.count(b"\r") > content.count(b"\r\n"):
        raise ValueError("the relay refuses it with 550 5.6.0: a NUL, or a CR that ends no line")
    options = injector_options(settings)
    profile = Profile(
        options=options, signing="", strip=settings.relay.strip, hostname=settings.relay.hostname or "localhost"
    )
    draft = stamp.draft_of(
        _submission(content, now),
        settings=settings.relay,
        ams_headers=settings.ams.headers,
        profile=profile,
        recalls=False,
    )
    addressed = stamp.address(draft, _RECIPIENT, identity_key=_SAMPLE_KEY, generation=0)
    edits = stamp.header_edits(draft, addressed)
    report = explain(content, options, campaign=draft.campaign.id is not None, edits=edits)
    return Explanation(campaign=draft.campaign, report=report)


def _submission(content: bytes, now: datetime) -> Submission:
    return Submission(
        sender="sender@example.com",
        recipients=(_RECIPIENT,),
        content=content,
        source="default",
        client="127.0.0.1",
        helo="localhost",
        protocol="ESMTP",
        smtputf8=False,
        eight_bit=True,
        received_at=now,
    )


def _campaign_line(campaign: Campaign) -> str:
    if campaign.id is None:
        return f"Campaign: none, {campaign.reason}"
    ams = "not AMS's" if campaign.ams_mailing is None else f"AMS mailing {campaign.ams_mailing}"
    return f"Campaign: {campaign.id} ({ams})"
