"""The sold-out gate: its counts are PostgreSQL's soon after anything went wrong with them."""

import asyncio
import os
import signal
import time

import pytest

from app.contracts import admission as keys
from app.hotpath.client import Client
from app.infra.redis.gate import Gate
from tests.busy import BUSY_S
from tests.integration.redis.books import Books
from tests.integration.redis.counted import (
    COUNTS,
    ENVIRONMENT,
    admit,
    asked,
    connected,
    shows,
    until,
)


async def test_pieces_that_were_taken_and_committed_late_are_not_shown_for_long(
    gate: Gate, client: Client, books: Books
):
    """A look that came between the two is followed by another, though nobody is refused."""
    assert (await admit(client, gate, {"cup": 3})).is_known
    gate.look_again(["cup"])
    await until(lambda: asked(books, 2))
    books.sold["cup"] = 3
    await until(lambda: shows(client, cup=2, pot=0))
    assert books.questions[1:] == [{"cup"}, {"cup"}]


async def test_what_is_given_back_is_there_for_the_next_request(gate: Gate, client: Client):
    """Of the same process: no moment passes in which it is not counted."""
    for _ in range(20):
        assert (await admit(client, gate, {"cup": 5})).is_known
        gate.give_back([("cup", 5)])
        await client.execute("PING")  # what its caller is told takes longer than this


async def test_what_is_refused_wrongly_is_sold_within_a_second(gate: Gate, client: Client, books: Books):
    """Stock that came without a word is found by whoever is refused."""
    assert (await admit(client, gate, {"pot": 1})).sold_out == ("pot",)
    books.on_hand["pot"] = 3

    async def passes() -> bool:
        return (await admit(client, gate, {"pot": 1})).is_counted

    assert await until(passes) < 0.7 + BUSY_S
    assert await shows(client, cup=5, pot=2)


async def test_a_crowd_that_is_refused_costs_few_questions(gate: Gate, client: Client, valkey, books: Books):
    """One for all SKUs of a moment, however many are refused by however many processes."""
    books.on_hand.update({f"sku-{number}": 0 for number in range(300)})
    names = [f"sku-{number}" for number in range(300)]
    await client.execute("HSET", COUNTS, *[part for name in names for part in (name, 0)])
    async with connected(valkey.url, "other") as other, Gate(other, books, ENVIRONMENT) as beside:
        before, started = len(books.questions), time.perf_counter()
        while time.perf_counter() - started < 1.5:
            gate.look_again(names)
            beside.look_again(names)
            await asyncio.sleep(0.01)
        questions = books.questions[before:]
    assert 3 <= sum("sku-0" in question for question in questions) <= 5
    assert len(questions) <= 10


async def test_a_sale_is_not_repeated_because_its_orders_are_not_committed_yet(
    gate: Gate, client: Client, books: Books
):
    """The first look comes late enough; nothing more is let through."""
    passed = 0

    async def customer() -> None:
        nonlocal passed
        while time.perf_counter() < ends_at:
            if (await admit(client, gate, {"cup": 1})).is_counted:
                passed += 1
                await asyncio.sleep(0.2)  # a slow commit
                books.sold["cup"] += 1
            await asyncio.sleep(0)

    ends_at = time.perf_counter() + 1.2
    await asyncio.gather(*(customer() for _ in range(20)))
    assert passed == 5


async def test_what_is_taken_during_a_look_is_subtracted(gate: Gate, client: Client, books: Books):
    """PostgreSQL's answer is older than the counts by then."""
    books.delay_s = 0.2
    gate.look_again(["cup"])
    await until(lambda: asked(books, 2))
    assert (await admit(client, gate, {"cup": 2})).is_counted
    await until(lambda: looked_at(client, "cup"))
    gate.look_again(["cup"])
    await until(lambda: asked(books, 3))
    assert await shows(client, cup=3, pot=0)


