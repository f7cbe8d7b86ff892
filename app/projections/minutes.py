"""Analytics: what happened in each minute (UTC), by the time of the events.

One statement adds a whole batch, in the transaction of whoever calls. If the process dies here, nothing
was written and the events come again.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeAlias

import msgspec

from app.contracts.streams import Envelope, happened_at
from app.domain import events as e
from app.domain.money import Money
from app.infra.postgres import analytics
from app.infra.postgres.projections import Effects


class _Payment(msgspec.Struct):
    amount: Money


class _Rejection(msgspec.Struct):
    reason: e.Reason


class _Repricing(msgspec.Struct):
    difference: Money


_payment: Final = msgspec.json.Decoder(_Payment)
_rejection: Final = msgspec.json.Decoder(_Rejection)
_repricing: Final = msgspec.json.Decoder(_Repricing)

_Counted: TypeAlias = list[tuple[str, str, int]]
"""Measure, key, and what to add."""


def _order(status: str) -> Callable[[Envelope], _Counted]:
    return lambda _: [(analytics.ORDERS, status, 1)]


def _rejected(event: Envelope) -> _Counted:
    reason = _rejection.decode(event.data).reason
    return [(analytics.ORDERS, "rejected", 1), (analytics.REJECTIONS, reason.code, 1)]


def _money(measure: str) -> Callable[[Envelope], _Counted]:
    def count(event: Envelope) -> _Counted:
        amount = _payment.decode(event.data).amount
        return [(measure, amount.currency, amount.amount)]

    return count


def _repriced(event: Envelope) -> _Counted:
    difference = _repricing.decode(event.data).difference
    return [
        (analytics.PRICE_ADJUSTMENTS, "", 1),
        (analytics.PRICE_ADJUSTED, difference.currency, difference.amount),
    ]


_COUNTS: Final[Mapping[str, Callable[[Envelope], _Counted]]] = {
    e.TYPES[e.OrderAccepted]: _order("accepted"),
    e.TYPES[e.OrderConfirmed]: _order("confirmed"),
    e.TYPES[e.OrderDispatched]: _order("dispatched"),
    e.TYPES[e.OrderCompleted]: _order("completed"),
    e.TYPES[e.OrderRejected]: _rejected,
    e.TYPES[e.OrderCancelled]: _order("cancelled"),
    e.TYPES[e.OrderRepriced]: _repriced,
    e.TYPES[e.PaymentCaptured]: _money(analytics.REVENUE),
    e.TYPES[e.PaymentRefunded]: _money(analytics.REFUNDS),
    e.TYPES[e.PriceChanged]: lambda _: [(analytics.PRICE_CHANGES, "", 1)],
}
"""What each event counts as."""

TYPES: Final = frozenset(_COUNTS)
"""The events that count."""


async def add_to_minutes(events: Sequence[Envelope], effects: Effects) -> None:
    """Count the events in their minutes."""
    counts: Counter[tuple[datetime, str, str]] = Counter()
    for event in events:
        minute = happened_at(event).replace(second=0, microsecond=0)
        for measure, key, value in _COUNTS[event.type](event):
            counts[minute, measure, key] += value
    await analytics.add(effects.connection, counts)
