"""How providers introduce themselves: probes, Event Grid's handshakes, and subscriptions of SNS that are confirmed."""

import time

import pytest

from providers.registry import PROVIDERS
from tests.provider_sides import SIDES, octets
from tests.unit.providers import test_entra as entra
from tests.unit.providers.samples import azure, ses
from tests.webhooking import Post, World

ORIGIN = "eventgrid.azure.net"


@pytest.mark.parametrize("name", PROVIDERS)
async def test_probes_are_answered_and_record_nothing(name: str, endpoint: World) -> None:
    """HEAD is well, GET is not allowed, and OPTIONS is for who wants to introduce himself."""
    side = SIDES[name]()
    proved = Post(body=b"", query=side.post({}).query)
    introduced = Post(body=b"", query=proved.query, headers={"WebHook-Request-Origin": ORIGIN})
    async with endpoint.open({name: side.trust}) as door:
        assert (await door.ask(name, "HEAD", Post(body=b""))).status == 200
        for method, post in (("GET", proved), ("OPTIONS", proved), ("PUT", proved)):
            answer = await door.ask(name, method, post)
            assert (answer.status, answer.headers["allow"]) == (405, "HEAD, POST")
        answer = await door.ask(name, "OPTIONS", introduced)
        assert answer.status == (200 if name == "azure" else 405)
    async with endpoint.open({}) as door:
        for method in ("HEAD", "GET", "OPTIONS", "POST"):
            assert (await door.ask(name, method, proved)).status == 404
    assert await endpoint.record() == 0


class TestEventGrid:
    """A subscription begins only for who knows the secret."""

    async def test_a_cloud_event_s_handshake(self, endpoint: World) -> None:
        """The origin is allowed; without the secret, or with an origin that is none, it is not."""
        side = SIDES["azure"]()
        query = side.post({}).query
        async with endpoint.open({"azure": side.trust}) as door:

            async def ask(origin: str, given: dict[str, str]) -> tuple[int, str, str]:
                post = Post(body=b"", query=given, headers={"WebHook-Request-Origin": origin})
                answer = await door.ask("azure", "OPTIONS", post)
                said = answer.headers
                return answer.status, said.get("webhook-allowed-origin", ""), said.get("webhook-allowed-rate", "")

            assert await ask(ORIGIN, dict(query)) == (200, ORIGIN, "*")
            assert await ask(ORIGIN, {}) == (401, "", "")
            assert await ask(ORIGIN, {"key": "guessed"}) == (401, "", "")
            assert await ask("a b", dict(query)) == (405, "", "")

    async def test_a_validation_is_answered_with_its_code(self, endpoint: World) -> None:
        """In JSON, with 200, and nobody is asked; without the secret it is not."""
        side = SIDES["azure"]()
        asked = [azure.validation(validationCode="code-7", validationUrl=azure.VALIDATION_URL)]
        async with endpoint.open({"azure": side.trust}) as door:
            answer = await door.post("azure", side.post(asked))
            assert (answer.status, answer.body) == (200, b'{"validationResponse":"code-7"}')
            assert answer.headers["content-type"].startswith("application/json")
            assert (await door.post("azure", Post(body=octets(asked)))).status == 401
        assert endpoint.shelf.asked == []
        assert await endpoint.record() == 0

    async def test_a_token_of_the_tenant_proves_what_a_secret_would(self, endpoint: World) -> None:
        """Its keys are asked for once; an event with it is recorded, and one with a forged one is not."""
        endpoint.shelf.documents = {entra.KEYS: entra.key_set(k1=entra.tenants_own())}
        first = entra.FIRST | {"nbf": time.time() - 60, "exp": time.time() + 600}

        def told(spelt: str) -> Post:
            event = dict(azure.EVENTS)["delivered"]
            return Post(body=octets(event), headers={"Authorization": f"Bearer {spelt}"})

        async with endpoint.open({"azure": entra.TRUST}) as door:
            assert (await door.post("azure", told(entra.token(first)))).status == 200
            assert (await door.post("azure", told(entra.token(first, key=entra.stranger())))).status == 401
            assert (await door.post("azure", told("a secret of nobody's"))).status == 401
        assert endpoint.shelf.asked == [entra.KEYS]
        assert await endpoint.record() == 1

    async def test_a_validation_by_address_is_visited_once(self, endpoint: World) -> None:
        """After the answer, and only at Event Grid's."""
        side = SIDES["azure"]()
        endpoint.shelf.documents = {azure.VALIDATION_URL: b"done"}
        elsewhere = azure.VALIDATION_URL.replace("eventgrid.azure.net", "eventgrid.azure.net.example.com")
        async with endpoint.open({"azure": side.trust}) as door:
            for url in (elsewhere, "http://127.0.0.1/", azure.VALIDATION_URL):
                answer = await door.post("azure", side.post([azure.validation(validationUrl=url)]))
                assert (answer.status, answer.body) == (200, b"")
            await door.settled()
        assert endpoint.shelf.asked == [azure.VALIDATION_URL]
        assert await endpoint.record() == 0


