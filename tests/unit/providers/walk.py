"""Put strange values into a provider's samples, and hold what its parser makes of them to the promises of the seam.

Invariant: whatever stands in a body, `Provider.parse` returns or raises `MalformedError`, and every notice is sane.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
from hypothesis import strategies as st

from providers.notice import Bounce, Notice, Step, What, decode_notice, encode_notice
from providers.webhook import MalformedError, Provider, Request

Path = tuple[str | int, ...]

#: What stands in the place of each field in turn.
STRANGE: tuple[object, ...] = (
    None,
    True,
    7,
    -1.5,
    1e300,
    2**63,
    "",
    "strange \0 \u00e9 \U0001f600",
    [],
    [[]],
    [None, 7, "x", {"strange": [1]}],
    {},
    {"strange": {"deep": None}},
)

#: Any JSON value, small.
any_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


def paths(value: object, above: Path = ()) -> Iterator[Path]:
    """Yield where each value of a decoded body stands, the body itself first."""
    yield above
    if isinstance(value, dict):
        for name, one in value.items():
            yield from paths(one, (*above, name))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from paths(one, (*above, index))


def replaced(body: Any, path: Path, value: object) -> Any:
    """Return a copy of the body with *value* at *path*."""
    if not path:
        return value
    changed = copy.deepcopy(body)
    holder = changed
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value
    return changed


def without(body: Any, path: Path) -> Any:
    """Return a copy of the body that lacks what stands at *path*."""
    changed = copy.deepcopy(body)
    holder = changed
    for step in path[:-1]:
        holder = holder[step]
    del holder[path[-1]]
    return changed


def strange_bodies(body: object) -> Iterator[tuple[str, object]]:
    """Yield, with the place and the value, each body in which one field is missing or of another type."""
    for path in paths(body):
        place = ".".join(str(step) for step in path) or "the body"
        for value in STRANGE:
            yield f"{place} = {value!r}", replaced(body, path, value)
        if path:
            yield f"{place} missing", without(body, path)


def read(provider: Provider, body: bytes, headers: Mapping[str, str] | None = None) -> tuple[Notice, ...]:
    """Parse a POST with this body, assert that every notice is sane, and return them; `MalformedError` passes."""
    request = Request(method="POST", headers=headers or {}, query={}, body=body)
    notices = provider.parse(request).notices
    assert notices == provider.parse(request).notices, "the same body gives the same notices"
    for one in notices:
        _is_sane(one, provider.name)
    return notices


def _is_sane(one: Notice, provider: str) -> None:
    assert one.provider == provider
    assert isinstance(one.what, What)
    assert one.bounce is None or isinstance(one.bounce, Bounce)
    assert one.dedupe.strip()
    assert len(one.dedupe) <= 8192
    assert one.raw
    assert one.at_ms is None or one.at_ms >= 0
    assert all(isinstance(name.step, Step) and name.value.strip() for name in one.names)
    assert len(set(one.names)) == len(one.names)
    # Its types hold, and PostgreSQL stores no NUL.
    assert decode_notice(encode_notice(one)) == one
    kept = (one.dedupe, one.recipient, one.description, one.url, one.user_agent, one.ip, one.machine, *one.tags)
    metadata = (part for pair in one.metadata.items() for part in pair)
    assert not any("\0" in part for part in (*kept, *metadata, *(name.value for name in one.names)))


def survives(
    provider: Provider,
    body: object,
    *,
    headers: Mapping[str, str] | None = None,
    encode: Callable[[object], bytes] = msgspec.json.encode,
) -> int:
    """Parse the sample with each of its fields made strange; return how many of them were read and not refused."""
    understood = 0
    for label, changed in strange_bodies(body):
        try:
            read(provider, encode(changed), headers)
        except MalformedError:
            continue
        except Exception as error:
            error.add_note(label)
            raise
        understood += 1
    return understood
