"""What every provider promises that is believed by a shared secret."""

import base64

import pytest

from providers.webhook import DeniedError, Proven, Provider, Request, Trust
from tests.unit.providers.proof import Proof

_TRUST = Trust(secrets=("old-secret", "new-secret"))


def believed(
    provider: Provider, *, headers: dict[str, str] | None = None, key: str | None = None, trust: Trust = _TRUST
) -> bool:
    """Say whether the provider believes a POST with these headers, or with this `?key=`."""
    query = {} if key is None else {"key": key}
    request = Request(method="POST", headers=headers or {}, query=query, body=b"{}")
    try:
        return provider.authenticate(request, trust, 0.0, {}) == Proven()
    except DeniedError:
        return False


def holds(provider: Provider) -> None:
    """Assert that each secret opens the webhook in each of its three places, and that nothing else does."""
    assert not provider.configured(Trust())
    assert provider.configured(_TRUST)
    for secret, good in (("old-secret", True), ("new-secret", True), ("new-secre", False), ("", False)):
        basic = base64.b64encode(f"anybody:{secret}".encode()).decode()
        assert believed(provider, key=secret) is good
        assert believed(provider, headers={"authorization": f"Basic {basic}"}) is good
        assert believed(provider, headers={"authorization": f"Bearer {secret}"}) is good
    assert not believed(provider)
    assert not believed(provider, key="", trust=Trust())
    assert not believed(provider, headers={"authorization": "Basic ###"})


def proves(provider: Provider, proof: Proof, body: bytes, now: float) -> None:
    """Assert that the proof of a file of samples is one."""
    request = Request(method="POST", headers=proof.headers, query=proof.query, body=body)
    assert provider.configured(proof.trust)
    assert provider.authenticate(request, proof.trust, now, proof.documents) == Proven()
    with pytest.raises(DeniedError):
        provider.authenticate(Request(method="POST", headers={}, query={}, body=body), proof.trust, now, {})
