"""An address is found in every form in which a mailer, a server or a browser spells it, and nobody else's is."""

import base64
from urllib.parse import quote

import pytest

from ledger.traces import Traces

ANN = Traces("Ann.Smith+news@Example.net")


@pytest.mark.parametrize(
    "text",
    [
        "550 5.1.1 <ann.smith+news@example.net>: unknown",
        "ANN.SMITH+NEWS@EXAMPLE.NET",
        "451 for ann.smith+news@example.net.",
        f"https://shop.example.com/?e={quote('ann.smith+news@example.net', safe='')}",
        f"https://shop.example.com/?e={quote(quote('ann.smith+news@example.net', safe=''), safe='')}&x=1",
        "https://shop.example.com/?e=%3Cann.smith%2Bnews%40example.net%3E",
        "https://shop.example.com/?e=%253Cann.smith%252Bnews%2540example.net%253E",
        "bounce+ann.smith+news=example.net@shop.example.com",
        "rcpt=3Dann.smith+news=40example.net",
        f"https://shop.example.com/{b'ann.smith+news@example.net'.hex()}",
    ],
)
def test_the_forms_of_an_address(text: str) -> None:
    """Plain, escaped, VERP, encoded; in any case of letters."""
    assert ANN.stand_in(text)
    assert ANN.stand_in_octets(b"\xff\0" + text.encode())
    changed = ANN.erased(text)
    assert changed is not None
    assert "erased" in changed
    assert not ANN.stand_in(changed)


@pytest.mark.parametrize("before", ["", "u", "u=", "id="])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("address", ["ann.smith+news@example.net", "zoe~?>@example.org"])
def test_base64_at_any_offset(before: str, encode: object, address: str) -> None:
    """A link's parameter may begin with other things."""
    assert callable(encode)
    hidden = encode(f"{before}{address}&more".encode()).decode()
    url = f"https://shop.example.com/w/{hidden}"
    assert Traces(address).stand_in(url)
    assert Traces(address).stand_in_octets(url.encode())


@pytest.mark.parametrize(
    "text",
    [
        "<joann.smith+news@example.net>",
        "<ann.smith@example.net>",
        "<x-ann.smith+news@example.net>",
        "<ann.smith+news@example.net.example.org>",
        "<ann.smith+news@example.network>",
        "<annxsmith+news@example.net>",
        "",
    ],
)
def test_the_addresses_of_others(text: str) -> None:
    """What merely looks alike is somebody else's."""
    assert not ANN.stand_in(text)
    assert not ANN.stand_in_octets(text.encode())
    assert ANN.erased(text) == text


def test_outside_ascii() -> None:
    """The domain in letters and in A-labels, the local part in either case."""
    traces = Traces("Jörg@bücher.example")
    for text in ("<jörg@bücher.example>", "<JÖRG@xn--bcher-kva.example>", "?e=j%C3%B6rg%40b%C3%BCcher.example"):
        assert traces.erased(text) in {"<erased>", "?e=erased"}
        assert traces.stand_in_octets(text.encode())


def test_the_own_texts_lose_the_local_part_too() -> None:
    """An upstream says who is unknown in its own words; one letter would stand anywhere."""
    assert ANN.erased("550 5.1.1 user ann.smith+news unknown", own=True) == "550 5.1.1 user erased unknown"
    assert ANN.erased("550 5.1.1 user ann.smith+news unknown") == "550 5.1.1 user ann.smith+news unknown"
    assert Traces("ok@example.net").erased("250 2.0.0 Ok", own=True) == "250 2.0.0 Ok"
    assert Traces("ok@example.net").erased(None) is None
