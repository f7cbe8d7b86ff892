"""Writing what was decided: state, events, stock and ledger of one order, inside the caller's transaction.

The order's row is locked by the caller, so versions and hashes follow one another without gaps. If the
process dies here, the transaction never happened.
"""

from datetime import datetime
from typing import Final

from app.domain import chain
from app.domain import events as e
from app.domain.ledger import transfers
from app.domain.order import Order
from app.infra.postgres.order_rows import json_text
from app.infra.postgres.pool import Connection
from app.infra.postgres.statements import statements

SQL: Final = statements("orders")
REPRICING: Final = statements("repricing")


async def write(
    connection: Connection,
    order: Order,
    events: tuple[e.OrderEvent, ...],
    *,
    last_hash: bytes,
    traceparent: str | None,
    at: datetime,
) -> None:
    """Write `events`, which led to `order`; `last_hash` is the hash of the event before them."""
    first = order.version - len(events)
    linked = chain.chain(last_hash, order.id, first, events, at, order.correlation_id, traceparent)
    await connection.execute(
        SQL["update"],
        order.id,
        order.status,
        json_text(order.payment),
        order.stock,
        json_text(order.fulfilments),
        None if order.reason is None else json_text(order.reason),
        order.waiting_on,
        order.version,
        linked[-1].hash,
        at,
    )
    await insert_events(connection, linked)
    for event in events:
        await _move_stock(connection, order.id, event)
        if isinstance(event, e.OrderRepriced):
            await _adjust(connection, order)
    await _move_money(connection, order, events, first, at)


async def insert_events(connection: Connection, linked: tuple[chain.LinkedEvent, ...]) -> None:
    """Append linked events of one subject and have them published after the commit."""
    first = linked[0]
    await connection.execute(
        SQL["insert_events"],
        first.subject,
        first.time,
        first.correlation_id,
        first.traceparent,
        [x.sequence for x in linked],
        [x.type for x in linked],
        [x.data for x in linked],
        [x.previous_hash for x in linked],
        [x.hash for x in linked],
    )


async def _move_stock(connection: Connection, order_id: str, event: e.OrderEvent) -> None:
    assert not isinstance(event, e.InventoryReserved), "stock is reserved by `PostgresOrders.reserve` only"
    if isinstance(event, e.InventoryReleased | e.InventoryShipped):
        await connection.fetch(SQL["lock_reserved_stock"], order_id)
        await connection.execute(
            SQL["release" if isinstance(event, e.InventoryReleased) else "ship"], order_id
        )


async def _adjust(connection: Connection, order: Order) -> None:
    """Put on record the last of an order's price adjustments: its event is the order's last."""
    made = order.adjustments[-1]
    await connection.execute(REPRICING["note"], order.id, json_text(order.adjustments))
    await connection.execute(
        REPRICING["insert"],
        *(order.id, made.replay, made.id, made.price_list, order.version, order.currency),
        *(made.before, made.after, made.at),
    )


async def _move_money(
    connection: Connection, order: Order, events: tuple[e.OrderEvent, ...], first: int, at: datetime
) -> None:
    rows = [
        (sequence, number, transfer.debit, transfer.credit, transfer.amount)
        for sequence, event in enumerate(events, first + 1)
        for number, transfer in enumerate(transfers(event), 1)
    ]
    if rows:
        columns = zip(*rows, strict=True)
        await connection.execute(SQL["insert_transfers"], order.id, order.currency, at, *columns)
