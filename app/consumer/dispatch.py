"""What follows from what: for each consumer group one table, event → the handlers that it has there.

From an event that a table does not name nothing follows in that group; its mark moves on all the same. A
handler is given the events of a batch that name it, in the order of each subject, in one transaction with the
group's marks: so each event has its effect in PostgreSQL once. What is outside PostgreSQL follows after the
commit, at least once. An event that fails is tried again and then set aside; only its subject waits.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec

from app.consumer.notifications import tell_customer
from app.consumer.projections import Applied, observe
from app.consumer.webhooks import write_deliveries
from app.contracts.streams import (
    GROUP_ANALYTICS,
    GROUP_NOTIFICATIONS,
    GROUP_PROJECTIONS,
    GROUP_WEBHOOKS,
    Envelope,
)
from app.domain import events as e
from app.infra.postgres.projections import Effects
from app.projections.customers import add_to_customers
from app.projections.days import add_to_days
from app.projections.minutes import add_to_minutes

Handler = Callable[[Sequence[Envelope], Effects], Awaitable[None]]
Table = Mapping[type, tuple[Handler, ...]]
Afterwards = Callable[[Applied], Awaitable[None]]

PROJECTIONS: Final[Table] = {
    e.OrderAccepted: (add_to_days, add_to_customers),
    e.OrderConfirmed: (add_to_days,),
    e.OrderCompleted: (add_to_days, add_to_customers),
    e.OrderRejected: (add_to_days, add_to_customers),
    e.OrderCancelled: (add_to_days, add_to_customers),
    e.PaymentCaptured: (add_to_days, add_to_customers),
    e.PaymentRefunded: (add_to_days, add_to_customers),
}
"""The summaries of days and of customers. (The document of an order is written whatever happened to it.)"""

ANALYTICS: Final[Table] = {
    e.OrderAccepted: (add_to_minutes,),
    e.OrderConfirmed: (add_to_minutes,),
    e.OrderDispatched: (add_to_minutes,),
    e.OrderCompleted: (add_to_minutes,),
    e.OrderRejected: (add_to_minutes,),
    e.OrderCancelled: (add_to_minutes,),
    e.OrderRepriced: (add_to_minutes,),
    e.PaymentCaptured: (add_to_minutes,),
    e.PaymentRefunded: (add_to_minutes,),
    e.PriceChanged: (add_to_minutes,),
}
"""Orders by status, money taken and given back, rejections by reason, changes of price: minute by minute."""

NOTIFICATIONS: Final[Table] = {
    e.OrderAccepted: (tell_customer,),
    e.OrderConfirmed: (tell_customer,),
    e.OrderDispatched: (tell_customer,),
    e.OrderCompleted: (tell_customer,),
    e.OrderRejected: (tell_customer,),
    e.OrderCancelled: (tell_customer,),
}
"""What a customer is told by mail. (Live, everybody is told of everything: `hf:<environment>:live`.)"""

WEBHOOKS: Final[Table] = dict.fromkeys(e.TYPES, (write_deliveries,))
"""Everything, to whoever wants it: an endpoint names the types that it does."""


class Group(msgspec.Struct, frozen=True):
    """A consumer group: its handlers by the event's public type, and what it does after each commit.

    `needs_orders`: handlers and what comes after are given the orders among the subjects as they are now.
    """

    name: str
    handlers: Mapping[str, tuple[Handler, ...]]
    afterwards: tuple[Afterwards, ...] = ()
    needs_orders: bool = False


def group(name: str, table: Table, *afterwards: Afterwards, needs_orders: bool = False) -> Group:
    """A group with this table; it knows every kind of event that there is."""
    handlers = {public: table.get(kind, ()) for kind, public in e.TYPES.items()}
    return Group(name, handlers, afterwards, needs_orders)


def groups(
    write_documents: Afterwards, send_mails: Afterwards | None = None, *send_webhooks: Afterwards
) -> tuple[Group, ...]:
    """Every group that a consumer reads for. Without `send_mails` nobody is told anything by mail."""
    notified = group(GROUP_NOTIFICATIONS, {})
    if send_mails is not None:
        notified = group(GROUP_NOTIFICATIONS, NOTIFICATIONS, send_mails)
    return (
        group(GROUP_PROJECTIONS, PROJECTIONS, observe, write_documents, needs_orders=True),
        group(GROUP_ANALYTICS, ANALYTICS),
        notified,
        group(GROUP_WEBHOOKS, WEBHOOKS, *send_webhooks),
    )
