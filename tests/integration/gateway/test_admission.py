"""Whether a request may go on: limits, repetitions and the gate, as the gateway asks for them."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from app.contracts import admission as keys
from app.gateway.admission import ANSWER_BYTES_MAX, Admissions, Admitted
from app.gateway.problems import ProblemError
from app.hotpath.address import Address
from app.hotpath.client import Client
from app.infra.postgres.api_keys import ApiKey
from app.infra.postgres.intake import Answer, Request
from app.infra.redis.gate import Gate
from tests.integration.redis.books import Books

ENVIRONMENT = "test"
RATE = 1_000_000
CALLER = ApiKey("key_1", "shop", frozenset())
ANSWER = Answer(202, "/v1/orders/ord_1", b'{"id":"ord_1"}')
COUNTS = keys.gate(ENVIRONMENT, "counts")


class Process:
    """What one gateway has."""

    def __init__(self, client: Client, gate: Gate) -> None:
        self.client = client
        self.gate = gate
        self.admissions = Admissions(client, gate, ENVIRONMENT, RATE)

    async def order(self, *lines: tuple[str, int], caller: ApiKey = CALLER, key: str = "k") -> Admitted:
        """Ask for an order."""
        return await self.admissions.order(caller, request(key), lines)


def request(key: str = "k", body_hash: bytes = b"h" * 32) -> Request:
    """A request under a key."""
    return Request(CALLER.id, "POST /v1/orders", key, body_hash)


@asynccontextmanager
async def running(url: str, books: Books, name: str = "gateway") -> AsyncIterator[Process]:
    """A process, whose gate is ready where there is a server."""
    async with (
        Client(Address.parse(url), name=name, deadline_s=5) as client,
        Gate(client, books, ENVIRONMENT) as gate,
    ):
        process = Process(client, gate)
        async with asyncio.timeout(60):
            while await client.ready(0.1) and not await client.execute("HEXISTS", COUNTS, ":generation"):
                await asyncio.sleep(0.005)
        yield process
        await process.admissions.close()


@pytest.fixture
async def books() -> Books:
    """What PostgreSQL knows."""
    return Books(cup=5, pot=0)


@pytest.fixture
async def process(redis_url, books) -> AsyncIterator[Process]:
    """Under test."""
    async with running(redis_url, books) as started:
        yield started


async def count(process: Process, sku: str) -> int:
    """What the gate has."""
    return int(await process.client.execute("HGET", COUNTS, sku))


async def test_an_order_that_may_go_on_is_told_its_limit(process: Process):
    """Lines of one SKU are counted together."""
    admitted = await process.order(("cup", 1), ("cup", 2))
    assert (admitted.gate_known, admitted.sold_out, admitted.replay) == (True, (), None)
    assert dict(admitted.headers) == {
        b"ratelimit-policy": b'"write";q=1000000;w=1',
        b"ratelimit": b'"write";r=999999;t=1',
    }
    assert await count(process, "cup") == 2


async def test_what_an_order_took_in_vain_is_given_back(process: Process):
    """Whatever it took, and nothing twice that it did not take."""
    admitted = await process.order(("cup", 2))
    refused = await process.order(("pot", 1))
    for one in (admitted, refused):
        process.admissions.give_back(one)
    async with asyncio.timeout(60):
        while await count(process, "cup") != 5:
            await asyncio.sleep(0.005)
    assert await count(process, "pot") == 0


async def test_a_remembered_answer_is_given_again(process: Process):
    """Byte for byte, to the same body; it lives for a minute."""
    process.admissions.remember(request(), ANSWER)
    admitted = await process.order(("cup", 1))
    assert admitted.replay == Answer(202, "/v1/orders/ord_1", b'{"id":"ord_1"}', replayed=True)
    assert await count(process, "cup") == 5
    stored = await process.client.execute("KEYS", "*answer*")
    assert len(stored) == 1
    assert 59_000 < await process.client.execute("PTTL", stored[0]) <= 60_000


async def test_whether_a_key_belongs_to_another_body_is_for_postgres_to_say(process: Process):
    """What stands in Redis may be anybody's, or that of a request that was refused."""
    process.admissions.remember(request(), ANSWER)
    admitted = await process.admissions.order(CALLER, request(body_hash=b"x" * 32), [("cup", 1)])
    assert (admitted.replay, admitted.gate_known, admitted.taken) == (None, False, ())


