"""Events lie in partitions, one a month: made of what was there, made ahead, made for what was caught."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from app.consumer.partitions import make_partitions
from app.consumer.patience import Patience
from app.domain.errors import Unavailable
from app.infra.postgres import event_outbox
from app.infra.postgres.event_outbox import open_outbox
from app.infra.postgres.migrate import migrate, migrations, worded
from app.infra.postgres.partitions import PostgresPartitions, not_before, partitions
from app.infra.postgres.pool import Connection, Database
from tests.integration.postgres.past import prices, store, verified
from tests.integration.postgres.shop import Shop

BY_MONTH = 10
"""The number of the migration that brought partitions."""
THIS_MONTH = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def month(number: int) -> datetime:
    """The beginning of the month so many months from this one."""
    months = THIS_MONTH.year * 12 + THIS_MONTH.month - 1 + number
    return THIS_MONTH.replace(year=months // 12, month=months % 12 + 1)


def name(number: int) -> str:
    """The partition of the month so many months from this one."""
    return f"events_{month(number):%Y_%m}"


async def places(connection: Connection) -> list[tuple[str, int, str]]:
    """Each event with the partition it lies in."""
    rows = await connection.fetch(
        "SELECT subject, sequence, tableoid::regclass::text AS part FROM events ORDER BY subject, sequence"
    )
    return [tuple(row) for row in rows]


@pytest.fixture
async def older(empty_database_url: str) -> AsyncIterator[Connection]:
    """A database of the release before, with nothing in it."""
    connection = await asyncpg.connect(empty_database_url)
    columns = "version integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL"
    await connection.execute(f"CREATE TABLE schema_migrations ({columns})")
    for number, file, sql in migrations():
        if number < BY_MONTH:
            await connection.execute(worded(number, sql, connection.get_server_version().major))
            await connection.execute(
                "INSERT INTO schema_migrations VALUES ($1, $2, $3)",
                number, file, hashlib.sha256(sql.encode()).hexdigest(),
            )  # fmt: skip
    yield connection
    await connection.close()


@pytest.mark.parametrize(
    ("times", "first"),
    [
        ([], name(0)),
        ([THIS_MONTH, THIS_MONTH + timedelta(hours=1)], name(0)),
        ([month(-7), month(-1), THIS_MONTH], f"events_until_{THIS_MONTH:%Y_%m}"),
        ([month(-2), month(1)], f"events_until_{month(1):%Y_%m}"),
    ],
    ids=["none", "this month", "many months", "the future"],
)
async def test_events_of_the_earlier_schema_are_the_first_partition(
    older: Connection, empty_database_url: str, times: list[datetime], first: str
):
    """As they lie there, byte by byte; and everything that reads and guards them goes on."""
    if times:
        await store(older, prices("cup", 1, times))
    before = await older.fetch("SELECT *, ctid FROM events ORDER BY sequence")
    watching = await older.prepare("SELECT count(*) FROM events")
    await watching.fetchval()
    await migrate(empty_database_url)
    assert await older.fetch("SELECT *, ctid FROM events ORDER BY sequence") == before
    assert {part for *_, part in await places(older)} <= {first}
    assert (await partitions(older))[0].name == first
    assert await watching.fetchval() == len(times)  # a statement that an older process prepared
    assert (await verified(older)).is_whole
    if times:
        with pytest.raises(asyncpg.UniqueViolationError):
            await older.execute("INSERT INTO events SELECT * FROM events LIMIT 1")


async def test_the_next_three_months_are_there(other: Connection):
    """After a migration, and for longer with every month that begins."""
    found = await partitions(other)
    assert [p.name for p in found] == [name(0), name(1), name(2), name(3), "events_default"]
    assert [(p.begins, p.ends) for p in found[:2]] == [(month(0), month(1)), (month(1), month(2))]
    assert (found[-1].begins, found[-1].ends) == (None, None)


async def test_no_event_is_refused_and_what_the_net_has_caught_is_moved(
    database: Database, other: Connection
):
    """Months long gone and far ahead get their partitions; a clock that is quite wrong stays in the net."""
    await store(other, prices("cup", 1, [month(-300), month(-5), month(-1), month(0), month(9), month(300)]))
    caught = {sequence for _, sequence, part in await places(other) if part == "events_default"}
    assert caught == {1, 2, 3, 5, 6}
    made = await PostgresPartitions(database).make()
    assert made == [name(-5), name(-1), name(9)]
    there = [part for *_, part in await places(other)]
    assert there == ["events_default", name(-5), name(-1), name(0), name(9), "events_default"]
    assert (await verified(other)).is_whole
    assert await PostgresPartitions(database).make() == []
    assert await other.fetchval("SELECT to_regclass('events_caught')") is None


@pytest.mark.parametrize("statement", ["UPDATE {} SET hash = hash", "DELETE FROM {}", "TRUNCATE {}"])
async def test_no_partition_can_be_changed(database: Database, other: Connection, statement: str):
    """The first, one made ahead, one made for what was caught, and the net, old and new."""
    await store(other, prices("cup", 1, [month(-300), month(-5), month(0), month(1)]))
    for part in (
        "events_default",
        *await PostgresPartitions(database).make(),
        name(0),
        name(1),
        "events_default",
    ):
        with pytest.raises(asyncpg.RaiseError, match="never changed or deleted"):
            await other.execute(statement.format(part))
    with pytest.raises(asyncpg.RaiseError, match="never changed or deleted"):
        await other.execute(f"INSERT INTO {name(0)} SELECT * FROM {name(0)} "
                            "ON CONFLICT (subject, sequence) DO UPDATE SET data = '{}'")  # fmt: skip


async def test_whoever_holds_the_net_is_not_waited_for_and_nothing_is_half_moved(
    database: Database, other: Connection
):
    """It is tried again later; what was caught is where it was."""
    await store(other, prices("cup", 1, [month(-5)]))
    async with other.transaction():
        await other.execute("SELECT FROM events_default")
        with pytest.raises(Unavailable):
            await PostgresPartitions(database).make()
    assert [part for *_, part in await places(other)] == ["events_default"]
    assert await PostgresPartitions(database).make() == [name(-5)]


async def test_many_at_once_make_them_once(database: Database, other: Connection):
    """Each consumer may try: one does it, nobody fails for it."""
    await store(other, prices("cup", 1, [month(-5)]))
    made = await asyncio.gather(*(PostgresPartitions(database).make() for _ in range(5)))
    assert sorted(made) == [[], [], [], [], [name(-5)]]


async def test_a_sequence_twice_in_different_months_is_found_by_the_audit(other: Connection):
    """No index sees it; the lock of the subject's row prevents it, and whoever did without is found out."""
    (first, _) = events = prices("cup", 1, [month(-1), month(0)])
    await store(other, events)
    (again,) = prices("cup", 9, [month(0) + timedelta(hours=1)])
    assert again.sequence == first.sequence
    await store(other, [again], head=False)
    assert ("doubled", "cup") in {(x.kind, x.subject) for x in (await verified(other)).found}


