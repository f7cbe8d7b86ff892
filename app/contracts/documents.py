"""The public documents of HTTP: an order as every reader sees it, wherever it comes from."""

from datetime import UTC, datetime
from typing import Generic, TypeVar

import msgspec

from app.contracts.streams import Envelope
from app.domain.events import Reason
from app.domain.fulfilment import FulfilmentLine
from app.domain.money import Money
from app.domain.order import Order

T = TypeVar("T")


class LineDocument(msgspec.Struct, frozen=True):
    """One line; `amount` = `quantity` × `unit_price`."""

    sku: str
    quantity: int
    unit_price: Money
    amount: Money


class TotalsDocument(msgspec.Struct, frozen=True):
    """What the order comes to. Tax and shipping are zero until rules for them are configured."""

    subtotal: Money
    tax: Money
    shipping: Money
    total: Money


class PaymentDocument(msgspec.Struct, frozen=True):
    """What is held, taken and given back."""

    status: str
    authorized: Money
    captured: Money
    refunded: Money


class FulfilmentDocument(msgspec.Struct, frozen=True):
    """One parcel from one warehouse."""

    id: str
    warehouse: str
    status: str
    lines: tuple[FulfilmentLine, ...]
    tracking_number: str | None


class AdjustedLineDocument(msgspec.Struct, frozen=True):
    """A line whose price was wrong: what a piece of it cost before, and what it costs after."""

    sku: str
    quantity: int
    unit_price_before: Money
    unit_price_after: Money


class AdjustmentDocument(msgspec.Struct, frozen=True):
    """One price adjustment: what the order came to with those before it, and what it comes to with it.

    `difference` is the second less the first: below zero, the customer was asked for too much.
    """

    id: str
    price_list: str
    replay: str
    total_before: Money
    total_after: Money
    difference: Money
    lines: tuple[AdjustedLineDocument, ...]
    created_at: str


class OrderDocument(msgspec.Struct, frozen=True):
    """An order. `waiting_on` names what an order that does not move waits for.

    `totals` and `payment` are what was agreed and charged, for ever. What its price should have been is in
    `price_adjustments`, which are left out where there are none: the order comes to the `total_after` of the
    last of them.
    """

    id: str
    customer_id: str
    status: str
    reason: Reason | None
    waiting_on: str | None
    currency: str
    lines: tuple[LineDocument, ...]
    totals: TotalsDocument
    payment: PaymentDocument
    fulfilments: tuple[FulfilmentDocument, ...]
    metadata: dict[str, str]
    correlation_id: str
    created_at: str
    updated_at: str
    version: int
    price_adjustments: tuple[AdjustmentDocument, ...] | msgspec.UnsetType = msgspec.UNSET


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page of a list; `next_cursor` asks for the next, null on the last."""

    items: list[T]
    next_cursor: str | None


class EventPage(msgspec.Struct, frozen=True):
    """One page of an order's events. Those up to `archived_through`, if that is there, are in an archive."""

    items: list[Envelope]
    next_cursor: str | None
    archived_through: int | msgspec.UnsetType = msgspec.UNSET


def rfc3339(at: datetime) -> str:
    """A time in UTC with microseconds and a `Z`."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def document(order: Order) -> OrderDocument:
    """An order as its readers see it."""

    def money(amount: int) -> Money:
        return Money(amount, order.currency) if amount else nothing

    nothing, total = Money(0, order.currency), Money(order.total, order.currency)
    return OrderDocument(
        id=order.id,
        customer_id=order.customer_id,
        status=order.status,
        reason=order.reason,
        waiting_on=order.waiting_on,
        currency=order.currency,
        lines=tuple(
            [LineDocument(x.sku, x.quantity, money(x.unit_price), money(x.amount)) for x in order.lines]
        ),
        totals=TotalsDocument(total, nothing, nothing, total),
        payment=PaymentDocument(
            order.payment.status,
            money(order.payment.authorized),
            money(order.payment.captured),
            money(order.payment.refunded),
        ),
        fulfilments=tuple(
            [
                FulfilmentDocument(f.id, f.warehouse, f.status, f.lines, f.tracking_number)
                for f in order.fulfilments
            ]
        ),
        metadata=order.metadata,
        correlation_id=order.correlation_id,
        created_at=rfc3339(order.created_at),
        updated_at=rfc3339(order.updated_at),
        version=order.version,
        price_adjustments=_adjustments(order) if order.adjustments else msgspec.UNSET,
    )


def _adjustments(order: Order) -> tuple[AdjustmentDocument, ...]:
    def money(amount: int) -> Money:
        return Money(amount, order.currency)

    return tuple(
        AdjustmentDocument(
            id=made.id,
            price_list=made.price_list,
            replay=made.replay,
            total_before=money(made.before),
            total_after=money(made.after),
            difference=money(made.difference),
            lines=tuple(
                AdjustedLineDocument(x.sku, x.quantity, money(x.before), money(x.after)) for x in made.lines
            ),
            created_at=rfc3339(made.at),
        )
        for made in order.adjustments
    )


_encoder = msgspec.json.Encoder()


def encode_order(order: Order) -> bytes:
    """An order's document as JSON bytes, as they are sent, stored and cached."""
    return _encoder.encode(document(order))


def etag(version: int, waiting_on: str | None) -> str:
    """The entity tag of an order's document: it changes whenever the document does."""
    return f'"{version}-{waiting_on}"' if waiting_on else f'"{version}"'
