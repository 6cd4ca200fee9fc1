"""What proves providers' events: read from every place, refused where it cannot be meant, and never shown."""

import base64
import itertools
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from providers.webhook import Entra, Trust
from sidecar.effective import effective
from sidecar.loading import Loaded, load
from sidecar.redaction import redact
from sidecar.settings import SettingsError
from sidecar.wiring.role import decode_settings, encode_settings

NOWHERE = Path("/nowhere")
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
EC = ec.generate_private_key(ec.SECP256R1()).public_key()
PEM = {
    "RSA": RSA.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
    "EC": EC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
}
BARE = {
    "RSA": base64.b64encode(RSA.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode(),
    "EC": base64.b64encode(EC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode(),
}
TENANT = "10000000-0000-4000-8000-00000000000a"
TOPIC = "arn:aws:sns:eu-west-1:111122223333:ses-events"


def loaded(environment: Mapping[str, str], directory: Path = NOWHERE) -> Loaded:
    """Load settings from an environment, and from nothing of this machine."""
    return load(environment=environment, directory=directory, launcher=NOWHERE)


def trust(provider: str, **given: str) -> Trust:
    """Return what is believed of a provider where the webhooks' settings are these."""
    names = {f"OUTRIDER_WEBHOOKS__{key.upper()}": value for key, value in given.items()}
    return loaded(names).settings.webhooks.trust(provider)


def problem(key: str, value: str) -> str:
    """Return the one line that the operator is shown."""
    with pytest.raises(SettingsError) as refused:
        loaded({f"OUTRIDER_WEBHOOKS__{key.upper()}": value})
    (line,) = refused.value.problems
    assert line.startswith(f"OUTRIDER_WEBHOOKS__{key.upper()}: ")
    return line


@pytest.mark.parametrize("provider", ["azure", "brevo", "sparkpost", "postmark", "mailjet", "mailgun", "resend"])
def test_a_list_of_secrets(provider: str) -> None:
    """Several secrets stand in one setting, newest first."""
    assert trust(provider) == Trust()
    found = trust(provider, **{f"{provider}_secret": "the newest of them, an older one"})
    assert found == Trust(secrets=("the newest of them", "an older one"))


@pytest.mark.parametrize(("provider", "kind"), [("postal", "RSA"), ("sendgrid", "EC")])
def test_a_public_key_in_each_spelling(provider: str, kind: str) -> None:
    """PEM with its lines, PEM on one line, or base64."""
    key = f"{provider}_secret"
    assert trust(provider, **{key: PEM[kind]}).secrets == (PEM[kind].strip(),)
    assert trust(provider, **{key: PEM[kind].replace("\n", "\\n")}).secrets[0].strip() == PEM[kind].strip()
    assert trust(provider, **{key: f"{PEM[kind]},{BARE[kind]}"}).secrets == (PEM[kind].strip(), BARE[kind])


def test_a_public_key_in_toml(tmp_path: Path) -> None:
    """A file may hold PEM as it is."""
    toml = f'[webhooks]\npostal_secret = ["""\n{PEM["RSA"]}"""]\npostal_sha1 = true\n'
    (tmp_path / "outrider.toml").write_text(toml, encoding="utf-8")
    assert loaded({}, tmp_path).settings.webhooks.trust("postal") == Trust(secrets=(PEM["RSA"],), sha1=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("postal_secret", "not a key"),
        ("postal_secret", PEM["EC"]),
        ("postal_secret", BARE["EC"]),
        ("postal_secret", PEM["RSA"][:100]),
        ("sendgrid_secret", BARE["RSA"]),
        ("sendgrid_secret", "AAAA"),
    ],
    # The keys are others with each run, and a test's name must not be.
    ids=itertools.count(1),
)
def test_a_key_that_is_none_is_refused_and_not_shown(key: str, value: str) -> None:
    """A key that would prove nothing stops the start."""
    line = problem(key, value)
    assert "item 1: expected a public" in line
    assert value not in line


@pytest.mark.parametrize("topic", ["events", "arn:aws:sns:eu-west-1:1:x", "arn:aws:sqs:eu-west-1:111122223333:x", "*"])
def test_a_topic_that_is_none(topic: str) -> None:
    """A TopicArn is whole, never a pattern."""
    assert "TopicArns" in problem("ses_topics", topic)
    assert trust("ses", ses_topics=TOPIC) == Trust(topics=(TOPIC,))


@pytest.mark.parametrize(
    "url", ["http://postal.example.com/jwks.json", "postal.example.com", "https://", "https://a@b/"]
)
def test_a_key_set_is_asked_for_over_https(url: str) -> None:
    """Anything else could be forged on its way."""
    assert "https://" in problem("postal_jwks", url)
    there = "https://postal.example.com/.well-known/jwks.json"
    assert trust("postal", postal_jwks=there) == Trust(key_set=there)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"azure_tenant": "contoso.example.com", "azure_audience": "api://us"}, "azure_tenant"),
        ({"azure_tenant": TENANT}, "azure_audience"),
        ({"azure_audience": "api://us"}, "azure_audience"),
        ({"azure_tenant": TENANT, "azure_audience": "api://us", "azure_callers": "Event Grid"}, "azure_callers"),
    ],
    ids=str,
)
def test_whose_tokens_are_believed_is_said_whole(given: dict[str, str], named: str) -> None:
    """A tenant by its id, and for whom its tokens must be."""
    with pytest.raises(SettingsError) as refused:
        loaded({f"OUTRIDER_WEBHOOKS__{key.upper()}": value for key, value in given.items()})
    (line,) = refused.value.problems
    assert line.startswith(f"OUTRIDER_WEBHOOKS__{named.upper()}: ")


