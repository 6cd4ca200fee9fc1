"""The campaign is what the mailer said, or none with the reason."""

import pytest

from relay.campaign import Campaign, campaign_of

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
