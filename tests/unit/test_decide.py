"""What may happen to an order, rule by rule, in the order of the product's requirements."""

import pytest

from app.domain import commands as c
from app.domain import events as e
from app.domain.decide import decide, live, note
from app.domain.errors import Refusal
from app.domain.fulfilment import FulfilmentStatus
from app.domain.order import Order, Status, StockStatus
from app.domain.payment import Decline, PaymentStatus, idempotency_key
from tests.unit import orders as o
from tests.unit.orders import FIRST, INTENT, PLANS, REASON, SECOND, TOTAL, after, free, obeyed, placed, usd


def refusal(order: Order, command: c.Command) -> str:
    """The code of the refusal that a command meets."""
    decision = decide(order, command)
    assert isinstance(decision, Refusal), decision
    return decision.code


def types(events: tuple[e.OrderEvent, ...]) -> list[str]:
    """The events' public types."""
    return [e.TYPES[type(event)] for event in events]


def test_the_last_booking_confirms_the_order():
    """Reserved, authorized, and now every parcel booked."""
    order, events = obeyed(after(placed(), *o.HALF_BOOKED), c.RecordBooking(SECOND, "shp_2", "T2"))
    assert types(events) == ["shipment.booked.v1", "order.confirmed.v1"]
    assert order.status is Status.CONFIRMED
    assert order.fulfilment(SECOND).tracking_number == "T2"


def test_the_authorization_confirms_the_order_when_it_comes_last():
    """The steps may finish in any order."""
    booked = (c.RecordBooking(FIRST, "shp_1", None), c.RecordBooking(SECOND, "shp_2", None))
    order = after(placed(), *o.INTENDED, *booked)
    _, events = obeyed(order, c.RecordAuthorization(INTENT, TOTAL))
    assert types(events) == ["payment.authorized.v1", "order.confirmed.v1"]


def test_an_order_that_costs_nothing_is_confirmed_without_a_payment():
    """There is nothing to authorize."""
    reserved = after(free(), c.RecordReservation(PLANS[1:]))
    assert reserved.payment.status is PaymentStatus.NOT_REQUIRED
    assert after(reserved, c.RecordBooking(SECOND, "shp_2", None)).status is Status.CONFIRMED


def test_half_a_booking_confirms_nothing():
    """Every parcel counts."""
    assert after(placed(), *o.HALF_BOOKED).status is Status.ACCEPTED


def test_releasing_is_the_point_of_no_return_and_takes_the_stock():
    """Dispatched, and what was reserved has left, in one decision."""
    order, events = obeyed(after(placed(), *o.CONFIRMED), c.ReleaseOrder())
    assert events == (e.OrderDispatched(), e.InventoryShipped(PLANS))
    assert (order.status, order.stock) == (Status.DISPATCHED, StockStatus.SHIPPED)


@pytest.mark.parametrize("steps", [(), o.RESERVED, o.HALF_BOOKED])
def test_an_order_is_not_released_before_it_is_confirmed(steps: tuple[c.Command, ...]):
    """Nothing leaves that is not reserved, paid for and booked."""
    assert refusal(after(placed(), *steps), c.ReleaseOrder()) == "not-now"


def test_the_last_delivery_completes_the_order():
    """Captured before, delivered now."""
    order, events = obeyed(after(placed(), *o.HALF_DELIVERED), c.RecordDelivery(SECOND))
    assert types(events) == ["shipment.delivered.v1", "order.completed.v1"]
    assert order.status is Status.COMPLETED


def test_the_capture_completes_an_order_that_was_delivered_before():
    """A quick carrier does not make an order forget its money."""
    early = (*o.DISPATCHED, c.RecordDelivery(FIRST), c.RecordDelivery(SECOND))
    order = after(placed(), *early)
    assert order.status is Status.DISPATCHED
    _, events = obeyed(order, c.RecordCapture(TOTAL))
    assert types(events) == ["payment.captured.v1", "order.completed.v1"]


def test_a_delivery_says_that_the_parcel_was_dispatched_when_nobody_had():
    """The carrier can be quicker than our own record."""
    order = after(placed(), *o.DISPATCHED)
    _, events = obeyed(order, c.RecordDelivery(FIRST))
    assert types(events) == ["shipment.dispatched.v1", "shipment.delivered.v1"]
    assert decide(after(order, c.RecordDelivery(FIRST)), c.RecordDispatch(FIRST)) == ()


def test_nothing_is_delivered_that_was_not_dispatched():
    """A webhook for a parcel that was never let go is refused."""
    assert refusal(after(placed(), *o.CONFIRMED), c.RecordDelivery(FIRST)) == "not-now"


