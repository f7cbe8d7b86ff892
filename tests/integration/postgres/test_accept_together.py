"""Accepting many orders at once: one commit for all, and for each caller what he would get alone."""

import asyncio
import random
from collections.abc import AsyncIterator

import asyncpg
import pytest
from msgspec.structs import replace

from app.domain.errors import Refused, Unavailable
from app.infra.postgres.intake import Answer, Intake, Request
from app.infra.postgres.pool import Database
from tests.integration.postgres.interference import begun, deadlocks, holding, kill
from tests.integration.postgres.shop import CONNECTIONS, Shop

TRANSACTIONS = "SELECT count(DISTINCT xmin::text) FROM orders"
CLAIM = """
INSERT INTO idempotency (caller, route, key, body_hash, status, location, answer)
VALUES ($1, $2, $3, '', 202, '/v1/orders/theirs', 'theirs')
"""
CLAIMED = "idempotency WHERE route = 'POST /v1/orders'"
UNSTORABLE = {"note": "\0"}
"""PostgreSQL keeps no NUL in its JSON; nothing before it minds."""


async def taken(
    shop: Shop, request: Request, *, intake: Intake | None = None, metadata: dict[str, str] | None = None
) -> Answer:
    """A request for a cup, each time with an order of its own in mind."""
    order, event = await shop.placed(("cup", 1))
    order = replace(order, metadata=metadata or {})
    intake = intake or shop.intake
    return await intake.accept(request, order, event, shop.answer(order), address=None, traceparent=None)


@pytest.fixture
async def cups(shop: Shop) -> Shop:
    """A shop that sells cups."""
    await shop.stock("cup", east=1000)
    return shop


@pytest.fixture
async def second(database_url: str) -> AsyncIterator[Intake]:
    """Another gateway."""
    database = await Database(database_url, size=CONNECTIONS, name="test").open()
    yield Intake(database)
    await database.close()


async def test_orders_of_one_moment_share_a_commit(cups: Shop):
    """A hundred callers, each with his own answer, and one or two transactions."""
    requests = [cups.request() for _ in range(100)]
    answers = await asyncio.gather(*(taken(cups, request) for request in requests))
    assert len({answer.location for answer in answers}) == 100
    assert not any(answer.replayed for answer in answers)
    assert await asyncio.gather(*map(cups.intake.answered, requests)) == [
        replace(answer, replayed=True) for answer in answers
    ]
    assert (await cups.database.fetch(TRANSACTIONS))[0]["count"] <= 2


async def test_the_same_key_fifty_times_in_one_batch_is_one_order(cups: Shop):
    """The first one is accepted, the others get its answer."""
    request = cups.request()
    answers = await asyncio.gather(*(taken(cups, request) for _ in range(50)))
    assert [answer.replayed for answer in answers] == [False] + [True] * 49
    assert len({(answer.status, answer.location, answer.body) for answer in answers}) == 1
    assert await cups.count("orders") == 1


async def test_of_two_bodies_under_one_key_the_first_wins(cups: Shop):
    """In a batch by order of arrival; afterwards by what is stored, also for a batch of both."""
    request = cups.request()
    bodies = [b"a", b"b"] * 25
    for first in (False, True):
        answers = await asyncio.gather(
            *(taken(cups, replace(request, body_hash=body)) for body in bodies), return_exceptions=True
        )
        assert all(isinstance(answer, Refused) for answer in answers[1::2])
        assert [answer.replayed for answer in answers[::2]] == [first] + [True] * 24
    assert await cups.count("orders") == 1


async def test_an_order_that_cannot_be_stored_is_its_callers_problem_only(cups: Shop):
    """The others are accepted, among them one with the same key, and in time."""
    requests = [cups.request() for _ in range(40)]
    requests[7] = requests[23]
    answers = await asyncio.gather(
        *(
            taken(cups, request, metadata=UNSTORABLE if n in {7, 30} else None)
            for n, request in enumerate(requests)
        ),
        return_exceptions=True,
    )
    wrong = [n for n, answer in enumerate(answers) if isinstance(answer, asyncpg.PostgresError)]
    assert wrong == [7, 30]
    assert not any(answer.replayed for n, answer in enumerate(answers) if n not in wrong)
    assert await cups.count("orders") == 38
    assert await cups.intake.answered(requests[30]) is None