def test_tokens_are_believed_by_ids_whatever_their_capitals() -> None:
    """Event Grid's own id in the public cloud is the caller where none is named."""
    believed = trust("azure", azure_tenant=TENANT.upper(), azure_audience="api://Us").entra
    assert believed == Entra(tenant=TENANT, audience="api://Us", callers=("4962773b-9cdb-44cf-a8bf-237846a00ab7",))
    assert trust("azure", azure_secret="s" * 20).entra is None


def test_lines_may_end_in_keys_alone() -> None:
    """Everywhere else a line end is a mistake."""
    assert "control character" in problem("azure_secret", "two\nlines")
    assert "control character" in problem("postal_secret", "a\0b")


def test_a_provider_without_a_setting_is_not_believed() -> None:
    """Closed, never open."""
    assert trust("nobody", azure_secret="a secret of some length") == Trust()


def test_no_secret_is_shown() -> None:
    """Neither `check-config` nor a traceback holds one."""
    found = loaded(
        {
            "OUTRIDER_WEBHOOKS__AZURE_SECRET": "hunter2",
            "OUTRIDER_WEBHOOKS__MAILGUN_SECRET": "swordfish-swordfish",
            "OUTRIDER_WEBHOOKS__SES_TOPICS": TOPIC,
        }
    )
    shown = effective(found)
    assert 'azure_secret = ["[secret]"]' in shown
    assert "# webhooks: azure, mailgun, ses" in shown
    assert "OUTRIDER_WEBHOOKS__AZURE_SECRET: a secret has fewer than 16 characters" in shown
    for text in (shown, repr(found.settings.webhooks), repr(found.settings.webhooks.trust("azure"))):
        assert "hunter2" not in text
        assert "swordfish" not in text
    assert "# webhooks: all closed" in effective(loaded({}))


def test_a_member_of_the_fleet_is_told_everything() -> None:
    """The settings reach the tracker's process whole."""
    settings = loaded({"OUTRIDER_WEBHOOKS__POSTAL_SECRET": PEM["RSA"]}).settings
    assert decode_settings(encode_settings(settings)) == settings


@pytest.mark.parametrize("prefix", ["", "https://track.example.com", "POST ", "https://track.example.com/base"])
def test_the_secret_of_a_url_is_taken_out_of_any_text(prefix: str) -> None:
    """A log line that holds a webhook's URL loses its query."""
    text = redact(f"{prefix}/webhooks/azure?key=hunter2&x=1 HTTP/1.1")
    assert "hunter2" not in text
    assert "/webhooks/azure" in text
