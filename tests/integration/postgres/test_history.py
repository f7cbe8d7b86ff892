"""The log of record: it is only ever written at its end, and whoever forges it is found out."""

import json

import asyncpg
import pytest

from app.domain import commands as c
from tests.integration.postgres.audit import audit
from tests.integration.postgres.shop import Shop, to_complete


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET data = '{}'",
        "UPDATE events SET hash = hash",
        "DELETE FROM events",
        "DELETE FROM events WHERE subject = 'cup'",
        "TRUNCATE events",
        "TRUNCATE events, event_outbox CASCADE",
        "MERGE INTO events e USING events o ON e.hash = o.hash WHEN MATCHED THEN DELETE",
        "WITH gone AS (DELETE FROM events RETURNING 1) SELECT count(*) FROM gone",
    ],
)
async def test_events_are_never_changed_nor_deleted(shop: Shop, statement: str):
    """Not even by a superuser, which is who asks here."""
    await shop.stock("cup", east=1)
    with pytest.raises(asyncpg.RaiseError, match="events are never changed or deleted"):
        await shop.database.execute(statement)


async def test_two_events_never_have_the_same_place(shop: Shop):
    """A second writer who does not hold the row is turned away."""
    await shop.stock("cup", east=1)
    with pytest.raises(asyncpg.UniqueViolationError):
        await shop.database.execute("INSERT INTO events SELECT * FROM events LIMIT 1")


def replaced(old: str, new: str, where: str) -> str:
    """A statement that replaces some text in the data of some events."""
    return f"UPDATE events SET data = replace(data::text, '{old}', '{new}')::json WHERE {where}"


FORGERIES = {
    "an amount": replaced("700", "701", "type = 'payment.captured.v1'"),
    "a price": replaced("700", "1", "type = 'price.changed.v1'"),
    "white space": replaced(":", ": ", "sequence = 3"),
    "a time": "UPDATE events SET time = time - interval '1 microsecond' WHERE sequence = 3",
    "a trace": "UPDATE events SET traceparent = 'forged' WHERE sequence = 3",
    "a correlation": "UPDATE events SET correlation_id = 'forged' WHERE sequence = 3",
    "a type": "UPDATE events SET type = 'payment.voided.v1' WHERE type = 'payment.captured.v1'",
    "a missing event": "DELETE FROM events WHERE sequence = 4",
    "a missing end": "DELETE FROM events WHERE type = 'order.completed.v1'",
    "a forged hash": "UPDATE events SET hash = sha256('forged') WHERE sequence = 5",
}


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
async def test_whoever_gets_round_the_guard_is_found_out(database, forgery: str):
    """The owner of the database can switch triggers off; the hashes cannot be switched off."""
    shop = Shop(database)
    await shop.stock("cup", east=1)
    order = await shop.confirmed(("cup", 1))
    await shop.record(order.id, *to_complete(order))
    await audit(database)
    await database.execute("ALTER TABLE events DISABLE TRIGGER USER")
    assert not (await database.execute(forgery)).endswith(" 0")
    with pytest.raises(AssertionError):
        await audit(database)


async def test_data_is_kept_to_the_letter(shop: Shop):
    """The hash covers the very bytes, so the column must not tidy them up."""
    await shop.stock("cup", east=1)
    order = await shop.reserved(("cup", 1))
    detail = 'a "quoted"  detail with / and \\ and \u00e9 and 1e3'
    await shop.record(order.id, c.RecordIntent("pi"), c.RecordDecline("b", None, detail))
    statement = "SELECT data FROM events WHERE type = 'payment.declined.v1'"
    (row,) = await shop.database.fetch(statement)
    assert row["data"].startswith('{"type":"payment.declined.v1","code":"b","decline_code":null,')
    assert json.loads(row["data"])["detail"] == detail


async def test_every_event_carries_the_correlation_of_its_order(shop: Shop):
    """Whoever recorded it."""
    await shop.stock("cup", east=1)
    order = await shop.confirmed(("cup", 1))
    rows = await shop.database.fetch(
        "SELECT DISTINCT correlation_id FROM events WHERE subject = $1", order.id
    )
    assert [row["correlation_id"] for row in rows] == [order.correlation_id]


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("UPDATE stock SET reserved = on_hand + 1", asyncpg.CheckViolationError),
        ("UPDATE stock SET on_hand = 0", asyncpg.CheckViolationError),
        ("UPDATE stock SET reserved = -1", asyncpg.CheckViolationError),
        ("UPDATE reservations SET quantity = 0", asyncpg.CheckViolationError),
        ("INSERT INTO reservations SELECT * FROM reservations", asyncpg.UniqueViolationError),
        ("DELETE FROM stock", asyncpg.ForeignKeyViolationError),
        ("DELETE FROM products", asyncpg.ForeignKeyViolationError),
        ("DELETE FROM orders", asyncpg.ForeignKeyViolationError),
        ("DELETE FROM orders WHERE status = 'accepted'", asyncpg.ForeignKeyViolationError),
        ("UPDATE products SET amount = -1", asyncpg.CheckViolationError),
        ("UPDATE ledger_transfers SET amount = 0", asyncpg.CheckViolationError),
        ("UPDATE ledger_transfers SET credit = debit", asyncpg.CheckViolationError),
        ("INSERT INTO ledger_transfers SELECT * FROM ledger_transfers", asyncpg.UniqueViolationError),
        ("INSERT INTO idempotency SELECT * FROM idempotency", asyncpg.UniqueViolationError),
        ("INSERT INTO workflow_outbox (order_id, kind) VALUES ('x', 'stop')", asyncpg.CheckViolationError),
    ],
)
async def test_the_database_itself_refuses_what_must_never_be(shop: Shop, statement: str, error: type):
    """Whatever the program believes."""
    await shop.stock("cup", east=5)
    await shop.confirmed(("cup", 1))
    await shop.reserved(("cup", 1))
    with pytest.raises(error):
        await shop.database.execute(statement)
