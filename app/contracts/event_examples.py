"""One example of every event, made by the code that makes the real thing, so that they cannot lag.

They tell of a few orders: what a reader sees here, it sees in the streams.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

import msgspec

from app.contracts import streams
from app.contracts.documents import rfc3339
from app.domain import events as e
from app.domain.chain import chain
from app.domain.fulfilment import FulfilmentLine, FulfilmentPlan
from app.domain.ids import adjustment_id, fulfilment_id, order_id
from app.domain.money import Money

_AT: Final = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
_STEP: Final = timedelta(milliseconds=120)
_SKU: Final = "tea-earl-grey"
_UNIT: Final = Money(1467, "USD")
_TOTAL: Final = Money(2934, "USD")
_INTENT: Final = "pi_3SxQ7b"
_DONE, _DECLINED, _STOPPED, _REPAID = (
    order_id(int(_AT.timestamp() * 1000), bytes(range(number, number + 10))) for number in range(4)
)


def _parcel(order: str) -> FulfilmentPlan:
    return FulfilmentPlan(fulfilment_id(order, 1), "east", (FulfilmentLine(_SKU, 2),))


def _confirmed(order: str) -> tuple[e.Event, ...]:
    """How an order gets as far as that."""
    return (
        e.OrderAccepted("cust-1042", "USD", (e.AcceptedLine(_SKU, 2, _UNIT, _TOTAL),), _TOTAL),
        e.InventoryReserved((_parcel(order),)),
        e.PaymentAuthorized(_INTENT, _TOTAL),
        e.ShipmentBooked(_parcel(order).id, "shp_81fe", "TRK1"),
        e.OrderConfirmed(),
    )


_REASON: Final = e.Reason(
    "payment_declined",
    "The payment was declined.",
    provider_code="card_declined",
    decline_code="insufficient_funds",
)
_TOLD: Final[Mapping[str, tuple[e.Event, ...]]] = {
    _DONE: (
        *_confirmed(_DONE),
        e.OrderDispatched(),
        e.InventoryShipped((_parcel(_DONE),)),
        e.ShipmentDispatched(_parcel(_DONE).id),
        e.PaymentCaptured(_INTENT, _TOTAL),
        e.ShipmentDelivered(_parcel(_DONE).id),
        e.OrderCompleted(),
        e.OrderRepriced(
            adjustment_id(_DONE, 1),
            "rpl_0195b8e2",
            "march-corrected",
            _TOTAL,
            Money(2780, "USD"),
            Money(-154, "USD"),
            (e.RepricedLine(_SKU, 2, _UNIT, Money(1390, "USD")),),
        ),
    ),
    _DECLINED: (
        *_confirmed(_DECLINED)[:2],
        e.PaymentDeclined("card_declined", "insufficient_funds", "Your card has insufficient funds."),
        e.InventoryReleased((_parcel(_DECLINED),)),
        e.OrderRejected(_REASON),
    ),
    _STOPPED: (
        *_confirmed(_STOPPED),
        e.OrderCancelling(),
        e.ShipmentCancelled(_parcel(_STOPPED).id),
        e.PaymentVoided(_INTENT, _TOTAL),
        e.InventoryReleased((_parcel(_STOPPED),)),
        e.OrderCancelled(),
    ),
    _REPAID: (
        *_confirmed(_REPAID)[:3],
        e.OrderCancelling(),
        e.PaymentCaptured(_INTENT, _TOTAL),
        e.PaymentRefunded(_INTENT, _TOTAL),
    ),
    _SKU: (
        e.PriceChanged(None, _UNIT),
        e.InventoryAdjusted("east", 25, 42, "delivery 8841"),
    ),
}
"""What is told, subject by subject."""


def _envelopes() -> dict[type, streams.Envelope]:
    found: dict[type, streams.Envelope] = {}
    for subject, events in _TOLD.items():
        previous = None
        for number, event in enumerate(events):
            (linked,) = chain(
                previous, subject, number, (event,), _AT + number * _STEP, "checkout-7f3a", None
            )
            previous = linked.hash
            shown = streams.Envelope(
                id=f"{subject}:{linked.sequence}",
                type=linked.type,
                source=streams.source("dev"),
                subject=subject,
                time=rfc3339(linked.time),
                sequence=linked.sequence,
                correlationid=linked.correlation_id,
                data=msgspec.Raw(linked.data.encode()),
            )
            found.setdefault(type(event), shown)
    return found


ENVELOPES: Final[Mapping[type, streams.Envelope]] = MappingProxyType(_envelopes())
"""Event → one of them, as it is published."""
