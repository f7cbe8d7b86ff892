"""Owns orders with their whole history that are in PostgreSQL before something begins: thousands at once.

Each is what the platform would have there: the row, every event with its hash in its chain, the movements of
money, and, where asked, the marks of groups that have handled it all, or the places in the outbox. One order
of each kind is taken through the domain, step by step; the others are told like it, under ids and times of
their own. Orders that are only accepted are in no workflow outbox: nobody carries them.
"""

import secrets
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

import asyncpg
import msgspec

from app.domain import commands as c
from app.domain import events as e
from app.domain.catalogue import Product
from app.domain.chain import link
from app.domain.decide import decide, evolve_all, note
from app.domain.errors import Refusal
from app.domain.fulfilment import FulfilmentLine, FulfilmentPlan
from app.domain.ids import fulfilment_id, order_id
from app.domain.ledger import transfers
from app.domain.money import Money
from app.domain.order import Order
from app.domain.place import place
from app.infra.postgres.order_rows import json_text

ACCEPTED: Final = "accepted"
COMPLETED: Final = "completed"
CANCELLED: Final = "cancelled"
REJECTED: Final = "rejected"

LIFE: Final = timedelta(seconds=2)
"""How long an order takes from its first event to its last."""
CHUNK: Final = 2_000

_MODEL: Final = order_id(1, bytes(10)).removeprefix("ord_")
"""What stands for an order's own id until it has one; whatever belongs to it is named after it."""
_ID: Final = f"ord_{_MODEL}"
_SOMEBODY: Final = "somebody-in-the-model"
_INTENT: Final = f"pi_{_MODEL}"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)

_ORDERS: Final = (
    *("id", "customer_id", "status", "currency", "lines", "total", "payment", "payment_method", "stock"),
    *("fulfilments", "reason", "correlation_id", "version", "last_hash", "created_at", "updated_at"),
)
_EVENTS: Final = (
    *("subject", "sequence", "type", "time", "correlation_id", "data", "previous_hash", "hash"),
)
_TRANSFERS: Final = (
    *("order_id", "sequence", "number", "debit", "credit", "amount", "currency", "created_at"),
)


class Kind(msgspec.Struct, frozen=True):
    """Orders that are alike: their lines (SKU, pieces, price of a piece in minor units), and their way."""

    lines: tuple[tuple[str, int, int], ...]
    way: str = COMPLETED
    currency: str = "USD"


class _Told(msgspec.Struct, frozen=True):
    """An order of a kind, and what happened to it: type and data of each event."""

    order: Order
    events: tuple[tuple[str, str], ...]
    row: tuple[Any, ...]
    transfers: tuple[tuple[Any, ...], ...]


async def put(
    dsn: str,
    kinds: Sequence[Kind],
    *,
    until: datetime,
    spread: timedelta = timedelta(hours=20),
    marks: Sequence[str] = (),
    outbox: bool = False,
    customers: int = 5_000,
) -> list[str]:
    """Write an order of each kind, accepted in this order over `spread`, the last before `until`; the ids.

    `marks` are the groups that have handled all of it; `outbox`: the events are still to be published. The
    products must be there where somebody looks for them.
    """
    begin = until - spread - LIFE
    connection = await asyncpg.connect(dsn)
    written: list[str] = []
    try:
        for first in range(0, len(kinds), CHUNK):
            chunk = _Chunk()
            for number, kind in enumerate(kinds[first : first + CHUNK], first):
                at = begin + spread * number / len(kinds)
                chunk.add(told(kind), at, f"cust-{number % customers:05}")
            await chunk.write(connection, marks, outbox=outbox)
            written += [row[0] for row in chunk.orders]
    finally:
        await connection.close()
    return written


