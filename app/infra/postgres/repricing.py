"""Adjusting many orders to a corrected price list, in the caller's transaction: all of them or none.

Orders are locked in order of their ids and decided one by one by the domain, which knows what each has had
done to it; one statement writes their rows, adjustments, events and places in the outbox. That a replay
adjusts an order once holds also without the domain: (order, replay) is the key of the adjustments. If the
process dies here, the transaction never happened, and doing it again adjusts what is not adjusted.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import asyncpg
import msgspec

from app.contracts.price_lists import PriceList
from app.domain.chain import chain
from app.domain.commands import RepriceOrder
from app.domain.decide import decide, evolve_all
from app.domain.errors import Refusal, Refused
from app.domain.money import Money
from app.domain.order import Order
from app.domain.reprice import Repricing, reprice
from app.infra.postgres.order_rows import json_text, order_from
from app.infra.postgres.pool import Connection
from app.infra.postgres.statements import statements

SQL: Final = statements("repricing")


class Change(msgspec.Struct, frozen=True):
    """What was shown of one order: the totals (minor units) before and after."""

    order_id: str
    before: int
    after: int


class Reckoned(msgspec.Struct, frozen=True):
    """An order as it is, and what it would come to, or why it cannot be adjusted."""

    order: Order
    outcome: Repricing | Refusal


async def reckon(
    connection: Connection, order_ids: Sequence[str], prices: Mapping[str, Money]
) -> list[Reckoned]:
    """Reckon some orders again, in order of their ids. Nothing is locked and nothing written."""
    return [Reckoned(order, reprice(order, prices)) for order in await read(connection, order_ids)]


async def read(connection: Connection, order_ids: Sequence[str]) -> list[Order]:
    """Some orders as they are, in order of their ids."""
    return [order_from(row) for row in await connection.fetch(SQL["read"], order_ids)]


async def adjust_all(
    connection: Connection, replay: str, price_list: PriceList, changes: Iterable[Change]
) -> list[Order]:
    """Adjust orders from and to what was shown of them; all of them as they then are.

    Those that this replay has adjusted already stay as they are. Raises Refused, naming the order, where
    one cannot be adjusted like that, and LookupError where there is no such order: the caller's transaction
    must not be committed then.
    """
    wanted = {change.order_id: change for change in changes}
    rows = await connection.fetch(SQL["lock"], list(wanted))
    if len(rows) != len(wanted):
        raise LookupError(min(wanted.keys() - {row["id"] for row in rows}))
    orders: list[Order] = []
    written: list[tuple[Any, ...]] = []
    for row in rows:
        change = wanted[row["id"]]
        order, columns = _adjusted(row, replay, price_list, change)
        orders.append(order)
        if columns:
            written.append(columns)
    if written:
        columns_of_all = zip(*written, strict=True)
        await connection.execute(SQL["adjust"], *columns_of_all, replay, price_list.name)
    return orders


def _adjusted(
    row: asyncpg.Record, replay: str, price_list: PriceList, change: Change
) -> tuple[Order, tuple[Any, ...]]:
    """One order after its adjustment, and what is written of it (nothing, where it has it already)."""
    order = order_from(row)
    prices = {line.sku: price_list.prices[line.sku] for line in order.lines if line.sku in price_list.prices}
    command = RepriceOrder(replay, price_list.name, prices, change.before, change.after)
    decision = decide(order, command)
    if isinstance(decision, Refusal):
        raise Refused(Refusal(decision.code, f"{order.id}: {decision.detail}"))
    if not decision:
        return order, ()
    # Never older than what is there: the clock may have been set back between two events.
    at = max(row["now"], order.updated_at)
    after = evolve_all(order, decision, at)
    made = after.adjustments[-1]
    (event,) = chain(
        row["last_hash"], order.id, order.version, decision, at, order.correlation_id, row["traceparent"]
    )
    return after, (
        *(order.id, event.sequence, event.type, event.time, event.correlation_id, event.traceparent),
        *(event.data, event.previous_hash, event.hash, json_text(after.adjustments)),
        *(made.id, order.currency, made.before, made.after),
    )
