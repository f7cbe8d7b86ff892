"""Redis dead, frozen or swallowed by a black hole: reads and orders go on, hardly slower, and never stale.

A stack of its own, whose worker, consumer and providers are dead: orders are accepted and wait, and the
machine belongs to what is measured. The gateway has a Redis of its own, which nothing brings back.
Percentiles count from the moment a request was due, at half of what the gateway can do when all is well.
Machines are noisy: every state is measured a few times, in turn with the normal one, and the best of each is
compared; all are printed.
"""

import asyncio
import itertools
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from app.dev.servers import EmbeddedValkey
from bench import load
from tests.acceptance.shop import Shop
from tests.acceptance.stack import Stack, another_gateway
from tests.proxy import FaultProxy

pytestmark = pytest.mark.full

P99_RATIO_MAX = 3.0
BACK_WITHIN_S = 2.0
AWAY_WITHIN_S = 5.0
WORST_MS = 1_000.0
"""What the moment of failing may cost those who were asking: one deadline of 100 ms, on a noisy machine."""
TRIES = 4
CONNECTIONS = 64
QUIET_RATE = 150.0
QUIET_S = 0.8
ORDERS = 20
CLOSED_S = 1.0
OPEN_S = 1.5

_numbers = itertools.count()

Fault = Callable[[], Awaitable[None]]


class Load:
    """What one gateway is asked: reads of orders that are there, and new orders of what never sells out."""

    def __init__(self, shop: Shop, url: str) -> None:
        self.shop = shop
        self.port = httpx.URL(url).port or 80
        self.headers = {"Authorization": f"Bearer {shop.status['api_key']}"}
        self.reads = [load.get(f"/v1/orders/{order_id}", self.headers) for order_id in shop.placed]
        self.body = json.dumps(shop.body("plenty")).encode()

    def plan(self, what: str, seconds: float, rate: float | None) -> load.Plan:
        """Reads in turn, or orders with keys of their own, for so long."""
        requests = self.reads
        if what == "POST":
            wanted = int(seconds * (rate or 3_000)) + CONNECTIONS
            requests = [
                load.post(
                    "/v1/orders", self.body, self.headers | {"Idempotency-Key": f"load-{next(_numbers)}"}
                )
                for _ in range(wanted)
            ]
        return load.Plan(
            port=self.port,
            requests=requests,
            connections=CONNECTIONS,
            seconds=seconds,
            rate=rate,
            repeat=what == "GET",
        )

    async def run(self, what: str, seconds: float, rate: float | None = None) -> load.Result:
        """One run; every request is answered as if nothing were wrong."""
        result = await load.run_apart(self.plan(what, seconds, rate))
        return result.expect(200 if what == "GET" else 202)

    async def half(self, what: str) -> float:
        """Half of the rate at which it answers those who never stop asking; a second."""
        await self.run(what, CLOSED_S / 3)
        return (await self.run(what, CLOSED_S)).rate / 2


class Compared:
    """The percentiles of one state beside the normal ones, milliseconds."""

    def __init__(self, what: str, state: str, rate: float) -> None:
        self.told = f"{what} at {rate:.0f}/s, {state}"
        self.normal: list[tuple[float, ...]] = []
        self.faulty: list[tuple[float, ...]] = []

    @property
    def ratio(self) -> float:
        """The best p99 of the state ÷ the best normal p99."""
        return min(p99 for _, p99 in self.faulty) / min(p99 for _, p99 in self.normal)

    def __str__(self) -> str:
        def shown(runs: list[tuple[float, ...]]) -> str:
            return ", ".join(f"{p50:.1f}/{p99:.1f}" for p50, p99 in runs)

        return (
            f"{self.told}: p50/p99 ms normal {shown(self.normal)}; then {shown(self.faulty)}; "
            f"ratio {self.ratio:.2f}"
        )


async def compare(load_: Load, what: str, state: str, begin: Fault, end: Fault) -> Compared:
    """Measure in turn with and without a fault, until it is good or tried often enough."""
    rate = await load_.half(what)
    found = Compared(what, state, rate)
    for _ in range(TRIES):
        found.normal.append((await load_.run(what, OPEN_S, rate)).latency_ms(0.5, 0.99))
        await begin()
        try:
            found.faulty.append((await load_.run(what, OPEN_S, rate)).latency_ms(0.5, 0.99))
        finally:
            await end()
        if found.ratio <= P99_RATIO_MAX:
            break
    print(found)
    return found


