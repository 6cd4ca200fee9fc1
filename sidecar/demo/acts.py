"""The acts of the demo: submit, look at what left, play the recipients, hear what AMS was told, ask the ledger."""

import asyncio
import base64
import smtplib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import aiohttp
import msgspec

from sidecar.addresses import parse_listen
from sidecar.demo import mails
from sidecar.demo.mails import Mail
from sidecar.demo.recipients import Browser, Received, read
from sidecar.demo.story import Story
from sidecar.settings import Settings, public_url
from sidecar.standin_ams import StandinAms

# Seconds that an effect may take to be seen.
_PATIENCE = 15.0


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """What the acts play on."""

    settings: Settings
    ams: StandinAms
    browser: Browser
    session: aiohttp.ClientSession
    #: The console's bearer token.
    token: str
    #: AMS's number of the campaign.
    mailing: int
    now: datetime

    def person(self, name: str) -> str:
        """Return somebody's address."""
        return mails.person(name, self.mailing)

    @property
    def public_url(self) -> str:
        """The base of every injected URL."""
        return public_url(self.settings)


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """A message that left, with its envelope's recipient."""

    recipient: str
    content: bytes
    seen: Received


async def submit_campaign(stage: Stage, story: Story) -> list[str]:
    """Submit the campaign as a mailer does, one message twice; return the last words of the 250s."""
    story.chapter(f"A mailer submits campaign {stage.mailing} over SMTP")
    campaign = mails.campaign(stage.mailing, stage.now)
    replies = await asyncio.to_thread(_submit, stage, [*campaign, campaign[1]])
    for mail, reply in zip(campaign, replies, strict=False):
        story.check(f"accepted {mail.title}", holds=reply[0] == 250, seen=f"250 {reply[1]}")
    story.check("a repeat gets the same key, and is not sent again", holds=replies[1] == replies[3])
    return [text.rsplit(maxsplit=1)[-1] for _, text in replies]


def _submit(stage: Stage, campaign: Sequence[Mail]) -> list[tuple[int, str]]:
    listen = parse_listen(stage.settings.relay.listen)
    replies = []
    with smtplib.SMTP(listen.host, listen.port, timeout=30) as client:
        client.ehlo("mailer.example.com")
        for mail in campaign:
            client.mail(mails.SENDER)
            for recipient in mail.recipients:
                client.rcpt(recipient)
            code, text = client.data(mail.content)
            replies.append((code, text.decode("ascii")))
    return replies


def watch_mail(stage: Stage, story: Story, keys: Sequence[str]) -> dict[str, Delivered]:
    """Look at every message that left; return them by recipient."""
    story.chapter("What left, captured instead of sent")
    delivered = _captured(stage)
    campaign = mails.campaign(stage.mailing, stage.now)
    everybody = sorted(recipient for mail in campaign for recipient in mail.recipients)
    story.check("one message for each recipient", holds=sorted(delivered) == everybody, seen=f"{len(delivered)}")
    ids = {one.seen.message_id for one in delivered.values()}
    story.check("each has a Message-ID of its own", holds=len(ids) == len(everybody), seen=min(ids))
    single = delivered[campaign[1].recipients[0]]
    story.check("the 250 named the key in it", holds=keys[1] in single.seen.message_id)
    for mail in campaign[:2]:
        one = delivered[mail.recipients[0]]
        _check_tracked(stage, story, one)
    with_pdf = [delivered[recipient].seen.attachments for recipient in campaign[0].recipients]
    story.check("the PDF is bit-identical in all three", holds=all(found == (mails.pdf(),) for found in with_pdf))
    signed = delivered[campaign[2].recipients[0]].content
    before = campaign[2].content
    story.check(
        "the signed message's body is untouched",
        holds=signed[signed.index(b"--s\r\n") :] == before[before.index(b"--s\r\n") :],
    )
    return delivered


def _check_tracked(stage: Stage, story: Story, one: Delivered) -> None:
    seen = one.seen
    base = f"{stage.public_url}/track/"
    who = one.recipient
    tracked = [href for href in seen.hrefs if href.startswith(base + "c/")]
    story.check(f"{who}: every link is signed", holds=len(tracked) == len(mails.LINKS), seen=f"{len(tracked)} links")
    alone = tuple(href for href in seen.hrefs if not href.startswith(base))
    story.check(f"{who}: what is no link of the campaign's is as it was", holds=alone == mails.LEFT_ALONE)
    pixels = [image for image in seen.images if image.startswith(base + "o/")]
    story.check(f"{who}: one pixel", holds=len(pixels) == 1)
    story.check(f"{who}: one-click unsubscribe", holds=bool(seen.unsubscribe) and seen.one_click)
    story.check(
        f"{who}: the text reads the same", holds=seen.text.split() == mails.TEXT.split(), seen=seen.text.strip()
    )
    story.check(f"{who}: the page reads the same", holds=mails.HEADLINE in seen.html)
    spelt = {who, who.partition("@")[0], base64.b64encode(who.encode()).decode().rstrip("="), str(stage.mailing)}
    story.check(
        f"{who}: no address and no campaign can be read in a URL",
        holds=not any(spelling in url for url in (*tracked, *pixels, seen.unsubscribe) for spelling in spelt),
    )


