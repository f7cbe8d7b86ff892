"""An order: its states, the one table of legal moves, and `decide`, which answers every command.

`decide(order, command)` returns the events that follow, or a refusal; `evolve(order, event, at)` is the order
after an event. Both are pure. Whoever holds the order's row locked calls them and writes what they say in one
transaction, so if the process dies here, nothing has happened.

Two events are consequences that the domain draws itself, in the transaction of whichever step comes last:
an order is *confirmed* when it is reserved, authorized and every parcel booked; *completed* when it is
captured and every parcel delivered.
"""

from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec
from msgspec.structs import replace

from app.domain import events as e
from app.domain.adjustment import AdjustedLine, PriceAdjustment
from app.domain.errors import Refusal
from app.domain.fulfilment import Fulfilment, FulfilmentStatus
from app.domain.payment import Decline, Payment, PaymentStatus


class Status(StrEnum):
    """Where an order stands. `completed`, `rejected` and `cancelled` are final, and final means settled."""

    ACCEPTED = "accepted"
    CONFIRMED = "confirmed"
    DISPATCHED = "dispatched"
    COMPLETED = "completed"
    REJECTED = "rejected"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    ACTION_REQUIRED = "action_required"


FINAL: Final = frozenset({Status.COMPLETED, Status.REJECTED, Status.CANCELLED})

_A, _C, _D, _X = Status.ACCEPTED, Status.CONFIRMED, Status.DISPATCHED, Status.CANCELLING

TRANSITIONS: Final[dict[tuple[Status, type[e.OrderEvent]], Status]] = {
    # the way forward
    (_A, e.InventoryReserved): _A,
    (_A, e.PaymentAuthorized): _A,
    (_A, e.PaymentDeclined): _A,
    (_A, e.ShipmentBooked): _A,
    (_A, e.OrderConfirmed): _C,
    (_C, e.OrderDispatched): _D,
    (_D, e.InventoryShipped): _D,
    (_D, e.ShipmentDispatched): _D,
    (_D, e.PaymentCaptured): _D,
    (_D, e.ShipmentDelivered): _D,
    (_D, e.OrderCompleted): Status.COMPLETED,
    # it cannot be done: undo, then say so
    (_A, e.ShipmentCancelled): _A,
    (_A, e.PaymentVoided): _A,
    (_A, e.PaymentCaptured): _A,
    (_A, e.PaymentRefunded): _A,
    (_A, e.InventoryReleased): _A,
    (_A, e.OrderRejected): Status.REJECTED,
    # somebody cancels; a step that was under way may still put on record what it did, so that it is undone
    (_A, e.OrderCancelling): _X,
    (_C, e.OrderCancelling): _X,
    (_X, e.PaymentAuthorized): _X,
    (_X, e.PaymentDeclined): _X,
    (_X, e.ShipmentBooked): _X,
    (_X, e.ShipmentCancelled): _X,
    (_X, e.PaymentVoided): _X,
    (_X, e.PaymentCaptured): _X,
    (_X, e.PaymentRefunded): _X,
    (_X, e.InventoryReleased): _X,
    (_X, e.OrderCancelled): Status.CANCELLED,
    # its price was wrong: that may turn out at any time, also after the end, and moves it nowhere
    **{(status, e.OrderRepriced): status for status in Status},
}
"""(status, event) → status. What is not here cannot happen. Nothing leads to `action_required` yet."""


class StockStatus(StrEnum):
    """What an order holds in the warehouses."""

    NONE = "none"
    RESERVED = "reserved"
    RELEASED = "released"
    SHIPPED = "shipped"


class Order(msgspec.Struct, frozen=True):
    """One order. Amounts are minor units of `currency`; `version` is the sequence of its last event."""

    id: str
    customer_id: str
    status: Status
    currency: str
    lines: tuple[e.Line, ...]
    total: int
    payment: Payment
    payment_method: str | None
    correlation_id: str
    created_at: datetime
    updated_at: datetime
    stock: StockStatus = StockStatus.NONE
    fulfilments: tuple[Fulfilment, ...] = ()
    reason: e.Reason | None = None
    waiting_on: str | None = None
    metadata: dict[str, str] = {}
    version: int = 0
    adjustments: tuple[PriceAdjustment, ...] = ()

    @property
    def is_final(self) -> bool:
        """Whether it has reached its end."""
        return self.status in FINAL

    @property
    def holds_anything(self) -> bool:
        """Whether stock, money or a parcel is still held for it, or money may be."""
        return (
            self.stock is StockStatus.RESERVED
            or self.payment.may_hold_money
            or any(
                f.status in {FulfilmentStatus.BOOKED, FulfilmentStatus.DISPATCHED} for f in self.fulfilments
            )
        )

    @property
    def is_paid_for(self) -> bool:
        """Whether the money is held, taken, or not needed."""
        return self.payment.status in {
            PaymentStatus.AUTHORIZED,
            PaymentStatus.CAPTURED,
            PaymentStatus.NOT_REQUIRED,
        }

    @property
    def adjusted_total(self) -> int:
        """What it comes to with all price adjustments; `total` is what was agreed."""
        return self.adjustments[-1].after if self.adjustments else self.total

    @property
    def unit_prices(self) -> dict[str, int]:
        """What a piece of each SKU costs with all price adjustments; lines of one SKU have one price."""
        prices = {line.sku: line.unit_price for line in self.lines}
        for adjustment in self.adjustments:
            prices.update((line.sku, line.after) for line in adjustment.lines)
        return prices

    def fulfilment(self, fulfilment_id: str) -> Fulfilment | None:
        """One of its parcels."""
        return next((f for f in self.fulfilments if f.id == fulfilment_id), None)

    def all_fulfilments(self, *statuses: FulfilmentStatus) -> bool:
        """Whether there are parcels and every one has one of these statuses."""
        return bool(self.fulfilments) and all(f.status in statuses for f in self.fulfilments)


