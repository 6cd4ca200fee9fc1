"""Azure's events: every status in every spelling, the three handshakes, and who is believed."""

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.azure import PROVIDER
from providers.notice import Bounce, Name, Notice, Step, What
from providers.webhook import DeniedError, MalformedError, Proven, Request, Trust
from tests.unit.providers.samples import azure as samples
from tests.unit.providers.walk import any_json, read, survives

SAMPLES = dict(samples.EVENTS)
NOW = 1_767_323_045.0
DELIVERED_MS = 1_767_323_044_000
SEEN_MS = 1_767_322_859_000
OURS = Name(Step.MESSAGE_ID, samples.MESSAGE_ID)
REPORTED = Name(Step.PROVIDER_ID, "11111111-aaaa-4bbb-8ccc-000000000001")
ENGAGED = Name(Step.PROVIDER_ID, "22222222-dddd-4eee-8fff-000000000002")


def _post(event: object, body: bytes | None = None, **changed: Any) -> Request:
    content = msgspec.json.encode(event) if body is None else body
    return Request(**({"method": "POST", "headers": {}, "query": {}, "body": content} | changed))


def _delivery(what: What, **fields: Any) -> Notice:
    told = {"smtp_code": "250", "enhanced_code": "2.0.0", "description": "250 2.0.0 accepted"}
    common: dict[str, Any] = {
        "dedupe": "e-1",
        "at_ms": DELIVERED_MS + 123,
        "recipient": "ann@example.net",
        "names": (OURS, REPORTED),
    }
    return Notice(provider="azure", what=what, **(common | told | fields))


def _engagement(what: What, **fields: Any) -> Notice:
    common: dict[str, Any] = {
        "dedupe": "e-1",
        "at_ms": SEEN_MS,
        "recipient": "ann@example.net",
        "names": (OURS, ENGAGED),
        "user_agent": "Mozilla/5.0 (example)",
    }
    return Notice(provider="azure", what=what, **(common | fields))


def _untold(word: str) -> dict[str, Any]:
    return {"smtp_code": "", "enhanced_code": "", "description": word}


