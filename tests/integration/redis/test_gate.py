"""The sold-out gate: its counts are PostgreSQL's soon after anything went wrong with them."""

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress

import psutil
import pytest

from app.contracts import admission as keys
from app.hotpath.address import Address
from app.hotpath.admission import Admission, Verdict
from app.hotpath.admission_policy import Policy
from app.hotpath.buckets import Buckets
from app.hotpath.client import Client
from app.infra.postgres.pool import Database
from app.infra.postgres.shelves import PostgresShelves
from app.infra.redis.gate import Gate
from app.infra.redis.gate_counts import GateCounts
from tests.integration.redis.books import Books

ENVIRONMENT = "test"
COUNTS = keys.gate(ENVIRONMENT, "counts")
PLENTY = Policy("write", 1_000_000)
NUMBERS = itertools.count()
MANY_SKUS = (
    """INSERT INTO products (sku, name, amount, currency)
    SELECT 'sku-' || lpad(n::text, 6, '0'), 'One of many', 100, 'USD' FROM generate_series(0, 99999) n""",
    """INSERT INTO stock (sku, warehouse, on_hand)
    SELECT sku, warehouse, right(sku, 2)::int % 50 FROM products, unnest('{a,b}'::text[]) warehouse""",
    "ANALYZE",
)


@asynccontextmanager
async def connected(url: str, name: str) -> AsyncIterator[Client]:
    """A client that is up."""
    async with Client(Address.parse(url), name=name) as client:
        assert await client.ready(10)
        yield client


@pytest.fixture
async def client(valkey) -> AsyncIterator[Client]:
    """Of a server that may be flushed."""
    async with connected(valkey.url, "gate") as client:
        yield client


@pytest.fixture
def books() -> Books:
    """What PostgreSQL knows."""
    return Books(cup=5, pot=0)


@pytest.fixture
async def gate(client, books) -> AsyncIterator[Gate]:
    """Of one process, ready."""
    async with Gate(client, books, ENVIRONMENT) as opened:
        await until(lambda: shows(client, cup=5, pot=0))
        yield opened


async def until(condition: Callable[[], Awaitable[bool]], within_s: float = 10) -> float:
    """Wait until something is so; the seconds it took."""
    started = time.perf_counter()
    async with asyncio.timeout(within_s):
        while not await condition():
            await asyncio.sleep(0.005)
    return time.perf_counter() - started


async def counted(client: Client) -> dict[str, int] | None:
    """The counts; None where there are none."""
    found = await client.execute("HGETALL", COUNTS)
    counts = {sku.decode(): int(count) for sku, count in found.items() if not sku.startswith(b":")}
    return counts if b":generation" in found else None


async def shows(client: Client, **counts: int) -> bool:
    """Whether these are the counts."""
    return await counted(client) == counts


async def admit(client: Client, gate: Gate, wanted: dict[str, int]) -> Verdict:
    """Ask the gate, and tell it what came of it, as the gateway does."""
    verdict = await Admission(client, Buckets()).admit(
        "caller",
        PLENTY,
        ("{caller}:limit", f"{{caller}}:answer:{next(NUMBERS)}", COUNTS, keys.gate(ENVIRONMENT, "passed")),
        body_hash=b"h" * 32,
        items=tuple(wanted),
        quantities=tuple(wanted.values()),
    )
    if verdict.is_open:
        gate.missing()
    elif verdict.sold_out:
        gate.look_again(verdict.sold_out)
    elif not verdict.is_known:
        gate.unknown(wanted)
    return verdict


async def test_the_gate_is_ready_before_anybody_comes(gate: Gate, books: Books):
    """One question for everything there is."""
    assert books.questions == [None]


async def test_a_flushed_gate_lets_pass_and_is_made_anew(gate: Gate, client: Client, books: Books):
    """What passed meanwhile, committed or not, is not there any more."""
    books.delay_s = 0.1
    await client.execute("FLUSHALL")
    assert (await admit(client, gate, {"cup": 2})).is_open
    await until(lambda: asked(books, 2))
    assert (await admit(client, gate, {"cup": 1})).is_open
    assert await until(lambda: shows(client, cup=2, pot=0)) < 1
    books.sold["cup"] = 3  # they were committed late
    await until(lambda: asked(books, 3))
    await until(lambda: shows(client, cup=2, pot=0))
    assert books.questions[2:] == [{"cup"}]


async def asked(books: Books, times: int) -> bool:
    """Whether PostgreSQL was asked so often."""
    return len(books.questions) >= times


