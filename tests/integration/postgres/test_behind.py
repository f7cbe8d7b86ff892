"""Which orders a group has not come to the end of: all of them are found, by id and then by time."""

from datetime import UTC, datetime, timedelta

import pytest

from app.infra.postgres.pool import Database
from app.infra.postgres.projections import Place, PostgresProjections
from tests.integration.postgres.shop import Shop

BEGINNING = (datetime(1970, 1, 1, tzinfo=UTC), "")
MARK = """
INSERT INTO marks SELECT 'g', id, version FROM orders WHERE id = ANY ($1)
ON CONFLICT (consumer_group, subject) DO UPDATE SET sequence = excluded.sequence
"""
AGE = "UPDATE orders SET updated_at = updated_at - make_interval(secs => $2) WHERE id = ANY ($1)"


@pytest.fixture
async def shop(database: Database) -> Shop:
    """A shop that is not audited: its clocks are put back."""
    return Shop(database)


@pytest.fixture
async def store(shop: Shop) -> PostgresProjections:
    """The marks of the groups of a shop that sells cups."""
    await shop.stock("cup", east=1000)
    return PostgresProjections(shop.database, "https://holdfast.test")


async def found(
    store: PostgresProjections, after: Place, *, quiet_s: float = 0.0, size: int = 3
) -> list[str]:
    """What one way from a place finds."""
    ids: list[str] = []
    for _ in range(1000):
        page = await store.behind("g", after, quiet_s=quiet_s, page_size_max=size)
        ids += [order.subject for order in page.behind]
        assert page.is_last or page.next > after
        if page.is_last:
            return ids
        after = page.next
    raise AssertionError("the way has no end")


def since(seconds: float) -> Place:
    """A place some seconds ago."""
    return (datetime.now(UTC) - timedelta(seconds=seconds), "")


async def test_from_the_beginning_everything_that_is_behind_is_found(shop: Shop, store: PostgresProjections):
    """However old it is; what the group has seen to its end is not."""
    ids = [(await shop.accept(("cup", 1))).id for _ in range(11)]
    await shop.database.execute(AGE, ids[:6], 86_400.0 * 400)
    assert set(await found(store, BEGINNING)) == set(ids)
    await shop.database.execute(MARK, ids[2:9])
    await shop.orders.reserve(ids[4])
    assert set(await found(store, BEGINNING)) == {*ids[:2], ids[4], *ids[9:]}


async def test_from_a_time_on_only_what_changed_since_is_looked_at(shop: Shop, store: PostgresProjections):
    """In order of the change; several pages, several spans of time."""
    ids = [(await shop.accept(("cup", 1))).id for _ in range(10)]
    for minutes, order_id in enumerate(ids[:5], 1):
        await shop.database.execute(AGE, [order_id], 600.0 * minutes)
    for size in (1, 3, 100):
        assert await found(store, since(300), size=size) == ids[5:]
        assert await found(store, since(1500), size=size) == [ids[1], ids[0], *ids[5:]]


async def test_what_has_just_changed_is_left_alone(shop: Shop, store: PostgresProjections):
    """The streams are about to bring it."""
    ids = [(await shop.accept(("cup", 1))).id for _ in range(4)]
    await shop.database.execute(AGE, ids[:2], 60.0)
    assert set(await found(store, since(3600), quiet_s=30)) == set(ids[:2])
    assert set(await found(store, BEGINNING, quiet_s=30)) == set(ids[:2])
    assert await found(store, since(-3600), quiet_s=30) == []


async def test_what_changes_behind_the_walker_is_found_at_the_end_of_the_way(
    shop: Shop, store: PostgresProjections
):
    """The way by id has passed it already; however long the walker rests, his place knows since when."""
    ids = [(await shop.accept(("cup", 1))).id for _ in range(8)]
    await shop.database.execute(MARK, ids)
    page = await store.behind("g", BEGINNING, quiet_s=0, page_size_max=4)
    assert (page.behind, page.is_last) == ((), False)
    await shop.orders.reserve(ids[0])
    assert await found(store, page.next, size=4) == [ids[0]]


async def test_a_time_is_looked_up_in_the_index(shop: Shop, store: PostgresProjections):
    """The last minutes of a large shop are a small part of it."""
    async with shop.database.transaction() as connection:
        await connection.execute("SET LOCAL enable_seqscan = off")
        plan = await connection.fetch("EXPLAIN SELECT id FROM orders WHERE updated_at >= now()")
    assert any("orders_by_update" in row[0] for row in plan)
