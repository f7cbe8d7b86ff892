"""Reserving many orders at once: one transaction for all, and for each what it would get alone."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from app.domain import commands as c
from app.domain.errors import Refusal, Unavailable
from app.domain.order import Order, Status, StockStatus
from app.infra.postgres.orders import PostgresOrders
from app.infra.postgres.pool import Database
from tests.integration.postgres.audit import audit
from tests.integration.postgres.interference import begun, deadlocks, holding, kill
from tests.integration.postgres.shop import CONNECTIONS, Shop, at_once, to_undo

HOLD = "SELECT 1 FROM orders WHERE id = $1 FOR NO KEY UPDATE"
SHELF = "SELECT 1 FROM stock WHERE sku = $1 FOR NO KEY UPDATE"
TRANSACTIONS = "SELECT count(DISTINCT xmin::text) FROM reservations"


@pytest.fixture
async def workers(database_url: str) -> AsyncIterator[list[PostgresOrders]]:
    """Three processes' worth of pools."""
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(3):
            database = await Database(database_url, size=CONNECTIONS // 3, name="test").open()
            stack.push_async_callback(database.close)
            opened.append(PostgresOrders(database))
        yield opened


async def reserve_all(orders: PostgresOrders, wanted: list[Order]) -> list[Order | Refusal | BaseException]:
    """What becomes of them when they ask in one moment."""
    return await asyncio.gather(*(orders.reserve(order.id) for order in wanted), return_exceptions=True)


def reserved(answers: list[Order | Refusal | BaseException]) -> list[int]:
    """Which of them have their stock."""
    return [n for n, x in enumerate(answers) if isinstance(x, Order) and x.stock is StockStatus.RESERVED]


class Announcements:
    """Counts how often it is said that there are events."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        """There may be some."""
        self.count += 1


async def test_orders_of_one_moment_share_a_transaction(shop: Shop):
    """And the announcement that there are events."""
    announced = Announcements()
    await shop.stock("cup", east=500, west=500)
    await shop.stock("spoon", east=500)
    wanted = [await shop.accept(("cup", 2), *([("spoon", 1)] if n % 2 else [])) for n in range(100)]
    answers = await reserve_all(PostgresOrders(shop.database, announced), wanted)
    assert reserved(answers) == list(range(100))
    assert await shop.shelf("cup", "east") == (500, 200)
    assert await shop.shelf("spoon", "east") == (500, 50)
    assert (await shop.database.fetch(TRANSACTIONS))[0]["count"] == 1
    assert announced.count == 1


async def test_whoever_came_first_gets_the_last_pieces(shop: Shop):
    """In order of arrival; whoever wants more than is left leaves it to those behind him."""
    await shop.stock("cup", east=4, west=3)
    pieces = [2, 3, 4, 1, 2, 1]
    wanted = [await shop.accept(("cup", n)) for n in pieces]
    answers = await reserve_all(shop.orders, wanted)
    assert reserved(answers) == [0, 1, 3, 5]
    assert {answers[n].status for n in (2, 4)} == {Status.REJECTED}
    assert {answers[n].reason.skus for n in (2, 4)} == {("cup",)}
    assert [await shop.shelf("cup", house) for house in ("east", "west")] == [(4, 4), (3, 3)]
    assert (await shop.database.fetch(TRANSACTIONS))[0]["count"] == 1


async def test_each_gets_what_he_would_get_alone(shop: Shop):
    """New, twice in one batch, done already, being cancelled, rejected, unknown."""
    await shop.stock("cup", east=100)
    new, twice, cancelled = [await shop.accept(("cup", 1)) for _ in range(3)]
    rejected = await shop.accept(("cup", 101))
    done = await shop.reserved(("cup", 1))
    await shop.record(cancelled.id, c.CancelOrder())
    ids = [new.id, twice.id, twice.id, done.id, cancelled.id, rejected.id, rejected.id, "ord_x"]
    announced = Announcements()
    orders = PostgresOrders(shop.database, announced)
    answers = await asyncio.gather(*map(orders.reserve, ids), return_exceptions=True)
    assert announced.count == 1
    assert reserved(answers) == [0, 1, 2, 3]
    assert answers[1] == answers[2]
    assert answers[3] == done
    assert [answers[4].code, answers[6].code] == ["cancelling", "not-now"]
    assert answers[5].status is Status.REJECTED
    assert isinstance(answers[7], LookupError)
    assert await shop.shelf("cup", "east") == (100, 3)


@pytest.mark.parametrize(
    "spoil",
    [
        """UPDATE orders SET lines = '[{"sku": "cup"}]' WHERE id = $1""",
        "INSERT INTO reservations VALUES ($1, 'cup', 'east', 9)",
    ],
    ids=["unreadable", "unwritable"],
)
async def test_an_order_with_a_defect_is_a_failure_of_its_own(database: Database, spoil: str):
    """The others get their stock, in the same moment."""
    shop = Shop(database)
    await shop.stock("cup", east=100)
    wanted = [await shop.accept(("cup", 1)) for _ in range(20)]
    await database.execute(spoil, wanted[11].id)
    answers = await reserve_all(shop.orders, wanted)
    assert reserved(answers) == [n for n in range(20) if n != 11]
    assert isinstance(answers[11], Exception)
    assert not isinstance(answers[11], Unavailable)
    assert await shop.shelf("cup", "east") == (100, 19)


async def test_an_order_that_somebody_holds_makes_only_its_own_caller_wait(shop: Shop, other):
    """He gets his answer when it is free."""
    await shop.stock("cup", east=100)
    wanted = [await shop.accept(("cup", 1)) for _ in range(10)]
    async with holding(other, HOLD, wanted[4].id):
        tasks = [asyncio.create_task(shop.orders.reserve(order.id)) for order in wanted]
        answers = await asyncio.gather(*tasks[:4], *tasks[5:])
        assert len(reserved(answers)) == 9
        await begun(other, tasks[4])
    assert (await tasks[4]).stock is StockStatus.RESERVED


async def test_a_batch_that_is_killed_has_done_nothing(shop: Shop, other):
    """Everybody hears that it cannot be now; asking again does it."""
    await shop.stock("cup", east=100)
    wanted = [await shop.accept(("cup", 1)) for _ in range(30)]
    async with holding(other, SHELF, "cup"):
        waiting = await begun(other, reserve_all(shop.orders, wanted))
        assert await kill(other)
        answers = await waiting
    assert all(isinstance(answer, Unavailable) for answer in answers)
    assert await shop.shelf("cup", "east") == (100, 0)
    await audit(shop.database)
    assert len(reserved(await reserve_all(shop.orders, wanted))) == 30


async def test_pieces_that_go_while_we_think_are_not_sold_twice(shop: Shop, other):
    """The shelves were read without a lock: where something is gone by then, all is decided anew."""
    await shop.stock("cup", east=10)
    await shop.stock("spoon", east=10)
    wanted = [await shop.accept(("cup", 1), ("spoon", 1)) for _ in range(10)]
    transaction = other.transaction()
    await transaction.start()
    await other.execute("UPDATE stock SET on_hand = 7 WHERE sku = 'cup'")
    waiting = await begun(other, reserve_all(shop.orders, wanted))
    await transaction.commit()
    answers = await waiting
    assert reserved(answers) == list(range(7))
    assert {answers[n].reason.skus for n in (7, 8, 9)} == {("cup",)}
    assert [await shop.shelf(sku, "east") for sku in ("cup", "spoon")] == [(7, 7), (10, 7)]


SKUS = [f"sku-{n}" for n in range(5)]


@pytest.mark.parametrize("seed", range(3))
async def test_three_processes_never_oversell_and_never_deadlock(
    shop: Shop, workers: list[PostgresOrders], database_url: str, seed: int
):
    """Orders of everything in every order, reserved by all at once, cancelled meanwhile, too few pieces."""
    dice = random.Random(seed)
    for sku in SKUS:
        await shop.stock(sku, price=0, east=40, west=20)
    lines = [
        [(sku, dice.randint(1, 3)) for sku in dice.sample(SKUS, dice.randint(1, len(SKUS)))]
        for _ in range(240)
    ]
    orders = await asyncio.gather(*(shop.accept(*wanted) for wanted in lines))

    async def customer(order: Order) -> Order:
        asked = [worker.reserve(order.id) for worker in dice.sample(workers, dice.randint(1, 2))]
        if dice.random() < 0.3:
            asked.append(dice.choice(workers).record(order.id, c.CancelOrder()))
        dice.shuffle(asked)
        for answer in await asyncio.gather(*asked):
            assert isinstance(answer, Order | Refusal), answer
        after = await shop.orders.load(order.id)
        if after.status is Status.CANCELLING:
            return await shop.record(order.id, *to_undo(after))
        return after

    ended = await at_once(map(customer, orders))
    assert [order for order in ended if isinstance(order, BaseException)] == []
    assert await deadlocks(database_url) == 0
    kept = [order for order in ended if order.stock is StockStatus.RESERVED]
    turned_away = [order for order in ended if order.status is Status.REJECTED]
    assert kept
    assert turned_away
    for sku in SKUS:
        held = sum(line.quantity for order in kept for line in order.lines if line.sku == sku)
        shelves = [await shop.shelf(sku, house) for house in ("east", "west")]
        assert sum(reserved for _, reserved in shelves) == held <= 60


async def test_one_sku_and_three_processes(shop: Shop, workers: list[PostgresOrders], database_url: str):
    """Fifty pieces, six hundred orders: fifty sold, by all three."""
    await shop.stock("cup", east=20, west=30)
    orders = await asyncio.gather(*(shop.accept(("cup", 1)) for _ in range(600)))
    answers = await asyncio.gather(
        *(workers[n % 3].reserve(order.id) for n, order in enumerate(orders)), return_exceptions=True
    )
    assert len(reserved(answers)) == 50
    assert sum(isinstance(x, Order) and x.status is Status.REJECTED for x in answers) == 550
    assert await deadlocks(database_url) == 0


async def test_stock_is_reserved_by_reserving_only(shop: Shop):
    """A record of a reservation that nobody made would be a lie."""
    await shop.stock("cup", east=1)
    order = await shop.accept(("cup", 1))
    plan = (await shop.orders.reserve((await shop.accept(("cup", 1))).id)).fulfilments[0].plan
    with pytest.raises(AssertionError, match="reserved by"):
        await shop.orders.record(order.id, c.RecordReservation((plan,)))
