"""`decide(order, command)`: every rule about what may happen to an order, one short function a command.

The functions read like the product's requirements. An empty answer means "done already": every step of an
order may run twice, and the second time changes nothing.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from msgspec.structs import replace

from app.domain import commands as c
from app.domain import events as e
from app.domain.errors import Refusal
from app.domain.fulfilment import Fulfilment, FulfilmentStatus
from app.domain.money import Money
from app.domain.order import Decision, Order, Status, StockStatus, evolve
from app.domain.payment import PaymentStatus
from app.domain.reprice import adjust

TOO_LATE: Final = "too-late"
CANCELLING: Final = "cancelling"
NOT_CANCELLABLE: Final = "not-cancellable"
UNSETTLED: Final = "unsettled"


def decide(order: Order, command: c.Command) -> Decision:
    """The events that follow from `command`, with the consequences the domain draws itself, or a refusal."""
    return _with_consequences(order, _DECIDERS[type(command)](order, command))


def _with_consequences(order: Order, decision: Decision) -> Decision:
    """Add `order.confirmed` or `order.completed` when the last condition for it has just been met."""
    if isinstance(decision, Refusal) or not decision:
        return decision
    after = order
    for event in decision:
        after = evolve(after, event, order.updated_at)
    if after.status is Status.ACCEPTED and _is_ready(after):
        return (*decision, e.OrderConfirmed())
    if after.status is Status.DISPATCHED and _is_done(after):
        return (*decision, e.OrderCompleted())
    return decision


def _is_ready(order: Order) -> bool:
    return (
        order.stock is StockStatus.RESERVED
        and order.is_paid_for
        and order.all_fulfilments(FulfilmentStatus.BOOKED)
    )


def _is_done(order: Order) -> bool:
    return order.payment.status in {
        PaymentStatus.CAPTURED,
        PaymentStatus.NOT_REQUIRED,
    } and order.all_fulfilments(FulfilmentStatus.DELIVERED)


def _reserve(order: Order, command: c.RecordReservation) -> Decision:
    if order.stock is not StockStatus.NONE:
        return ()
    return _unless_open(order) or (e.InventoryReserved(command.plans),)


def _reject(order: Order, command: c.RejectOrder) -> Decision:
    if order.status is Status.REJECTED:
        return ()
    return _unless_open(order) or _unless_settled(order) or (e.OrderRejected(command.reason),)


def _authorize(order: Order, command: c.RecordAuthorization) -> Decision:
    if order.payment.status is not PaymentStatus.PENDING:
        return ()
    if order.status not in {Status.ACCEPTED, Status.CANCELLING}:
        return _not_now(order)
    if command.amount != order.total:
        return _differs(command.amount, order.total)
    return (e.PaymentAuthorized(command.intent, _money(order, command.amount)),)


def _decline(order: Order, command: c.RecordDecline) -> Decision:
    if order.payment.status is not PaymentStatus.PENDING:
        return ()
    if order.status not in {Status.ACCEPTED, Status.CANCELLING}:
        return _not_now(order)
    return (e.PaymentDeclined(command.code, command.decline_code, command.detail),)


def _book(order: Order, command: c.RecordBooking) -> Decision:
    parcel = order.fulfilment(command.fulfilment)
    if parcel is None:
        return _unknown_fulfilment(command.fulfilment)
    if parcel.status is not FulfilmentStatus.PLANNED:
        return ()
    if order.status not in {Status.ACCEPTED, Status.CANCELLING}:
        return _not_now(order)
    return (e.ShipmentBooked(parcel.id, command.shipment, command.tracking_number),)


def _release(order: Order, _: c.ReleaseOrder) -> Decision:
    if order.status in {Status.DISPATCHED, Status.COMPLETED}:
        return ()
    if order.status is not Status.CONFIRMED:
        return _unless_open(order) or _not_now(order)
    return (e.OrderDispatched(), e.InventoryShipped(tuple(f.plan for f in order.fulfilments)))


def _dispatch(order: Order, command: c.RecordDispatch) -> Decision:
    parcel = order.fulfilment(command.fulfilment)
    if parcel is None:
        return _unknown_fulfilment(command.fulfilment)
    if parcel.status in {FulfilmentStatus.DISPATCHED, FulfilmentStatus.DELIVERED}:
        return ()
    return (e.ShipmentDispatched(parcel.id),) if order.status is Status.DISPATCHED else _not_now(order)


def _capture(order: Order, command: c.RecordCapture) -> Decision:
    if order.payment.status is PaymentStatus.CAPTURED:
        return ()
    if order.status is not Status.DISPATCHED or order.payment.intent is None:
        return _not_now(order)
    if command.amount != order.payment.authorized:
        return _differs(command.amount, order.payment.authorized)
    return (e.PaymentCaptured(order.payment.intent, _money(order, command.amount)),)


def _deliver(order: Order, command: c.RecordDelivery) -> Decision:
    parcel = order.fulfilment(command.fulfilment)
    if parcel is None:
        return _unknown_fulfilment(command.fulfilment)
    if parcel.status is FulfilmentStatus.DELIVERED:
        return ()
    if order.status is not Status.DISPATCHED:
        return _not_now(order)
    delivered = e.ShipmentDelivered(parcel.id)
    # The carrier can be quicker than our own record of having released the parcel.
    return (
        (e.ShipmentDispatched(parcel.id), delivered)
        if parcel.status is FulfilmentStatus.BOOKED
        else (delivered,)
    )


def _cancel(order: Order, _: c.CancelOrder) -> Decision:
    if order.status in {Status.CANCELLING, Status.CANCELLED}:
        return ()
    if order.status in {Status.DISPATCHED, Status.COMPLETED}:
        return Refusal(TOO_LATE, f"The order is {order.status}: the carrier has it.")
    if order.status is Status.REJECTED:
        return Refusal(NOT_CANCELLABLE, "The order was rejected: there is nothing to cancel.")
    if order.status not in {Status.ACCEPTED, Status.CONFIRMED}:
        return _not_now(order)
    return (e.OrderCancelling(),)


def _cancel_shipment(order: Order, command: c.RecordShipmentCancelled) -> Decision:
    parcel = order.fulfilment(command.fulfilment)
    if parcel is None:
        return _unknown_fulfilment(command.fulfilment)
    if parcel.status is FulfilmentStatus.CANCELLED:
        return ()
    return _unless_undoing(order) or (e.ShipmentCancelled(parcel.id),)


def _void(order: Order, _: c.RecordVoid) -> Decision:
    if (
        order.payment.status not in {PaymentStatus.PENDING, PaymentStatus.AUTHORIZED}
        or order.payment.intent is None
    ):
        return ()
    held = _money(order, order.payment.authorized)
    return _unless_undoing(order) or (e.PaymentVoided(order.payment.intent, held),)


def _refund(order: Order, command: c.RecordRefund) -> Decision:
    intent, held, taken = order.payment.intent, order.payment.authorized, command.amount
    if order.payment.status is PaymentStatus.REFUNDED or intent is None:
        return ()
    # Somebody took the money at the provider. The books can only give back what they have taken, and only
    # take what was held, so what happened there without us goes on record first.
    unseen: list[e.OrderEvent] = []
    if not held:
        unseen.append(e.PaymentAuthorized(intent, _money(order, taken)))
    if held > taken:
        unseen.append(e.PaymentVoided(intent, _money(order, held - taken)))
    unseen.append(e.PaymentCaptured(intent, _money(order, taken)))
    return _unless_undoing(order) or (*unseen, e.PaymentRefunded(intent, _money(order, taken)))


def _release_stock(order: Order, _: c.ReleaseStock) -> Decision:
    if order.stock is not StockStatus.RESERVED:
        return ()
    return _unless_undoing(order) or (e.InventoryReleased(tuple(f.plan for f in order.fulfilments)),)


def _close(order: Order, command: c.CloseOrder) -> Decision:
    if order.is_final:
        return ()
    refusal = _unless_undoing(order) or _unless_settled(order)
    if refusal:
        return refusal
    if order.status is Status.CANCELLING:
        return (e.OrderCancelled(),)
    if command.reason is None:
        return Refusal("no-reason", "An order that nobody cancelled is rejected for a reason.")
    return (e.OrderRejected(command.reason),)


def _money(order: Order, amount: int) -> Money:
    """An amount as events say it; commands and the order itself count in the order's currency."""
    return Money(amount, order.currency)


