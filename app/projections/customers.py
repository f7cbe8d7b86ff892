"""The customers' summaries: what each customer ordered and paid, by currency.

One statement adds a whole batch, in the transaction of whoever calls. If the process dies here, nothing was
written and the events come again.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from app.contracts.streams import Envelope, happened_at
from app.domain import events as e
from app.domain.money import Money
from app.infra.postgres import customers
from app.infra.postgres.customers import CustomerCounts
from app.infra.postgres.owners import owners
from app.infra.postgres.projections import Effects

_ACCEPTED: Final = e.TYPES[e.OrderAccepted]


class _Lines(msgspec.Struct):
    lines: tuple[e.AcceptedLine, ...]


class _Payment(msgspec.Struct):
    amount: Money


_lines: Final = msgspec.json.Decoder(_Lines)
_payment: Final = msgspec.json.Decoder(_Payment)

_COLUMNS: Final = {
    _ACCEPTED: "accepted",
    e.TYPES[e.OrderCompleted]: "completed",
    e.TYPES[e.OrderRejected]: "rejected",
    e.TYPES[e.OrderCancelled]: "cancelled",
    e.TYPES[e.PaymentCaptured]: "captured",
    e.TYPES[e.PaymentRefunded]: "refunded",
}
"""Where each event counts: one more, or its amount."""
_MONEY: Final = ("captured", "refunded")

TYPES: Final = frozenset(_COLUMNS)
"""The events that count."""


async def add_to_customers(events: Sequence[Envelope], effects: Effects) -> None:
    """Count the events in the rows of their orders' customers and currencies."""
    whose = await owners(effects, (event.subject for event in events))
    found: dict[tuple[str, str], CustomerCounts] = {}
    for event in events:
        owner = whose[event.subject]
        counts = found.setdefault((owner.customer_id, owner.currency), CustomerCounts())
        column = _COLUMNS[event.type]
        amount = _payment.decode(event.data).amount.amount if column in _MONEY else 1
        setattr(counts, column, getattr(counts, column) + amount)
        if event.type == _ACCEPTED:
            counts.items += sum(line.quantity for line in _lines.decode(event.data).lines)
            counts.ordered_at(happened_at(event))
    await customers.add(effects.connection, found)