class _Chunk:
    """Some orders on their way into their tables."""

    def __init__(self) -> None:
        self.orders: list[tuple[Any, ...]] = []
        self.events: list[tuple[Any, ...]] = []
        self.transfers: list[tuple[Any, ...]] = []

    def add(self, model: _Told, at: datetime, customer: str) -> None:
        """One order like the model."""
        own = order_id((at - _EPOCH) // _MILLISECOND, secrets.token_bytes(10)).removeprefix("ord_")
        subject, correlation = f"ord_{own}", f"cor-{own}"
        step = LIFE / len(model.events)
        previous: bytes | None = None
        time = at
        for sequence, (kind, text) in enumerate(model.events, 1):
            time = at + step * (sequence - 1)
            data = text.replace(_MODEL, own).replace(_SOMEBODY, customer)
            hashed = link(previous, subject, sequence, kind, time, correlation, None, data)
            self.events.append((subject, sequence, kind, time, correlation, data, previous, hashed))
            previous = hashed
        texts = (x.replace(_MODEL, own) if type(x) is str else x for x in model.row)
        version = len(model.events)
        self.orders.append((subject, customer, *texts, correlation, version, previous, at, time))
        for sequence, *rest in model.transfers:
            self.transfers.append((subject, sequence, *rest, at + step * (sequence - 1)))

    async def write(self, connection: asyncpg.Connection, marks: Sequence[str], *, outbox: bool) -> None:
        """All of it in one transaction."""
        async with connection.transaction():
            await connection.copy_records_to_table("orders", records=self.orders, columns=_ORDERS)
            await connection.copy_records_to_table("events", records=self.events, columns=_EVENTS)
            await connection.copy_records_to_table(
                "ledger_transfers", records=self.transfers, columns=_TRANSFERS
            )
            ends = {row[0]: row[1] for row in self.events}
            await connection.copy_records_to_table(
                "marks",
                records=[(group, *end) for group in marks for end in ends.items()],
                columns=("consumer_group", "subject", "sequence"),
            )
            if outbox:
                await connection.executemany(
                    "INSERT INTO event_outbox (subject, sequence) VALUES ($1, $2)",
                    [row[:2] for row in self.events],
                )


@cache
def told(kind: Kind) -> _Told:
    """The order that stands for all of its kind, taken through its steps by the domain."""
    prices = {sku: Product(sku, sku, Money(price, kind.currency), 1) for sku, _, price in kind.lines}
    wanted = tuple(c.WantedLine(sku, pieces) for sku, pieces, _ in kind.lines)
    command = c.PlaceOrder(_SOMEBODY, kind.currency, wanted, "pm_card_visa", None)
    placed = place(command, _ID, prices, "cor", _EPOCH)
    assert not isinstance(placed, Refusal), placed
    order, accepted = placed
    happened: list[e.OrderEvent] = [accepted]
    for step in _steps(order, kind.way):
        decision = decide(order, step)
        assert not isinstance(decision, Refusal), decision
        order = evolve_all(note(order, step), decision, _EPOCH)
        happened += decision
    moved = tuple(
        (sequence, number, transfer.debit, transfer.credit, transfer.amount, kind.currency)
        for sequence, event in enumerate(happened, 1)
        for number, transfer in enumerate(transfers(event), 1)
    )
    texts = tuple((e.TYPES[type(event)], json_text(event)) for event in happened)
    row = (
        *(order.status, order.currency, json_text(order.lines), order.total, json_text(order.payment)),
        *(order.payment_method, order.stock, json_text(order.fulfilments)),
        None if order.reason is None else json_text(order.reason),
    )
    return _Told(order, texts, row, moved)


def _steps(order: Order, way: str) -> Iterator[c.Command]:
    """The commands that take an order its way."""
    parcel = fulfilment_id(order.id, 1)
    lines = tuple(FulfilmentLine(line.sku, line.quantity) for line in order.lines)
    authorized = (c.RecordIntent(_INTENT), c.RecordAuthorization(_INTENT, order.total)) if order.total else ()
    if way == REJECTED:
        yield c.RejectOrder(e.Reason("out_of_stock", "None left.", skus=(order.lines[0].sku,)))
    if way in {ACCEPTED, REJECTED}:
        return
    yield c.RecordReservation((FulfilmentPlan(parcel, "east", lines),))
    yield from authorized
    yield c.RecordBooking(parcel, f"shp_{_MODEL}", f"TRK{_MODEL}")
    if way == CANCELLED:
        yield from (c.CancelOrder(), c.RecordShipmentCancelled(parcel), c.RecordVoid())
        yield from (c.ReleaseStock(), c.CloseOrder())
        return
    yield from (c.ReleaseOrder(), c.RecordDispatch(parcel))
    if order.total:
        yield c.RecordCapture(order.total)
    yield c.RecordDelivery(parcel)
