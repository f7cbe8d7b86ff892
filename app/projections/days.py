"""The daily summary: what happened on each day (UTC) to the orders of a currency, by the time of the events.

One statement adds a whole batch, in the transaction of whoever calls. If the process dies here, nothing was
written and the events come again.
"""

from collections.abc import Sequence
from datetime import date
from typing import Final

import msgspec

from app.contracts.streams import Envelope, happened_at
from app.domain import events as e
from app.domain.money import Money
from app.infra.postgres.owners import owners
from app.infra.postgres.projections import DayCounts, Effects

_ACCEPTED: Final = e.TYPES[e.OrderAccepted]


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

TYPES: Final = frozenset(_COLUMNS)
"""The events that count."""


async def add_to_days(events: Sequence[Envelope], effects: Effects) -> None:
    """Count the events in the rows of their days (UTC) and their orders' currencies."""
    whose = await owners(effects, (event.subject for event in events))
    days: dict[tuple[date, str], DayCounts] = {}
    for event in events:
        key = (happened_at(event).date(), whose[event.subject].currency)
        counts = days.setdefault(key, DayCounts())
        column = _COLUMNS[event.type]
        amount = _payment.decode(event.data).amount.amount if column in _MONEY else 1
        setattr(counts, column, getattr(counts, column) + amount)
        if event.type == _ACCEPTED:
            counts.items += sum(line.quantity for line in _lines.decode(event.data).lines)
    await effects.add_to_summary(days)