async def test_what_passed_and_was_committed_in_time_is_not_missed_twice_for_long(
    gate: Gate, client: Client, books: Books
):
    """The gate looks again at what passed while it was made."""
    books.delay_s = 0.1
    await client.execute("FLUSHALL")
    assert (await admit(client, gate, {"cup": 2})).is_open
    books.sold["cup"] = 2
    await until(lambda: shows(client, cup=1, pot=0))
    assert await until(lambda: shows(client, cup=3, pot=0)) < 1


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


async def test_many_processes_make_it_once(client: Client, valkey, books: Books):
    """The others wait, and then use what is there."""
    books.delay_s = 0.05
    async with (
        connected(valkey.url, "other") as other,
        Gate(client, books, ENVIRONMENT) as first,
        Gate(other, books, ENVIRONMENT) as second,
        Gate(other, books, ENVIRONMENT) as third,
    ):
        await until(lambda: shows(client, cup=5, pot=0))
        for _ in range(3):
            before = len(books.questions)
            await client.execute("FLUSHALL")
            for process in (first, second, third):
                process.missing()
            await until(lambda: shows(client, cup=5, pot=0))
            await until(lambda: nobody_rebuilds(client))
            assert books.questions[before:] == [None]


async def nobody_rebuilds(client: Client) -> bool:
    """Whether the lock is free."""
    return await client.execute("EXISTS", keys.gate(ENVIRONMENT, "rebuilding")) == 0


async def test_a_builder_that_dies_is_followed_by_another(gate: Gate, client: Client, books: Books):
    """Its lock does not outlive it for long, and what it had begun is nobody's."""
    counts = GateCounts(client, ENVIRONMENT)
    token = await counts.lock()
    await client.execute("DEL", COUNTS)
    gate.missing()
    assert await until(lambda: shows(client, cup=5, pot=0)) < 3
    assert await counts.replace(token, {"cup": 99}) is None
    assert await shows(client, cup=5, pot=0)


async def test_counts_of_another_life_of_the_server_are_given_up(gate: Gate, client: Client, books: Books):
    """A snapshot from before a crash, or a replica that lagged, would sell what is gone."""
    await client.execute("HSET", COUNTS, ":server", "another", "cup", 50)
    gate.missing()  # as on every new connection
    assert await until(lambda: shows(client, cup=5, pot=0)) < 1


async def test_a_server_that_died_is_counted_for_anew(gate: Gate, client: Client, valkey):
    """By itself, once it is back."""
    await valkey.kill()
    await valkey.start()
    await until(lambda: up(client))
    assert await until(lambda: shows(client, cup=5, pot=0)) < 2


async def up(client: Client) -> bool:
    """Whether the client is."""
    return client.is_up


async def test_what_is_refused_wrongly_is_sold_within_a_second(gate: Gate, client: Client, books: Books):
    """Stock that came without a word is found by whoever is refused."""
    assert (await admit(client, gate, {"pot": 1})).sold_out == ("pot",)
    books.on_hand["pot"] = 3

    async def passes() -> bool:
        return (await admit(client, gate, {"pot": 1})).is_counted

    assert await until(passes) < 0.7
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
        assert time.perf_counter() - started < 0.5
    finally:
        os.kill(valkey.pid, signal.SIGCONT)


async def test_a_new_product_appears_by_itself(gate: Gate, client: Client, books: Books):
    """Whoever wants it first passes; what does not exist never gets a count."""
    books.on_hand["jug"] = 7
    verdict = await admit(client, gate, {"jug": 1, "ghost": 1})
    assert (verdict.is_known, verdict.sold_out) == (False, ())
    assert await until(lambda: shows(client, cup=5, pot=0, jug=7)) < 1


async def test_counts_that_were_spoilt_are_made_anew(gate: Gate, client: Client):
    """Whatever stands in their place."""
    await client.execute("SET", COUNTS, "spoilt")
    gate.broken()
    assert await until(lambda: counts_are(client, cup=5, pot=0)) < 1


async def counts_are(client: Client, **counts: int) -> bool:
    """Whether these are the counts, and counts at all."""
    return await client.execute("TYPE", COUNTS) == b"hash" and await shows(client, **counts)


async def test_too_many_to_look_at_are_all_made_anew(
    gate: Gate, client: Client, books: Books, monkeypatch: pytest.MonkeyPatch
):
    """What waits is bounded."""
    monkeypatch.setattr("app.infra.redis.gate.NOTED_MAX", 10)
    before = len(books.questions)
    gate.look_again(names(20))
    await until(lambda: asked(books, before + 1))
    assert books.questions[before] is None


