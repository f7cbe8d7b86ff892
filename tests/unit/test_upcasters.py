"""Upcasters: an event that was ever stored can be read for ever; what cannot be is said, not guessed."""

import msgspec
import pytest

from app.contracts.documents import rfc3339
from app.contracts.streams import Envelope
from app.contracts.versions import brought_up
from app.domain import events as e
from app.domain.chain import chain
from app.domain.upcasters import (
    UPCASTERS,
    VERSIONS,
    UnknownEvent,
    UnreadableEvent,
    Version,
    Versions,
    read,
    version,
)
from tests.unit.orders import AT, ID, INTENT, usd


class Counted(msgspec.Struct, frozen=True, tag_field="type", tag="test.counted.v2"):
    """An event that has changed its shape twice."""

    pieces: int
    unit: str


def named(data: dict) -> dict:
    """Version 0 called it `number`."""
    return {"count": data["number"]}


def with_unit(data: dict) -> dict:
    """Version 1 knew pieces only."""
    return {"pieces": data["count"], "unit": "piece"}


TESTED = Versions([Counted], {Version("test.counted", 0): named, Version("test.counted", 1): with_unit})


@pytest.mark.parametrize(
    ("type", "data"),
    [
        ("test.counted.v0", '{"type":"test.counted.v0","number":3}'),
        ("test.counted.v1", '{"type":"test.counted.v1","count":3}'),
        ("test.counted.v2", '{"type":"test.counted.v2","pieces":3,"unit":"piece"}'),
    ],
)
def test_every_version_that_was_ever_stored_is_read_as_the_one_of_today(type: str, data: str):
    """Whatever form the bytes come in."""
    for form in (data, data.encode(), msgspec.Raw(data.encode())):
        assert read(type, form, TESTED) == Counted(3, "piece")


def test_consumers_are_given_old_events_as_those_of_today():
    """With everything else of the envelope as it was published; what nobody knows is left to them."""
    old = published("test.counted.v0", b'{"type":"test.counted.v0","number":3}')
    today = published("test.counted.v2", b'{"type":"test.counted.v2","pieces":3,"unit":"piece"}')
    assert brought_up(old, TESTED) == today
    assert brought_up(today, TESTED) is today
    newer = published("test.counted.v3", b"{}")
    assert brought_up(newer, TESTED) is newer
    assert old.type == "test.counted.v0"


def published(type: str, data: bytes) -> Envelope:
    """An event in its envelope."""
    return Envelope("cup:1", type, "/test", "cup", rfc3339(AT), 1, "cor_1", msgspec.Raw(data))


def test_every_event_of_the_domain_is_read_as_it_was_written():
    """The version of today goes through the same function."""
    event = e.PaymentCaptured(INTENT, usd(1400))
    (stored,) = chain(None, ID, 0, (event,), AT, "cor_1", None)
    assert read(stored.type, stored.data) == event
    assert VERSIONS.types == {*e.TYPES.values(), *(old.type for old in UPCASTERS)}


@pytest.mark.parametrize(
    "type",
    [
        "test.counted.v3",
        "test.lost.v1",
        "test.counted",
        "test.counted.vx",
        "test.counted.v01",
        "v1",
        "",
        "Ä.b.v1",
    ],
)
def test_a_type_or_version_that_nobody_knows_is_an_error_of_its_own(type: str):
    """Whoever reads sets it aside until a release comes that knows it."""
    with pytest.raises(UnknownEvent) as raised:
        read(type, msgspec.json.encode({"type": type}), TESTED)
    assert raised.value.type == type


@pytest.mark.parametrize(
    ("type", "data"),
    [
        ("test.counted.v2", '{"type":"test.counted.v2","pieces":3}'),
        ("test.counted.v2", '{"type":"test.counted.v1","pieces":3,"unit":"piece"}'),
        ("test.counted.v2", "{"),
        ("test.counted.v1", "[]"),
        ("test.counted.v1", '{"type":"test.counted.v2","count":3}'),
        ("test.counted.v1", '{"type":"test.counted.v1"}'),
        ("test.counted.v0", '{"type":"test.counted.v0","number":"three"}'),
    ],
)
def test_data_that_is_not_what_its_type_says_is_not_guessed_at(type: str, data: str):
    """It is unreadable, which is not the same as unknown: no later release will help."""
    with pytest.raises(UnreadableEvent) as raised:
        read(type, data, TESTED)
    assert not isinstance(raised.value, UnknownEvent)
    assert raised.value.type == type


@pytest.mark.parametrize(
    "lost", [Version("test.counted", 0), Version("test.counted", 2), Version("test.new", 1)]
)
def test_an_upcaster_that_leads_nowhere_is_refused_when_the_table_is_made(lost: Version):
    """Not when the first old event is read, years later."""
    with pytest.raises(ValueError, match=lost.type):
        Versions([Counted], {lost: named})


def test_each_event_of_the_domain_has_one_version_of_today():
    """Two classes of one name would leave it to chance which one is read."""
    names = [version(public).name for public in e.TYPES.values()]
    assert len(names) == len(set(names))