def _captured(stage: Stage) -> dict[str, Delivered]:
    delivered = {}
    for path in (stage.settings.data_dir / "capture").glob("*.json"):
        envelope = msgspec.json.decode(path.read_bytes())
        content = path.with_suffix(".eml").read_bytes()
        # Runs before this one have left theirs here.
        if f"X-Id-Mail: [{stage.mailing}]".encode() in content:
            delivered[envelope["recipient"]] = Delivered(
                recipient=envelope["recipient"], content=content, seen=read(content)
            )
    return delivered


async def watch_recipients(stage: Stage, story: Story, delivered: Mapping[str, Delivered]) -> None:
    """Open, click, unsubscribe, and forge."""
    story.chapter("The recipients open, click and unsubscribe")
    anna, boris = delivered[stage.person("anna")].seen, delivered[stage.person("boris")].seen
    base = f"{stage.public_url}/track/"
    for name, seen in (("anna", anna), ("boris", boris)):
        pixel = next(image for image in seen.images if image.startswith(base + "o/"))
        answer = await stage.browser.get(pixel)
        story.check(f"{name} opens: the pixel is served", holds=answer.status == 200 and len(answer.body) == 43)
    clicks = [href for href in anna.hrefs if href.startswith(base + "c/")]
    for href, wanted in zip(clicks, mails.LINKS.values(), strict=True):
        answer = await stage.browser.get(href)
        story.check(
            "anna clicks: 302 to exactly what the mailer wrote",
            holds=(answer.status, answer.location) == (302, wanted),
            seen=str(answer.location),
        )
    page = await stage.browser.get(boris.unsubscribe)
    story.check("looking at the unsubscribe page changes nothing", holds=page.status == 200 and b"<form" in page.body)
    answer = await stage.browser.one_click(boris.unsubscribe)
    story.check("boris unsubscribes with one click", holds=answer.status == 200)
    token = clicks[0].rsplit("/", 1)[-1]
    forged = clicks[0].replace(token, token[:-3] + ("AAA" if not token.endswith("AAA") else "BBB"))
    answer = await stage.browser.get(forged)
    story.check("a forged click leads nowhere", holds=(answer.status, answer.location) == (404, None), seen="404")


async def watch_ams(stage: Stage, story: Story) -> None:
    """See what AMS was told."""
    story.chapter("AMS is told, in one call for a mailing")
    action = stage.settings.ams.unsubscribe_action
    anna, boris = stage.person("anna"), stage.person("boris")
    wanted = {(anna, "open_trace"), (boris, "open_trace"), (boris, action)}
    wanted |= {(anna, url) for url in mails.LINKS.values()}

    async def received() -> bool:
        return {(item.email, item.url) for item in stage.ams.received if item.mailing == stage.mailing} >= wanted

    story.check("every event, with the real address and the real link", holds=await _eventually(received))
    told = [(item.email, item.url) for item in stage.ams.received if item.mailing == stage.mailing]
    story.check("and nothing else, and nothing twice", holds=sorted(told) == sorted(wanted), seen=f"{len(told)} items")
    for email, url in told:
        if url in {"open_trace", action}:
            story.tell(f"mailing {stage.mailing}: {email}  {url}")
    calls = [call for call in stage.ams.calls if call.method == "postMailingOpenClicksData"]
    story.tell(f"in {len(calls)} call(s), of {', '.join(str(call.items) for call in calls)} items")


async def watch_ledger(stage: Stage, story: Story) -> None:
    """Ask the console what became of the campaign."""
    story.chapter("The console says what became of it")

    async def counted() -> bool:
        try:
            campaign = await _ask(stage, f"/api/campaigns/{stage.mailing}")
        except aiohttp.ClientConnectorError:
            return False  # the console joins after the others
        return (campaign.get("unsubscribes"), campaign.get("ams", {}).get("pending")) == (1, 0)

    await _eventually(counted)
    campaign = await _ask(stage, f"/api/campaigns/{stage.mailing}")
    for field, wanted in {
        "accepted": 5,
        "sent": 5,
        "failed": 0,
        "opens": 2,
        "unique_opens": 2,
        "clicks": len(mails.LINKS),
        "unique_clicks": 1,
        "unsubscribes": 1,
    }.items():
        story.check(f"{field} is {wanted}", holds=campaign.get(field) == wanted, seen=str(campaign.get(field)))
    (reply,) = await asyncio.to_thread(_submit, stage, [mails.farewell(stage.mailing, stage.now)])
    again = await _ask(stage, f"/api/messages/{reply[1].rsplit(maxsplit=1)[-1]}")
    story.check(
        "one more mail to boris is accepted and suppressed",
        holds=(reply[0], again.get("status")) == (250, "suppressed"),
        seen=str(again.get("status")),
    )
    found = await _ask(stage, f"/api/messages?campaign={stage.mailing}&recipient={stage.person('elena')}")
    tracking = found["messages"][0]["tracking"]
    story.check("why the signed message is not tracked", holds=not tracking["injected"], seen=tracking["reason"])


async def _ask(stage: Stage, path: str) -> dict[str, Any]:
    url = f"http://{stage.settings.console.listen}{path}"
    async with stage.session.get(url, headers={"Authorization": f"Bearer {stage.token}"}) as response:
        answer: dict[str, Any] = await response.json()
        return answer


async def _eventually(condition: Callable[[], Awaitable[bool]]) -> bool:
    deadline = asyncio.get_running_loop().time() + _PATIENCE
    while asyncio.get_running_loop().time() < deadline:
        if await condition():
            return True
        await asyncio.sleep(0.05)
    return False