async def test_a_repetition_is_not_refused_what_the_first_one_took(process: Process):
    """The first one took the last piece and is not committed yet: PostgreSQL knows which of them is which."""
    first, second = await process.order(("cup", 5)), await process.order(("cup", 5))
    assert first.taken
    assert (second.sold_out, second.gate_known, second.taken) == ((), False, ())
    assert (await process.order(("cup", 5), key="another")).gate_known is False
    (mark,) = await process.client.execute("KEYS", "*answer*")
    assert 0 < await process.client.execute("PTTL", mark) <= 15_000


async def test_what_became_of_nobody_knows_what_is_looked_up(process: Process, books: Books):
    """PostgreSQL did not answer whether it took the order: nobody is refused for long what it has."""
    process.admissions.look_again(await process.order(("cup", 5)))
    async with asyncio.timeout(60):
        while await count(process, "cup") != 5:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    "answer", [Answer(200, None, b"\x00\n{}"), Answer(202, "/a b", b"\n" * 10), ANSWER], ids=repr
)
async def test_any_answer_comes_back_as_it_was(process: Process, answer: Answer):
    """With or without a location, whatever is in its body."""
    process.admissions.remember(request(), answer)
    replay = (await process.order(("cup", 1))).replay
    assert (replay.status, replay.location, replay.body) == (answer.status, answer.location, answer.body)


async def test_a_large_answer_is_not_copied(process: Process):
    """Redis holds what is small and asked for again soon."""
    process.admissions.remember(request(), Answer(202, None, b"x" * (ANSWER_BYTES_MAX + 1)))
    assert (await process.order(("cup", 1))).replay is None


@pytest.mark.parametrize(
    "junk",
    [
        *(b"", b"202", b"20x /\n{}", b"202 \xff\n{}", b"202 /\n", b"000 /\n{}", b"999 /\n{}", b"100 \n{}"),
        *(b"204 \n{}", b"202 /\r\nx-evil: 1\n{}", b"202 /\0\n{}"),
    ],
)
async def test_redis_is_not_believed(process: Process, junk: bytes):
    """What is no answer is none; PostgreSQL is asked about the key, and about the stock."""
    key = keys.answers(ENVIRONMENT, CALLER.id) + keys.answer_digest("POST /v1/orders", "k")
    await process.client.execute("SET", key, b"h" * 32 + junk)
    admitted = await process.order(("cup", 1))
    assert (admitted.replay, admitted.gate_known, admitted.sold_out) == (None, False, ())


async def test_an_idempotency_key_is_in_no_redis_key(process: Process):
    """It may be somebody's address."""
    process.admissions.remember(request("ada@example.com"), ANSWER)
    assert (await process.order(("cup", 1), key="ada@example.com")).replay
    assert b"ada" not in b" ".join(await process.client.execute("KEYS", "*"))


async def test_a_limit_of_a_keys_own_holds_for_reads_and_for_writes(process: Process):
    """Each by itself; beyond it, 429 says when to come again."""
    caller = ApiKey("key_2", "crawler", frozenset(), rate_limit_per_s=2)
    for _ in range(2):
        assert await process.admissions.other(caller, "GET")
        assert (await process.order(("cup", 1), caller=caller)).headers
    for method in ("GET", "HEAD", "POST", "PUT"):
        with pytest.raises(ProblemError) as raised:
            await exhaust(process, caller, method)
        headers = dict(raised.value.headers)
        assert raised.value.kind.status == 429
        assert headers[b"retry-after"] == b"1"
        assert headers[b"ratelimit-policy"].startswith(b'"read"' if method in {"GET", "HEAD"} else b'"write"')
        assert headers[b"ratelimit"].endswith(b";r=0;t=1")
    assert process.admissions.try_read(CALLER) or await process.admissions.read(CALLER)


