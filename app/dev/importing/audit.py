"""Owns the audit: what the file says against what the orders, the shelves and the payment provider say.

Pure arithmetic over what was read. A cent or a piece that differs is a finding, and one finding is enough
for the import to have failed.
"""

from collections import Counter
from collections.abc import Mapping

import msgspec

from app.dev.importing.api import Order
from app.dev.importing.journal import Pieces
from app.dev.importing.placing import Placement
from app.dev.importing.purchases import Purchase, shares
from app.dev.sandbox.audit import PaymentsAudit


class Money(msgspec.Struct, frozen=True):
    """Cents, as the file, the orders and the provider have them; None where nobody could be asked."""

    file: int
    accepted: int
    captured: int
    provider: int | None


class Items(msgspec.Struct, frozen=True):
    """Pieces, as the file, the completed orders and the shelves have them."""

    file: int
    completed: int
    left_the_shelves: int


class Audit(msgspec.Struct, frozen=True):
    """The audit of one import. It adds up when nothing was found."""

    purchases: int
    accepted: int
    statuses: dict[str, int]
    money: Money
    items: Items
    skus: int
    findings: list[str]


class Books(msgspec.Struct, frozen=True):
    """What was read after the last order had settled."""

    purchases: list[Purchase]
    placed: Mapping[str, Placement]
    settled: Mapping[str, Order]
    refused: list[tuple[Purchase, str]]
    demand: Mapping[str, int]
    before: Mapping[str, Pieces]
    after: Mapping[str, Pieces]
    provider: PaymentsAudit | None


def audit(books: Books) -> Audit:
    """Hold everything against everything."""
    settled = books.settled
    completed = [order for order in settled.values() if order.status == "completed"]
    findings = [f"line {purchase.line} was refused: {why}" for purchase, why in books.refused]
    for order_id, placement in books.placed.items():
        findings += _of_order(placement, settled.get(order_id))
    sold: Counter[str] = Counter()
    for order in completed:
        for line in order.lines:
            sold[line.sku] += line.quantity
    shelf_findings, gone = _of_shelves(books, sold)
    findings += shelf_findings
    captured = sum(o.payment.captured.amount - o.payment.refunded.amount for o in settled.values())
    wanted = sum(purchase.cents for purchase in books.purchases)
    if captured != wanted:
        findings.append(f"captured {dollars(captured)} of the file's {dollars(wanted)}")
    provider, provider_findings = _of_provider(books)
    findings += provider_findings
    return Audit(
        purchases=len(books.purchases),
        accepted=len(books.placed),
        statuses=dict(Counter(order.status for order in settled.values())),
        money=Money(wanted, sum(p.purchase.cents for p in books.placed.values()), captured, provider),
        items=Items(sum(p.pieces for p in books.purchases), sold.total(), gone),
        skus=len(books.demand),
        findings=findings,
    )


def _of_order(placement: Placement, order: Order | None) -> list[str]:
    where = f"line {placement.purchase.line}, {placement.order_id}"
    if order is None:
        return [f"{where} is not settled"]
    payment, cents = order.payment, placement.purchase.cents
    found = []
    if order.totals.total.amount != cents or {x.sku: x.quantity for x in order.lines} != {
        share.sku: share.pieces for share in shares(placement.purchase)
    }:
        found.append(f"{where} is not what was ordered")
    if order.status != "completed":
        why = f" ({order.reason.detail})" if order.reason else ""
        found.append(f"{where} is {order.status}{why}")
        cents = 0
    if payment.captured.amount - payment.refunded.amount != cents:
        found.append(f"{where} is {order.status} and {dollars(payment.captured.amount)} were captured")
    return found


def _of_shelves(books: Books, sold: Mapping[str, int]) -> tuple[list[str], int]:
    """What differs on the shelves, and how many pieces have left them."""
    found, gone = [], 0
    for sku, received in books.demand.items():
        before, after = books.before[sku], books.after[sku]
        left = before.on_hand + received - after.on_hand
        gone += left
        if left != sold.get(sku, 0):
            found.append(f"{sku}: {left} pieces left the shelves, {sold.get(sku, 0)} were sold")
        if after.reserved != before.reserved:
            found.append(f"{sku}: {after.reserved - before.reserved} pieces more are reserved than before")
    return found, gone


def _of_provider(books: Books) -> tuple[int | None, list[str]]:
    """What the provider took for these orders (cents), and where it differs from them."""
    if books.provider is None:
        return None, []
    found, total = [], 0
    for order_id, order in books.settled.items():
        taken = books.provider.captured_per_order.get(order_id, 0)
        total += taken - order.payment.refunded.amount
        if taken != order.payment.captured.amount:
            ours = dollars(order.payment.captured.amount)
            found.append(f"{order_id}: the provider took {dollars(taken)}, on record are {ours}")
        if books.provider.captures_per_order.get(order_id, 0) > 1:
            found.append(f"{order_id} was charged more than once")
    return total, found


def dollars(cents: int) -> str:
    """An amount for people."""
    sign, cents = ("-", -cents) if cents < 0 else ("", cents)
    return f"{sign}${cents // 100:,}.{cents % 100:02}"
