"""Tokens of Entra ID prove Azure's events: of one tenant, for us, of a caller that is known, in their time."""

import base64
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st

from providers.azure import PROVIDER
from providers.webhook import DeniedError, Entra, Fetch, Proven, Request, Trust
from tests.unit.providers.samples.postal import jwk

NOW = 1_767_323_045.0
TENANT, CALLER, OURS = (f"{n}0000000-0000-4000-8000-00000000000{n}" for n in "123")
KEYS = f"https://login.microsoftonline.com/{TENANT}/discovery/v2.0/keys"
TRUST = Trust(entra=Entra(tenant=TENANT, audience=f"api://{OURS}", callers=(CALLER,)))
FIRST: dict[str, Any] = {
    "iss": f"https://sts.windows.net/{TENANT}/",
    "aud": f"api://{OURS}",
    "appid": CALLER,
    "nbf": NOW - 60,
    "exp": NOW + 3600,
}
SECOND = {k: v for k, v in FIRST.items() if k != "appid"} | {
    "iss": f"https://login.microsoftonline.com/{TENANT}/v2.0",
    "azp": CALLER.upper(),
    "aud": ["elsewhere", f"api://{OURS}"],
}


@cache
def tenants_own() -> rsa.RSAPrivateKey:
    """Return the key of the tenant."""
    return rsa.generate_private_key(65537, 2048)


@cache
def stranger() -> rsa.RSAPrivateKey:
    """Return a key that it does not have, or not yet."""
    return rsa.generate_private_key(65537, 2048)


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(value)).decode().rstrip("=")


def token(claims: object, *, key: rsa.RSAPrivateKey | None = None, kid: str = "k1", alg: str = "RS256") -> str:
    """Return a token, signed as Entra signs."""
    signed = f"{_part({'typ': 'JWT', 'alg': alg, 'kid': kid})}.{_part(claims)}"
    signature = (key or tenants_own()).sign(signed.encode(), PKCS1v15(), SHA256())
    return f"{signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def key_set(**keys: rsa.RSAPrivateKey) -> bytes:
    """Return what the tenant's address of keys says."""
    return msgspec.json.encode({"keys": [jwk(key) | {"kid": kid} for kid, key in keys.items()]})


def proved(spelt: str, *, trust: Trust = TRUST, now: float = NOW, keys: bytes | None = None) -> Proven | Fetch:
    """Return what the webhook makes of a request with this token."""
    request = Request(method="POST", headers={"authorization": f"Bearer {spelt}"}, query={}, body=b"[]")
    documents = {KEYS: key_set(k1=tenants_own()) if keys is None else keys}
    return PROVIDER.authenticate(request, trust, now, documents)


@pytest.mark.parametrize("claims", [FIRST, SECOND], ids=["first form", "second form"])
def test_both_forms_are_believed(claims: dict[str, Any]) -> None:
    """Their issuer and their caller's claim differ; capitals in an id mean nothing."""
    assert proved(token(claims)) == Proven()


def test_the_tenant_s_keys_are_asked_for() -> None:
    """At Microsoft's own address, and only for a token that would be believed."""
    request = Request(method="POST", headers={"authorization": f"bearer {token(FIRST)}"}, query={}, body=b"[]")
    assert PROVIDER.authenticate(request, TRUST, NOW, {}) == Fetch(url=KEYS)
    stranger = Request(
        method="POST", headers={"authorization": f"Bearer {token(FIRST | {'aud': 'x'})}"}, query={}, body=b"[]"
    )
    with pytest.raises(DeniedError):
        PROVIDER.authenticate(stranger, TRUST, NOW, {})


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": f"https://sts.windows.net/{CALLER}/"},
        {"iss": f"https://sts.windows.net/{TENANT}"},
        {"iss": None},
        {"aud": OURS},
        {"aud": []},
        {"aud": None},
        {"aud": {"api": 1}},
        {"appid": OURS},
        {"appid": None},
        {"exp": NOW - 301},
        {"exp": None},
        {"exp": "never"},
        {"nbf": NOW + 301},
        {"nbf": []},
    ],
    ids=str,
)
def test_what_a_token_says_must_be_so(changed: dict[str, Any]) -> None:
    """Issuer, audience, caller and time, each whole and of its type."""
    with pytest.raises(DeniedError):
        proved(token(FIRST | changed))


