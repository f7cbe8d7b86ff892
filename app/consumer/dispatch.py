"""What follows from what: for each consumer group one table, event → the handlers that it has there.

Handlers run in the order of a subject's events, in one transaction with the group's mark, so each event has
its effect in PostgreSQL once. What is outside PostgreSQL follows after the commit, at least once.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from app.consumer.projections import Applied, Changes, count, count_items, observe, sum_amount
from app.contracts.streams import GROUP_PROJECTIONS, Envelope
from app.domain import events as e

Handler = Callable[[Envelope, Changes], None]
Table = Mapping[type, tuple[Handler, ...]]
Afterwards = Callable[[Applied], Awaitable[None]]

PROJECTIONS: Final[Table] = {
    e.OrderAccepted: (count("accepted"), count_items),
    e.OrderConfirmed: (count("confirmed"),),
    e.OrderDispatched: (),
    e.OrderCompleted: (count("completed"),),
    e.OrderRejected: (count("rejected"),),
    e.OrderCancelling: (),
    e.OrderCancelled: (count("cancelled"),),
    e.InventoryReserved: (),
    e.InventoryReleased: (),
    e.InventoryShipped: (),
    e.PaymentAuthorized: (),
    e.PaymentCaptured: (sum_amount("captured"),),
    e.PaymentVoided: (),
    e.PaymentRefunded: (sum_amount("refunded"),),
    e.PaymentDeclined: (),
    e.ShipmentBooked: (),
    e.ShipmentDispatched: (),
    e.ShipmentDelivered: (),
    e.ShipmentCancelled: (),
    e.InventoryAdjusted: (),
    e.PriceChanged: (),
}
"""The daily summary. (The document of an order is written whatever happened to it.)"""


class Group(msgspec.Struct, frozen=True):
    """A consumer group: its handlers by the event's public type, and what it does after each commit."""

    name: str
    handlers: Mapping[str, tuple[Handler, ...]]
    afterwards: tuple[Afterwards, ...] = ()


def group(name: str, table: Table, *afterwards: Afterwards) -> Group:
    """A group with this table."""
    return Group(name, {e.TYPES[kind]: handlers for kind, handlers in table.items()}, afterwards)


def projections(write_documents: Afterwards) -> Group:
    """The group `projections`: daily summary, order documents, metrics."""
    return group(GROUP_PROJECTIONS, PROJECTIONS, observe, write_documents)
