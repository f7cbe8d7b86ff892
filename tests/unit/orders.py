"""Orders and commands to test with; everything is fixed, so that a failure reads the same twice."""

from datetime import UTC, datetime, timedelta

from app.domain import commands as c
from app.domain.catalogue import Product
from app.domain.decide import decide, evolve_all, note
from app.domain.errors import Refusal
from app.domain.events import Line, OrderEvent, Reason
from app.domain.fulfilment import FulfilmentLine, FulfilmentPlan
from app.domain.ids import fulfilment_id, order_id
from app.domain.money import Money
from app.domain.order import Order
from app.domain.place import place

AT = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
LATER = AT + timedelta(seconds=5)
ID = order_id(1_772_366_400_250, bytes(range(10)))
INTENT = "pi_1"
TOTAL = 2 * 700 + 3 * 50
REASON = Reason("payment_declined", "Declined.")

CATALOGUE = {
    "cup": Product("cup", "Cup", Money(700, "USD"), available=10),
    "spoon": Product("spoon", "Spoon", Money(50, "USD"), available=10),
    "leaflet": Product("leaflet", "Leaflet", Money(0, "USD"), available=10),
    "tasse": Product("tasse", "Tasse", Money(800, "EUR"), available=10),
    "relic": Product("relic", "Relic", Money(700, "USD"), available=0),
}
PLANS = (
    FulfilmentPlan(fulfilment_id(ID, 1), "east", (FulfilmentLine("cup", 2), FulfilmentLine("spoon", 1))),
    FulfilmentPlan(fulfilment_id(ID, 2), "west", (FulfilmentLine("spoon", 2),)),
)
FIRST, SECOND = (plan.id for plan in PLANS)


def wanted(*lines: tuple[str, int], currency: str = "USD", method: str | None = "pm_card_visa", total=None):
    """The command to take an order of these SKUs and quantities."""
    return c.PlaceOrder("cus_1", currency, tuple(c.WantedLine(*line) for line in lines), method, total)


def usd(amount: int) -> Money:
    """An amount in the currency of these orders."""
    return Money(amount, "USD")


def placed(*lines: tuple[str, int]) -> Order:
    """An order just accepted: two cups and three spoons, where nothing else is said."""
    answer = place(wanted(*(lines or (("cup", 2), ("spoon", 3)))), ID, CATALOGUE, "cor_1", AT)
    assert not isinstance(answer, Refusal), answer
    return answer[0]


def free() -> Order:
    """An order just accepted that costs nothing."""
    return placed(("leaflet", 5))


def after(order: Order, *commands: c.Command) -> Order:
    """The order after commands that are all granted."""
    for command in commands:
        order, _ = obeyed(order, command)
    return order


def obeyed(order: Order, command: c.Command) -> tuple[Order, tuple[OrderEvent, ...]]:
    """The order after one command that is granted, and the events, as an adapter would write them."""
    decision = decide(order, command)
    assert not isinstance(decision, Refusal), (order.status, command, decision)
    return evolve_all(note(order, command), decision, LATER), decision


RESERVED = (c.RecordReservation(PLANS),)
INTENDED = (*RESERVED, c.RecordIntent(INTENT))
AUTHORIZED = (*INTENDED, c.RecordAuthorization(INTENT, TOTAL))
HALF_BOOKED = (*AUTHORIZED, c.RecordBooking(FIRST, "shp_1", "T1"))
CONFIRMED = (*HALF_BOOKED, c.RecordBooking(SECOND, "shp_2", None))
DISPATCHED = (*CONFIRMED, c.ReleaseOrder())
CAPTURED = (*DISPATCHED, c.RecordDispatch(FIRST), c.RecordDispatch(SECOND), c.RecordCapture(TOTAL))
HALF_DELIVERED = (*CAPTURED, c.RecordDelivery(FIRST))
COMPLETED = (*HALF_DELIVERED, c.RecordDelivery(SECOND))
"""The way forward: the commands that bring an order just placed this far."""

DECLINED = (*INTENDED, c.RecordDecline("card_declined", "do_not_honor", "Declined."))
REJECTED = (*DECLINED, c.ReleaseStock(), c.CloseOrder(REASON))
CANCELLING = (*CONFIRMED, c.CancelOrder())
UNDONE = (
    *CANCELLING,
    c.RecordShipmentCancelled(SECOND),
    c.RecordShipmentCancelled(FIRST),
    c.RecordVoid(),
    c.ReleaseStock(),
)
CANCELLED = (*UNDONE, c.CloseOrder())
"""The ways back."""

PRICES = {"cup": usd(650), "kettle": usd(9900), "leaflet": usd(1)}
"""What a corrected price list says: cups were sold for 50 too much."""
REPRICED = c.RepriceOrder("rpl_1", "march", PRICES, TOTAL, TOTAL - 2 * 50)


def line(sku: str, quantity: int, unit_price: int = 100) -> Line:
    """A priced line."""
    return Line(sku, quantity, unit_price, unit_price * quantity)