def test_a_clock_may_be_a_little_wrong() -> None:
    """Five minutes to either side."""
    assert proved(token(FIRST | {"exp": NOW - 299, "nbf": NOW - 3600})) == Proven()
    assert proved(token(FIRST | {"nbf": NOW + 299})) == Proven()


FORGED: dict[str, Callable[[], str]] = {
    "another key": lambda: token(FIRST, key=stranger()),
    "another key's id": lambda: token(FIRST, kid="k2"),
    "no algorithm": lambda: token(FIRST, alg="none"),
    "an algorithm of shared secrets": lambda: token(FIRST, alg="HS256"),
    "half a signature": lambda: token(FIRST)[:-8],
    "no signature": lambda: token(FIRST).rpartition(".")[0] + ".",
    "claims that are a list": lambda: token([FIRST]),
    "nothing in it": lambda: "eyJ.eyJ.eyJ",
    "no end": lambda: "eyJ" + "a" * 9000 + ".a.a",
    "no ASCII": lambda: "eyJ\udcff.\udcff.a",
    "no token": lambda: "a.b.c",
}


@pytest.mark.parametrize("name", FORGED)
def test_only_the_tenant_s_signature_counts(name: str) -> None:
    """Whatever else a token says of itself."""
    with pytest.raises(DeniedError):
        proved(FORGED[name]())


def test_a_new_key_is_believed_when_it_is_published() -> None:
    """The set has several; what is in it counts, by its id."""
    spelt = token(FIRST, key=stranger(), kid="k2")
    assert proved(spelt, keys=key_set(k1=tenants_own(), k2=stranger())) == Proven()
    for broken in (b"", b"[]", b"{}", key_set(k1=stranger())):
        with pytest.raises(DeniedError):
            proved(spelt, keys=broken)


def test_secrets_are_believed_beside_tokens_and_tokens_only_where_they_are_set() -> None:
    """One does not open the door for the other."""
    both = msgspec.structs.replace(TRUST, secrets=("s" * 20,))
    by_key = Request(method="POST", headers={}, query={"key": "s" * 20}, body=b"[]")
    assert PROVIDER.authenticate(by_key, both, NOW, {}) == Proven()
    assert proved(token(FIRST), trust=both) == Proven()
    with pytest.raises(DeniedError):
        PROVIDER.authenticate(by_key, TRUST, NOW, {})
    with pytest.raises(DeniedError):
        proved(token(FIRST), trust=Trust(secrets=("s" * 20,)))
    assert [PROVIDER.configured(trust) for trust in (TRUST, both, Trust())] == [True, True, False]


def test_event_grid_may_introduce_itself_without_a_token() -> None:
    """That it may send is all that is said; another origin needs a secret, which there is none of."""
    for origin, status in (("eventgrid.azure.net", 200), ("eventgrid.example.com", 401)):
        asked = Request(method="OPTIONS", headers={"webhook-request-origin": origin}, query={}, body=b"")
        answer = PROVIDER.probe(asked, TRUST)
        assert answer is not None
        assert answer.status == status


@given(st.text(max_size=60), st.binary(max_size=60))
def test_nothing_but_a_no_comes_of_rubbish(spelt: str, keys: bytes) -> None:
    """Whatever stands in the header or in the key set."""
    for one in (spelt, f"eyJ{spelt}.{spelt}.{spelt}", f"{token(FIRST)}{spelt}"):
        try:
            proved(one, keys=keys)
        except DeniedError:
            continue
        pytest.fail("it was believed")
