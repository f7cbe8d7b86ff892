"""Reserving: all lines or none, never more than there is, however many ask at once."""

import random

import pytest

from app.domain import commands as c
from app.domain.errors import Refusal
from app.domain.order import Order, Status, StockStatus
from tests.integration.postgres.interference import deadlocks
from tests.integration.postgres.shop import Shop, at_once, to_complete, to_confirm, to_undo


async def test_fifty_pieces_and_five_hundred_orders(shop: Shop):
    """Fifty get one, four hundred and fifty are rejected by name, and nothing is left over."""
    await shop.stock("cup", east=30, west=20)
    orders = await at_once(shop.accept(("cup", 1)) for _ in range(500))
    answers = await at_once(shop.orders.reserve(order.id) for order in orders)
    reserved = [answer for answer in answers if answer.stock is StockStatus.RESERVED]
    rejected = [answer for answer in answers if answer.status is Status.REJECTED]
    assert (len(reserved), len(rejected)) == (50, 450)
    assert {answer.reason.code for answer in rejected} == {"out_of_stock"}
    assert {answer.reason.skus for answer in rejected} == {("cup",)}
    assert [await shop.shelf("cup", house) for house in ("east", "west")] == [(30, 30), (20, 20)]
    assert (await shop.catalogue.product("cup")).available == 0


async def test_one_order_reserved_fifty_times_at_once_is_reserved_once(shop: Shop):
    """Fifty workers with the same step."""
    await shop.stock("cup", east=50)
    order = await shop.accept(("cup", 2))
    answers = await at_once(shop.orders.reserve(order.id) for _ in range(50))
    assert {answer.version for answer in answers} == {2}
    assert await shop.shelf("cup", "east") == (50, 2)


async def test_one_line_that_is_short_reserves_none(shop: Shop):
    """The order is rejected in the same transaction, and the reason names what is short, all of it."""
    await shop.stock("cup", east=5)
    await shop.stock("spoon", east=1, west=1)
    await shop.stock("knife")
    order = await shop.accept(("cup", 1), ("spoon", 3), ("knife", 1))
    answer = await shop.orders.reserve(order.id)
    assert answer.status is Status.REJECTED
    assert answer.reason.skus == ("knife", "spoon")
    assert await shop.shelf("cup", "east") == (5, 0)
    assert await shop.orders.reserve(order.id) != order


async def test_lines_of_one_sku_are_one_reservation(shop: Shop):
    """Two lines, one shelf, one row."""
    await shop.stock("cup", east=5)
    await shop.reserved(("cup", 2), ("cup", 3))
    assert await shop.shelf("cup", "east") == (5, 5)
    assert await shop.count("reservations") == 1


async def test_several_warehouses_send_what_one_cannot(shop: Shop):
    """As many parcels as it takes, each with what its house has."""
    await shop.stock("cup", east=3, north=1, west=2)
    order = await shop.reserved(("cup", 6))
    sent = [(f.warehouse, [(line.sku, line.quantity) for line in f.lines]) for f in order.fulfilments]
    assert sent == [("east", [("cup", 3)]), ("west", [("cup", 2)]), ("north", [("cup", 1)])]


async def test_an_order_that_is_being_cancelled_reserves_nothing(shop: Shop):
    """The refusal says why, and the shelf stays full."""
    await shop.stock("cup", east=5)
    order = await shop.accept(("cup", 1))
    await shop.record(order.id, c.CancelOrder())
    answer = await shop.orders.reserve(order.id)
    assert isinstance(answer, Refusal)
    assert answer.code == "cancelling"
    assert await shop.shelf("cup", "east") == (5, 0)


async def test_what_was_released_can_be_reserved_by_the_next(shop: Shop):
    """The last piece changes hands."""
    await shop.stock("cup", east=1)
    first, second, third = [await shop.accept(("cup", 1)) for _ in range(3)]
    await shop.orders.reserve(first.id)
    assert (await shop.orders.reserve(second.id)).status is Status.REJECTED
    await shop.record(first.id, c.CancelOrder(), c.ReleaseStock())
    assert (await shop.orders.reserve(third.id)).stock is StockStatus.RESERVED


async def test_what_was_shipped_has_left_the_shelf(shop: Shop):
    """On hand falls, and what others reserved stays theirs."""
    await shop.stock("cup", east=5)
    await shop.reserved(("cup", 1))
    order = await shop.confirmed(("cup", 3))
    await shop.record(order.id, c.ReleaseOrder())
    assert await shop.shelf("cup", "east") == (2, 1)


SKUS = [f"sku-{n}" for n in range(6)]


async def test_nobody_deadlocks_over_the_same_skus_in_any_order(shop: Shop, database_url: str):
    """Orders name them in both directions, are reserved, shipped and given up while others count shelves."""
    dice = random.Random(20260301)
    for sku in SKUS:
        await shop.stock(sku, east=60, west=60)

    async def customer() -> Order:
        lines = [(sku, dice.randint(1, 3)) for sku in dice.sample(SKUS, dice.randint(1, len(SKUS)))]
        order = await shop.accept(*lines)
        answer = await shop.orders.reserve(order.id)
        assert not isinstance(answer, Refusal)
        if answer.status is Status.REJECTED:
            return answer
        if dice.random() < 0.5:
            await shop.record(order.id, c.CancelOrder())
            return await shop.record(order.id, *to_undo(await shop.orders.load(order.id)))
        return await shop.record(order.id, *to_confirm(answer), *to_complete(answer))

    async def clerk(sku: str) -> None:
        for _ in range(8):
            await shop.adjust(sku, dice.choice(["east", "west", "south"]), dice.randint(1, 2))

    customers = [customer() for _ in range(120)]
    clerks = [clerk(sku) for sku in dice.sample(SKUS * 2, 12)]
    answers = await at_once([*customers, *clerks])
    assert [answer for answer in answers if isinstance(answer, BaseException)] == []
    assert {answer.status for answer in answers if answer} <= {
        Status.COMPLETED,
        Status.CANCELLED,
        Status.REJECTED,
    }
    assert await shop.count("reservations") == 0
    assert await deadlocks(database_url) == 0
    await balances(shop, [answer for answer in answers if answer])


async def balances(shop: Shop, orders: list[Order]) -> None:
    """What came in, less what completed orders took, is what is there."""
    gone = dict.fromkeys(SKUS, 0)
    for order in orders:
        if order.status is Status.COMPLETED:
            for line in order.lines:
                gone[line.sku] += line.quantity
    for sku in SKUS:
        rows = await shop.database.fetch("SELECT data->>'delta' AS delta FROM events WHERE subject = $1", sku)
        came = sum(int(row["delta"]) for row in rows if row["delta"])
        (row,) = await shop.database.fetch("SELECT sum(on_hand)::int AS n FROM stock WHERE sku = $1", sku)
        assert row["n"] == came - gone[sku]


@pytest.mark.parametrize("pieces", [0, 1, 2])
async def test_the_last_pieces_go_to_exactly_as_many(shop: Shop, pieces: int):
    """Twenty want the last ones at the same moment."""
    await shop.stock("cup", east=pieces)
    orders = [await shop.accept(("cup", 1)) for _ in range(20)]
    answers = await at_once(shop.orders.reserve(order.id) for order in orders)
    assert sum(answer.stock is StockStatus.RESERVED for answer in answers) == pieces
