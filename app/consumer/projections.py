"""The handlers of the group `projections`: the daily summary in PostgreSQL, the order documents in Redis.

One statement adds a whole batch to the summary, in the transaction of the group's marks; documents are
written after the commit. If the process dies here, nothing was written and the events come again.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Final

import msgspec

from app.contracts.streams import Envelope
from app.domain import events as e
from app.domain.errors import Unavailable
from app.domain.money import Money
from app.domain.order import Order
from app.infra.postgres.projections import DayCounts, Effects
from app.infra.redis.documents import Documents
from app.observability import metrics
from app.observability.logging import logger

DOCUMENTS_DEADLINE_S: Final = 1.0

_ORDER: Final = "order."
_ACCEPTED: Final = e.TYPES[e.OrderAccepted]
_CONFIRMED: Final = e.TYPES[e.OrderConfirmed]

log = logger("projections")


class Applied(msgspec.Struct, frozen=True):
    """What was committed: the events that had their effect, and their orders as they are now.

    `orders` also holds those whose events had had their effect before. They were read after `as_of`
    (monotonic).
    """

    events: tuple[Envelope, ...]
    orders: Mapping[str, Order]
    as_of: float


class _Lines(msgspec.Struct):
    lines: tuple[e.AcceptedLine, ...]


class _Payment(msgspec.Struct):
    amount: Money


_lines: Final = msgspec.json.Decoder(_Lines)
_payment: Final = msgspec.json.Decoder(_Payment)

_COLUMNS: Final = {
    e.TYPES[e.OrderAccepted]: "accepted",
    e.TYPES[e.OrderConfirmed]: "confirmed",
    e.TYPES[e.OrderCompleted]: "completed",
    e.TYPES[e.OrderRejected]: "rejected",
    e.TYPES[e.OrderCancelled]: "cancelled",
    e.TYPES[e.PaymentCaptured]: "captured",
    e.TYPES[e.PaymentRefunded]: "refunded",
}
"""Where each event counts: one more, or its amount."""
_MONEY: Final = ("captured", "refunded")


async def add_to_days(events: Sequence[Envelope], effects: Effects) -> None:
    """Count the events in the rows of their days (UTC) and their orders' currencies."""
    days: dict[tuple[date, str], DayCounts] = {}
    for event in events:
        key = (happened_at(event).date(), effects.orders[event.subject].currency)
        counts = days.setdefault(key, DayCounts())
        column = _COLUMNS[event.type]
        amount = _payment.decode(event.data).amount.amount if column in _MONEY else 1
        setattr(counts, column, getattr(counts, column) + amount)
        if event.type == _ACCEPTED:
            counts.items += sum(line.quantity for line in _lines.decode(event.data).lines)
    await effects.add_to_summary(days)


def happened_at(event: Envelope) -> datetime:
    """When it happened, UTC."""
    return datetime.fromisoformat(event.time).astimezone(UTC)


async def observe(applied: Applied) -> None:
    """Count orders by status, and how long they took to be confirmed."""
    for event in applied.events:
        if event.type.startswith(_ORDER):
            metrics.ORDERS.labels(event.type.split(".")[1]).inc()
        if event.type == _CONFIRMED and event.subject in applied.orders:
            waited = happened_at(event) - applied.orders[event.subject].created_at
            metrics.ORDER_CONFIRM.observe(max(0.0, waited.total_seconds()))


def write_documents(documents: Documents) -> Callable[[Applied], Awaitable[None]]:
    """Put the documents of the orders into Redis; where it is away, readers ask PostgreSQL."""

    async def write(applied: Applied) -> None:
        try:
            orders = tuple(applied.orders.values())
            await documents.put_all(orders, as_of=applied.as_of, deadline_s=DOCUMENTS_DEADLINE_S)
        except Unavailable as error:
            log.debug("documents_not_written", error=str(error))

    return write