async def test_reading_an_order_spares_the_months_before_it(database: Database, other: Connection):
    """Its id says when it was made. Of a SKU nobody knows that."""
    shop = Shop(database)
    await store(other, prices("bowl", 1, [month(-3), month(-2)]))
    await PostgresPartitions(shop.database).make()
    await shop.stock("cup", east=1)
    order = await shop.accept(("cup", 1))
    assert not_before(order.id) > order.created_at - timedelta(days=2)
    assert not_before(order.id, "cup") == not_before("cup") < month(-3)
    plan = await other.fetch(
        "EXPLAIN SELECT * FROM events WHERE subject = $1 AND time >= $2", order.id, not_before(order.id)
    )
    assert name(-3) not in str(plan)
    assert name(0) in str(plan)


async def test_the_relay_finds_what_happened_long_ago(shop: Shop, database_url: str, monkeypatch):
    """It looks at the last day first; what waits longer, or comes from another clock, is not left behind."""
    await shop.stock("cup", east=1)
    monkeypatch.setattr(event_outbox, "LATELY", timedelta(0))
    await shop.accept(("cup", 1))
    async with open_outbox(database_url, "holdfast") as outbox:
        batch = await outbox.waiting(10)
    found = [event.envelope.type for event in batch.events]
    assert found == ["price.changed.v1", "inventory.adjusted.v1", "order.accepted.v1"]


async def test_orders_are_taken_while_partitions_are_made(database: Database, other: Connection):
    """They wait for milliseconds; none of them fails, and none is lost."""
    shop = Shop(database)
    await shop.stock("cup", east=100)

    async def take() -> None:
        for _ in range(10):
            await shop.accept(("cup", 1))

    async def catch() -> None:
        for number in range(5):
            await store(other, prices(f"bowl{number}", 1, [month(-9 + number)]))
            assert await PostgresPartitions(database).make() == [name(-9 + number)]

    await asyncio.gather(take(), take(), take(), catch())
    assert await shop.count("orders") == 30
    assert (await verified(other)).is_whole


async def test_the_consumer_makes_them(database: Database, other: Connection):
    """The relay's leader does, again and again."""
    await store(other, prices("cup", 1, [month(-5)]))
    making = asyncio.create_task(make_partitions(PostgresPartitions(database), Patience("test")))
    async with asyncio.timeout(60):
        while [part for *_, part in await places(other)] != [name(-5)]:
            assert not making.done()
            await asyncio.sleep(0.01)
    making.cancel()
