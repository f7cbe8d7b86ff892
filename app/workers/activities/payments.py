"""Payments: authorize, capture, and undo, without ever charging twice.

The intent is created unconfirmed and its id stored before anything is charged; after an unknown outcome the
intent is asked for by that id. Keys do not depend on the attempt. If the process dies between the provider's
answer and our record, the next try finds the provider in the new state and only writes it down.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from temporalio import activity

from app.contracts import temporal as t
from app.domain import commands as c
from app.domain.errors import Declined, KeyWornOut, Refusal, Refused, Unavailable
from app.domain.events import Reason
from app.domain.order import Order, Status
from app.domain.payment import PaymentStatus, idempotency_key
from app.domain.ports import Intent, IntentStatus, Orders, Payments
from app.workers.activities.progress import begin, final, granted, may_be_undone, progress

R = TypeVar("R")


class PaymentActivities:
    """Steps on the `payments` queue."""

    def __init__(self, orders: Orders, payments: Payments) -> None:
        """Work on these orders with this provider."""
        self._orders = orders
        self._payments = payments

    @activity.defn(name=t.AUTHORIZE_PAYMENT)
    async def authorize_payment(self, step: t.Step) -> t.Progress:
        """Have the provider hold the order's total; a decline gives the reason to reject it."""
        order = await self._orders.load(begin(step))
        if order.status is not Status.ACCEPTED or order.payment.status is not PaymentStatus.PENDING:
            return progress(order, _decline_reason(order))
        try:
            intent = await self._with_lasting_key(order, self._confirmed)
        except Declined as declined:
            answer = await self._orders.record(
                order.id, c.RecordDecline(declined.code, declined.decline_code, declined.message)
            )
            order = granted(answer)
            return progress(order, _decline_reason(order))
        if intent is None:  # cancelled before anything was charged
            return progress(await self._orders.load(order.id))
        command = c.RecordAuthorization(intent.id, intent.amount)
        return progress(granted(await self._orders.record(order.id, command)))

    @activity.defn(name=t.CAPTURE_PAYMENT)
    async def capture_payment(self, step: t.Step) -> t.Progress:
        """Take the money that is held."""
        order = await self._orders.load(begin(step))
        if order.payment.status is not PaymentStatus.AUTHORIZED:
            return progress(order)
        intent = await self._with_lasting_key(order, self._captured)
        return progress(granted(await self._orders.record(order.id, c.RecordCapture(intent.captured))))

    @activity.defn(name=t.VOID_PAYMENT)
    async def void_payment(self, step: t.Step) -> t.Progress:
        """Leave nothing held and nothing taken, whatever may have happened before."""
        order = await self._orders.load(begin(step))
        may_be_undone(order)
        if order.payment.intent is None:  # nothing can have been charged: confirming needs the stored id
            return progress(order)
        intent = await self._with_lasting_key(order, self._undone)
        command = c.RecordRefund(intent.captured) if intent.captured else c.RecordVoid()
        return progress(granted(await self._orders.record(order.id, command)))

    async def _confirmed(self, order: Order) -> Intent | None:
        """The order's intent, authorized; None when the order was cancelled before anything was charged."""
        number = order.payment.key_number
        if order.payment.intent is None:
            intent = await self._payments.create(
                order_id=order.id,
                amount=order.total,
                currency=order.currency,
                payment_method=order.payment_method or "",
                correlation_id=order.correlation_id,
                key=idempotency_key(order.id, "create", number),
            )
            noted = granted(await self._orders.record(order.id, c.RecordIntent(intent.id)))
            if noted.status is not Status.ACCEPTED:
                # Given up meanwhile, so the intent was not stored: it is never confirmed. Leave none behind.
                await self._payments.void(intent.id, key=idempotency_key(order.id, "void", number))
                return None
            if noted.payment.intent != intent.id:
                raise Unavailable("payments", "another try has stored an intent of its own")
        else:
            intent = await self._payments.retrieve(order.payment.intent)
        if intent.status is IntentStatus.UNCONFIRMED:
            intent = await self._payments.confirm(intent.id, key=idempotency_key(order.id, "confirm", number))
        return _authorized(order, intent)

    async def _captured(self, order: Order) -> Intent:
        key = idempotency_key(order.id, "capture", order.payment.key_number)
        intent = await self._payments.capture(_known(order), amount=order.total, key=key)
        if intent.status is not IntentStatus.CAPTURED or intent.captured != order.total:
            detail = f"the intent is {intent.status} with {intent.captured} captured of {order.total}"
            raise final(Refusal("not-captured", detail))
        return intent

    async def _undone(self, order: Order) -> Intent:
        number = order.payment.key_number
        intent = await self._payments.void(_known(order), key=idempotency_key(order.id, "void", number))
        if intent.status is IntentStatus.CAPTURED:
            key = idempotency_key(order.id, "refund", number)
            return await self._payments.refund(intent.id, amount=intent.captured, key=key)
        if intent.status is not IntentStatus.VOIDED:
            raise Unavailable("payments", f"the intent is still {intent.status}")
        return intent

    async def _with_lasting_key(self, order: Order, operation: Callable[[Order], Awaitable[R]]) -> R:
        """Run an operation; note a key that the provider has worn out: the next try takes the next."""
        try:
            return await operation(order)
        except KeyWornOut:
            await self._orders.record(order.id, c.WearOutKey(order.payment.key_number))
            raise
        except Refused as refused:
            raise final(refused.refusal) from refused


def _known(order: Order) -> str:
    """The stored id of the order's intent."""
    if order.payment.intent is None:
        raise final(Refusal("no-intent", "The order has no payment at the provider."))
    return order.payment.intent


def _authorized(order: Order, intent: Intent) -> Intent:
    """The intent, if its money is held; raises Declined or Unavailable otherwise."""
    match intent.status:
        case IntentStatus.AUTHORIZED | IntentStatus.CAPTURED if intent.amount == order.total:
            return intent
        case IntentStatus.AUTHORIZED | IntentStatus.CAPTURED:
            raise final(Refusal("amount-differs", f"The provider holds {intent.amount}, not {order.total}."))
        case IntentStatus.PROCESSING | IntentStatus.UNCONFIRMED:
            raise Unavailable("payments", f"the intent is still {intent.status}")
        case IntentStatus.ACTION_REQUIRED:
            raise Declined("authentication_required", None, "The card needs its owner's authentication.")
        case IntentStatus.VOIDED:
            raise Declined("canceled", None, "The payment was cancelled at the provider.")
        case IntentStatus.DECLINED:
            raise Declined(intent.code or "card_declined", intent.decline_code, intent.message)


def _decline_reason(order: Order) -> Reason | None:
    """Why the provider refused, where it has."""
    decline = order.payment.decline
    if decline is None:
        return None
    return Reason(
        "payment_declined", decline.detail, provider_code=decline.code, decline_code=decline.decline_code
    )
