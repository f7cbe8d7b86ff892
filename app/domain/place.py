"""`place(command, …)`: the rules of taking an order. Prices come from the catalogue, never from the caller.

Every fault of a request is named at once, with a JSON pointer into it; only what is right is then compared
with what the caller expected and with what is in stock.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final

from app.domain.catalogue import Product
from app.domain.commands import PlaceOrder
from app.domain.errors import Fault, Refusal
from app.domain.events import AcceptedLine, Line, OrderAccepted
from app.domain.money import AMOUNT_MAX, Money
from app.domain.order import Order, Status
from app.domain.payment import Payment, PaymentStatus

INVALID: Final = "invalid-request"
PRICE_CHANGED: Final = "price-changed"
SOLD_OUT: Final = "sold-out"

LINES_MAX: Final = 1000
QUANTITY_MAX: Final = 100_000
"""Pieces of one line."""


def place(
    command: PlaceOrder, order_id: str, catalogue: Mapping[str, Product], correlation_id: str, at: datetime
) -> tuple[Order, OrderAccepted] | Refusal:
    """Price a wanted order and accept it, or say why not.

    `catalogue` holds every product of the command's SKUs that exists. Returns the order at version 1 with
    its first event.
    """
    faults = _faults(command, catalogue)
    if faults:
        return Refusal(INVALID, "The order names something that cannot be ordered like this.", faults)
    lines = tuple([_priced(wanted.sku, wanted.quantity, catalogue) for wanted in command.lines])
    total = sum([line.amount for line in lines])
    refusal = _total_refusal(command, total) or _sold_out_refusal(command, catalogue)
    if refusal:
        return refusal
    order = Order(
        id=order_id,
        customer_id=command.customer_id,
        status=Status.ACCEPTED,
        currency=command.currency,
        lines=lines,
        total=total,
        payment=Payment(PaymentStatus.PENDING if total else PaymentStatus.NOT_REQUIRED),
        payment_method=command.payment_method,
        correlation_id=correlation_id,
        created_at=at,
        updated_at=at,
        version=1,
    )
    return order, _accepted(order)


def _faults(command: PlaceOrder, catalogue: Mapping[str, Product]) -> tuple[Fault, ...]:
    faults: list[Fault] = []
    if not 1 <= len(command.lines) <= LINES_MAX:
        return (Fault("/lines", f"An order has 1 to {LINES_MAX} lines."),)
    for index, wanted in enumerate(command.lines):
        if not 1 <= wanted.quantity <= QUANTITY_MAX:
            faults.append(Fault(f"/lines/{index}/quantity", f"A line has 1 to {QUANTITY_MAX} pieces."))
        product = catalogue.get(wanted.sku)
        if product is None:
            faults.append(Fault(f"/lines/{index}/sku", f"There is no product with the SKU {wanted.sku}."))
        elif product.price.currency != command.currency:
            priced = product.price.currency
            faults.append(
                Fault("/currency", f"{wanted.sku} is priced in {priced}, not in {command.currency}.")
            )
    return tuple(faults)


def _priced(sku: str, quantity: int, catalogue: Mapping[str, Product]) -> Line:
    unit_price = catalogue[sku].price.amount
    return Line(sku, quantity, unit_price, unit_price * quantity)


def _accepted(order: Order) -> OrderAccepted:
    def money(amount: int) -> Money:
        return Money(amount, order.currency)

    lines = tuple(
        [
            AcceptedLine(line.sku, line.quantity, money(line.unit_price), money(line.amount))
            for line in order.lines
        ]
    )
    return OrderAccepted(order.customer_id, order.currency, lines, money(order.total))


def _total_refusal(command: PlaceOrder, total: int) -> Refusal | None:
    if total > AMOUNT_MAX:
        fault = Fault(
            "/lines", f"The order comes to {total} minor units; at most {AMOUNT_MAX} can be paid at once."
        )
        return Refusal(INVALID, "The order's total is too large.", (fault,))
    if command.expected_total is not None and command.expected_total != total:
        fault = Fault("/expected_total", f"The order comes to {total} {command.currency} in minor units now.")
        return Refusal(PRICE_CHANGED, "The total is not what you expected.", (fault,))
    if total and command.payment_method is None:
        fault = Fault("/payment_method", "An order that costs something needs a payment method.")
        return Refusal(INVALID, "There is something to pay and nothing to pay it with.", (fault,))
    return None


def _sold_out_refusal(command: PlaceOrder, catalogue: Mapping[str, Product]) -> Refusal | None:
    found = [catalogue[line.sku] for line in command.lines]
    gone = {product.sku for product in found if product.available is not None and product.available <= 0}
    return sold_out(command, gone) if gone else None


def sold_out(command: PlaceOrder, skus: Collection[str]) -> Refusal:
    """The refusal of an order that wants some of `skus`, of which there are not that many."""
    faults = tuple(
        Fault(f"/lines/{index}/sku", f"There is not enough of {wanted.sku} left.")
        for index, wanted in enumerate(command.lines)
        if wanted.sku in skus
    )
    return Refusal(SOLD_OUT, "Not enough is left.", faults)
