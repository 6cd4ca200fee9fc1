"""Promise 8: prefetchers, scanners and proxies are labelled, never silently dropped, and reported apart from people.

Every kind of visitor opens and clicks a message of its own; then the console and AMS are asked what they know. All of
it runs twice: with an AMS that hears of machines, and with one that does not.
"""

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from sidecar.standin_ams import StandinAms
from tests.conftest import next_port
from tests.playing import BROWSER, Answered, accepted, asked, mail, tracked, until, visit
from tests.running import Outrider, outrider, short_directory

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("people_are_told_from_machines"),
    pytest.mark.timeout(180),
]

CAMPAIGN = "801"
LINK = "https://example.com/?a=1&b=2"
#: What a filter follows that looks like a browser: more at once than a person does.
SCANNED = tuple(f"https://example.com/{number}" for number in range(6))


class Visitor(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody, or something, that opens and clicks, and what has to be made of it."""

    #: The reason with which an open is labelled.
    opened: str
    #: The same for a click, where it is another.
    clicked: str = ""
    machine: bool = True
    method: str = "GET"
    agent: str | None = BROWSER
    headers: Mapping[str, str] = {}


VISITORS = {
    "browser": Visitor(opened="browser", machine=False),
    # The proxy asks when the reader opens the mail: most probably a person, and labelled as what it is.
    "gmail.proxy": Visitor(
        opened="gmail_proxy",
        machine=False,
        agent="Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)",
    ),
    "mail.program": Visitor(opened="odd_user_agent", machine=False, agent="ExampleMail/7.1"),
    "head": Visitor(opened="head_request", method="HEAD"),
    "sec.purpose": Visitor(opened="prefetch", headers={"Sec-Purpose": "prefetch;prerender"}),
    "purpose": Visitor(opened="prefetch", headers={"Purpose": "prefetch"}),
    "x.purpose": Visitor(opened="prefetch", headers={"X-Purpose": "preview"}),
    "x.moz": Visitor(opened="prefetch", headers={"X-Moz": "prefetch"}),
    "bare": Visitor(opened="apple_privacy", clicked="bare_user_agent", agent="Mozilla/5.0"),
    "nameless": Visitor(opened="no_user_agent", agent=None),
    "gmail.prefetch": Visitor(
        opened="gmail_prefetch",
        agent="Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
        "Chrome/42.0.2311.135 Safari/537.36 Edge/12.246 Mozilla/5.0",
    ),
    "barracuda": Visitor(opened="scanner", agent="Mozilla/5.0 (compatible; Barracuda Sentinel (EE))"),
    "proofpoint": Visitor(opened="scanner", agent="Mozilla/5.0 Proofpoint-TAP/1.0"),
    "slack": Visitor(opened="robot", agent="Slackbot-LinkExpanding 1.0"),
    "headless": Visitor(opened="robot", agent=BROWSER.replace("Firefox", "HeadlessChrome")),
    "program": Visitor(opened="program", agent="python-requests/2.32.3"),
}
PEOPLE = sum(not visitor.machine for visitor in VISITORS.values())
MACHINES = len(VISITORS) - PEOPLE


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """What happened: every visitor's answers, and one message that a person and a machine opened."""

    target: Outrider
    ams: StandinAms
    machines: str
    keys: Mapping[str, str]
    answers: Mapping[str, tuple[Answered, Answered]]
    shared: str
    scanned: str

    async def message(self, visitor: str) -> dict[str, Any]:
        """Return what the console knows of a visitor's message."""
        shown: dict[str, Any] = await asked(self.target, f"/api/messages/{self.keys[visitor]}")
        return shown


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["include", "exclude"])
async def played(request: pytest.FixtureRequest) -> AsyncIterator[Played]:
    """Let every visitor visit, and wait until all of it is recorded and told."""
    with short_directory() as data_dir:
        async with (
            StandinAms(api_key="k") as ams,
            outrider(
                data_dir,
                next_port,
                ams__url=ams.url,
                ams__api_key="k",
                ams__interval="0.2",
                ams__machines=request.param,
            ) as target,
        ):
            yield await _play(target, ams, machines=request.param)


async def _play(target: Outrider, ams: StandinAms, *, machines: str) -> Played:
    async def submitted(name: str) -> str:
        content = mail(f"{name}@mailer.example.com", campaign=CAMPAIGN, links=(LINK,))
        return await accepted(target.smtp, content, f"{name}@example.net")

    def left(key: str) -> bytes:
        return (target.data_dir / "capture" / f"{key}.eml").read_bytes()

    keys = {name: await submitted(name) for name in VISITORS}
    answers: dict[str, tuple[Answered, Answered]] = {}
    for name, visitor in VISITORS.items():
        ours = tracked(left(keys[name]))
        opened, clicked = [
            await visit(url, visitor.method, agent=visitor.agent, headers=visitor.headers)
            for url in (ours.pixel, ours.links[0])
        ]
        answers[name] = opened, clicked
    shared = await submitted("shared")
    for agent in (BROWSER, "Mozilla/5.0", BROWSER):
        await visit(tracked(left(shared)).pixel, agent=agent)
    content = mail("scanned@mailer.example.com", campaign=CAMPAIGN, links=SCANNED)
    scanned = await accepted(target.smtp, content, "scanned@example.net")
    for url in tracked(left(scanned)).links:
        await visit(url)
    counted = len(VISITORS) * 2 + 3 + len(SCANNED)

    async def all_recorded() -> bool:
        campaign = await asked(target, f"/api/campaigns/{CAMPAIGN}")
        names = ("opens", "clicks", "machine_opens", "machine_clicks")
        return sum(campaign[name] for name in names) == counted and not campaign["ams"]["pending"]

    await until(all_recorded)
    return Played(target=target, ams=ams, machines=machines, keys=keys, answers=answers, shared=shared, scanned=scanned)