async def exhaust(process: Process, caller: ApiKey, method: str) -> None:
    """Ask until the caller is refused."""
    while True:
        await process.admissions.other(caller, method)


async def test_a_read_is_admitted_at_once_where_the_budget_is_here(process: Process):
    """After the first one has fetched it."""
    assert process.admissions.try_read(CALLER) is None
    assert await process.admissions.read(CALLER)
    assert process.admissions.try_read(CALLER)


async def test_an_order_for_more_than_there_is_goes_on_now_and_then(process: Process, books: Books):
    """PostgreSQL decides about it; but a crowd of such orders is refused."""
    first = await process.order(("cup", 6))
    assert (first.sold_out, first.gate_known, first.taken) == ((), False, ())
    crowd = [await process.order(("cup", 6)) for _ in range(20)]
    assert {admitted.sold_out for admitted in crowd} == {("cup",)}
    assert (await process.order(("cup", 5))).gate_known


async def test_without_redis_orders_go_on_and_are_looked_up_later(redis_url: str, books: Books):
    """Nothing is known of them, and the process limits by itself."""
    async with running("redis://127.0.0.1:1", books) as process:
        caller = ApiKey("key_2", "crawler", frozenset(), rate_limit_per_s=3)
        for _ in range(3):
            admitted = await process.order(("cup", 1), caller=caller)
            assert (admitted.gate_known, admitted.replay, admitted.taken) == (False, None, ())
        with pytest.raises(ProblemError):
            await process.order(("cup", 1), caller=caller)
        process.admissions.remember(request(), ANSWER)
        process.admissions.give_back(admitted)
        assert await process.admissions.other(CALLER, "GET")
        assert list(process.gate._noted) == ["cup"]


@pytest.mark.parametrize("key", ["limit:write", "answer", "counts"])
async def test_what_somebody_else_wrote_is_thrown_away(process: Process, key: str):
    """The order goes on, and the next one finds all well."""
    answer = keys.answers(ENVIRONMENT, CALLER.id) + keys.answer_digest("POST /v1/orders", "k")
    name = {"limit:write": keys.limit(ENVIRONMENT, CALLER.id, "write"), "answer": answer, "counts": COUNTS}
    await process.client.execute("DEL", name[key])
    await process.client.execute("LPUSH", name[key], "x")
    assert not (await process.order(("cup", 1))).gate_known
    async with asyncio.timeout(60):
        while not (await process.order(("cup", 1))).gate_known:
            await asyncio.sleep(0.005)


