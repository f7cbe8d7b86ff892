"""The table of transitions, written down a second time by hand: every status with every event."""

import itertools

import msgspec
import pytest
from msgspec.structs import replace

from app.domain import events as e
from app.domain.order import FINAL, TRANSITIONS, IllegalEventError, Status, evolve
from tests.unit.orders import FIRST, INTENT, LATER, PLANS, REASON, placed, usd

A, CONF, D, X = Status.ACCEPTED, Status.CONFIRMED, Status.DISPATCHED, Status.CANCELLING

REPRICED = e.OrderRepriced(
    "adj_1", "rpl_1", "march", usd(1), usd(3), usd(2), (e.RepricedLine("cup", 2, usd(700), usd(701)),)
)

EVENTS: dict[e.OrderEvent, dict[Status, Status]] = {
    e.OrderAccepted("cus_1", "USD", (), usd(0)): {},
    e.OrderConfirmed(): {A: CONF},
    e.OrderDispatched(): {CONF: D},
    e.OrderCompleted(): {D: Status.COMPLETED},
    e.OrderRejected(REASON): {A: Status.REJECTED},
    e.OrderCancelling(): {A: X, CONF: X},
    e.OrderCancelled(): {X: Status.CANCELLED},
    REPRICED: {status: status for status in Status},
    e.InventoryReserved(PLANS): {A: A},
    e.InventoryReleased(PLANS): {A: A, X: X},
    e.InventoryShipped(PLANS): {D: D},
    e.PaymentAuthorized(INTENT, usd(1)): {A: A, X: X},
    e.PaymentCaptured(INTENT, usd(1)): {A: A, D: D, X: X},
    e.PaymentVoided(INTENT, usd(1)): {A: A, X: X},
    e.PaymentRefunded(INTENT, usd(1)): {A: A, X: X},
    e.PaymentDeclined("card_declined", None, ""): {A: A, X: X},
    e.ShipmentBooked(FIRST, "shp_1", None): {A: A, X: X},
    e.ShipmentDispatched(FIRST): {D: D},
    e.ShipmentDelivered(FIRST): {D: D},
    e.ShipmentCancelled(FIRST): {A: A, X: X},
}
"""Event → what it makes of the statuses in which it can happen."""

PAIRS = list(itertools.product(Status, EVENTS))


def test_this_list_names_every_event():
    """A new event is not forgotten here."""
    assert {type(event) for event in EVENTS} == set(e.OrderEvent.__args__)


@pytest.mark.parametrize(
    ("status", "event"), PAIRS, ids=lambda x: x if isinstance(x, str) else type(x).__name__
)
def test_an_event_happens_where_the_table_says_and_nowhere_else(status: Status, event: e.OrderEvent):
    """Every legal pair leads where it should, and every other raises instead of being believed."""
    order = replace(placed(), status=status, waiting_on="payments")
    to = EVENTS[event].get(status)
    if to is None:
        with pytest.raises(IllegalEventError, match=f"{type(event).__name__} .* {status}"):
            evolve(order, event, LATER)
        return
    moved = evolve(order, event, LATER)
    assert (moved.status, moved.version) == (to, order.version + 1)
    assert (moved.updated_at, moved.waiting_on) == (LATER, "payments" if event is REPRICED else None)


def test_nothing_but_another_price_happens_to_an_order_that_is_final():
    """The end is the end; that its price was wrong may still turn out."""
    assert {kind for status, kind in TRANSITIONS if status in FINAL} == {e.OrderRepriced}


def test_one_event_alone_leads_to_each_final_status():
    """So consumers need to watch for one event, not for combinations."""
    leading = {
        to: {kind for (status, kind), target in TRANSITIONS.items() if to == target != status} for to in FINAL
    }
    assert leading == {
        Status.COMPLETED: {e.OrderCompleted},
        Status.REJECTED: {e.OrderRejected},
        Status.CANCELLED: {e.OrderCancelled},
    }


def test_there_is_no_way_from_dispatched_to_cancelled_nor_back():
    """Whatever happens, a parcel that was let go is never undone."""
    after_dispatch = {Status.DISPATCHED}
    while (
        more := {to for (status, _), to in TRANSITIONS.items() if status in after_dispatch} - after_dispatch
    ):
        after_dispatch |= more
    assert after_dispatch == {Status.DISPATCHED, Status.COMPLETED}


def test_money_in_events_names_its_currency():
    """Whoever reads an event has nothing else: what is a bare number counts pieces."""
    schemas, components = msgspec.json.schema_components([e.OrderEvent, e.CatalogueEvent])
    assert len(schemas) == 2
    numbers = {
        (name, field)
        for name, schema in components.items()
        for field, kind in schema["properties"].items()
        if kind.get("type") in {"integer", "number"}
    }
    assert {field for name, field in numbers if name != "Money"} == {"quantity", "delta", "on_hand"}


def test_events_carry_their_public_types():
    """Types are what the contract names, each used once."""
    assert len(set(e.TYPES.values())) == len(e.TYPES) == len(e.OrderEvent.__args__) + 2
    assert all(kind.endswith(".v1") for kind in e.TYPES.values())
    subjects: dict[str, set[str]] = {}
    for kind in e.TYPES.values():
        noun, verb = kind.removesuffix(".v1").split(".")
        subjects.setdefault(noun, set()).add(verb)
    assert subjects == {
        "order": {
            *("accepted", "confirmed", "dispatched", "completed", "rejected", "cancelling", "cancelled"),
            "repriced",
        },
        "inventory": {"reserved", "released", "shipped", "adjusted"},
        "payment": {"authorized", "captured", "voided", "refunded", "declined"},
        "shipment": {"booked", "dispatched", "delivered", "cancelled"},
        "price": {"changed"},
    }
