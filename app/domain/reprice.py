"""Reckoning an order again: what it would come to under a corrected price list, and when it is adjusted.

Nothing here changes what was agreed: lines, total and payment stay. An order may be adjusted whatever its
status, once by each replay, and only from and to the very totals that somebody was shown.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from app.domain import commands as c
from app.domain import events as e
from app.domain.errors import Refusal
from app.domain.ids import adjustment_id
from app.domain.money import AMOUNT_MAX, Money
from app.domain.order import Decision, Order

CURRENCY_DIFFERS: Final = "currency-differs"
TOO_LARGE: Final = "total-too-large"
ALREADY_ADJUSTED: Final = "already-adjusted"
MOVED: Final = "total-moved"


class Repricing(msgspec.Struct, frozen=True):
    """What an order comes to `before` and `after` (minor units), and the lines that differ."""

    before: int
    after: int
    lines: tuple[e.RepricedLine, ...]


def reprice(order: Order, prices: Mapping[str, Money]) -> Repricing | Refusal:
    """Reckon an order again with the prices (SKU → price of a piece) of a list; without lines, none differs.

    It is reckoned from what the order comes to now, with the adjustments it has. SKUs that the list does not
    name keep their price. Refused where the list names another currency, or the sum cannot be an order's.
    """
    lines: list[e.RepricedLine] = []
    paid = order.unit_prices
    after = 0
    for line in order.lines:
        price = prices.get(line.sku)
        if price is not None and price.currency != order.currency:
            detail = f"The order is in {order.currency}, the price of {line.sku} in {price.currency}."
            return Refusal(CURRENCY_DIFFERS, detail)
        before, now = paid[line.sku], paid[line.sku] if price is None else price.amount
        after += line.quantity * now
        if now != before:
            money = (Money(amount, order.currency) for amount in (before, now))
            lines.append(e.RepricedLine(line.sku, line.quantity, *money))
    if after > AMOUNT_MAX:
        return Refusal(TOO_LARGE, f"The order would come to {after} minor units; {AMOUNT_MAX} is the most.")
    return Repricing(order.adjusted_total, after, tuple(lines))


def adjust(order: Order, command: c.RepriceOrder) -> Decision:
    """Answer the command to adjust an order to what was shown of it."""
    shown = (command.total_before, command.total_after)
    for done in order.adjustments:
        if done.replay == command.replay:
            return () if (done.before, done.after) == shown else _already_adjusted(command)
    repricing = reprice(order, command.prices)
    if isinstance(repricing, Refusal):
        return repricing
    if (repricing.before, repricing.after) != shown:
        return _moved(repricing, command)
    if not repricing.lines:
        return ()
    event = e.OrderRepriced(
        adjustment=adjustment_id(order.id, len(order.adjustments) + 1),
        replay=command.replay,
        price_list=command.price_list,
        total_before=Money(repricing.before, order.currency),
        total_after=Money(repricing.after, order.currency),
        difference=Money(repricing.after - repricing.before, order.currency),
        lines=repricing.lines,
    )
    return (event,)


def _already_adjusted(command: c.RepriceOrder) -> Refusal:
    return Refusal(ALREADY_ADJUSTED, f"The replay {command.replay} has adjusted this order to another total.")


def _moved(now: Repricing, command: c.RepriceOrder) -> Refusal:
    shown = f"{command.total_before} to {command.total_after}"
    return Refusal(MOVED, f"The order would go from {now.before} to {now.after} now, not from {shown}.")