@pytest.fixture(scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    """A shop with orders of which half are final; the others, and all that come, stay as they are."""
    stack = Stack(tmp_path_factory.mktemp("stopped") / "data", RATE_LIMIT_PER_S="1000000")
    await stack.up("--no-restart")
    try:
        shop = Shop(await stack.status())
        await shop.stock("plenty", 10_000_000)
        for number in range(ORDERS):
            assert (await shop.place(f"final-{number}", "plenty")).status_code == 202
        await shop.settled()
        await stack.kill("worker", "consumer", "sandbox", "temporal")
        for number in range(ORDERS):
            assert (await shop.place(f"open-{number}", "plenty")).status_code == 202
        yield shop
        await shop.close()
    finally:
        await stack.down()


class Redis:
    """A Redis that fails as it is told, and the gateway that asks it."""

    def __init__(self, server: EmbeddedValkey, proxy: FaultProxy, url: str) -> None:
        self.server = server
        self.proxy = proxy
        self.gateway_url = url

    async def freeze(self) -> None:
        """It takes connections and says nothing."""
        assert self.server.pid is not None
        os.kill(self.server.pid, signal.SIGSTOP)

    async def thaw(self) -> None:
        """It goes on where it was."""
        assert self.server.pid is not None
        os.kill(self.server.pid, signal.SIGCONT)

    async def kill(self) -> None:
        """It is dead, and nothing listens in its place."""
        await self.server.kill()

    async def start(self) -> None:
        """It is there again, empty."""
        await self.server.start()

    async def swallow(self) -> None:
        """Bytes vanish and nobody is told, of connections that are there and of new ones."""
        self.proxy.is_black_hole = True
        self.proxy.to_server.silence()
        self.proxy.to_client.silence()

    async def heal(self) -> None:
        """What was swallowed comes late, and everything else as ever."""
        self.proxy.heal()

    async def noticed(self, *, up: bool) -> None:
        """Wait until the gateway's metrics say that Redis is there, or is not."""
        loop = asyncio.get_running_loop()
        began, within_s = loop.time(), BACK_WITHIN_S if up else AWAY_WITHIN_S
        async with httpx.AsyncClient(base_url=self.gateway_url) as http:
            while f"holdfast_redis_up {float(up)}" not in (await http.get("/metrics")).text:
                assert loop.time() - began < within_s, f"not noticed within {within_s} s"
                await asyncio.sleep(0.02)
        print(f"Redis is {'there' if up else 'away'}: noticed after {loop.time() - began:.2f} s")


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedValkey]:
    """A Redis that keeps nothing and that nobody starts again."""
    server = EmbeddedValkey(tmp_path_factory.mktemp("redis"), durable=False, follow=signal.SIGKILL)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


@pytest.fixture(scope="module")
async def direct(shop: Shop, server: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory):
    """The gateway asks it directly."""
    log = tmp_path_factory.mktemp("direct") / "gateway.log"
    async with (
        FaultProxy(server.url, seed=0) as proxy,
        another_gateway(shop.status, log, REDIS_URL=server.url) as url,
    ):
        yield Redis(server, proxy, url)


@pytest.fixture(scope="module")
async def proxied(shop: Shop, server: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory):
    """The gateway asks it through something that may swallow everything."""
    log = tmp_path_factory.mktemp("proxied") / "gateway.log"
    async with (
        FaultProxy(server.url, seed=0) as proxy,
        another_gateway(shop.status, log, REDIS_URL=proxy.url) as url,
    ):
        yield Redis(server, proxy, url)


FAULTS = {
    "frozen": (Redis.freeze, Redis.thaw),
    "dead": (Redis.kill, Redis.start),
    "swallowed": (Redis.swallow, Redis.heal),
}


@pytest.fixture(params=FAULTS)
def failing(request: pytest.FixtureRequest) -> tuple[str, Redis, Fault, Fault]:
    """A state, and how it begins and ends; it is always ended."""
    redis = request.getfixturevalue("proxied" if request.param == "swallowed" else "direct")
    begin, end = FAULTS[request.param]
    return request.param, redis, lambda: begin(redis), lambda: end(redis)


@pytest.mark.parametrize("what", ["GET", "POST"])
async def test_without_redis_nobody_waits(
    shop: Shop, failing: tuple[str, Redis, Fault, Fault], what: str
) -> None:
    """At half load the p99 is at most three times the normal one; when Redis is back, all is as it was."""
    state, redis, begin, end = failing

    async def away() -> None:
        await begin()
        await redis.noticed(up=False)

    async def back() -> None:
        await end()
        await redis.noticed(up=True)

    found = await compare(Load(shop, redis.gateway_url), what, f"Redis {state}", away, back)
    assert found.ratio <= P99_RATIO_MAX


@pytest.mark.parametrize("what", ["GET", "POST"])
async def test_everybody_is_answered_when_redis_goes_away(
    shop: Shop, failing: tuple[str, Redis, Fault, Fault], what: str
) -> None:
    """In the middle of a run, at a rate that any machine bears; and Redis is found again without help."""
    await fail_in_the_middle(shop, failing, what, QUIET_S, QUIET_RATE)


@pytest.mark.parametrize("what", ["GET", "POST"])
async def test_the_moment_redis_goes_away_costs_one_deadline(
    shop: Shop, failing: tuple[str, Redis, Fault, Fault], what: str
) -> None:
    """At half load: those who asked just then wait for it, and nobody for long."""
    assert await fail_in_the_middle(shop, failing, what, OPEN_S, None) < WORST_MS


async def fail_in_the_middle(
    shop: Shop, failing: tuple[str, Redis, Fault, Fault], what: str, seconds: float, rate: float | None
) -> float:
    """Begin a fault in the middle of a run (no rate: at half load) and end it; the worst latency, ms."""
    state, redis, begin, end = failing
    wanted = Load(shop, redis.gateway_url)
    if rate is None:
        rate = await wanted.half(what)
    asked = await answered(redis.gateway_url)

    async def fail() -> None:
        while await answered(redis.gateway_url) < asked + rate * seconds / 3:
            await asyncio.sleep(0.02)
        await begin()

    failing_later = asyncio.create_task(fail())
    try:
        result = await wanted.run(what, seconds, rate)
        await failing_later
    finally:
        failing_later.cancel()
        await end()
    await redis.noticed(up=True)
    p50, p99, worst = result.latency_ms(0.5, 0.99, 1)
    print(f"{what} at {rate:.0f}/s, then Redis {state}: p50/p99/worst {p50:.1f}/{p99:.1f}/{worst:.0f} ms")
    return worst


async def answered(url: str) -> float:
    """How many requests a gateway has answered, by its metrics."""
    async with httpx.AsyncClient(base_url=url) as http:
        lines = (await http.get("/metrics")).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("holdfast_http_requests_total{"))