async def test_a_steady_sale_is_refused_nothing_that_is_there(gate: Gate, client: Client, books: Books):
    """What is committed between the beginning of a look and its question is subtracted once, not twice."""
    pieces = 120
    books.on_hand["cup"] = pieces
    await gate.changed("cup", pieces - 5)
    refused = 0
    while books.sold["cup"] < pieces:
        gate.look_again(["cup"])
        admitted = (await admit(client, gate, {"cup": 1})).is_counted
        await asyncio.sleep(0.002)  # the commit
        books.sold["cup"] += admitted
        refused += not admitted
        await asyncio.sleep(0.005)
    assert refused == 0


async def looked_at(client: Client, sku: str) -> bool:
    """Whether a SKU's last look is over."""
    return await client.execute("EXISTS", keys.gate(ENVIRONMENT, f"look:{sku}")) == 0


async def test_what_was_taken_in_vain_is_given_back(gate: Gate, client: Client):
    """Many at once are one correction."""
    for _ in range(5):
        await admit(client, gate, {"cup": 1})
    before = client.statistics.commands
    for _ in range(3):
        gate.give_back((("cup", 1),))
    await until(lambda: shows(client, cup=3, pot=0))
    scripts_and_looks = client.statistics.commands - before
    assert scripts_and_looks <= 50


async def test_what_passed_an_open_gate_can_be_given_back(client: Client, books: Books):
    """It is not subtracted from the counts that are made."""
    books.is_away = True
    async with Gate(client, books, ENVIRONMENT) as gate:
        for quantity in (2, 1):
            assert (await admit(client, gate, {"cup": quantity})).is_open
        gate.give_back((("cup", 2),))
        passed = keys.gate(ENVIRONMENT, "passed")

        async def is_given_back() -> bool:
            return await client.execute("HGET", passed, "cup") == b"1"

        await until(is_given_back)
        books.is_away = False
        await until(lambda: shows(client, cup=4, pot=0))


async def test_new_stock_is_sold_at_once(gate: Gate, client: Client, books: Books):
    """Whoever is told of an adjustment finds it in the counts; PostgreSQL has the last word."""
    books.on_hand["pot"] = 4
    await gate.changed("pot", 4)
    assert await shows(client, cup=5, pot=4)
    await gate.changed("cup", -3)
    assert await shows(client, cup=2, pot=4)
    await until(lambda: shows(client, cup=5, pot=4))  # it was not true


async def test_new_stock_does_not_wait_for_redis(gate: Gate, valkey):
    """A server that is stuck costs whoever brings stock a moment."""
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        started = time.perf_counter()
        await gate.changed("pot", 4)
        assert time.perf_counter() - started < 0.5 + BUSY_S
    finally:
        os.kill(valkey.pid, signal.SIGCONT)


async def test_a_new_product_appears_by_itself(gate: Gate, client: Client, books: Books):
    """Whoever wants it first passes; what does not exist never gets a count."""
    books.on_hand["jug"] = 7
    verdict = await admit(client, gate, {"jug": 1, "ghost": 1})
    assert (verdict.is_known, verdict.sold_out) == (False, ())
    assert await until(lambda: shows(client, cup=5, pot=0, jug=7)) < 1 + BUSY_S


async def test_what_was_to_be_given_back_is_given_back_at_the_end(client: Client, gate: Gate, books: Books):
    """A process that stops owes nothing."""
    await admit(client, gate, {"cup": 3})
    async with Gate(client, books, ENVIRONMENT) as ending:
        ending.give_back((("cup", 3),))
    assert await shows(client, cup=5, pot=0)


@pytest.mark.parametrize("ends", [(), ("PX", 3_600_000)], ids=["never", "in an hour"])
async def test_a_look_that_would_not_end_is_taken_over(
    gate: Gate, client: Client, ends: tuple[str | int, ...]
):
    """The SKU would be refused for as long."""
    await client.execute("SET", keys.gate(ENVIRONMENT, "look:cup"), "", *ends)
    await client.execute("HSET", COUNTS, "cup", 0)
    assert (await admit(client, gate, {"cup": 1})).sold_out
    await until(lambda: shows(client, cup=5, pot=0))
