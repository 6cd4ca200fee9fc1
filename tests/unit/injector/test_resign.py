"""INJECT__DKIM=resign: which mail loses its signature for a new one, and which stays as it came."""

import pytest

import injector
from injector import HeaderEdits, Options, Plan
from tests.unit.injector.mails import BASE, STAMP, HexMinter, multipart, options, part, rewrite, top

HTML = b'<body><a href="https://example.com/1">one</a></body>'
OURS = b"DKIM-Signature: v=1; a=rsa-sha256; d=shop.example.com; s=s1; h=from:message-id; bh=x; b=y"
ALSO_OURS = b"DKIM-Signature: d=mail.example.com; b=y"
RESIGN = Options(public_url=BASE, dkim="resign", dkim_domains=("mail.example.com", "shop.example.com"))


def mail(*fields: bytes) -> bytes:
    """Return an HTML mail with more header fields."""
    return top(multipart("alternative", part(HTML)), *fields)


def planned(content: bytes, chosen: Options = RESIGN) -> Plan:
    """Return what is planned for *content*."""
    return injector.plan(injector.parse(content), chosen, campaign=True)


def test_a_dead_signature_of_ours_goes_and_the_rest_is_as_usual() -> None:
    """The same bytes as for mail that nobody signed; who renders is told for whom to sign."""
    plan = planned(mail(OURS))
    assert plan.resigned_for == ("shop.example.com",)
    assert not plan.keeps_message_id
    result = plan.render(HexMinter(), HeaderEdits(set_message_id=STAMP))
    assert (result.injected, result.reason, result.links) == (True, None, 1)
    assert result.content == rewrite(mail()).content
    assert b"DKIM-Signature" not in result.content
    assert b"List-Unsubscribe: <" in result.content


def test_every_domain_is_named_once_in_the_order_of_the_message() -> None:
    """Two signatures of one domain, RSA and Ed25519, are one name."""
    plan = planned(mail(OURS, ALSO_OURS, OURS.replace(b"s1", b"s2")))
    assert plan.resigned_for == ("shop.example.com", "mail.example.com")
    assert plan.render(HexMinter(), HeaderEdits(set_message_id=STAMP)).content == rewrite(mail()).content


@pytest.mark.parametrize(
    "field",
    [
        b"dkim-signature : v=1;\r\n\ta=rsa-sha256;\r\n\td = Shop.Example.COM\r\n\t;h=from;b=y",
        b"DKIM-Signature: b=d=example.net; d=shop.example.com",
        b"DKIM-Signature: D=example.net; dd=example.net; d=shop.example.com",
    ],
)
def test_the_domain_is_read_as_a_verifier_reads_it(field: bytes) -> None:
    """Folded, in capitals, beside tags that look like it (RFC 6376 3.2)."""
    assert planned(mail(field)).resigned_for == ("shop.example.com",)


@pytest.mark.parametrize(
    "fields",
    [
        [b"DKIM-Signature: d=example.net; b=y"],
        [b"DKIM-Signature: d=sub.shop.example.com; b=y"],
        [b"DKIM-Signature: d=example.com; b=y"],
        [b"DKIM-Signature: d=shop.example.com.; b=y"],
        [OURS, b"DKIM-Signature: d=example.net; b=y"],
        [b"DKIM-Signature: d=shop.example.com; d=example.net; b=y"],
        [b"DKIM-Signature: b=y"],
        [b"DKIM-Signature:"],
        [b"DKIM-Signature: d=\xd1\x88op.example.com; b=y"],
        [OURS, b"ARC-Seal: i=1; d=shop.example.com; b=y"],
        [b"ARC-Seal: i=1; d=shop.example.com; b=y"],
    ],
)
def test_whatever_else_is_signed_is_kept_exactly_as_with_keep(fields: list[bytes]) -> None:
    """One signature of somebody else, or one that cannot be read, and nothing is touched."""
    content = mail(*fields)
    plan = planned(content)
    assert (plan.reason, plan.resigned_for, plan.keeps_message_id) == ("dkim_signed", (), True)
    assert rewrite(content, RESIGN) == rewrite(content, options())
    assert rewrite(content, RESIGN).content == content


@pytest.mark.parametrize(
    "content",
    [
        b"From a@example.com Mon Nov 23\r\n" + mail(OURS),
        OURS + b"\r\nthis is no field\r\n\r\nx",
        OURS + b"\r\n" + b"X-A: 1\r\n" * 1_001 + b"\r\nx",
    ],
)
def test_a_header_that_can_be_read_in_two_ways_is_kept(content: bytes) -> None:
    """Nobody can sign what a verifier may see otherwise."""
    plan = planned(content)
    assert (plan.resigned_for, plan.keeps_message_id) == ((), True)


def test_only_resign_signs_again() -> None:
    """The domains alone say nothing; without a signature there is nothing to do."""
    assert planned(mail(), RESIGN).resigned_for == ()
    assert rewrite(mail(), RESIGN) == rewrite(mail())
    kept = planned(mail(OURS), Options(public_url=BASE, dkim="keep", dkim_domains=RESIGN.dkim_domains))
    assert (kept.resigned_for, kept.reason) == ((), "dkim_signed")
    stripped = planned(mail(OURS), Options(public_url=BASE, dkim="strip", dkim_domains=RESIGN.dkim_domains))
    assert (stripped.resigned_for, stripped.reason) == ((), None)


def test_mail_with_nothing_to_track_is_signed_again_too() -> None:
    """It is stamped, and that breaks a signature."""
    plan = planned(top(part(b"hello", "text/plain"), OURS))
    assert (plan.reason, plan.resigned_for) == ("no_html", ("shop.example.com",))
    result = plan.render(HexMinter(), HeaderEdits(set_message_id=STAMP))
    assert b"DKIM-Signature" not in result.content
    assert STAMP in result.content


def test_authentication_results_are_not_touched() -> None:
    """They are somebody's word about what he saw."""
    said = b"Authentication-Results: mx.example.net; dkim=pass header.d=shop.example.com"
    assert said + b"\r\n" in rewrite(mail(said, OURS), RESIGN).content