def names(count: int) -> Iterable[str]:
    """SKUs that nobody has."""
    return (f"ghost-{number}" for number in range(count))


async def test_postgres_away_leaves_the_gate_open(client: Client, books: Books):
    """It is made when PostgreSQL is back."""
    books.is_away = True
    async with Gate(client, books, ENVIRONMENT) as gate:
        await until(lambda: asked(books, 2))
        assert (await admit(client, gate, {"pot": 1})).is_open
        books.is_away = False
        assert await until(lambda: has_counts(client)) < 1


async def has_counts(client: Client) -> bool:
    """Whether there are any."""
    return await counted(client) is not None


async def test_what_was_to_be_given_back_is_given_back_at_the_end(client: Client, gate: Gate, books: Books):
    """A process that stops owes nothing."""
    await admit(client, gate, {"cup": 3})
    async with Gate(client, books, ENVIRONMENT) as ending:
        ending.give_back((("cup", 3),))
    assert await shows(client, cup=5, pot=0)


async def test_a_hundred_thousand_skus_are_counted_within_a_second(
    client: Client, valkey, postgres_server, database_url: str
):
    """From PostgreSQL. The machine may be busy, so the processors' time of all who take part will do.

    And the best of three, because what a busy neighbour does to the processors' caches counts as theirs.
    """
    database = await Database(database_url, size=2, name="gate").open()
    for statement in MANY_SKUS:
        await database.execute(statement)
    waits: list[float] = []
    rounds: list[float] = []

    async def is_counted() -> bool:
        started = time.perf_counter()
        verdict = await admit(client, gate, {"sku-000049": 1})
        waits.append(time.perf_counter() - started)
        return verdict.is_known

    async with Gate(client, PostgresShelves(database), ENVIRONMENT) as gate:
        await until(is_counted, 30)
        for _ in range(3):
            await until(lambda: nobody_rebuilds(client))
            await client.execute("FLUSHALL")
            waits.clear()
            before_s = processors_s(valkey.pid, postgres_server.pid)
            took_s = await until(is_counted, 30)
            used_s = processors_s(valkey.pid, postgres_server.pid) - before_s
            rounds.append(min(took_s, used_s))
            print(f"{took_s:.3f} s, {used_s:.3f} s of processors; the longest wait: {max(waits):.3f} s")
            assert await client.execute("HLEN", COUNTS) == 100_003
            assert await client.execute("HMGET", COUNTS, "sku-000048", "sku-000100", "sku-099999") == [
                b"96",
                b"0",
                b"98",
            ]
    await database.close()
    assert min(rounds) < 1


def processors_s(*pids: int) -> float:
    """Processors' time of this process, and of others with their children, so far."""
    total_s = time.process_time()
    for pid in pids:
        server = psutil.Process(pid)
        for process in (server, *server.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # a child that ended just now: what it used is not counted
                total_s += sum(process.cpu_times()[:2])
    return total_s


@pytest.mark.parametrize("wrong", [("SET", "x"), ("HSET", "cup", "x")])
async def test_what_passed_is_thrown_away_where_it_cannot_be_counted(
    gate: Gate, client: Client, wrong: tuple[str, ...]
):
    """Somebody wrote something else there: the counts come back without it."""
    command, *what = wrong
    await client.execute("DEL", COUNTS)
    await client.execute(command, keys.gate(ENVIRONMENT, "passed"), *what)
    gate.missing()
    await until(lambda: shows(client, cup=5, pot=0))


@pytest.mark.parametrize("ends", [(), ("PX", 3_600_000)], ids=["never", "in an hour"])
async def test_a_lock_that_would_not_end_is_broken(gate: Gate, client: Client, ends: tuple[str | int, ...]):
    """Somebody else wrote it, or the server's clock was set back."""
    await client.execute("DEL", COUNTS)
    await client.execute("SET", keys.gate(ENVIRONMENT, "rebuilding"), "x", *ends)
    gate.missing()
    await until(lambda: shows(client, cup=5, pot=0))


@pytest.mark.parametrize("ends", [(), ("PX", 3_600_000)], ids=["never", "in an hour"])
async def test_a_look_that_would_not_end_is_taken_over(
    gate: Gate, client: Client, ends: tuple[str | int, ...]
):
    """The SKU would be refused for as long."""
    await client.execute("SET", keys.gate(ENVIRONMENT, "look:cup"), "", *ends)
    await client.execute("HSET", COUNTS, "cup", 0)
    assert (await admit(client, gate, {"cup": 1})).sold_out
    await until(lambda: shows(client, cup=5, pot=0))
