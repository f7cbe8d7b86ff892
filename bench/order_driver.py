"""Owns how the benchmark `order` places orders, and how it sees that they are confirmed and completed.

Orders are posted to the gateway; what became of them is read from PostgreSQL. Nothing of the driver is in the
platform's way: it asks a partial index a few dozen times a second.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import asyncpg

from bench import shop
from bench.child import Run
from bench.load_connection import IDLE, Connection
from bench.samples import BenchmarkFailed, Sample

LOOK_S = 0.02
SETTLE_TIMEOUT_S = 60.0

_ACCEPTED = "SELECT count(*) FROM orders WHERE status = 'accepted'"
_OPEN = "SELECT count(*) FROM orders WHERE status NOT IN ('completed', 'rejected', 'cancelled')"
_NEWEST = """
    SELECT extract(epoch FROM confirmed.time - accepted.time) * 1000 AS ms
    FROM events confirmed JOIN events accepted USING (subject)
    WHERE confirmed.type = 'order.confirmed.v1' AND accepted.type = 'order.accepted.v1'
        AND subject = ANY ($1::text[])"""


class _Caller:
    """One request at a time over one connection."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._connection: Connection | None = None

    async def call(self, port: int, request: bytes) -> tuple[int, bytes]:
        """Send a request; status and body."""
        loop = asyncio.get_running_loop()
        if self._connection is None:
            _, self._connection = await loop.create_connection(lambda: Connection(self), "127.0.0.1", port)
        self._answer = loop.create_future()
        self._connection.send(0, request, time.perf_counter())
        return await self._answer

    def answered(self, connection: Connection, status: int, head_end: int, answer: bytes) -> None:
        """Hand the answer over."""
        connection.number = IDLE
        assert self._answer is not None
        self._answer.set_result((status, answer[head_end:]))

    def closed(self, connection: Connection) -> None:
        """Fail the request under way; the next opens another connection."""
        self._connection = None
        if connection.number != IDLE:
            self.broken("the gateway hung up")

    def broken(self, why: str) -> None:
        """Fail the request under way."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(BenchmarkFailed(why))

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.transport.abort()


class _Shop:
    """A gateway to order at, and the database to look into."""

    def __init__(self, port: int, orders: Iterator[bytes], connection: asyncpg.Connection) -> None:
        self._port = port
        self._orders = orders
        self._connection = connection
        self._callers: list[_Caller] = []

    async def place(self, count: int) -> None:
        """Place so many orders at once."""
        self._callers += [_Caller() for _ in range(count - len(self._callers))]
        callers = self._callers[:count]
        answers = await asyncio.gather(*(one.call(self._port, next(self._orders)) for one in callers))
        for status, body in answers:
            if status != 202:
                raise BenchmarkFailed(f"an order was answered {status}: {body[:300]!r}")

    async def accepted(self) -> int:
        """How many orders are not confirmed yet."""
        return int(await self._connection.fetchval(_ACCEPTED))

    async def settled(self) -> None:
        """Wait until every order is at its end."""
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            while await self._connection.fetchval(_OPEN):
                await asyncio.sleep(LOOK_S)

    async def confirmed_ms(self, ids: list[str]) -> list[float]:
        """From accepted to confirmed, by the events."""
        return [float(row["ms"]) for row in await self._connection.fetch(_NEWEST, ids)]

    async def newest(self) -> str:
        """The id of the newest order."""
        found = await self._connection.fetchval("SELECT id FROM orders ORDER BY id DESC LIMIT 1")
        return str(found)

    def close(self) -> None:
        """Hang up."""
        for caller in self._callers:
            caller.close()


@asynccontextmanager
async def _shop(port: int, api_key: str, dsn: str, customers: str) -> AsyncIterator[_Shop]:
    connection = await asyncpg.connect(dsn)
    found = _Shop(port, shop.orders(api_key, customers=customers), connection)
    try:
        yield found
    finally:
        found.close()
        await connection.close()


@asynccontextmanager
async def many(port: int, api_key: str, dsn: str, customers: str, in_flight: int) -> AsyncIterator[Run]:
    """So many orders in flight: accepted and not yet confirmed.

    The time is over when the last of them is completed: the whole life of every order that is counted was
    carried within it.
    """
    async with _shop(port, api_key, dsn, customers) as place:

        async def run(seconds: float) -> Sample:
            began = time.perf_counter()
            done = 0
            while time.perf_counter() - began < seconds:
                missing = in_flight - await place.accepted()
                if missing > 0:
                    await place.place(missing)
                    done += missing
                await asyncio.sleep(LOOK_S)
            await place.settled()
            return Sample(done, time.perf_counter() - began)

        yield run


@asynccontextmanager
async def one_at_a_time(port: int, api_key: str, dsn: str, customers: str) -> AsyncIterator[Run]:
    """The next order is placed when the last is completed; times are those of the events."""
    async with _shop(port, api_key, dsn, customers) as place:

        async def run(seconds: float) -> Sample:
            began = time.perf_counter()
            ids: list[str] = []
            while time.perf_counter() - began < seconds or not ids:
                await place.place(1)
                ids.append(await place.newest())
                await place.settled()
            took = await place.confirmed_ms(ids)
            if len(took) != len(ids):
                raise BenchmarkFailed(f"{len(took)} of {len(ids)} orders were confirmed")
            values = {"p50_ms": statistics.median(took), "max_ms": max(took)}
            return Sample(len(ids), time.perf_counter() - began, values=values)

        yield run
