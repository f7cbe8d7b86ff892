"""What may still be promised: on hand, less what is reserved, less what accepted orders wait for."""

import pytest

from app.domain import commands as c
from app.infra.postgres.pool import Database
from app.infra.postgres.shelves import PostgresShelves
from tests.integration.postgres.shop import Shop, to_complete, to_confirm, to_undo

MANY = """
INSERT INTO products (sku, name, amount, currency)
SELECT 'many-' || n, 'x', 1, 'USD' FROM generate_series(1, $1) n
"""
MANY_SHELVES = """
INSERT INTO stock SELECT 'many-' || n, house, 10, 3
FROM generate_series(1, $1) n, unnest(array['east', 'west']) house
"""


@pytest.fixture
def shelves(database: Database) -> PostgresShelves:
    """The shelves of the shop."""
    return PostgresShelves(database)


async def test_every_step_of_an_order_leaves_the_right_number(shop: Shop, shelves: PostgresShelves):
    """An order counts once, from the moment it is accepted until it is given up."""
    await shop.stock("cup", east=6, west=4)
    assert await shelves.available(["cup"]) == {"cup": 10}
    order = await shop.accept(("cup", 2), ("cup", 1))
    assert await shelves.available(["cup"]) == {"cup": 7}
    answer = await shop.orders.reserve(order.id)
    assert await shelves.available(["cup"]) == {"cup": 7}
    await shop.record(order.id, *to_confirm(answer), *to_complete(answer))
    assert await shelves.available(["cup"]) == {"cup": 7}
    given_up = await shop.reserved(("cup", 2))
    await shop.record(given_up.id, c.CancelOrder())
    assert await shelves.available(["cup"]) == {"cup": 5}
    await shop.record(given_up.id, *to_undo(await shop.orders.load(given_up.id)))
    cancelled = await shop.accept(("cup", 7))
    assert await shelves.available(["cup"]) == {"cup": 0}
    await shop.record(cancelled.id, c.CancelOrder())
    assert await shelves.available(["cup"]) == {"cup": 7}


async def test_more_may_be_wanted_than_there_is(shop: Shop, shelves: PostgresShelves):
    """Never below nothing; rejected orders want nothing any more."""
    await shop.stock("cup", east=1)
    orders = [await shop.accept(("cup", 2)) for _ in range(3)]
    assert await shelves.available(["cup"]) == {"cup": 0}
    for order in orders:
        await shop.orders.reserve(order.id)
    assert await shelves.available(["cup"]) == {"cup": 1}


async def test_all_skus_or_some(shop: Shop, shelves: PostgresShelves):
    """Without a shelf it is nothing; what does not exist is left out; nobody at all is nothing at all."""
    assert await shelves.available() == {}
    assert await shelves.available([]) == {}
    await shop.stock("cup", east=3)
    await shop.stock("spoon", east=1, west=1)
    await shop.stock("knife")
    await shop.accept(("cup", 1), ("spoon", 1))
    assert await shelves.available() == {"cup": 2, "spoon": 1, "knife": 0}
    assert await shelves.available(["knife", "spoon", "fork", "spoon"]) == {"spoon": 1, "knife": 0}


async def test_many_skus_are_one_question(database: Database, shelves: PostgresShelves):
    """Two shelves each."""
    await database.execute(MANY, 20_000)
    await database.execute(MANY_SHELVES, 20_000)
    found = await shelves.available()
    assert len(found) == 20_000
    assert set(found.values()) == {14}
