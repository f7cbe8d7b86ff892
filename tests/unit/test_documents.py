"""The public documents: what readers see of an order, and what they must never see."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from msgspec.structs import replace

from app.contracts.documents import document, encode_order, etag, rfc3339
from app.domain.errors import Refusal
from tests.unit import orders as o
from tests.unit.orders import FIRST, ID, after, placed


def usd(amount: int) -> dict:
    """Money as it is written."""
    return {"amount": amount, "currency": "USD"}


def test_an_orders_document_is_this():
    """Byte for byte what the contract says; whoever changes it, changes it here too."""
    order = replace(after(placed(), *o.HALF_BOOKED), metadata={"cart": "7"}, waiting_on="shipping")
    assert json.loads(encode_order(order)) == {
        "id": ID,
        "customer_id": "cus_1",
        "status": "accepted",
        "reason": None,
        "waiting_on": "shipping",
        "currency": "USD",
        "lines": [
            {"sku": "cup", "quantity": 2, "unit_price": usd(700), "amount": usd(1400)},
            {"sku": "spoon", "quantity": 3, "unit_price": usd(50), "amount": usd(150)},
        ],
        "totals": {"subtotal": usd(1550), "tax": usd(0), "shipping": usd(0), "total": usd(1550)},
        "payment": {"status": "authorized", "authorized": usd(1550), "captured": usd(0), "refunded": usd(0)},
        "fulfilments": [
            {
                "id": FIRST,
                "warehouse": "east",
                "status": "booked",
                "lines": [{"sku": "cup", "quantity": 2}, {"sku": "spoon", "quantity": 1}],
                "tracking_number": "T1",
            },
            {
                "id": o.SECOND,
                "warehouse": "west",
                "status": "planned",
                "lines": [{"sku": "spoon", "quantity": 2}],
                "tracking_number": None,
            },
        ],
        "metadata": {"cart": "7"},
        "correlation_id": "cor_1",
        "created_at": "2026-03-01T12:00:00.250000Z",
        "updated_at": "2026-03-01T12:00:05.250000Z",
        "version": 4,
    }


def test_a_rejection_tells_its_reason_and_leaves_out_what_does_not_apply():
    """The provider's code where there is one, the SKUs where they are why."""
    assert json.loads(encode_order(after(placed(), *o.REJECTED)))["reason"] == {
        "code": "payment_declined",
        "detail": "Declined.",
    }


@pytest.mark.parametrize("way", [(), o.CONFIRMED, o.COMPLETED, o.CANCELLED, o.REJECTED])
def test_the_same_order_is_always_the_same_bytes(way):
    """Caches and stored answers are compared byte for byte."""
    order = after(placed(), *way)
    assert encode_order(order) == encode_order(replace(order))
    assert document(order) == document(replace(order))


def test_readers_see_neither_the_payment_method_nor_the_providers_ids():
    """What moves money stays inside."""
    shown = encode_order(after(placed(), *o.COMPLETED)).decode()
    for inside in ("pm_card_visa", o.INTENT, "shp_1", "key_number"):
        assert inside not in shown


@pytest.mark.parametrize(
    "at",
    [
        datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        datetime(2026, 1, 2, 5, 4, 5, 6, tzinfo=timezone(timedelta(hours=2))),
    ],
)
def test_times_are_utc_with_microseconds(at: datetime):
    """They sort as texts, wherever the clock stood."""
    assert rfc3339(at) == "2026-01-02T03:04:05.000006Z"


def test_the_entity_tag_changes_with_every_event_and_with_what_an_order_waits_for():
    """A cached answer is never wrong."""
    order, seen = placed(), set()
    for command in o.COMPLETED:
        order = after(order, command)
        for waiting_on in (None, "payments", "operator"):
            seen.add((encode_order(replace(order, waiting_on=waiting_on)), etag(order.version, waiting_on)))
    assert len({body for body, _ in seen}) == len({tag for _, tag in seen}) == len(seen)


def test_entity_tags_are_quoted():
    """As HTTP wants them."""
    assert etag(3, None) == '"3"'
    assert etag(3, "payments") == '"3-payments"'


def test_a_refusal_is_no_order():
    """Nobody encodes one by mistake."""
    with pytest.raises(AttributeError):
        encode_order(Refusal("too-late", "It is too late."))
