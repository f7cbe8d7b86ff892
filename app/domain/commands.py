"""Commands: what somebody wants of an order, imperative. `app.domain.order.decide` answers them.

The `Record…` commands put on record what a service has already done, so they are refused only where the
record would be a lie; recording the same thing again is nothing new.
"""

import msgspec

from app.domain.events import Reason
from app.domain.fulfilment import FulfilmentPlan
from app.domain.money import Money


class WantedLine(msgspec.Struct, frozen=True):
    """`quantity` pieces of one SKU."""

    sku: str
    quantity: int


class PlaceOrder(msgspec.Struct, frozen=True):
    """Take an order. `expected_total` (minor units of `currency`) guards against a price that moved."""

    customer_id: str
    currency: str
    lines: tuple[WantedLine, ...]
    payment_method: str | None
    expected_total: int | None


class RecordReservation(msgspec.Struct, frozen=True):
    """Stock is being reserved like this, in this very transaction."""

    plans: tuple[FulfilmentPlan, ...]


class RejectOrder(msgspec.Struct, frozen=True):
    """Give up an order that cannot be carried out, once nothing of it is held."""

    reason: Reason


class RecordIntent(msgspec.Struct, frozen=True):
    """The provider knows the payment by this id (nothing is charged yet)."""

    intent: str


class WearOutKey(msgspec.Struct, frozen=True):
    """The provider answers key number `number` with a stored failure of its own."""

    number: int


class RecordAuthorization(msgspec.Struct, frozen=True):
    """The provider holds `amount`."""

    intent: str
    amount: int


class RecordDecline(msgspec.Struct, frozen=True):
    """The provider refused, with its codes."""

    code: str
    decline_code: str | None
    detail: str


class RecordBooking(msgspec.Struct, frozen=True):
    """The carrier has booked a fulfilment."""

    fulfilment: str
    shipment: str
    tracking_number: str | None


class ReleaseOrder(msgspec.Struct, frozen=True):
    """Let it go: the point of no return, which has one winner against `CancelOrder`."""


class RecordDispatch(msgspec.Struct, frozen=True):
    """The carrier knows that it may take a fulfilment."""

    fulfilment: str


class RecordCapture(msgspec.Struct, frozen=True):
    """The provider has taken `amount`."""

    amount: int


class RecordDelivery(msgspec.Struct, frozen=True):
    """The carrier has delivered a fulfilment."""

    fulfilment: str


class CancelOrder(msgspec.Struct, frozen=True):
    """Stop it, if it is not too late."""


class RecordShipmentCancelled(msgspec.Struct, frozen=True):
    """The carrier will not send a fulfilment."""

    fulfilment: str


class RecordVoid(msgspec.Struct, frozen=True):
    """The provider holds nothing any more."""


class RecordRefund(msgspec.Struct, frozen=True):
    """The provider has given `amount` back."""

    amount: int


class ReleaseStock(msgspec.Struct, frozen=True):
    """Make the reserved stock free again."""


class CloseOrder(msgspec.Struct, frozen=True):
    """Everything is undone: `cancelled` if somebody cancelled it, else `rejected` for `reason`."""

    reason: Reason | None = None


class RepriceOrder(msgspec.Struct, frozen=True):
    """Put on record what the order comes to under a corrected price list, for one replay of it.

    `prices` (SKU → price of a piece) are those of the list, the order's own SKUs at least. The totals (minor
    units) are what was shown of this order: any others are refused.
    """

    replay: str
    price_list: str
    prices: dict[str, Money]
    total_before: int
    total_after: int


Command = (
    RecordReservation
    | RejectOrder
    | RecordIntent
    | WearOutKey
    | RecordAuthorization
    | RecordDecline
    | RecordBooking
    | ReleaseOrder
    | RecordDispatch
    | RecordCapture
    | RecordDelivery
    | CancelOrder
    | RecordShipmentCancelled
    | RecordVoid
    | RecordRefund
    | ReleaseStock
    | CloseOrder
    | RepriceOrder
)
"""Any command to an order that exists."""
