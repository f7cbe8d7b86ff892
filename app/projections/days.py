"""The daily summary: what happened on each day (UTC) to the orders of a currency, by the time of the events.

One statement adds a whole batch, in the transaction of whoever calls. If the process dies here, nothing was
written and the events come again.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from typing import Final

import msgspec

from app.contracts.streams import Envelope
from app.domain import events as e
from app.domain.money import Money
from app.infra.postgres.owners import owners
from app.infra.postgres.projections import DayCounts, Effects

_DAY: Final = len("2026-01-31")
_ACCEPTED: Final = e.TYPES[e.OrderAccepted]


class _Line(msgspec.Struct):
    quantity: int


class _Lines(msgspec.Struct):
    lines: tuple[_Line, ...]


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
    whose = await owners(effects, {event.subject for event in events})
    currencies = {subject: owner.currency for subject, owner in whose.items()}
    # Times are in UTC: their first characters name the day. Events of a day, a currency and a type are alike.
    alike: defaultdict[tuple[str, str, str], list[Envelope]] = defaultdict(list)
    for event in events:
        alike[event.time[:_DAY], currencies[event.subject], event.type].append(event)
    days: dict[tuple[date, str], DayCounts] = {}
    for (day, currency, type_), some in alike.items():
        counts = days.setdefault((date.fromisoformat(day), currency), DayCounts())
        column = _COLUMNS[type_]
        if column in _MONEY:
            added = sum([_payment.decode(event.data).amount.amount for event in some])
        else:
            added = len(some)
        setattr(counts, column, getattr(counts, column) + added)
        if type_ == _ACCEPTED:
            lines = [line for event in some for line in _lines.decode(event.data).lines]
            counts.items += sum([line.quantity for line in lines])
    await effects.add_to_summary(days)