async def test_a_batch_that_is_killed_accepted_nothing(cups: Shop, other):
    """Everybody hears that it cannot be now, nothing is half done, and the keys are free."""
    requests = [cups.request() for _ in range(30)]
    async with holding(other, "LOCK TABLE event_outbox IN EXCLUSIVE MODE"):
        asked = (taken(cups, request) for request in requests)
        waiting = await begun(other, asyncio.gather(*asked, return_exceptions=True))
        assert await kill(other)
        answers = await waiting
    assert all(isinstance(answer, Unavailable) for answer in answers)
    assert [await cups.count(table) for table in ("orders", CLAIMED, "workflow_outbox")] == [0, 0, 0]
    answers = await asyncio.gather(*(taken(cups, request) for request in requests))
    assert not any(answer.replayed for answer in answers)


async def test_batches_that_are_killed_again_and_again_accept_each_key_once(cups: Shop, other):
    """Whatever became of the commit whose answer was lost: the key knows."""
    dice = random.Random(17)
    requests = [cups.request() for _ in range(40)]
    failures = 0

    async def patiently(request: Request) -> Answer:
        nonlocal failures
        await asyncio.sleep(dice.uniform(0, 0.5))
        while True:
            try:
                return await taken(cups, request)
            except Unavailable:
                failures += 1

    async def murder() -> None:
        while not all(task.done() for task in tasks):
            await kill(other, 2)
            await asyncio.sleep(dice.uniform(0, 0.1))

    tasks = [asyncio.create_task(patiently(request)) for request in requests]
    await murder()
    answers = [await task for task in tasks]
    assert failures > 0
    assert len({answer.location for answer in answers}) == 40
    assert await cups.count("orders") == 40


async def test_a_caller_who_leaves_disturbs_nobody(cups: Shop, other):
    """His order may be accepted without him; asking again with the key tells."""
    requests = [cups.request() for _ in range(20)]
    async with holding(other, "LOCK TABLE event_outbox IN EXCLUSIVE MODE"):
        tasks = [asyncio.create_task(taken(cups, request)) for request in requests]
        await begun(other, asyncio.gather(*tasks, return_exceptions=True))
        for task in tasks[::3]:
            task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(answer, Answer) for answer in answers] == [bool(n % 3) for n in range(20)]
    for request in requests[::3]:
        assert (await taken(cups, request)).replayed
    assert await cups.count("orders") == 20


async def test_gateways_with_the_same_keys_wait_for_each_other_in_one_direction(
    cups: Shop, second: Intake, other, database_url: str
):
    """Each is in the middle of the same keys in another order: no deadlock, and each key once."""
    requests = [cups.request() for _ in range(40)]
    middle = requests[20]
    async with holding(other, CLAIM, middle.caller, middle.route, middle.key):
        ours = asyncio.gather(*(taken(cups, request) for request in requests))
        theirs = asyncio.gather(*(taken(cups, request, intake=second) for request in reversed(requests)))
        await begun(other, asyncio.gather(ours, theirs), waiting=2)
    for mine, yours in zip(await ours, reversed(await theirs), strict=True):
        assert mine.location == yours.location
        assert mine.replayed is not yours.replayed
    assert await cups.count("orders") == 40
    assert await deadlocks(database_url) == 0


async def test_a_key_that_somebody_commits_while_the_batch_waits_for_it_is_replayed(cups: Shop, other):
    """The statement cannot see what is newer than itself: the answer is read after it."""
    requests = [cups.request() for _ in range(5)]
    transaction = other.transaction()
    await transaction.start()
    await other.execute(CLAIM, requests[2].caller, requests[2].route, requests[2].key)
    asked = asyncio.gather(*(taken(cups, request) for request in requests))
    waiting = await begun(other, asked)
    await transaction.commit()
    answers = await waiting
    assert [answer.replayed for answer in answers] == [False, False, True, False, False]
    assert answers[2].body == b"theirs"
