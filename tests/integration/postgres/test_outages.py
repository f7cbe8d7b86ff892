"""PostgreSQL goes away in the middle: `Unavailable`, nothing half done, and it works again by itself."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

import asyncpg
import pytest

from app.domain import commands as c
from app.domain.errors import Refusal, Unavailable
from app.domain.order import Order, Status
from app.infra.postgres.orders import record
from app.infra.postgres.pool import Database
from tests.integration.postgres.audit import audit
from tests.integration.postgres.interference import begun, holding, kill
from tests.integration.postgres.shop import Shop, to_complete, to_confirm, to_undo

HOLD = "SELECT 1 FROM orders WHERE id = $1 FOR UPDATE"


async def test_a_connection_killed_while_it_waits_is_unavailable_and_nothing_happened(shop: Shop, other):
    """The next one works: the pool replaces what is dead."""
    await shop.stock("cup", east=5)
    order = await shop.reserved(("cup", 1))
    async with holding(other, HOLD, order.id):
        waiting = await begun(other, shop.orders.record(order.id, c.CancelOrder()))
        assert await kill(other)
        with pytest.raises(Unavailable) as away:
            await waiting
    assert away.value.service == "postgres"
    assert await shop.orders.load(order.id) == order
    assert (await shop.record(order.id, c.CancelOrder())).status is Status.CANCELLING


async def test_a_connection_killed_between_two_statements_leaves_nothing_half_done(shop: Shop, other):
    """State, events, stock and ledger were written, the commit was not."""
    await shop.stock("cup", east=5)
    order = await shop.confirmed(("cup", 1))

    async def release() -> None:
        async with shop.database.transaction() as connection:
            released = await record(connection, order.id, c.ReleaseOrder())
            assert not isinstance(released, Refusal)
            await kill(other)

    with pytest.raises(Unavailable):
        await release()
    assert await shop.orders.load(order.id) == order
    assert await shop.shelf("cup", "east") == (5, 1)
    await audit(shop.database)


async def test_an_accept_that_is_killed_accepted_nothing(shop: Shop, other):
    """The caller asks again with the same key, and gets an order."""
    await shop.stock("cup", east=5)
    async with holding(other, "LOCK TABLE event_outbox IN EXCLUSIVE MODE"):
        waiting = await begun(other, shop.accept(("cup", 1)))
        await kill(other)
        with pytest.raises(Unavailable):
            await waiting
    assert await shop.count("orders") == 0
    assert await shop.count("idempotency WHERE route = 'POST /v1/orders'") == 0
    assert (await shop.accept(("cup", 1))).version == 1


async def test_orders_that_are_killed_again_and_again_come_to_their_ends(shop: Shop, other):
    """Each step is asked until it is answered, while connections die under it."""
    await shop.stock("cup", east=100, west=100)
    dice = random.Random(11)
    failures = 0

    async def patiently(ask: Callable[[], Awaitable[Order | Refusal]]) -> Order:
        nonlocal failures
        while True:
            try:
                answer = await ask()
            except Unavailable:
                failures += 1
            else:
                assert not isinstance(answer, Refusal), answer
                return answer

    async def carry(order: Order) -> Order:
        order = await patiently(partial(shop.orders.reserve, order.id))
        ahead = [c.CancelOrder()] if dice.random() < 0.3 else to_complete(order)
        for step in (*to_confirm(order), *ahead):
            order = await patiently(partial(shop.orders.record, order.id, step))
        for step in to_undo(order) if order.status is Status.CANCELLING else ():
            order = await patiently(partial(shop.orders.record, order.id, step))
        return order

    async def murder() -> None:
        for _ in range(60):
            await kill(other, dice.randint(1, 3))
            await asyncio.sleep(dice.uniform(0, 0.02))

    orders = [await shop.accept(("cup", 2)) for _ in range(30)]
    ended = (await asyncio.gather(murder(), *map(carry, orders)))[1:]
    assert {order.status for order in ended} == {Status.COMPLETED, Status.CANCELLED}
    assert failures > 0
    completed = sum(order.status is Status.COMPLETED for order in ended)
    (row,) = await shop.database.fetch("SELECT sum(on_hand)::int AS n FROM stock")
    assert row["n"] == 200 - 2 * completed


async def test_a_key_that_is_asked_while_connections_die_is_one_order(shop: Shop, other):
    """The answer to the commit may be lost: asking again finds out what happened."""
    await shop.stock("cup", east=5)
    order, event = await shop.placed(("cup", 1))
    request, answer = shop.request(), shop.answer(order)
    asking = True

    async def ask() -> bool:
        try:
            given = await shop.intake.accept(request, order, event, answer, address=None, traceparent=None)
        except Unavailable:
            return False
        assert (given.status, given.location, given.body) == (answer.status, answer.location, answer.body)
        return True

    async def murder() -> None:
        while asking:
            await kill(other)
            await asyncio.sleep(dice.uniform(0, longest_s))

    dice, longest_s = random.Random(13), 0.03
    murderer = asyncio.create_task(murder())
    answered = Counter[bool]()
    while min(answered[True], answered[False]) < 10:
        is_answered = await ask()
        answered[is_answered] += 1
        longest_s *= 0.9 if is_answered else 1.1  # how long an answer takes depends on the machine: aim at it
    asking = False
    await murderer
    assert await ask()
    assert await shop.count("orders") == 1


async def test_a_server_that_is_not_there_is_unavailable():
    """Nothing listens at port 1."""
    database = await Database("postgresql://nobody@127.0.0.1:1/none", size=1, name="test").open()
    with pytest.raises(Unavailable, match="postgres"):
        await database.is_well()
    await database.close()


async def test_a_pool_that_is_exhausted_is_unavailable_within_seconds(database_url: str):
    """A short no is worth more than a long wait."""
    database = await Database(database_url, size=1, name="test").open()
    async with database.connection():
        with pytest.raises(Unavailable):
            await database.is_well()
    assert await database.is_well()
    await database.close()


async def test_waiting_for_somebody_elses_lock_has_an_end(shop: Shop, other):
    """A row that somebody holds for ever stops nobody else for ever."""
    await shop.stock("cup", east=5)
    order = await shop.reserved(("cup", 1))
    async with shop.database.connection() as connection, holding(other, HOLD, order.id):
        await connection.execute("SET lock_timeout = '50ms'")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await connection.execute(HOLD, order.id)
        await connection.execute("RESET lock_timeout")
        assert await connection.fetchval("SHOW lock_timeout") == "5s"


@pytest.mark.parametrize(
    "error",
    [
        "ADMIN_SHUTDOWN",
        "CANNOT_CONNECT_NOW",
        "CRASH_SHUTDOWN",
        "DEADLOCK_DETECTED",
        "DISK_FULL",
        "IDLE_IN_TRANSACTION_SESSION_TIMEOUT",
        "IO_ERROR",
        "LOCK_NOT_AVAILABLE",
        "OUT_OF_MEMORY",
        "QUERY_CANCELED",
        "READ_ONLY_SQL_TRANSACTION",
        "SERIALIZATION_FAILURE",
        "TOO_MANY_CONNECTIONS",
        "SQLSTATE '25P04'",  # transaction_timeout, a name that PostgreSQL 15 does not know
    ],
)
async def test_what_passes_by_itself_is_unavailable(database: Database, error: str):
    """Whoever asked may ask again."""
    with pytest.raises(Unavailable):
        await database.execute(f"DO $$ BEGIN RAISE {error}; END $$")
    assert await database.is_well()


@pytest.mark.parametrize(
    "error", ["CHECK_VIOLATION", "UNDEFINED_TABLE", "UNIQUE_VIOLATION", "INVALID_TEXT_REPRESENTATION"]
)
async def test_a_defect_stays_loud(database: Database, error: str):
    """Asking again would give the same: somebody has to look."""
    with pytest.raises(asyncpg.PostgresError):
        await database.execute(f"DO $$ BEGIN RAISE {error}; END $$")
    assert await database.is_well()


async def test_a_wrong_argument_is_a_defect_too(database: Database):
    """Though the library calls it by a name of the connection's family."""
    with pytest.raises(asyncpg.DataError):
        await database.fetch("SELECT $1::int", "x")


async def test_a_caller_that_gives_up_leaves_the_pool_whole(shop: Shop, other):
    """A cancelled request gives its connection back, and its transaction never happened."""
    await shop.stock("cup", east=5)
    order = await shop.reserved(("cup", 1))
    for _ in range(30):  # more often than there are connections
        async with holding(other, HOLD, order.id):
            waiting = await begun(other, shop.orders.record(order.id, c.CancelOrder()))
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
    assert await shop.orders.load(order.id) == order