class TestSns:
    """A topic is confirmed when it is one that the operator named, at Amazon's address, once."""

    async def test_a_subscription_is_confirmed_once(self, endpoint: World) -> None:
        """The certificate is asked for, then the address that confirms, and nothing else."""
        side = SIDES["ses"]()
        endpoint.shelf.documents = {**side.documents, ses.SUBSCRIBE_URL: b"<ConfirmSubscriptionResponse/>"}
        async with endpoint.open({"ses": side.trust}) as door:
            answer = await door.post("ses", Post(body=octets(ses.control("SubscriptionConfirmation"))))
            assert (answer.status, answer.body) == (200, b"")
            await door.settled()
        assert endpoint.shelf.asked == [ses.CERTIFICATE_URL, ses.SUBSCRIBE_URL]
        assert await endpoint.record() == 0

    @pytest.mark.parametrize(
        "url",
        [
            ses.SUBSCRIBE_URL.replace("amazonaws.com", "amazonaws.com.example.com"),
            ses.SUBSCRIBE_URL.replace("https", "http"),
            ses.SUBSCRIBE_URL.replace("sns.", "sns.s3-"),
            ses.SUBSCRIBE_URL.replace(ses.TOPIC, f"{ses.TOPIC}-of-another"),
            ses.SUBSCRIBE_URL.replace("ConfirmSubscription", "Unsubscribe"),
            "http://169.254.169.254/latest/meta-data/",
        ],
    )
    async def test_no_other_address_is_visited(self, url: str, endpoint: World) -> None:
        """Not even where the signature is good: it proves some topic of some account."""
        side = SIDES["ses"]()
        endpoint.shelf.documents = {**side.documents, url: b""}
        async with endpoint.open({"ses": side.trust}) as door:
            sent = ses.control("SubscriptionConfirmation", SubscribeURL=url)
            assert (await door.post("ses", Post(body=octets(sent)))).status == 200
            await door.settled()
        assert endpoint.shelf.asked == [ses.CERTIFICATE_URL]

    async def test_the_end_of_a_subscription_begins_none(self, endpoint: World) -> None:
        """It holds the same address."""
        side = SIDES["ses"]()
        endpoint.shelf.documents = {**side.documents, ses.SUBSCRIBE_URL: b""}
        async with endpoint.open({"ses": side.trust}) as door:
            assert (await door.post("ses", Post(body=octets(ses.control("UnsubscribeConfirmation"))))).status == 200
            await door.settled()
        assert endpoint.shelf.asked == [ses.CERTIFICATE_URL]

    @pytest.mark.parametrize(
        "changed",
        [
            {"TopicArn": "arn:aws:sns:eu-west-1:999999999999:evil"},
            {"SigningCertURL": "https://sns.eu-west-1.amazonaws.com.example.com/a.pem"},
            {"SigningCertURL": "https://example.com/a.pem"},
            {"SigningCertURL": "http://169.254.169.254/a.pem"},
        ],
    )
    async def test_a_stranger_s_topic_has_nothing_asked_for(self, changed: dict[str, str], endpoint: World) -> None:
        """Neither the certificate nor the confirmation."""
        side = SIDES["ses"]()
        sent = ses.control("SubscriptionConfirmation", **changed) | changed
        async with endpoint.open({"ses": side.trust}) as door:
            assert (await door.post("ses", Post(body=octets(sent)))).status == 401
            await door.settled()
        assert endpoint.shelf.asked == []
