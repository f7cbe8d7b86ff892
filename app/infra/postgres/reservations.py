"""Reserving stock: the orders that ask in one moment are reserved, or rejected, in one transaction.

They are locked in order of their ids and decided in order of arrival. The shelves are only read before that:
a lock on a popular shelf would make everybody wait while one process thinks and writes. The last statement
takes the pieces from all shelves, in one order by everybody, where they are still there. Where somebody else
was quicker, everything is rolled back and done again with the shelves locked first. So nothing is ever
oversold, and only the last pieces of a SKU cost a second try.

If the process dies here, the transaction never happened.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import asyncpg
import msgspec

from app.domain import events as e
from app.domain.chain import LinkedEvent, chain
from app.domain.commands import Command, RecordReservation, RejectOrder
from app.domain.decide import decide, evolve_all
from app.domain.errors import Refusal
from app.domain.events import Reason
from app.domain.order import Order, Status, StockStatus
from app.domain.stock import Shortage, allocate
from app.infra.postgres.order_rows import json_text, order_from
from app.infra.postgres.pool import Connection, Database
from app.infra.postgres.statements import statements

SQL: Final = statements("reservations")

Shelves = dict[str, dict[str, int]]
"""SKU → warehouse → pieces that nobody has reserved."""


class Asked(NamedTuple):
    """An order to be reserved, and the step that asks, where that is traced."""

    order_id: str
    traceparent: str | None = None


class BusyError(Exception):
    """Somebody else holds this order's row, or there is no such order: look at it alone."""


class _OutrunError(Exception):
    """Pieces that were there when the shelves were read are gone."""


async def reserve_all(database: Database, asked: Sequence[Asked]) -> list[Order | Refusal | BusyError]:
    """Reserve stock for every line of some orders, or reject the orders naming what is short; each outcome.

    Waits for nobody's order: one that is not free gives BusyError. Where it raises anything, Unavailable or
    what is wrong with one of the orders, nothing was done.
    """
    try:
        return await _reserve(database, "lock_free_orders", "read_shelves", asked)
    except _OutrunError:
        return await _reserve(database, "lock_free_orders", "lock_shelves", asked)


async def reserve_one(database: Database, asked: Asked) -> Order | Refusal:
    """The same for one order, however long somebody else has it. Raises LookupError and Unavailable."""
    (outcome,) = await _reserve(database, "lock_orders", "lock_shelves", [asked])
    match outcome:
        case BusyError():  # it was waited for, so there is none
            raise LookupError(asked.order_id)
        case _:
            return outcome


async def _reserve(
    database: Database, orders: str, shelves: str, asked: Sequence[Asked]
) -> list[Order | Refusal | BusyError]:
    """One transaction; `orders` and `shelves` name the statements that read them."""
    async with database.transaction() as connection:
        batch = _Batch(await connection.fetch(SQL[orders], list({each.order_id for each in asked})))
        if skus := batch.skus():
            batch.stock(await connection.fetch(SQL[shelves], skus))
        outcomes = [batch.reserve(each) for each in asked]
        await batch.write(connection)
    return outcomes


class _Batch:
    """Locked orders, what is on the shelves, and what is to be written."""

    def __init__(self, rows: Iterable[asyncpg.Record]) -> None:
        """Begin with the rows of the orders."""
        self._rows = {row["id"]: row for row in rows}
        self._orders = {row["id"]: order_from(row) for row in rows}
        self._shelves: Shelves = {}
        self._changed: list[tuple[object, ...]] = []
        self._events: list[LinkedEvent] = []
        self._held: list[tuple[str, str, str, int]] = []

    def skus(self) -> list[str]:
        """What the orders want."""
        orders = [order for order in self._orders.values() if _is_to_be_reserved(order)]
        return sorted({line.sku for order in orders for line in order.lines})

    def stock(self, rows: Iterable[asyncpg.Record]) -> None:
        """Put on the shelves what is there."""
        for row in rows:
            self._shelves.setdefault(row["sku"], {})[row["warehouse"]] = row["available"]

    def reserve(self, asked: Asked) -> Order | Refusal | BusyError:
        """Decide on the next order, and note what is to be written."""
        order = self._orders.get(asked.order_id)
        if order is None:
            return BusyError(asked.order_id)
        decision = decide(order, self._command(order))
        if isinstance(decision, Refusal):
            return decision
        if not decision:
            return order
        row = self._rows[order.id]
        # Never older than what is there: the clock may have been set back between two events.
        at = max(row["now"], order.updated_at)
        after = evolve_all(order, decision, at)
        linked = chain(
            row["last_hash"],
            order.id,
            order.version,
            decision,
            at,
            order.correlation_id,
            asked.traceparent or row["traceparent"],
        )
        self._changed.append(
            (
                order.id,
                after.status,
                after.stock,
                json_text(after.fulfilments),
                None if after.reason is None else json_text(after.reason),
                after.version,
                linked[-1].hash,
                at,
            )
        )
        self._events.extend(linked)
        for event in decision:
            if isinstance(event, e.InventoryReserved):
                self._hold(order.id, event)
        self._orders[order.id] = after
        return after

    def _command(self, order: Order) -> Command:
        if not _is_to_be_reserved(order):
            return RecordReservation(())  # done already, or not possible: the domain knows which
        available = {line.sku: tuple(self._shelves.get(line.sku, {}).items()) for line in order.lines}
        plans = allocate(order.id, order.lines, available)
        if isinstance(plans, Shortage):
            detail = "Not enough in stock of " + ", ".join(plans.skus) + "."
            return RejectOrder(Reason("out_of_stock", detail, skus=plans.skus))
        return RecordReservation(plans)

    def _hold(self, order_id: str, event: e.InventoryReserved) -> None:
        for plan in event.fulfilments:
            for line in plan.lines:
                self._shelves[line.sku][plan.warehouse] -= line.quantity
                self._held.append((order_id, line.sku, plan.warehouse, line.quantity))

    async def write(self, connection: Connection) -> None:
        """Write everything that was decided, the shelves last."""
        if not self._changed:
            return
        events = map(msgspec.structs.astuple, self._events)
        held = zip(*self._held, strict=True) if self._held else ((),) * 4
        await connection.execute(
            SQL["write"], *zip(*self._changed, strict=True), *zip(*events, strict=True), *held
        )
        if not self._held:
            return
        pieces: Counter[tuple[str, str]] = Counter()
        for _, sku, warehouse, quantity in self._held:
            pieces[sku, warehouse] += quantity
        shelves = zip(*pieces, strict=True)
        tag = await connection.execute(SQL["take"], *shelves, list(pieces.values()))
        if tag != f"UPDATE {len(pieces)}":
            raise _OutrunError


def _is_to_be_reserved(order: Order) -> bool:
    return order.stock is StockStatus.NONE and order.status is Status.ACCEPTED
