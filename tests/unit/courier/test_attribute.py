"""One message or a reason, never the likeliest."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from courier.attribute import Found, Missing, attribute
from courier.sighting import Lookup, Sighting
from ledger.attribution import Correlated
from ledger.events import EventType, encode_hit
from providers.notice import Notice, Step, What
from tests.mailings import READER, hit

ANN, BOB = b"a" * 16, b"b" * 16


def message(number: int, recipient: bytes = ANN) -> Correlated:
    """Return a message."""
    return Correlated(
        id=number,
        accepted_at=datetime(2026, 11, 22, tzinfo=UTC),
        campaign=1,
        source="default",
        recipient_index=recipient,
        erased=not recipient,
        injected=True,
        mailing=None,
    )


def sighting(*names: Lookup, recipient: bytes = ANN) -> Sighting:
    """Return what a provider saw of the message with these names."""
    base = READER.read(encode_hit(hit(bytes(16))))
    assert base is not None
    notice = Notice(provider="ses", what=What.DELIVERED, dedupe="e-1")
    return Sighting(
        id=base.id,
        raw=b"",
        source="ses",
        type=EventType.DELIVERED,
        at=base.at,
        judgement=None,
        names=names,
        recipient=recipient,
        notice=notice,
    )


FIRST = Lookup(step=Step.MESSAGE_ID, named=b"1" * 16)
SECOND = Lookup(step=Step.PROVIDER_ID, named=b"2" * 16)
BATCH = Lookup(step=Step.BATCH, named=b"4" * 16)
OWN = Lookup(step=Step.TOKEN, named=b"3" * 16, own=True)


@pytest.mark.parametrize(
    ("one", "led", "expected"),
    [
        (sighting(), {}, Missing.NO_ID),
        (sighting(FIRST), {}, Missing.UNKNOWN_ID),
        (sighting(FIRST), {FIRST.named: [message(1)]}, (1, Step.MESSAGE_ID)),
        # The recipient decides among several, and must be the one's too.
        (sighting(FIRST), {FIRST.named: [message(1), message(2, BOB)]}, (1, Step.MESSAGE_ID)),
        (sighting(FIRST), {FIRST.named: [message(1, BOB)]}, Missing.OTHER_RECIPIENT),
        (sighting(FIRST), {FIRST.named: [message(1), message(2)]}, Missing.AMBIGUOUS),
        (sighting(FIRST, recipient=b""), {FIRST.named: [message(1, BOB)]}, (1, Step.MESSAGE_ID)),
        (sighting(FIRST, recipient=b""), {FIRST.named: [message(1), message(2, BOB)]}, Missing.AMBIGUOUS),
        # A key is one message's, whatever address the provider names.
        (sighting(OWN), {OWN.named: [message(1, BOB)]}, (1, Step.TOKEN)),
        # A later id may know what an earlier one does not.
        (sighting(FIRST, SECOND), {SECOND.named: [message(1)]}, (1, Step.PROVIDER_ID)),
        (
            sighting(FIRST, SECOND),
            {FIRST.named: [message(1), message(2)], SECOND.named: [message(2)]},
            (2, Step.PROVIDER_ID),
        ),
        (sighting(FIRST, SECOND), {FIRST.named: [message(1), message(2)]}, Missing.AMBIGUOUS),
        (sighting(FIRST, SECOND), {SECOND.named: [message(1, BOB)]}, Missing.OTHER_RECIPIENT),
        # Of a message whose recipient was erased the id alone is left.
        (sighting(FIRST), {FIRST.named: [message(1, b"")]}, (1, Step.MESSAGE_ID)),
        (sighting(FIRST), {FIRST.named: [message(1, b""), message(2, b"")]}, Missing.AMBIGUOUS),
        # It takes nothing from those who share its id.
        (sighting(FIRST), {FIRST.named: [message(1), message(2, b"")]}, (1, Step.MESSAGE_ID)),
        # A batch is several people's, also when only one of them is known yet.
        (sighting(BATCH), {BATCH.named: [message(1), message(2, BOB)]}, (1, Step.BATCH)),
        (sighting(BATCH, recipient=b""), {BATCH.named: [message(1)]}, Missing.AMBIGUOUS),
        (sighting(BATCH), {BATCH.named: [message(1, BOB)]}, Missing.OTHER_RECIPIENT),
        (sighting(BATCH), {BATCH.named: [message(1, b"")]}, Missing.OTHER_RECIPIENT),
    ],
)
def test_the_ladder(
    one: Sighting, led: Mapping[bytes, Sequence[Correlated]], expected: Missing | tuple[int, Step]
) -> None:
    """Each case of CONTRACT's attribution: one message, or why none."""
    outcome = attribute(one, led)
    if isinstance(expected, Missing):
        assert outcome is expected
    else:
        assert isinstance(outcome, Found)
        assert (outcome.message.id, outcome.step) == expected


def test_a_hit_without_its_message_says_so() -> None:
    """Its key is not known yet."""
    one = READER.read(encode_hit(hit(bytes(16))))
    assert one is not None
    assert attribute(one, {}) is Missing.UNKNOWN_KEY


@given(
    st.lists(st.sampled_from([FIRST, SECOND]), unique=True),
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from([ANN, BOB])), max_size=4, unique_by=lambda pair: pair[0]),
    st.sampled_from([ANN, BOB, b""]),
)
def test_nobody_else_s_message_is_ever_found(
    names: list[Lookup], messages: list[tuple[int, bytes]], recipient: bytes
) -> None:
    """Invariant: what is found is of the recipient that was named, and the only one of its id that is."""
    led = {one.named: [message(number, owner) for number, owner in messages] for one in names}
    outcome = attribute(sighting(*names, recipient=recipient), led)
    if isinstance(outcome, Found):
        fitting = [number for number, owner in messages if not recipient or owner == recipient]
        assert fitting == [outcome.message.id]