def _unless_open(order: Order) -> Refusal | None:
    """A refusal unless the order may go forward."""
    if order.status is Status.ACCEPTED:
        return None
    if order.status is Status.CANCELLING:
        return Refusal(CANCELLING, "The order is being cancelled.")
    return _not_now(order)


def _unless_undoing(order: Order) -> Refusal | None:
    """A refusal unless what was done may still be undone."""
    return None if order.status in {Status.ACCEPTED, Status.CANCELLING} else _not_now(order)


def _unless_settled(order: Order) -> Refusal | None:
    """A refusal while anything is held, or may be: final means settled."""
    return Refusal(UNSETTLED, "Stock, money or a parcel is still held.") if order.holds_anything else None


def _not_now(order: Order) -> Refusal:
    return Refusal("not-now", f"This cannot happen to an order that is {order.status}.")


def _differs(amount: int, expected: int) -> Refusal:
    return Refusal("amount-differs", f"The amount is {amount} where {expected} was expected.")


def _unknown_fulfilment(fulfilment: str) -> Refusal:
    return Refusal("unknown-fulfilment", f"The order has no fulfilment {fulfilment}.")


def _nothing_public(_: Order, __: c.RecordIntent | c.WearOutKey) -> Decision:
    """Bookkeeping with the provider: remembered on the order (`note`), but nothing that happened to it."""
    return ()


