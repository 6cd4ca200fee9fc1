"""The keys that sign mail again: read, refused with what is wrong, and shown as what to publish."""

import base64
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
)

from sidecar.dkim_keys import domains, key_file, load_signer, record
from sidecar.effective import effective
from sidecar.keys import KeyFileError
from sidecar.loading import Loaded, load
from sidecar.settings import SettingsError, injector_options
from tests.signing import DOMAIN, ed_key, kept, rsa_key

NOWHERE = Path("/nowhere")
NAME = f"r1._domainkey.{DOMAIN}"


def loaded(**inject: str) -> Loaded:
    """Load settings of the section `inject`, and nothing of this machine."""
    environment: Mapping[str, str] = {f"OUTRIDER_INJECT__{key.upper()}": value for key, value in inject.items()}
    return load(environment=environment, directory=NOWHERE, launcher=NOWHERE)


def problems(**inject: str) -> tuple[str, ...]:
    """Return the lines that the operator is shown."""
    with pytest.raises(SettingsError) as refused:
        loaded(**inject)
    return refused.value.problems


def short_key() -> rsa.RSAPrivateKey:
    """Return an RSA key of 648 bits, which no library makes any more."""
    p, q, e = 2**521 - 1, 2**127 - 1, 65537
    d = pow(e, -1, (p - 1) * (q - 1))
    return rsa.RSAPrivateNumbers(
        p=p,
        q=q,
        d=d,
        dmp1=rsa.rsa_crt_dmp1(d, p),
        dmq1=rsa.rsa_crt_dmq1(d, q),
        iqmp=rsa.rsa_crt_iqmp(p, q),
        public_numbers=rsa.RSAPublicNumbers(e, p * q),
    ).private_key()


class TestNames:
    """What an item of the setting says."""

    def test_a_name_and_a_file(self) -> None:
        file = key_file(" S1.2026._domainkey.Shop.Example.COM = /keys/a=b.pem ")
        assert (file.selector, file.domain, file.path) == ("s1.2026", DOMAIN, Path("/keys/a=b.pem"))
        assert file.name == f"s1.2026._domainkey.{DOMAIN}"

    @pytest.mark.parametrize("text", ["/keys/s1.pem", NAME, f"{NAME}=", f"{NAME}= ", "="])
    def test_one_half_of_it(self, text: str) -> None:
        (problem,) = problems(dkim_keys=text)
        assert problem == ("OUTRIDER_INJECT__DKIM_KEYS: item 1: expected SELECTOR._domainkey.DOMAIN=/path/to/key.pem")

    @pytest.mark.parametrize(
        "name",
        [
            "shop.example.com",
            "_domainkey.shop.example.com",
            "s1._domainkey.",
            "s1._domainkey.localhost",
            "s1._domainkey.shop.example.com.",
            "*._domainkey.shop.example.com",
            "s1._domainkey.*.example.com",
            "s1._domainkey.-shop.example.com",
            "s1._domainkey.shop..example.com",
            "s 1._domainkey.shop.example.com",
            "s1._domainkey.sh\u00f6p.example.com",
            f"{'s' * 64}._domainkey.shop.example.com",
            f"s1._domainkey.{'a.' * 120}example.com",
        ],
    )
    def test_what_is_no_name_in_the_dns(self, name: str, tmp_path: Path) -> None:
        good = kept(ed_key(), tmp_path)
        (problem,) = problems(dkim_keys=f"{good}, {name}=/keys/s1.pem")
        assert problem.startswith("OUTRIDER_INJECT__DKIM_KEYS: item 2: expected the name of a DNS record before the =")
        assert "/keys/s1.pem" not in problem

    def test_two_under_one_name(self, tmp_path: Path) -> None:
        item = kept(rsa_key(), tmp_path)
        (problem,) = problems(dkim_keys=f"{item},{item.replace('r1._d', 'R1._d')}")
        assert problem == f"OUTRIDER_INJECT__DKIM_KEYS: {NAME} stands twice in the list: one name has one key"

    def test_resign_needs_a_key(self) -> None:
        (problem,) = problems(dkim="resign")
        assert problem.startswith("OUTRIDER_INJECT__DKIM is resign, so OUTRIDER_INJECT__DKIM_KEYS must be set: ")

    def test_a_refused_list_is_not_reported_as_missing_too(self) -> None:
        (problem,) = problems(dkim="resign", dkim_keys=",")
        assert problem == "OUTRIDER_INJECT__DKIM_KEYS: an item of the list is empty"


