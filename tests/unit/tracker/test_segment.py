"""A journal file gives back what was fsynced into it, whatever a crash left behind it."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker.segment import Segment, frame, records, used

PAYLOADS = st.lists(st.binary(min_size=1, max_size=300), max_size=8)


@given(PAYLOADS)
def test_what_was_framed_is_read(payloads: list[bytes]) -> None:
    """Invariant: reading undoes framing."""
    assert records(b"".join(map(frame, payloads))) == (payloads, 0)


@given(PAYLOADS, st.integers(0, 2000))
def test_a_torn_tail_costs_only_itself(payloads: list[bytes], cut: int) -> None:
    """Invariant: cut anywhere, every record that is still whole is read, and the rest is counted."""
    content = b"".join(map(frame, payloads))[:cut]
    found, torn = records(content)
    assert found == payloads[: len(found)]
    assert sum(len(frame(payload)) for payload in found) + torn == len(content)
    if len(found) < len(payloads):
        assert torn < len(frame(payloads[len(found)]))


@given(PAYLOADS, st.binary(max_size=100))
def test_rubbish_behind_is_no_hit(payloads: list[bytes], rubbish: bytes) -> None:
    """Invariant: what a disk made up after a crash, zeros above all, never hides what stands before it."""
    for tail in (rubbish, bytes(4096)):
        assert records(b"".join(map(frame, payloads)) + tail)[0][: len(payloads)] == payloads
    assert records(bytes(4096)) == ([], 4096)


def test_a_damaged_record_is_passed_over() -> None:
    """One flipped bit costs one record, not those behind it."""
    content = bytearray(frame(b"one") + frame(b"two") + frame(b"three"))
    content[len(frame(b"one")) + 9] ^= 1
    assert records(bytes(content)) == ([b"one", b"three"], len(frame(b"two")))


@given(st.binary(max_size=2000))
def test_reading_never_fails(content: bytes) -> None:
    """Invariant: any octets at all are read without an exception."""
    found, torn = records(content)
    assert 0 <= torn <= len(content)
    assert len(found) <= len(content) // 9


def test_a_file_is_held_until_its_writer_is_gone(tmp_path: Path) -> None:
    """Two workers never touch one file; what a dead one leaves is adopted with what it wrote."""
    mine = Segment.create(tmp_path)
    mine.append(frame(b"hit"))
    assert Segment.adopt(mine.path) is None
    mine.close()
    adopted = Segment.adopt(mine.path)
    assert adopted is not None
    assert (adopted.size, records(adopted.read())) == (len(frame(b"hit")), ([b"hit"], 0))
    adopted.remove()
    assert list(tmp_path.iterdir()) == []
    assert Segment.adopt(mine.path) is None


def test_a_file_that_somebody_removed_is_not_adopted(tmp_path: Path) -> None:
    """Between opening and locking, another worker may have drained and deleted it: its inode is not written to."""
    first = Segment.create(tmp_path)
    held = os.open(first.path, os.O_RDWR)
    try:
        first.remove()
        assert Segment.adopt(first.path) is None
        assert os.fstat(held).st_nlink == 0
    finally:
        os.close(held)


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    """A journal holds networks and user agents: nobody else on the machine reads it."""
    segment = Segment.create(tmp_path)
    assert segment.path.stat().st_mode & 0o777 == 0o600
    segment.close()


def test_a_disk_that_refuses_leaves_nothing_open(tmp_path: Path) -> None:
    """Creating in a directory that is not there is an `OSError`, and no descriptor leaks."""
    before = os.dup(0)
    os.close(before)
    with pytest.raises(FileNotFoundError):
        Segment.create(tmp_path / "gone")
    after = os.dup(0)
    os.close(after)
    assert before == after  # the lowest free number is still the same


def test_what_the_directory_holds_is_measured(tmp_path: Path) -> None:
    """Only segments count, everybody's."""
    (tmp_path / "note.txt").write_bytes(b"x" * 100)
    one, two = Segment.create(tmp_path), Segment.create(tmp_path)
    one.append(b"x" * 10)
    two.append(b"x" * 5)
    assert used(tmp_path) == 15
    one.close()
    two.close()
