"""What follows the commit of an effect: the documents of the orders in Redis, and what is measured.

If the process dies here, readers ask PostgreSQL for the orders, and write their documents.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from app.contracts.streams import Envelope, happened_at
from app.domain import events as e
from app.domain.errors import Unavailable
from app.domain.order import Order
from app.infra.redis.documents import Documents
from app.observability import metrics
from app.observability.logging import logger

DOCUMENTS_DEADLINE_S: Final = 1.0
UNWRITTEN_MAX: Final = 10_000

_ORDER: Final = "order."
_CONFIRMED: Final = e.TYPES[e.OrderConfirmed]
_REPRICED: Final = e.TYPES[e.OrderRepriced]  # moves no order to another status

log = logger("projections")


class Applied(msgspec.Struct, frozen=True):
    """What was committed: the events that had their effect, and their orders as they are now.

    `orders` also holds those whose events had had their effect before. They were read after `as_of`
    (monotonic).
    """

    events: tuple[Envelope, ...]
    orders: Mapping[str, Order]
    as_of: float


async def observe(applied: Applied) -> None:
    """Count events by type, orders by status, and how long they took to be confirmed."""
    for event in applied.events:
        metrics.EVENTS.labels(event.type).inc()
        if event.type.startswith(_ORDER) and event.type != _REPRICED:
            metrics.ORDERS.labels(event.type.split(".")[1]).inc()
        if event.type == _CONFIRMED and event.subject in applied.orders:
            waited = happened_at(event) - applied.orders[event.subject].created_at
            metrics.ORDER_CONFIRM.observe(max(0.0, waited.total_seconds()))


def write_documents(documents: Documents) -> Callable[[Applied], Awaitable[None]]:
    """Put the documents of the orders into Redis; where it is away, readers ask PostgreSQL.

    What Redis has of an open order is gone in a second. Of a final one it is there for long, so one whose
    price was adjusted is written with the next ones where it could not be written now.
    """
    unwritten: dict[str, Order] = {}

    async def write(applied: Applied) -> None:
        repriced = {event.subject for event in applied.events if event.type == _REPRICED}
        unwritten.update((id, applied.orders[id]) for id in repriced & applied.orders.keys())  # noqa: A001
        orders = {**unwritten, **applied.orders}
        try:
            await documents.put_all(
                tuple(orders.values()), as_of=applied.as_of, deadline_s=DOCUMENTS_DEADLINE_S
            )
            for order_id in orders:
                unwritten.pop(order_id, None)
        except Unavailable as error:
            for order_id in list(unwritten)[:-UNWRITTEN_MAX]:
                del unwritten[order_id]
            log.debug("documents_not_written", error=str(error))

    return write