class TestFiles:
    """What a file must hold, and who may read it."""

    @pytest.mark.parametrize("kind", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
    def test_rsa_in_both_formats(self, tmp_path: Path, kind: PrivateFormat) -> None:
        signer = load_signer([kept(rsa_key(), tmp_path, kind), kept(ed_key(), tmp_path)])
        assert signer.names == (f"e1._domainkey.{DOMAIN}", NAME)
        rsa_one, ed_one = signer.keys_for(DOMAIN)
        assert (record(rsa_one), record(ed_one)) == (record(rsa_key()), record(ed_key()))

    def test_one_that_is_missing(self, tmp_path: Path) -> None:
        (problem,) = problems(dkim_keys=f"{NAME}={tmp_path}/none.pem")
        assert problem == (
            f"OUTRIDER_INJECT__DKIM_KEYS: expected a readable file, {tmp_path}/none.pem: No such file or directory"
        )

    def test_a_directory(self, tmp_path: Path) -> None:
        (problem,) = problems(dkim_keys=f"{NAME}={tmp_path}")
        assert problem.endswith(f"expected a readable file, {tmp_path}: Is a directory")

    @pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o602])
    def test_one_that_is_open_to_others(self, tmp_path: Path, mode: int) -> None:
        item = kept(rsa_key(), tmp_path)
        (tmp_path / "r1.pem").chmod(mode)
        (problem,) = problems(dkim_keys=item)
        assert problem == (
            f"OUTRIDER_INJECT__DKIM_KEYS: {tmp_path}/r1.pem can be read by others, or written by its group: "
            "chmod 600 or 640"
        )

    @pytest.mark.parametrize("mode", [0o400, 0o600, 0o640])
    def test_one_that_a_group_shares(self, tmp_path: Path, mode: int) -> None:
        item = kept(rsa_key(), tmp_path)
        (tmp_path / "r1.pem").chmod(mode)
        assert load_signer([item]).names == (NAME,)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "expected a private key in PEM, RSA or Ed25519"),
            (b"hunter2", "expected a private key in PEM, RSA or Ed25519"),
            (
                rsa_key().key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
                "expected a private key in PEM, RSA or Ed25519",
            ),
            (
                rsa_key().key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
                "expected a private key in PEM, RSA or Ed25519",
            ),
            (
                rsa_key().key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())[:-200],
                "expected a private key in PEM, RSA or Ed25519",
            ),
            (
                rsa_key().key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")),
                "the key is encrypted; expected one without a pass phrase",
            ),
            (
                rsa_key().key.private_bytes(
                    Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"x")
                ),
                "the key is encrypted; expected one without a pass phrase",
            ),
            (
                ec.generate_private_key(ec.SECP256R1()).private_bytes(
                    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
                ),
                "DKIM does not sign with a key of this kind; expected RSA or Ed25519",
            ),
            (
                ed448.Ed448PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
                "DKIM does not sign with a key of this kind; expected RSA or Ed25519",
            ),
            (
                short_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
                "an RSA key of 648 bits; nobody takes less than 1024, 2048 are expected",
            ),
        ],
        ids=["empty", "text", "public", "der", "cut", "encrypted", "encrypted_pkcs1", "ec", "ed448", "short"],
    )
    def test_one_that_holds_something_else(self, tmp_path: Path, content: bytes, said: str) -> None:
        path = tmp_path / "key.pem"
        path.touch(0o600)
        path.write_bytes(content)
        (problem,) = problems(dkim_keys=f"{NAME}={path}")
        assert problem == f"OUTRIDER_INJECT__DKIM_KEYS: {path}: {said}"
        with pytest.raises(KeyFileError, match=r"key\.pem"):
            load_signer([f"{NAME}={path}"])


class TestShown:
    """What follows from the keys, and what an operator is told of them."""

    def test_the_records_to_publish(self, tmp_path: Path) -> None:
        text = effective(loaded(dkim="resign", dkim_keys=f"{kept(rsa_key(), tmp_path)},{kept(ed_key(), tmp_path)}"))
        lines = [line for line in text.splitlines() if line.startswith("# DNS, TXT at ")]
        assert [line.partition(": ")[0] for line in lines] == [
            f"# DNS, TXT at {NAME}",
            f"# DNS, TXT at e1._domainkey.{DOMAIN}",
        ]
        rsa_record, ed_record = (line.partition(": ")[2] for line in lines)
        assert rsa_record.startswith("v=DKIM1; k=rsa; p=")
        public = load_der_public_key(base64.b64decode(rsa_record.rpartition("p=")[2], validate=True))
        assert public == rsa_key().key.public_key()
        assert ed_record.startswith("v=DKIM1; k=ed25519; p=")
        assert len(base64.b64decode(ed_record.rpartition("p=")[2], validate=True)) == 32
        assert "nothing is signed" not in text
        assert "some distrust it" not in text

    def test_no_private_key_is_shown(self, tmp_path: Path) -> None:
        text = effective(loaded(dkim="resign", dkim_keys=kept(rsa_key(), tmp_path)))
        secret = (tmp_path / "r1.pem").read_text().splitlines()[1:-1]
        assert not any(line in text for line in secret)

    def test_a_key_that_is_weak(self, tmp_path: Path) -> None:
        weak = rsa_key(selector="weak", bits=1024)
        text = effective(loaded(dkim="resign", dkim_keys=kept(weak, tmp_path)))
        assert f"# OUTRIDER_INJECT__DKIM_KEYS: {weak.name}: an RSA key of less than 2048 bits; some distrust it" in text

    def test_keys_that_sign_nothing(self, tmp_path: Path) -> None:
        text = effective(loaded(dkim_keys=kept(ed_key(), tmp_path)))
        assert "# OUTRIDER_INJECT__DKIM_KEYS: nothing is signed with them while OUTRIDER_INJECT__DKIM is keep\n" in text

    def test_the_injector_is_told_the_domains(self, tmp_path: Path) -> None:
        other = ed_key("a.example.com", "e2")
        keys = ",".join(kept(key, tmp_path) for key in (rsa_key(), ed_key(), other))
        options = injector_options(loaded(dkim="resign", dkim_keys=keys).settings)
        assert (options.dkim, options.dkim_domains) == ("resign", ("a.example.com", DOMAIN))
        assert injector_options(loaded(dkim="keep", dkim_keys=keys).settings).dkim_domains == ()
        assert domains([]) == ()