URL = "https://example.org/page?a=1"
EXPECTED: dict[str, tuple[Notice, ...]] = {
    "delivered": (_delivery(What.DELIVERED),),
    "delivered as CloudEvent": (_delivery(What.DELIVERED),),
    "delivered, other spelling": (
        _delivery(What.DELIVERED, names=(OURS, Name(Step.PROVIDER_ID, "m-1")), at_ms=DELIVERED_MS),
    ),
    "delivered, no details": (_delivery(What.DELIVERED, **_untold("Delivered")),),
    "expanded": (_delivery(What.DELIVERED, **_untold("Expanded")),),
    "bounced": (
        _delivery(
            What.BOUNCED,
            bounce=Bounce.HARD,
            smtp_code="550",
            enhanced_code="5.1.1",
            description="550 5.1.1 no such user",
        ),
    ),
    "bounced by policy": (
        _delivery(
            What.BOUNCED,
            bounce=Bounce.BLOCK,
            smtp_code="550",
            enhanced_code="5.7.1",
            description="550 5.7.1 sender is listed",
        ),
    ),
    "bounced, full": (
        _delivery(
            What.BOUNCED,
            bounce=Bounce.SOFT,
            smtp_code="552",
            enhanced_code="5.2.2",
            description="552 5.2.2 over quota",
        ),
    ),
    "failed": (_delivery(What.FAILED, bounce=Bounce.UNKNOWN, **_untold("Failed")),),
    "failed for a while": (
        _delivery(What.FAILED, bounce=Bounce.SOFT, smtp_code="451", enhanced_code="4.4.7", description="451 4.4.7 old"),
    ),
    "suppressed": (_delivery(What.BOUNCED, bounce=Bounce.SUPPRESSED, names=(REPORTED,), **_untold("on the list")),),
    "quarantined": (_delivery(What.BOUNCED, bounce=Bounce.BLOCK),),
    "filtered": (_delivery(What.BOUNCED, bounce=Bounce.BLOCK, **_untold("FilteredSpam")),),
    "another status": (_delivery(What.UNKNOWN, **_untold("Teleported")),),
    "viewed": (_engagement(What.OPENED),),
    "viewed, as the SDK spells it": (_engagement(What.OPENED, recipient=""),),
    "clicked": (_engagement(What.CLICKED, url=URL),),
    "clicked as CloudEvent": (_engagement(What.CLICKED, url=URL),),
    "another engagement": (_engagement(What.UNKNOWN, description="forward"),),
    "batch": (_engagement(What.CLICKED, url=URL, dedupe="e-2"), _delivery(What.DELIVERED, dedupe="e-3")),
    "batch of CloudEvents": (_engagement(What.CLICKED, url=URL, dedupe="e-2"), _delivery(What.DELIVERED)),
    "text message": (
        Notice(
            provider="azure",
            what=What.UNKNOWN,
            dedupe="e-1",
            at_ms=DELIVERED_MS + 1765,
            names=(Name(Step.PROVIDER_ID, "s-1"),),
            description="microsoft.communication.smsdeliveryreportreceived",
        ),
    ),
    "handshake": (),
    "handshake by address": (),
    "subscription deleted": (),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_every_documented_event_is_told_exactly(name: str) -> None:
    """Status, class, codes, names, time and text of each sample are as expected, and its raw text is kept."""
    body = SAMPLES[name]
    found = read(PROVIDER, msgspec.json.encode(body))
    assert EXPECTED[name] == tuple(msgspec.structs.replace(one, raw=b"") for one in found)
    events = body if isinstance(body, list) else [body]
    assert not found or events == [msgspec.json.decode(one.raw) for one in found]


@pytest.mark.parametrize("name", SAMPLES)
def test_one_strange_field_costs_nothing_else(name: str) -> None:
    """Any field of another type, or missing, is read or refused, and never an error of ours."""
    assert survives(PROVIDER, SAMPLES[name])


def test_a_strange_entry_does_not_cost_its_batch() -> None:
    """What is no event becomes an unknown one, and its neighbours are read."""
    good: Any = SAMPLES["batch"]
    found = read(PROVIDER, msgspec.json.encode([7, good[0], None, [], good[1], {}]))
    expected = [What.UNKNOWN, What.CLICKED, What.UNKNOWN, What.UNKNOWN, What.DELIVERED, What.UNKNOWN]
    assert expected == [one.what for one in found]
    assert len({one.dedupe for one in found}) == 6


def test_without_an_id_the_event_is_known_by_what_it_says() -> None:
    """Copies share their dedupe word; another recipient, status or click does not."""

    def dedupe(kind: str, properties: dict[str, object]) -> str:
        event = samples.grid(kind, properties) | {"id": None, "eventTime": "2026-01-02T03:04:05Z"}
        return read(PROVIDER, msgspec.json.encode([event]))[0].dedupe

    first = dedupe(samples.DELIVERY, samples.delivery())
    assert first == dedupe(samples.DELIVERY, samples.delivery(deliveryStatusDetails="told otherwise"))
    others = {
        dedupe(samples.DELIVERY, samples.delivery(recipient="bob@example.net")),
        dedupe(samples.DELIVERY, samples.delivery(status="Bounced")),
        dedupe(samples.ENGAGEMENT, samples.engagement()),
        dedupe(samples.ENGAGEMENT, samples.engagement(engagementContext="https://example.org/other")),
    }
    assert len(others | {first}) == 5


def test_a_batch_of_five_thousand_is_read() -> None:
    """Event Grid's largest batch."""
    batch = [samples.grid(samples.DELIVERY, samples.delivery(), identity=f"e-{n}") for n in range(5000)]
    notices = PROVIDER.parse(_post(batch)).notices
    assert len({one.dedupe for one in notices}) == 5000


def test_the_handshake_is_answered_with_its_code() -> None:
    """A code is given back as JSON, and the address beside it is left alone."""
    parsed = PROVIDER.parse(_post(SAMPLES["handshake"]))
    assert parsed.answer is not None
    assert (parsed.answer.status, parsed.answer.content_type) == (200, "application/json")
    assert msgspec.json.decode(parsed.answer.body) == {"validationResponse": "code-1"}
    assert (parsed.visit, parsed.notices) == ("", ())


def test_the_handshake_without_a_code_is_made_by_its_address() -> None:
    """The address is visited after a bare 200."""
    parsed = PROVIDER.parse(_post(SAMPLES["handshake by address"]))
    assert (parsed.visit, parsed.answer) == (samples.VALIDATION_URL, None)


@pytest.mark.parametrize(
    "url",
    [
        "http://rp-westeurope.eventgrid.azure.net/validate",
        "https://eventgrid.azure.net.example.com/validate",
        "https://rp.eventgrid.azure.net.example.com/validate",
        "https://evil-eventgrid.azure.net/validate",
        "https://rp.eventgrid.azure.net@example.com/validate",
        "https://user@rp.eventgrid.azure.net/validate",
        "https://rp.eventgrid.azure.net:25/validate",
        "https://rp.eventgrid.azure.net:4430/validate",
        "https://example.com/rp.eventgrid.azure.net/validate",
        "https://example.com#.eventgrid.azure.net/validate",
        "https://example.com\\.eventgrid.azure.net/validate",
        "https://rp.eventgrid.azure.net/a\\@example.com",
        "https://rp.eventgrid.azure.net/validate\n",
        "https://rp.eventgrid.azure.net/va lidate",
        "https://127.0.0.1/validate",
        "//rp.eventgrid.azure.net/validate",
        "",
    ],
)
def test_no_other_host_is_ever_visited(url: str) -> None:
    """An address that is not Event Grid's own is not asked for."""
    parsed = PROVIDER.parse(_post([samples.validation(validationUrl=url)]))
    assert not parsed.visit
    assert parsed.answer is None


@pytest.mark.parametrize("port", ["", ":443", ":553"])
def test_event_grid_is_visited_at_its_ports(port: str) -> None:
    """The ports that Event Grid uses."""
    url = f"https://rp-eastus2.eventgrid.azure.net{port}/eventsubscriptions/x/validate?id=1"
    assert url == PROVIDER.parse(_post([samples.validation(validationUrl=url)])).visit


def _options(**headers: str) -> Request:
    return Request(method="OPTIONS", headers=headers, query={"key": "good"}, body=b"")


def test_the_cloud_handshake_is_allowed_with_the_secret_only() -> None:
    """The origin that asks is allowed, at any rate; without the secret it hears 401."""
    asked = _options(**{"webhook-request-origin": "eventgrid.azure.net", "webhook-request-rate": "120"})
    answer = PROVIDER.probe(asked, Trust(secrets=("other", "good")))
    assert answer is not None
    assert answer.status == 200
    assert answer.headers["WebHook-Allowed-Origin"] == "eventgrid.azure.net"
    assert answer.headers["WebHook-Allowed-Rate"] == "*"
    denied = PROVIDER.probe(asked, Trust(secrets=("other",)))
    assert denied is not None
    assert denied.status == 401
    assert not denied.headers


@pytest.mark.parametrize("origin", ["", "a\r\nSet-Cookie: b", "é.example.com", "*", "https://example.com"])
def test_a_strange_origin_gets_no_answer(origin: str) -> None:
    """What is no host name is never repeated in a header."""
    assert PROVIDER.probe(_options(**{"webhook-request-origin": origin}), Trust(secrets=("good",))) is None


def test_a_get_is_no_handshake() -> None:
    """Only OPTIONS is."""
    asked = msgspec.structs.replace(_options(**{"webhook-request-origin": "eventgrid.azure.net"}), method="GET")
    assert PROVIDER.probe(asked, Trust(secrets=("good",))) is None


TRUST = Trust(secrets=("first-secret", "second-secret"))


def _basic(password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"any:{password}".encode()).decode()}


