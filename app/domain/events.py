"""Events: what happened, past tense, tagged with the public type (`order.accepted.v1`).

They hold ids, SKUs and money, never personal data: events leave PostgreSQL. Money is `Money` in all of them,
because an event is kept for ever and read by itself, where no order is at hand to name the currency.
Everything that happens to an order has the order as its subject and one common sequence.
"""

from typing import Final

import msgspec

from app.domain.fulfilment import FulfilmentPlan
from app.domain.money import Money


class Line(msgspec.Struct, frozen=True):
    """One line as the order keeps it: `amount` = `quantity` × `unit_price`, minor units of its currency."""

    sku: str
    quantity: int
    unit_price: int
    amount: int


class AcceptedLine(msgspec.Struct, frozen=True):
    """One line as it was accepted: `amount` = `quantity` × `unit_price`."""

    sku: str
    quantity: int
    unit_price: Money
    amount: Money


class Reason(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why an order was rejected: our `code`, a sentence, the SKUs or the provider's codes behind it."""

    code: str
    detail: str
    skus: tuple[str, ...] = ()
    provider_code: str | None = None
    decline_code: str | None = None


class _OfOrder(msgspec.Struct, frozen=True, tag_field="type"):
    """What every event with an order as its subject shares."""


class OrderAccepted(_OfOrder, frozen=True, tag="order.accepted.v1"):
    """The order is ours to carry to its end."""

    customer_id: str
    currency: str
    lines: tuple[AcceptedLine, ...]
    total: Money


class OrderConfirmed(_OfOrder, frozen=True, tag="order.confirmed.v1"):
    """Stock is reserved, the payment authorized (or not needed), every shipment booked."""


class OrderDispatched(_OfOrder, frozen=True, tag="order.dispatched.v1"):
    """Released to the carrier: there is no way back."""


class OrderCompleted(_OfOrder, frozen=True, tag="order.completed.v1"):
    """Delivered and paid."""


class OrderRejected(_OfOrder, frozen=True, tag="order.rejected.v1"):
    """We cannot carry it out; nothing of it is held any more."""

    reason: Reason


class OrderCancelling(_OfOrder, frozen=True, tag="order.cancelling.v1"):
    """Somebody cancelled it in time; what was done is being undone."""


class OrderCancelled(_OfOrder, frozen=True, tag="order.cancelled.v1"):
    """Cancelled, and nothing of it is held any more."""


class RepricedLine(msgspec.Struct, frozen=True):
    """One line whose price was wrong: what a piece of it cost before, and what it costs after."""

    sku: str
    quantity: int
    unit_price_before: Money
    unit_price_after: Money


class OrderRepriced(_OfOrder, frozen=True, tag="order.repriced.v1"):
    """Reckoned again under a corrected price list, by a replay; what was agreed and charged stays.

    The totals are what the order came to with all adjustments up to this one, and with it. `difference` is
    the one after less the one before: below zero, the customer was asked for too much. `lines` are those
    that differ. It may follow any other event, the final ones too, and changes no status.
    """

    adjustment: str
    replay: str
    price_list: str
    total_before: Money
    total_after: Money
    difference: Money
    lines: tuple[RepricedLine, ...]


class InventoryReserved(_OfOrder, frozen=True, tag="inventory.reserved.v1"):
    """Stock of every line is held, and by which warehouse's parcel it will leave."""

    fulfilments: tuple[FulfilmentPlan, ...]


class InventoryReleased(_OfOrder, frozen=True, tag="inventory.released.v1"):
    """The reserved stock is free again."""

    fulfilments: tuple[FulfilmentPlan, ...]


class InventoryShipped(_OfOrder, frozen=True, tag="inventory.shipped.v1"):
    """The reserved stock has left the warehouses."""

    fulfilments: tuple[FulfilmentPlan, ...]


class PaymentAuthorized(_OfOrder, frozen=True, tag="payment.authorized.v1"):
    """The provider holds `amount` for us."""

    intent: str
    amount: Money


class PaymentCaptured(_OfOrder, frozen=True, tag="payment.captured.v1"):
    """`amount` is ours."""

    intent: str
    amount: Money


class PaymentVoided(_OfOrder, frozen=True, tag="payment.voided.v1"):
    """The hold on `amount` was given up (`amount` is 0 where nothing was held)."""

    intent: str
    amount: Money


class PaymentRefunded(_OfOrder, frozen=True, tag="payment.refunded.v1"):
    """`amount` went back to the customer."""

    intent: str
    amount: Money


class PaymentDeclined(_OfOrder, frozen=True, tag="payment.declined.v1"):
    """The provider refused, with its own codes."""

    code: str
    decline_code: str | None
    detail: str


class ShipmentBooked(_OfOrder, frozen=True, tag="shipment.booked.v1"):
    """The carrier promised to take the parcel; its own id of it, and where to follow it."""

    fulfilment: str
    shipment: str
    tracking_number: str | None


class ShipmentDispatched(_OfOrder, frozen=True, tag="shipment.dispatched.v1"):
    """The carrier knows that it may take the parcel."""

    fulfilment: str


class ShipmentDelivered(_OfOrder, frozen=True, tag="shipment.delivered.v1"):
    """The parcel is with the customer."""

    fulfilment: str


class ShipmentCancelled(_OfOrder, frozen=True, tag="shipment.cancelled.v1"):
    """The parcel will not be sent."""

    fulfilment: str


OrderEvent = (
    OrderAccepted
    | OrderConfirmed
    | OrderDispatched
    | OrderCompleted
    | OrderRejected
    | OrderCancelling
    | OrderCancelled
    | OrderRepriced
    | InventoryReserved
    | InventoryReleased
    | InventoryShipped
    | PaymentAuthorized
    | PaymentCaptured
    | PaymentVoided
    | PaymentRefunded
    | PaymentDeclined
    | ShipmentBooked
    | ShipmentDispatched
    | ShipmentDelivered
    | ShipmentCancelled
)
"""Any event whose subject is an order."""


class InventoryAdjusted(msgspec.Struct, frozen=True, tag_field="type", tag="inventory.adjusted.v1"):
    """Somebody counted, received or wrote off stock; subject: the SKU."""

    warehouse: str
    delta: int
    on_hand: int
    reason: str


class PriceChanged(msgspec.Struct, frozen=True, tag_field="type", tag="price.changed.v1"):
    """A product has a price, or another one; subject: the SKU. `before` is None for a new product."""

    before: Money | None
    after: Money


CatalogueEvent = InventoryAdjusted | PriceChanged
"""Any event whose subject is a SKU."""

Event = OrderEvent | CatalogueEvent

TYPES: Final[dict[type, str]] = {
    cls: str(cls.__struct_config__.tag) for cls in (*OrderEvent.__args__, *CatalogueEvent.__args__)
}
"""Each event's public type."""
