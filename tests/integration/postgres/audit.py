"""The audit: what must hold in a database at any moment, computed from the rows alone."""

from collections import Counter
from datetime import datetime

import msgspec

from app.domain import events as e
from app.domain.chain import link
from app.domain.ledger import Account
from app.domain.order import Order, Status, StockStatus, evolve
from app.domain.payment import Payment, PaymentStatus
from app.infra.postgres.order_rows import order_from
from app.infra.postgres.pool import Connection, Database


async def audit(database: Database) -> None:
    """Every order, chain, shelf, account and outbox agrees with the others."""
    async with database.transaction() as connection:
        # One moment for all: others may be writing.
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        orders = {
            row["id"]: (order_from(row), row["last_hash"])
            for row in await connection.fetch("SELECT * FROM orders")
        }
        await _chains(connection, orders)
        await _stock(connection, [order for order, _ in orders.values()])
        await _money(connection, [order for order, _ in orders.values()])
        await _adjustments(connection, [order for order, _ in orders.values()])
        await _outboxes(connection, set(orders))


async def _chains(connection: Connection, orders: dict[str, tuple[Order, bytes]]) -> None:
    """Sequences without gaps, hashes that follow, heads that match, and events that tell the order."""
    histories: dict[str, list] = {}
    for row in await connection.fetch("SELECT * FROM events ORDER BY subject, sequence"):
        histories.setdefault(row["subject"], []).append(row)
    heads = {id: (order.version, last_hash) for id, (order, last_hash) in orders.items()}  # noqa: A001
    for row in await connection.fetch("SELECT sku, version, last_hash FROM products WHERE version > 0"):
        heads[row["sku"]] = (row["version"], row["last_hash"])
    assert set(histories) == set(heads)
    for subject, history in histories.items():
        previous = None
        for sequence, row in enumerate(history, 1):
            assert (row["sequence"], row["previous_hash"]) == (sequence, previous), subject
            parts = (row["type"], row["time"], row["correlation_id"], row["traceparent"], row["data"])
            previous = link(previous, subject, sequence, *parts)
            assert row["hash"] == previous, subject
        assert heads[subject] == (len(history), previous), subject
        times = [row["time"] for row in history]
        assert times == sorted(times), subject
        if subject in orders:
            _tell(orders[subject][0], [row["data"] for row in history], times)


def _tell(order: Order, history: list[str], times: list[datetime]) -> None:
    """The events from the first one on give the order that the row holds."""
    accepted, *following = (msgspec.json.decode(data, type=e.OrderEvent) for data in history)
    assert isinstance(accepted, e.OrderAccepted)
    begun = Order(
        id=order.id,
        customer_id=accepted.customer_id,
        status=Status.ACCEPTED,
        currency=accepted.currency,
        lines=tuple(e.Line(x.sku, x.quantity, x.unit_price.amount, x.amount.amount) for x in accepted.lines),
        total=accepted.total.amount,
        payment=Payment(PaymentStatus.PENDING if accepted.total.amount else PaymentStatus.NOT_REQUIRED),
        payment_method=order.payment_method,
        correlation_id=order.correlation_id,
        created_at=order.created_at,
        updated_at=order.created_at,
        metadata=order.metadata,
        version=1,
    )
    told = begun
    for event, at in zip(following, times[1:], strict=True):
        told = evolve(told, event, at)
    # What is remembered beside the events: notes with the provider, what it waits for, and since when.
    payment = msgspec.structs.replace(
        told.payment, intent=order.payment.intent, key_number=order.payment.key_number
    )
    notes = {"payment": payment, "waiting_on": order.waiting_on, "updated_at": order.updated_at}
    assert msgspec.structs.replace(told, **notes) == order
    assert order.status is not Status.ACTION_REQUIRED


async def _stock(connection: Connection, orders: list[Order]) -> None:
    """What is reserved is what orders hold, and never more than there is."""
    held: Counter[tuple[str, str, str]] = Counter()
    for order in orders:
        if order.stock is StockStatus.RESERVED:
            for parcel in order.fulfilments:
                for line in parcel.lines:
                    held[order.id, line.sku, parcel.warehouse] += line.quantity
    rows = await connection.fetch("SELECT order_id, sku, warehouse, quantity FROM reservations")
    assert held == {(row["order_id"], row["sku"], row["warehouse"]): row["quantity"] for row in rows}
    shelves: Counter[tuple[str, str]] = Counter()
    for (_, sku, warehouse), quantity in held.items():
        shelves[sku, warehouse] += quantity
    for row in await connection.fetch("SELECT * FROM stock"):
        assert row["reserved"] == shelves[row["sku"], row["warehouse"]]
        assert 0 <= row["reserved"] <= row["on_hand"]


async def _money(connection: Connection, orders: list[Order]) -> None:
    """Debits equal credits, and each order's accounts say what its payment says."""
    rows = await connection.fetch("SELECT order_id, currency, account, debit, credit FROM ledger_entries")
    balances: Counter[tuple[str, str]] = Counter()
    currencies: Counter[str] = Counter()
    for row in rows:
        balances[row["order_id"], row["account"]] += row["debit"] - row["credit"]
        currencies[row["currency"]] += row["debit"] - row["credit"]
    assert not any(currencies.values())
    for order in orders:
        assert balances[order.id, Account.AUTHORIZATIONS] == order.payment.authorized
        taken = order.payment.captured - order.payment.refunded
        assert balances[order.id, Account.PROVIDER_BALANCE] == -balances[order.id, Account.REVENUE] == taken


async def _adjustments(connection: Connection, orders: list[Order]) -> None:
    """Every adjustment that an order knows is on record, and no other."""
    known = {
        (order.id, made.replay): (made.id, made.before, made.after, made.difference, made.at)
        for order in orders
        for made in order.adjustments
    }
    rows = await connection.fetch("SELECT * FROM price_adjustments")
    assert known == {
        (row["order_id"], row["replay_id"]): (
            *(row["id"], row["total_before"], row["total_after"], row["difference"], row["created_at"]),
        )
        for row in rows
    }


async def _outboxes(connection: Connection, orders: set[str]) -> None:
    """Each event waits to be published, in order, once; each order's workflow waits to be started, once."""
    rows = await connection.fetch("SELECT subject, sequence FROM event_outbox ORDER BY position")
    waiting: dict[str, list[int]] = {}
    for row in rows:
        waiting.setdefault(row["subject"], []).append(row["sequence"])
    for subject, sequences in waiting.items():
        assert sequences == list(range(1, len(sequences) + 1)), subject
    assert len(rows) == await connection.fetchval("SELECT count(*) FROM events")
    starts = await connection.fetch("SELECT order_id FROM workflow_outbox WHERE kind = 'start'")
    assert sorted(row["order_id"] for row in starts) == sorted(orders)