def note(order: Order, command: c.Command) -> Order:
    """What a command makes us remember without an event: the intent's id, and keys that are worn out."""
    payment = order.payment
    match command:
        case c.RecordIntent(intent=intent) if _may_be_charged(order) and payment.intent is None:
            return _with_payment(order, intent=intent)
        case c.WearOutKey(number=number) if number == payment.key_number:
            return _with_payment(order, key_number=number + 1)
        case _:
            return order


def _may_be_charged(order: Order) -> bool:
    """Only an intent that is stored is charged, so none is stored once the order is being given up."""
    return order.status is Status.ACCEPTED and order.payment.status is PaymentStatus.PENDING


def _with_payment(order: Order, **changes: Any) -> Order:  # noqa: ANN401 - fields of Payment
    return replace(order, payment=replace(order.payment, **changes))


def evolve_all(order: Order, events: tuple[e.OrderEvent, ...], at: datetime) -> Order:
    """The order after all of `events`."""
    for event in events:
        order = evolve(order, event, at)
    return order


def live(order: Order) -> tuple[Fulfilment, ...]:
    """The parcels that the carrier may know of and that are neither delivered nor cancelled."""
    gone = {FulfilmentStatus.CANCELLED, FulfilmentStatus.DELIVERED}
    return tuple(f for f in order.fulfilments if f.status not in gone)


_DECIDERS: Final[dict[type, Callable[[Order, Any], Decision]]] = {
    c.RecordReservation: _reserve,
    c.RejectOrder: _reject,
    c.RecordIntent: _nothing_public,
    c.WearOutKey: _nothing_public,
    c.RecordAuthorization: _authorize,
    c.RecordDecline: _decline,
    c.RecordBooking: _book,
    c.ReleaseOrder: _release,
    c.RecordDispatch: _dispatch,
    c.RecordCapture: _capture,
    c.RecordDelivery: _deliver,
    c.CancelOrder: _cancel,
    c.RecordShipmentCancelled: _cancel_shipment,
    c.RecordVoid: _void,
    c.RecordRefund: _refund,
    c.ReleaseStock: _release_stock,
    c.CloseOrder: _close,
    c.RepriceOrder: adjust,
}