@pytest.mark.parametrize("secret", TRUST.secrets)
@pytest.mark.parametrize("place", ["query", "basic", "bearer", "property"])
def test_each_secret_is_believed_in_each_place(place: str, secret: str) -> None:
    """In the address, as password, as token, and as static delivery property; the newer and the older one."""
    query = {"key": secret} if place == "query" else {}
    headers = {
        "query": {},
        "basic": _basic(secret),
        "bearer": {"authorization": f"Bearer {secret}"},
        "property": {"outrider-key": secret},
    }[place]
    assert Proven() == PROVIDER.authenticate(_post([], query=query, headers=headers), TRUST, NOW, {})


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ({}, {}),
        ({"key": ""}, {"outrider-key": ""}),
        ({"key": "first-secre"}, {}),
        ({"key": "first-secret,second-secret"}, {}),
        ({}, {"outrider-key": "First-Secret"}),
        ({}, {"aeg-event-type": "SubscriptionValidation"}),
        ({}, {"authorization": "Bearer eyJhbGciOiJub25lIn0.e30."}),
        ({}, _basic("wrong")),
        ({}, {"authorization": "Basic %%%"}),
    ],
)
def test_nobody_else_is_believed(query: dict[str, str], headers: dict[str, str]) -> None:
    """Without a secret nothing is, the handshake included."""
    with pytest.raises(DeniedError):
        PROVIDER.authenticate(_post(SAMPLES["handshake"], query=query, headers=headers), TRUST, NOW, {})


