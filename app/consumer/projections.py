"""The handlers of the group `projections`: the daily summary in PostgreSQL, the order documents in Redis.

A handler only notes what is to change; `app.consumer.effect` writes it in the transaction that also moves the
group's mark. If the process dies here, nothing was written and the events come again.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from typing import Final

import msgspec

from app.contracts.streams import Envelope
from app.domain import events as e
from app.domain.errors import Unavailable
from app.domain.money import Money
from app.domain.order import Order
from app.infra.postgres.projections import DayCounts
from app.infra.redis.documents import Documents
from app.observability import metrics
from app.observability.logging import logger

DOCUMENTS_DEADLINE_S: Final = 1.0

_ORDER: Final = "order."
_CONFIRMED: Final = e.TYPES[e.OrderConfirmed]

log = logger("projections")


class Changes:
    """What some events change: counts to be added, by day (UTC) and currency."""

    def __init__(self, orders: dict[str, Order]) -> None:
        """`orders` are the subjects of the events, as they are now."""
        self.orders = orders
        self.days: dict[tuple[date, str], DayCounts] = {}

    def day_of(self, event: Envelope) -> DayCounts:
        """The counts of the event's day, in its order's currency."""
        key = (happened_at(event).date(), self.orders[event.subject].currency)
        return self.days.setdefault(key, DayCounts())


class Applied(msgspec.Struct, frozen=True):
    """What was committed: the events that had their effect, and their orders as they are now.

    `orders` also holds those whose events had had their effect before. They were read after `as_of`
    (monotonic).
    """

    events: tuple[Envelope, ...]
    orders: dict[str, Order]
    as_of: float


class _Lines(msgspec.Struct):
    lines: tuple[e.AcceptedLine, ...]


class _Payment(msgspec.Struct):
    amount: Money


_lines: Final = msgspec.json.Decoder(_Lines)
_payment: Final = msgspec.json.Decoder(_Payment)


def count(column: str) -> Callable[[Envelope, Changes], None]:
    """A handler that counts its events in a column."""
    return lambda event, changes: _add(changes.day_of(event), column, 1)


def sum_amount(column: str) -> Callable[[Envelope, Changes], None]:
    """A handler that adds up the amounts of its events in a column."""

    def add(event: Envelope, changes: Changes) -> None:
        _add(changes.day_of(event), column, _payment.decode(event.data).amount.amount)

    return add


def count_items(event: Envelope, changes: Changes) -> None:
    """Count the pieces of an accepted order."""
    _add(changes.day_of(event), "items", sum(line.quantity for line in _lines.decode(event.data).lines))


def _add(counts: DayCounts, column: str, number: int) -> None:
    setattr(counts, column, getattr(counts, column) + number)


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