async def test_every_visit_is_answered_alike(played: Played) -> None:
    """A machine gets what a person gets: the image, and the redirect to exactly the mailer's link."""
    for name, (opened, clicked) in played.answers.items():
        assert (opened.status, opened.content_type) == (200, "image/gif"), name
        assert (clicked.status, clicked.location) == (302, LINK), name
        assert len(opened.body) == (0 if VISITORS[name].method == "HEAD" else 43)


@pytest.mark.parametrize("name", sorted(VISITORS))
async def test_a_visit_is_labelled_with_its_reason_and_never_dropped(played: Played, name: str) -> None:
    """Both hits are events of their message, told as a person's or a machine's, each with the evidence."""
    visitor = VISITORS[name]
    message = await played.message(name)
    events = {event["type"]: event for event in message["events"]}
    assert sorted(event["type"] for event in message["events"]) == ["clicked", "opened"]
    for kind, reason in (("opened", visitor.opened), ("clicked", visitor.clicked or visitor.opened)):
        assert events[kind]["machine"] is visitor.machine
        # The evidence carries the version of the rules that judged it.
        assert events[kind]["reason"].partition("/")[0] == reason
        assert events[kind]["source"] == "tracker"
    assert (events["opened"]["url"], events["clicked"]["url"]) == (None, LINK)


@pytest.mark.parametrize("name", sorted(VISITORS))
async def test_machines_are_counted_apart_and_raise_no_flag(played: Played, name: str) -> None:
    """A person's counts and flags stand as if no machine had come."""
    engagement = (await played.message(name))["engagement"]
    person = not VISITORS[name].machine
    counted = {counter: engagement[counter] for counter in ("opens", "clicks", "machine_opens", "machine_clicks")}
    assert counted == {
        "opens": int(person),
        "clicks": int(person),
        "machine_opens": int(not person),
        "machine_clicks": int(not person),
    }
    assert (engagement["opened"], engagement["clicked"]) == (person, person)
    assert (engagement["first_opened_at"] is not None) is person
    assert (engagement["first_clicked_at"] is not None) is person


async def test_one_message_counts_its_people_and_its_machines(played: Played) -> None:
    """A person opened it twice and a prefetcher once: two opens, one machine open, one person."""
    engagement = (await asked(played.target, f"/api/messages/{played.shared}"))["engagement"]
    assert (engagement["opens"], engagement["machine_opens"], engagement["opened"]) == (2, 1, True)


async def test_a_burst_is_a_machines_from_its_first_click(played: Played) -> None:
    """Six links in a moment by what calls itself a browser: no click, no open and no flag of it is a person's."""
    message = await asked(played.target, f"/api/messages/{played.scanned}")
    assert {event["reason"].partition("/")[0] for event in message["events"]} == {"burst"}
    assert [event["machine"] for event in message["events"]] == [True] * len(SCANNED)
    engagement = message["engagement"]
    assert (engagement["clicks"], engagement["machine_clicks"]) == (0, len(SCANNED))
    assert (engagement["opened"], engagement["clicked"], engagement["first_clicked_at"]) == (False, False, None)


async def test_a_campaign_reports_both(played: Played) -> None:
    """The campaign's counts are people's; the machines' stand beside them, and every hit is in one of the two."""
    campaign = await asked(played.target, f"/api/campaigns/{CAMPAIGN}")
    expected = {
        "opens": PEOPLE + 2,
        "unique_opens": PEOPLE + 1,
        "clicks": PEOPLE,
        "unique_clicks": PEOPLE,
        "machine_opens": MACHINES + 1,
        "machine_clicks": MACHINES + len(SCANNED),
    }
    assert {counter: campaign[counter] for counter in expected} == expected
    listed = (await asked(played.target, f"/api/events?campaign={CAMPAIGN}&limit=500"))["events"]
    assert Counter(event["machine"] for event in listed) == {
        False: PEOPLE * 2 + 2,
        True: MACHINES * 2 + 1 + len(SCANNED),
    }


async def test_ams_hears_of_machines_as_it_is_set(played: Played) -> None:
    """`ams.machines`: `include` tells AMS all but HEAD requests, `exclude` what people did; each item once."""
    expected: Counter[tuple[str, str]] = Counter()
    for name, visitor in VISITORS.items():
        told = not visitor.machine or (played.machines == "include" and visitor.method != "HEAD")
        if told:
            expected.update({(f"{name}@example.net", "open_trace"): 1, (f"{name}@example.net", LINK): 1})
    expected["shared@example.net", "open_trace"] = 3 if played.machines == "include" else 2
    received = Counter((item.email, item.url) for item in played.ams.received)
    burst = Counter({item: received.pop(item) for item in list(received) if item[0] == "scanned@example.net"})
    assert received == expected
    whole = Counter(("scanned@example.net", url) for url in SCANNED)
    if played.machines == "include":
        assert burst == whole
    else:
        # What AMS took before there were links enough for a burst; there is no way to take it back.
        assert burst <= whole
        assert burst.total() <= 3
    assert {item.mailing for item in played.ams.received} == {int(CAMPAIGN)}