class IllegalEventError(Exception):
    """An event that the table of transitions does not know for this status: a defect, never an answer."""


def evolve(order: Order, event: e.OrderEvent, at: datetime) -> Order:
    """The order after `event`, which happened `at`. An order that moves waits for nobody.

    Being repriced is no move: whatever it waits for, it goes on waiting.

    Raises IllegalEventError when the table has no such move.
    """
    status = TRANSITIONS.get((order.status, type(event)))
    if status is None:
        msg = f"{type(event).__name__} cannot happen to an order that is {order.status}"
        raise IllegalEventError(msg)
    waiting_on = order.waiting_on if isinstance(event, e.OrderRepriced) else None
    changed = replace(order, status=status, version=order.version + 1, updated_at=at, waiting_on=waiting_on)
    return _with_effect(changed, event)


def _with_effect(order: Order, event: e.OrderEvent) -> Order:  # noqa: PLR0911 - one line an event
    """Everything but status and version that an event changes."""
    match event:
        case e.InventoryReserved(fulfilments=plans):
            planned = tuple(Fulfilment(plan.id, plan.warehouse, plan.lines) for plan in plans)
            return replace(order, stock=StockStatus.RESERVED, fulfilments=planned)
        case e.InventoryReleased():
            return replace(order, stock=StockStatus.RELEASED)
        case e.InventoryShipped():
            return replace(order, stock=StockStatus.SHIPPED)
        case e.OrderRejected(reason=reason):
            return replace(order, reason=reason)
        case e.OrderRepriced():
            return replace(order, adjustments=(*order.adjustments, _adjustment(event, order.updated_at)))
        case e.ShipmentBooked(fulfilment=parcel, shipment=shipment, tracking_number=number):
            return _with_fulfilment(order, parcel, FulfilmentStatus.BOOKED, shipment, number)
        case e.ShipmentDispatched(fulfilment=parcel):
            return _with_fulfilment(order, parcel, FulfilmentStatus.DISPATCHED)
        case e.ShipmentDelivered(fulfilment=parcel):
            return _with_fulfilment(order, parcel, FulfilmentStatus.DELIVERED)
        case e.ShipmentCancelled(fulfilment=parcel):
            return _with_fulfilment(order, parcel, FulfilmentStatus.CANCELLED)
        case _:
            return replace(order, payment=_payment_after(order.payment, event))


def _adjustment(event: e.OrderRepriced, at: datetime) -> PriceAdjustment:
    return PriceAdjustment(
        id=event.adjustment,
        replay=event.replay,
        price_list=event.price_list,
        before=event.total_before.amount,
        after=event.total_after.amount,
        lines=tuple(
            AdjustedLine(x.sku, x.quantity, x.unit_price_before.amount, x.unit_price_after.amount)
            for x in event.lines
        ),
        at=at,
    )


def _payment_after(payment: Payment, event: e.OrderEvent) -> Payment:
    match event:
        case e.PaymentAuthorized(intent=intent, amount=amount):
            return replace(payment, status=PaymentStatus.AUTHORIZED, intent=intent, authorized=amount.amount)
        case e.PaymentCaptured(amount=amount):
            return replace(payment, status=PaymentStatus.CAPTURED, authorized=0, captured=amount.amount)
        case e.PaymentVoided():
            return replace(payment, status=PaymentStatus.VOIDED, authorized=0)
        case e.PaymentRefunded(amount=amount):
            return replace(payment, status=PaymentStatus.REFUNDED, refunded=amount.amount)
        case e.PaymentDeclined(code=code, decline_code=decline_code, detail=detail):
            decline = Decline(code, decline_code, detail)
            return replace(payment, status=PaymentStatus.DECLINED, decline=decline)
        case _:
            return payment


def _with_fulfilment(
    order: Order,
    parcel: str,
    status: FulfilmentStatus,
    shipment: str | None = None,
    number: str | None = None,
) -> Order:
    return replace(
        order,
        fulfilments=tuple(
            replace(
                f, status=status, shipment=shipment or f.shipment, tracking_number=number or f.tracking_number
            )
            if f.id == parcel
            else f
            for f in order.fulfilments
        ),
    )


Decision = tuple[e.OrderEvent, ...] | Refusal
"""What follows from a command: events in their order (none: it was done already), or a refusal."""