@pytest.mark.parametrize(
    "command",
    [
        c.RecordBooking("ful_x_1", "shp", None),
        c.RecordDispatch("ful_x_1"),
        c.RecordDelivery("ful_x_1"),
        c.RecordShipmentCancelled("ful_x_1"),
    ],
    ids=lambda command: type(command).__name__,
)
def test_a_fulfilment_of_another_order_is_unknown(command: c.Command):
    """An id that is not one of the order's own changes nothing."""
    assert refusal(after(placed(), *o.DISPATCHED), command) == "unknown-fulfilment"


def test_capturing_takes_the_whole_of_what_is_held():
    """What was held is taken and no longer held."""
    payment = after(placed(), *o.CAPTURED).payment
    assert (payment.status, payment.authorized, payment.captured) == (PaymentStatus.CAPTURED, 0, TOTAL)
    assert refusal(after(placed(), *o.DISPATCHED), c.RecordCapture(TOTAL - 1)) == "amount-differs"


def test_nothing_is_captured_before_dispatch():
    """Money is taken when the goods go, not before."""
    assert refusal(after(placed(), *o.CONFIRMED), c.RecordCapture(TOTAL)) == "not-now"


def test_an_authorization_of_another_amount_is_not_believed():
    """Holding less than the order costs is not holding its price."""
    assert refusal(after(placed(), *o.INTENDED), c.RecordAuthorization(INTENT, 1)) == "amount-differs"


def test_a_decline_is_remembered_in_the_providers_words():
    """The reason that the customer reads later."""
    payment = after(placed(), *o.DECLINED).payment
    assert payment.status is PaymentStatus.DECLINED
    assert payment.decline == Decline("card_declined", "do_not_honor", "Declined.")


def test_an_order_is_rejected_only_when_nothing_of_it_is_held():
    """First undo, then say so."""
    declined = after(placed(), *o.DECLINED)
    assert refusal(declined, c.CloseOrder(REASON)) == "unsettled"
    assert refusal(declined, c.RejectOrder(REASON)) == "unsettled"
    rejected = after(declined, c.ReleaseStock(), c.CloseOrder(REASON))
    assert (rejected.status, rejected.reason) == (Status.REJECTED, REASON)


def test_an_order_that_nobody_cancelled_is_closed_for_a_reason():
    """A rejection says why."""
    assert refusal(placed(), c.CloseOrder()) == "no-reason"


def test_an_order_short_of_stock_is_rejected_at_once():
    """Nothing was held, so there is nothing to undo."""
    reason = e.Reason("out_of_stock", "Not enough in stock of cup.", skus=("cup",))
    order, events = obeyed(placed(), c.RejectOrder(reason))
    assert events == (e.OrderRejected(reason),)
    assert order.is_final
    assert order.reason == reason


@pytest.mark.parametrize("steps", [(), o.RESERVED, o.INTENDED, o.AUTHORIZED, o.CONFIRMED, o.DECLINED])
def test_an_order_can_be_cancelled_until_it_is_dispatched(steps: tuple[c.Command, ...]):
    """It is cancelling at once, and cancelled when everything is undone."""
    order, events = obeyed(after(placed(), *steps), c.CancelOrder())
    assert events == (e.OrderCancelling(),)
    for undo in (*(c.RecordShipmentCancelled(f.id) for f in live(order)), c.RecordVoid(), c.ReleaseStock()):
        order = after(order, undo)
    assert after(order, c.CloseOrder()).status is Status.CANCELLED


@pytest.mark.parametrize("steps", [o.DISPATCHED, o.CAPTURED, o.COMPLETED])
def test_it_is_too_late_to_cancel_what_was_dispatched(steps: tuple[c.Command, ...]):
    """The carrier has it."""
    assert refusal(after(placed(), *steps), c.CancelOrder()) == "too-late"


def test_what_is_held_must_be_undone_before_an_order_is_cancelled():
    """Each thing that is still held is enough to refuse."""
    undone = o.UNDONE[len(o.CANCELLING) :]
    for forgotten in undone:
        order = after(placed(), *o.CANCELLING, *(step for step in undone if step is not forgotten))
        assert refusal(order, c.CloseOrder()) == "unsettled", forgotten


def test_money_that_may_be_held_must_be_undone_too():
    """From the moment an intent is stored its confirmation may have happened without our knowing."""
    order = after(placed(), *o.INTENDED, c.CancelOrder(), c.ReleaseStock())
    assert refusal(order, c.CloseOrder()) == "unsettled"
    voided, events = obeyed(order, c.RecordVoid())
    assert events == (e.PaymentVoided(INTENT, usd(0)),)
    assert after(voided, c.CloseOrder()).status is Status.CANCELLED


def test_an_intent_is_stored_once_and_only_for_an_open_order():
    """The first one counts; an order that is being given up gets none, so nothing is charged for it."""
    order = after(placed(), c.RecordIntent(INTENT))
    assert order.payment.intent == INTENT
    assert note(order, c.RecordIntent("pi_2")) == order
    cancelling = after(placed(), c.CancelOrder())
    assert decide(cancelling, c.RecordIntent(INTENT)) == ()
    assert note(cancelling, c.RecordIntent(INTENT)) == cancelling
    assert note(free(), c.RecordIntent(INTENT)) == free()