class Sale:
    """Two processes, a few SKUs, and buyers, clerks and accidents in any order. PostgreSQL decides.

    Notes how long a SKU was refused while PostgreSQL had a piece of it all the time.
    """

    def __init__(self, books: Books, processes: list[Process], dice: random.Random) -> None:
        self.books = books
        self.processes = processes
        self.dice = dice
        self.refused_since: dict[str, float] = {}
        self.longest_s = 0.0
        self.asleep_s = 0.0
        self.bought: Counter[str] = Counter()
        self.too_many: Counter[str] = Counter()
        self.ends_at = time.monotonic() + 3.5

    def refused(self, sku: str) -> None:
        """One piece was refused."""
        if self.books.left(sku) > 0:
            now = time.monotonic()
            self.longest_s = max(self.longest_s, now - self.refused_since.setdefault(sku, now))

    def change(self, sku: str, *, sold: int = 0, on_hand: int = 0) -> None:
        """Commit something."""
        self.books.sold[sku] += sold
        self.books.on_hand[sku] += on_hand
        if self.books.left(sku) <= 0:
            self.refused_since.pop(sku, None)

    async def buyer(self, sku: str) -> None:
        """Wants one piece, or some, again and again."""
        while time.monotonic() < self.ends_at:
            process, pieces = self.dice.choice(self.processes), self.dice.choice([1, 1, 1, 3])
            admitted = await process.order((sku, pieces), key=f"k-{self.dice.random()}")
            if admitted.sold_out:
                if pieces == 1:
                    self.refused(sku)
            else:
                self.refused_since.pop(sku, None)
                await asyncio.sleep(self.dice.uniform(0, 0.15))
                await self.decide(sku, pieces, process, admitted)
            await asyncio.sleep(self.dice.uniform(0, 0.02))

    async def decide(self, sku: str, pieces: int, process: Process, admitted: Admitted) -> None:
        """What becomes of an admitted order."""
        fate = self.dice.random()
        if fate < 0.1 or (not admitted.gate_known and self.books.left(sku) <= 0):
            process.admissions.give_back(admitted)  # refused after all
        elif fate > 0.05 + 0.1:  # else its process died, and nobody gave anything back
            self.change(sku, sold=pieces)
            if self.books.left(sku) < 0:  # the reservation finds nothing
                await asyncio.sleep(self.dice.uniform(0, 0.05))
                self.change(sku, sold=-pieces)
                self.too_many[sku] += pieces
            elif fate > 0.8:  # declined or cancelled: nobody tells the gate
                await asyncio.sleep(self.dice.uniform(0, 0.3))
                self.change(sku, sold=-pieces)
            else:
                self.bought[sku] += pieces

    async def clerk(self) -> None:
        """Counts shelves; does not always say so."""
        while time.monotonic() < self.ends_at:
            await asyncio.sleep(self.dice.uniform(0, 0.1))
            sku, delta = self.dice.choice(list(self.books.on_hand)), self.dice.choice([1, 2, 5, -1])
            if self.books.left(sku) + delta >= 0:
                self.change(sku, on_hand=delta)
                if self.dice.random() < 0.5:
                    await self.dice.choice(self.processes).gate.changed(sku, delta)

    async def watch(self) -> None:
        """How long this very process slept, because the machine had other things to do."""
        while time.monotonic() < self.ends_at:
            due_at = time.monotonic() + 0.02
            await asyncio.sleep(0.02)
            self.asleep_s += max(0.0, time.monotonic() - due_at - 0.02)

    async def accident(self) -> None:
        """Redis loses everything, or has it all wrong."""
        await asyncio.sleep(self.dice.uniform(0.5, 1))
        client = self.processes[0].client
        await client.execute("FLUSHALL")
        await asyncio.sleep(self.dice.uniform(0.5, 1))
        wrong = [part for sku in self.books.on_hand for part in (sku, self.dice.choice([0, -5, 3]))]
        await client.execute("HSET", COUNTS, *wrong)


@settings(
    max_examples=2,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**32))
async def test_nothing_is_refused_for_long_that_postgres_has(redis_url: str, seed: int):
    """Whatever happens in whatever order; and more orders than pieces get through only now and then."""
    dice = random.Random(seed)
    books = Books(**{f"sku-{number}": dice.choice([0, 1, 5, 50]) for number in range(20)})
    books.delay_s = 0.01
    async with AsyncExitStack() as stack:
        names = ["gateway-1", "gateway-2"]
        processes = [await stack.enter_async_context(running(redis_url, books, name)) for name in names]
        await processes[0].client.execute("FLUSHALL")
        sale = Sale(books, processes, dice)
        buyers = [sale.buyer(sku) for sku in books.on_hand for _ in range(3)]
        await asyncio.gather(*buyers, sale.clerk(), sale.clerk(), sale.accident(), sale.watch())
    print(
        f"refused for {sale.longest_s:.2f} s; {sale.bought.total()} bought, {sale.too_many.total()} too many"
    )
    assert sale.longest_s <= 2 + sale.asleep_s
    assert all(books.left(sku) >= 0 for sku in books.on_hand)
    assert sale.bought.total() > 100
    assert sale.too_many.total() <= sale.bought.total() // 2
