"""Owns orders that are in PostgreSQL before a benchmark begins: decided by the domain, written in bulk.

Each is what the platform would have there: the row with the hash of its last event, and for accepted orders
that event. What only others read (idempotency, outboxes, the history of completed orders) is left out.
"""

import secrets
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import asyncpg
from msgspec.structs import replace

from app.domain import chain
from app.domain import commands as c
from app.domain.catalogue import Product
from app.domain.decide import decide, evolve_all, note
from app.domain.errors import Refusal
from app.domain.events import OrderAccepted
from app.domain.fulfilment import FulfilmentLine, FulfilmentPlan
from app.domain.ids import fulfilment_id, order_id
from app.domain.money import Money
from app.domain.order import Order
from app.domain.place import place
from app.infra.postgres.order_rows import json_text
from bench import shop

_COLUMNS = (
    *("id", "customer_id", "status", "currency", "lines", "total", "payment", "payment_method", "stock"),
    *(
        "fulfilments",
        "shipping_address",
        "correlation_id",
        "version",
        "last_hash",
        "created_at",
        "updated_at",
    ),
)
_EVENT_COLUMNS = ("subject", "sequence", "type", "time", "correlation_id", "data", "hash")
ADDRESS = {
    "name": "Ada Lovelace",
    "line1": "12 St James's Square",
    "city": "London",
    "postal_code": "SW1Y 4JH",
    "country": "GB",
}


class Catalogue(dict[str, Product]):
    """The shop's products, each made when it is first asked for."""

    def __missing__(self, sku: str) -> Product:
        number = int(sku.rpartition("-")[2])
        product = Product(sku, sku, Money(shop.price(number), shop.CURRENCY), shop.ON_HAND)
        self[sku] = product
        return product


_catalogue = Catalogue()


def accepted(customer: str, lines: Sequence[tuple[str, int]]) -> tuple[Order, OrderAccepted]:
    """An order that was accepted just now, with its event."""
    for sku, _ in lines:
        _catalogue[sku]  # made now: the rules only look
    at = datetime.now(UTC)
    wanted = tuple(c.WantedLine(*line) for line in lines)
    command = c.PlaceOrder(customer, shop.CURRENCY, wanted, "pm_card_visa", None)
    identity = order_id(int(at.timestamp() * 1000), secrets.token_bytes(10))
    placed = place(command, identity, _catalogue, secrets.token_hex(12), at)
    assert not isinstance(placed, Refusal), placed
    return placed


def linked(order: Order, event: OrderAccepted) -> chain.LinkedEvent:
    """An order's first event with its hash."""
    return chain.chain(None, order.id, 0, (event,), order.created_at, order.correlation_id, None)[0]


def completed(customer: str, lines: Sequence[tuple[str, int]]) -> Order:
    """An order that went all the way, in one parcel."""
    order, _ = accepted(customer, lines)
    parcel = fulfilment_id(order.id, 1)
    plan = FulfilmentPlan(parcel, "east", tuple(FulfilmentLine(*line) for line in lines))
    intent = f"pi_{secrets.token_hex(12)}"
    commands: tuple[c.Command, ...] = (
        c.RecordReservation((plan,)),
        c.RecordIntent(intent),
        c.RecordAuthorization(intent, order.total),
        c.RecordBooking(parcel, f"shp_{secrets.token_hex(12)}", f"TRK{secrets.token_hex(6)}"),
        c.ReleaseOrder(),
        c.RecordDispatch(parcel),
        c.RecordCapture(order.total),
        c.RecordDelivery(parcel),
    )
    for command in commands:
        decision = decide(order, command)
        assert not isinstance(decision, Refusal), decision
        order = evolve_all(note(order, command), decision, order.updated_at)
    assert order.is_final
    return order


def alike(order: Order, count: int) -> list[Order]:
    """As many orders as asked that differ from this one in their ids and their customers only."""
    copies = []
    unix_ms = int(order.created_at.timestamp() * 1000)
    for number in range(count):
        identity = order_id(unix_ms, secrets.token_bytes(10))
        parcels = tuple(
            replace(parcel, id=fulfilment_id(identity, n)) for n, parcel in enumerate(order.fulfilments, 1)
        )
        copies.append(replace(order, id=identity, customer_id=f"cust-{number:010}", fulfilments=parcels))
    return copies


async def put(dsn: str, orders: Iterable[Order], events: Iterable[chain.LinkedEvent] = ()) -> None:
    """Write orders, and first events where there are any, as fast as PostgreSQL takes them."""
    hashes = {event.subject: event for event in events}
    connection = await asyncpg.connect(dsn)
    try:
        rows = [_row(order, hashes[order.id].hash if order.id in hashes else b"") for order in orders]
        await connection.copy_records_to_table("orders", records=rows, columns=_COLUMNS)
        first = [(e.subject, 1, e.type, e.time, e.correlation_id, e.data, e.hash) for e in hashes.values()]
        await connection.copy_records_to_table("events", records=first, columns=_EVENT_COLUMNS)
    finally:
        await connection.close()


def _row(order: Order, last_hash: bytes) -> tuple[object, ...]:
    return (
        *(order.id, order.customer_id, order.status, order.currency, json_text(order.lines), order.total),
        *(json_text(order.payment), order.payment_method, order.stock, json_text(order.fulfilments)),
        *(json_text(ADDRESS), order.correlation_id, order.version, last_hash),
        *(order.created_at, order.updated_at),
    )