@pytest.mark.parametrize("steps", [o.RESERVED, o.INTENDED])
def test_what_a_late_step_did_goes_on_record_while_cancelling_so_that_it_is_undone(steps):
    """An authorization and a booking that were under way when somebody cancelled."""
    cancelling = after(placed(), *steps, c.CancelOrder())
    late = after(cancelling, c.RecordAuthorization(INTENT, TOTAL), c.RecordBooking(FIRST, "shp_1", None))
    assert late.status is Status.CANCELLING
    assert late.holds_anything
    assert {f.id for f in live(late)} == {FIRST, SECOND}


def test_a_cancelled_order_reserves_nothing_any_more():
    """The stock stays free for others."""
    assert refusal(after(placed(), c.CancelOrder()), c.RecordReservation(PLANS)) == "cancelling"


def test_money_taken_at_the_provider_is_refunded_with_the_books_in_order():
    """Somebody captured by hand: what we did not see goes on record before it is given back."""
    held = after(placed(), *o.AUTHORIZED, c.CancelOrder())
    order, events = obeyed(held, c.RecordRefund(TOTAL))
    assert types(events) == ["payment.captured.v1", "payment.refunded.v1"]
    assert (order.payment.status, order.payment.refunded) == (PaymentStatus.REFUNDED, TOTAL)


def test_a_part_of_the_money_taken_at_the_provider_frees_the_rest():
    """The provider lets go of what a smaller capture leaves."""
    held = after(placed(), *o.AUTHORIZED, c.CancelOrder())
    _, events = obeyed(held, c.RecordRefund(500))
    assert events == (
        e.PaymentVoided(INTENT, usd(TOTAL - 500)),
        e.PaymentCaptured(INTENT, usd(500)),
        e.PaymentRefunded(INTENT, usd(500)),
    )


def test_money_that_was_taken_without_our_knowing_of_its_hold_is_refunded_too():
    """Neither the hold nor the capture was on record."""
    order = after(placed(), *o.INTENDED, c.CancelOrder())
    _, events = obeyed(order, c.RecordRefund(TOTAL))
    assert types(events) == ["payment.authorized.v1", "payment.captured.v1", "payment.refunded.v1"]


@pytest.mark.parametrize("steps", [o.CONFIRMED, o.CAPTURED, o.COMPLETED])
def test_nothing_is_undone_of_an_order_that_goes_its_way(steps: tuple[c.Command, ...]):
    """Undoing needs an order that is being given up."""
    order = after(placed(), *steps)
    for command in (c.RecordShipmentCancelled(FIRST), c.RecordRefund(TOTAL)):
        assert refusal(order, command) == "not-now"
    assert after(order, c.CloseOrder()) == order if order.is_final else refusal(order, c.CloseOrder())


def test_a_declined_card_needs_no_undoing():
    """Nothing is held after a decline, and voiding it is no event."""
    order = after(placed(), *o.DECLINED)
    assert not order.payment.may_hold_money
    assert decide(order, c.RecordVoid()) == ()


def test_the_parcels_that_the_carrier_may_know_are_those_neither_delivered_nor_cancelled():
    """A planned parcel counts: its booking may have happened without our knowing."""
    assert [f.id for f in live(after(placed(), *o.RESERVED))] == [FIRST, SECOND]
    assert [f.id for f in live(after(placed(), *o.HALF_DELIVERED))] == [SECOND]
    assert live(after(placed(), *o.CANCELLED)) == ()
    assert live(placed()) == ()


def test_keys_with_the_provider_do_not_depend_on_the_attempt():
    """Only a key that the provider wore out itself is replaced by the next."""
    order = after(placed(), c.RecordIntent(INTENT))
    assert idempotency_key(order.id, "confirm", order.payment.key_number) == f"pay:{o.ID}:confirm:1"
    worn = after(order, c.WearOutKey(1))
    assert worn.payment.key_number == 2
    assert after(worn, c.WearOutKey(1)) == worn
    assert after(worn, c.WearOutKey(2)).payment.key_number == 3


def test_what_is_only_remembered_is_no_event():
    """Bookkeeping with the provider does not raise the version, so readers see no change."""
    order = after(placed(), c.RecordIntent(INTENT), c.WearOutKey(1))
    assert (order.version, order.updated_at) == (1, o.AT)


def test_a_parcel_keeps_its_tracking_number_on_its_way():
    """Later events change the status only."""
    parcel = after(placed(), *o.COMPLETED).fulfilment(FIRST)
    assert (parcel.status, parcel.shipment, parcel.tracking_number) == (
        FulfilmentStatus.DELIVERED,
        "shp_1",
        "T1",
    )
    assert parcel.plan == PLANS[0]
