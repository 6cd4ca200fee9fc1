"""The campaign is what the mailer said, or none with the reason."""

import pytest

import injector
from relay.campaign import Campaign, campaign_of, subscriber_of

NAMES = ("X-Id-Mail", "X-Listmonk-Campaign")


class Headers:
    """Header fields by name, as the injector gives them."""

    def __init__(self, **fields: list[str]) -> None:
        self._fields = {name.replace("_", "-").lower(): values for name, values in fields.items()}

    def all(self, name: str) -> list[str]:
        return self._fields.get(name.lower(), [])


def _campaign(**fields: list[str]) -> Campaign:
    return campaign_of(Headers(**fields), names=NAMES, ams_names=("x-id-mail",))


@pytest.mark.parametrize("value", ["123", "[123]", " [ 123 ] "])
def test_brackets_are_the_mailers_own(value: str) -> None:
    """[123] and 123 are one campaign, and AMS's integer."""
    assert _campaign(X_Id_Mail=[value]) == Campaign(id="123", ams_mailing=123)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("[%%MailingID%%]", "unexpanded"),
        ("{{ campaign.id }}", "unexpanded"),
        ("*|CAMPAIGN|*", "unexpanded"),
        ("42; DROP TABLE", "invalid"),
        ("", "invalid"),
        ("[]", "invalid"),
        ("a" * 65, "invalid"),
        ("сорок два", "invalid"),
        ("\uff11\uff12", "invalid"),
    ],
)
def test_what_is_no_id_is_no_campaign(value: str, reason: str) -> None:
    """The reason is kept, and no other header is asked instead."""
    assert _campaign(X_Id_Mail=[value], X_Listmonk_Campaign=["7"]) == Campaign(reason=reason)


def test_no_header_is_no_campaign() -> None:
    """Transactional mail."""
    assert _campaign() == Campaign(reason="no_header")


def test_two_answers_are_none() -> None:
    """Twice the same is one; twice different is nobody's guess."""
    assert _campaign(X_Id_Mail=["1", "[1]"]).id == "1"
    assert _campaign(X_Id_Mail=["1", "2"]) == Campaign(reason="ambiguous")


def test_only_its_own_headers_make_it_ams() -> None:
    """A number in somebody else's header is not AMS's mailing."""
    assert _campaign(X_Listmonk_Campaign=["7"]) == Campaign(id="7")


@pytest.mark.parametrize("value", ["0", "9223372036854775808", "a1", "-1"])
def test_an_ams_mailing_is_a_positive_integer(value: str) -> None:
    """What AMS cannot take as a mailing stays a campaign of ours."""
    assert _campaign(X_Id_Mail=[value]).ams_mailing is None


LISTMONK, SUBSCRIBER = "1f3cbf60-30a5-4b53-9c8f-4c4e9b6a1b2c", "00010203-0405-0607-0809-0A0B0C0D0E0F"


@pytest.mark.parametrize(
    ("extra", "campaign"),
    [
        (f"X-Listmonk-Campaign: {LISTMONK}\r\n", "42"),
        ("X-Listmonk-Campaign: 42\r\n", "42"),
        ("X-Listmonk-Campaign: 42\r\n", LISTMONK),
        ("", LISTMONK),
        (f"X-Listmonk-Campaign: {LISTMONK}\r\nX-Listmonk-Campaign: {LISTMONK}\r\n", LISTMONK),
        (f"X-Listmonk-Campaign: {LISTMONK}\r\nX-Listmonk-Subscriber: {LISTMONK}\r\n", LISTMONK),
        (f"X-Listmonk-Campaign: {LISTMONK}\r\n", None),
    ],
)
def test_only_listmonks_own_mail_has_a_subscriber(extra: str, campaign: str | None) -> None:
    """One campaign that is listmonk's, and one subscriber."""
    header = f"X-Listmonk-Subscriber: {SUBSCRIBER}\r\n{extra}\r\n"
    assert subscriber_of(injector.parse(header.encode()).headers, Campaign(id=campaign)) is None


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (SUBSCRIBER, bytes(range(16))),
        (f"  {SUBSCRIBER}  ", bytes(range(16))),
        ("{{ .Subscriber.UUID }}", None),
        ("", None),
        (f"{{{SUBSCRIBER}}}", None),
    ],
)
def test_a_subscriber_is_a_uuid_and_nothing_else(said: str, found: bytes | None) -> None:
    """What a template left behind is none."""
    header = f"X-Listmonk-Subscriber: {said}\r\nx-listmonk-campaign: {LISTMONK}\r\n\r\n"
    assert subscriber_of(injector.parse(header.encode()).headers, Campaign(id=LISTMONK)) == found
