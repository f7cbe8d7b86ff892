"""The hash chain: whatever of the past is changed, the hashes say so."""

from datetime import UTC, datetime, timedelta, timezone

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given
from msgspec.structs import replace

from app.domain import events as e
from app.domain.chain import LinkedEvent, chain, link
from tests.unit.orders import AT, FIRST, ID, INTENT, REASON, usd

EVENTS = (
    e.OrderAccepted("cus_1", "USD", (e.AcceptedLine("cup", 2, usd(700), usd(1400)),), usd(1400)),
    e.PaymentAuthorized(INTENT, usd(1400)),
    e.ShipmentBooked(FIRST, "shp_1", None),
    e.OrderRejected(REASON),
)
LINKED = chain(None, ID, 0, EVENTS, AT, "cor_1", "00-abc-def-01")


def is_whole(history: tuple[LinkedEvent, ...]) -> bool:
    """What an audit does: compute every hash again, from the stored parts."""
    previous = None
    for sequence, x in enumerate(history, 1):
        current = link(
            previous, x.subject, x.sequence, x.type, x.time, x.correlation_id, x.traceparent, x.data
        )
        if (x.previous_hash, x.hash, x.sequence) != (previous, current, sequence):
            return False
        previous = current
    return True


def test_an_untouched_history_is_whole():
    """Sequences count from one, each event holds the hash before it."""
    assert is_whole(LINKED)
    assert [x.sequence for x in LINKED] == [1, 2, 3, 4]
    assert [x.type for x in LINKED] == [e.TYPES[type(event)] for event in EVENTS]
    assert LINKED[0].previous_hash is None
    assert all(len(x.hash) == 32 for x in LINKED)


def test_links_made_one_by_one_are_those_made_at_once():
    """Each transaction goes on where the one before it ended."""
    linked: tuple[LinkedEvent, ...] = ()
    for event in EVENTS:
        previous = linked[-1].hash if linked else None
        linked += chain(previous, ID, len(linked), (event,), AT, "cor_1", "00-abc-def-01")
    assert linked == LINKED


@pytest.mark.parametrize(
    "change",
    [
        {"subject": "ord_other"},
        {"sequence": 9},
        {"type": "payment.captured.v1"},
        {"time": AT + timedelta(microseconds=1)},
        {"correlation_id": "cor_2"},
        {"traceparent": None},
        {"data": LINKED[1].data.replace("1400", "1401")},
        {"data": LINKED[1].data.replace(",", ", ")},
        {"previous_hash": bytes(32)},
        {"hash": bytes(32)},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("at", range(len(LINKED)))
def test_a_changed_event_is_noticed(change: dict, at: int):
    """Every part of it counts, at every place."""
    forged = replace(LINKED[at], **change)
    assert not is_whole((*LINKED[:at], forged, *LINKED[at + 1 :]))


@pytest.mark.parametrize("at", range(len(LINKED) - 1))
def test_a_dropped_event_is_noticed(at: int):
    """The last one can only be missed by whoever knows how many there were: the order's row does."""
    assert not is_whole(LINKED[:at] + LINKED[at + 1 :])


def test_swapped_and_inserted_events_are_noticed():
    """A history has one order."""
    assert not is_whole((LINKED[0], LINKED[2], LINKED[1], LINKED[3]))
    inserted = chain(LINKED[1].hash, ID, 2, (e.PaymentCaptured(INTENT, usd(1400)),), AT, "cor_1", None)
    assert not is_whole((*LINKED[:2], *inserted, *LINKED[2:]))


def test_whoever_rewrites_one_event_must_rewrite_all_that_follow():
    """Making one hash right breaks the next link."""
    forged = chain(LINKED[0].hash, ID, 1, (e.PaymentAuthorized(INTENT, usd(1)),), AT, "cor_1", None)
    assert not is_whole((LINKED[0], *forged, *LINKED[2:]))


@given(
    st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1)),  # noqa: DTZ001 - made aware below
    st.integers(-12, 14),
)
def test_a_time_is_hashed_as_a_moment_and_not_as_it_is_written(time, hours):
    """A database that shows the same moment in another zone has not been tampered with."""
    moment = time.replace(tzinfo=UTC)
    elsewhere = moment.astimezone(timezone(timedelta(hours=hours)))
    assert link(None, "s", 1, "t", moment, "c", None, "{}") == link(
        None, "s", 1, "t", elsewhere, "c", None, "{}"
    )


parts = st.tuples(
    st.binary(min_size=32, max_size=32) | st.none(),
    st.text(max_size=5),
    st.integers(1, 99),
    st.text(max_size=5),
    st.just(AT),
    st.text(max_size=5),
    st.text(max_size=5) | st.none(),
    st.text(max_size=5),
)


@given(parts, parts)
def test_different_events_have_different_hashes(one, other):
    """No two ways to cut the same bytes into parts."""
    assert (link(*one) == link(*other)) == (one == other)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_stored_data_is_the_event(event: e.OrderEvent):
    """It reads back as what was written, type and all."""
    data = chain(None, ID, 0, (event,), AT, "cor_1", None)[0].data
    assert msgspec.json.decode(data, type=e.OrderEvent) == event