def test_the_samples_are_proven_by_their_proof() -> None:
    """Each sample with its proof, and not with another's."""
    for _, event in samples.EVENTS:
        body = msgspec.json.encode(event)
        proof, other = samples.proof(body, NOW), samples.proof(body, NOW)
        request = Request(method="POST", headers=proof.headers, query=proof.query, body=body)
        assert PROVIDER.configured(proof.trust)
        assert Proven() == PROVIDER.authenticate(request, proof.trust, NOW, proof.documents)
        with pytest.raises(DeniedError):
            PROVIDER.authenticate(request, other.trust, NOW, other.documents)


def test_without_a_secret_it_is_closed() -> None:
    """Unset is not open."""
    assert not PROVIDER.configured(Trust())
    with pytest.raises(DeniedError):
        PROVIDER.authenticate(_post([], query={"key": ""}), Trust(), NOW, {})


@pytest.mark.parametrize("body", [b"", b"[", b'[{"id":"e-1"', b"7", b'"x"', b"null", b"\xff", b"[" * 3000])
def test_what_is_no_event_is_malformed(body: bytes) -> None:
    """A truncated body, a scalar, and nonsense."""
    with pytest.raises(MalformedError):
        PROVIDER.parse(_post(None, body))


def test_azure_is_known_by_its_host_and_keeps_our_id() -> None:
    """Nothing is stamped: the Message-ID is all that Azure has."""
    assert PROVIDER.hosts == ("smtp.azurecomm.net",)
    assert PROVIDER.keeps_message_id
    assert not PROVIDER.stamp(samples.KEY, {})
    assert PROVIDER.reply_id("2.0.0 OK queued as 11111111-aaaa") == "11111111-aaaa"
    assert PROVIDER.reply_id("2.0.0 OK") is None


@given(st.binary(max_size=200) | any_json.map(msgspec.json.encode))
def test_any_body_is_read_or_malformed(body: bytes) -> None:
    """Invariant: parse() returns sane notices or raises MalformedError and nothing else."""
    try:
        read(PROVIDER, body)
    except MalformedError:
        return


@given(st.dictionaries(st.sampled_from(["authorization", "outrider-key"]), st.text()), st.text())
def test_any_credentials_are_denied(headers: dict[str, str], key: str) -> None:
    """Invariant: authenticate() of a stranger raises DeniedError and nothing else."""
    with pytest.raises(DeniedError):
        PROVIDER.authenticate(_post([], headers=headers, query={"key": key}), Trust(secrets=("a" * 40,)), NOW, {})
