"""The benchmark `stream`: events a second through the consumer's runtime, out of a backlog.

Ours is everything that a consumer does for a group, as its run.py puts it together: leases that are renewed
and looked at in every transaction, XREADGROUP, envelopes decoded, order kept for each subject, marks and
effects committed durably in PostgreSQL, XACK after the commit, lines of log. One handler does nothing;
the other's writes a row for each event. Events are those of orders on their way, 64 of them side by side.

References: one raw socket with hiredis that reads and acknowledges as many of the same entries, and asyncpg
inserting as many rows in batches. Marks, their sequences and rows are counted in PostgreSQL afterwards.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime

import asyncpg
import redis.asyncio

from app.consumer.dispatch import Group, Handler
from app.consumer.group_parts import GroupParts
from app.consumer.leases import Leases
from app.consumer.patience import for_ever
from app.consumer.projections import Applied
from app.consumer.reader import Reader
from app.contracts.streams import Envelope
from app.domain import events as e
from app.garbage import settle
from app.infra.postgres.dead_letters import DeadLetters
from app.infra.postgres.leases import ShardLeases
from app.infra.postgres.migrate import migrate
from app.infra.postgres.pool import Database
from app.infra.postgres.projections import Effects, PostgresProjections
from app.infra.redis.clients import open_redis
from app.infra.tasks import end
from app.observability import logging
from bench.child import ChildSide, Run
from bench.harness import Contest, Effect, Figure, Setting
from bench.processor import CLIENT_CPU, Processes
from bench.references import consuming
from bench.samples import BenchmarkFailed, Sample
from bench.servers import postgres, valkey
from bench.stream_events import SHARDS, Histories, empty, fill, make_groups

NAME = "stream"
SECONDS = 0.8
POOL = 10
"""What DATABASE_POOL_SIZE is unless somebody says otherwise."""
EMPTY, ROWS = "bench-empty", "bench-rows"
DEADLINE_S = 60.0
TABLE = """CREATE TABLE bench_rows (
    id text PRIMARY KEY, subject text NOT NULL, sequence integer NOT NULL, type text NOT NULL,
    time timestamptz NOT NULL)"""
INSERT = """INSERT INTO bench_rows (id, subject, sequence, type, time)
    SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::timestamptz[])"""


async def nothing(events: Sequence[Envelope], effects: Effects) -> None:
    """The empty handler."""


async def row_for_each(events: Sequence[Envelope], effects: Effects) -> None:
    """A row for each event; the marks see to it that there is one."""
    await effects.connection.execute(
        INSERT,
        [event.id for event in events],
        [event.subject for event in events],
        [event.sequence for event in events],
        [event.type for event in events],
        [datetime.fromisoformat(event.time) for event in events],
    )


HANDLERS: Mapping[str, Handler] = {EMPTY: nothing, ROWS: row_for_each}


class _Consumer:
    """What a consumer runs for one group; its reader runs while it is measured."""

    def __init__(self, name: str, database: Database, parts: "_Parts") -> None:
        self._name = name
        self._database = database
        self._parts = parts
        self._wanted = self._done = 0
        self._finished = asyncio.Event()

    async def consume(self, wanted: int) -> None:
        """Read until so many events have had their effect and are acknowledged."""
        self._wanted, self._done = wanted, 0
        self._finished.clear()
        handlers = dict.fromkeys(e.TYPES.values(), (HANDLERS[self._name],))
        group = Group(self._name, handlers, (self._count,))
        reader = self._parts.reader(group)
        reading = asyncio.create_task(reader.run())
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._finished.wait()
        except TimeoutError:
            raise BenchmarkFailed(f"{self._done} of {wanted} events in {DEADLINE_S:g} s") from None
        finally:
            reader.stop()
            await reading
        if self._done != wanted:
            raise BenchmarkFailed(f"{self._done} events were handled instead of {wanted}")

    async def _count(self, applied: Applied) -> None:
        self._done += len(applied.events)
        if self._done >= self._wanted:
            self._finished.set()


class _Parts:
    """A consumer's connections and leases, as its run.py makes them."""

    def __init__(self, stack: AsyncExitStack, name: str) -> None:
        self._stack = stack
        self._name = name

    async def open(self, dsn: str, url: str) -> Database:
        """Connect, and wait until this process has all shards."""
        name, stack = self._name, self._stack
        database = await Database(dsn, size=POOL, name="consumer").open()
        stack.push_async_callback(database.close)
        beating = await Database(dsn, size=1, name="consumer-leases").open()
        stack.push_async_callback(beating.close)
        self._redis = await stack.enter_async_context(open_redis(url, None, name, "consumer"))
        self._store = PostgresProjections(database, f"/holdfast/{name}")
        self._letters = DeadLetters(database)
        leases = Leases(ShardLeases(beating, f"bench-{name}", [name], SHARDS), [name], SHARDS)
        self.holding = leases.holdings[name]
        beats = asyncio.create_task(for_ever("leases", leases.run))
        stack.push_async_callback(end, [beats], within_s=1.0)
        async with asyncio.timeout(DEADLINE_S):
            while len(self.holding.tokens) < SHARDS:
                await self.holding.changed.wait()
                self.holding.changed.clear()
        return database

    def reader(self, group: Group) -> Reader:
        """A reader that begins now."""
        return GroupParts(group, self.holding, self._store, self._letters, self._redis, SHARDS).reader


@asynccontextmanager
async def consumer(dsn: str, url: str, name: str, servers: dict[str, int]) -> AsyncIterator[Run]:
    """The runtime of a group; it has an environment of its own, so streams that nobody else reads."""
    logging.configure(level="info", fmt="json", mode="consumer", environment=name)
    histories, processes = Histories(), Processes(servers)
    rate = 20_000.0
    async with AsyncExitStack() as stack:
        admin = await stack.enter_async_context(redis.asyncio.from_url(url, protocol=2))
        await make_groups(admin, name, name)
        parts = _Parts(stack, name)
        one = _Consumer(name, await parts.open(dsn, url), parts)
        settle()

        async def run(seconds: float) -> Sample:
            nonlocal rate
            orders = 1 + int(rate * seconds / histories.events_of_each)
            wanted = await fill(admin, name, histories.entries(orders))
            before, cpu, began = processes.cpu_s(), time.process_time(), time.perf_counter()
            await one.consume(wanted)
            wall_s, used = time.perf_counter() - began, time.process_time() - cpu
            after = processes.cpu_s()
            if left := await empty(admin, name, name):
                raise BenchmarkFailed(f"{left} entries were not acknowledged")
            rate = wanted / wall_s
            return Sample(
                wanted, wall_s, {"consumer": used, **{each: after[each] - before[each] for each in after}}
            )

        yield run


@asynccontextmanager
async def benchmark(setting: Setting) -> AsyncIterator[Sequence[Contest]]:
    """With an empty handler; with one that writes rows."""
    async with postgres(setting) as database, valkey(setting, durable=True) as server:
        await migrate(database.dsn)
        await _execute(database.dsn, TABLE)
        assert database.pid is not None
        assert server.pid is not None
        pids = {"postgres": database.pid, "valkey": server.pid}

        def child(
            name: str, factory: str, options: Mapping[str, object], **more: dict[str, int]
        ) -> ChildSide:
            return ChildSide(name, factory, options, log=setting.log(name), cpu=CLIENT_CPU, **more)

        def ours(group: str, name: str) -> ChildSide:
            options = {"dsn": database.dsn, "url": server.url, "name": group, "servers": pids}
            return child(name, f"{__name__}:consumer", options)

        where = f"{consuming.__name__}:"
        raw = child(
            "raw socket",
            where + "raw_socket",
            {"url": server.url, "servers": {"valkey": server.pid}},
        )
        inserts = child(
            "batched insert",
            where + "batched_insert",
            {"dsn": database.dsn},
            servers={"postgres": database.pid},
        )
        yield [
            _contest(database.dsn, ours(EMPTY, "empty handler"), raw, "vs_raw", 0.6, EMPTY),
            _contest(database.dsn, ours(ROWS, "a row an event"), inserts, "vs_batched_insert", 0.5, ROWS),
        ]


def _contest(
    dsn: str, ours: ChildSide, reference: ChildSide, figure: str, goal: float, group: str
) -> Contest:
    async def effects(totals: Mapping[str, float]) -> list[Effect]:
        marks = f"SELECT coalesce(sum(sequence), 0) FROM marks WHERE consumer_group = '{group}'"
        found = [Effect(f"events below the marks of {group}", totals[ours.name], await _count(dsn, marks))]
        if group == ROWS:
            for table, side in (("bench_rows", ours), (consuming.ROWS, reference)):
                rows = await _count(dsn, f"SELECT count(*) FROM {table}")
                found.append(Effect(f"rows in {table}", totals[side.name], rows))
        return found

    return Contest(
        ours=ours,
        references=[reference],
        figures=[Figure(figure, goal=goal)],
        effects=effects,
        seconds=SECONDS,
    )


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _count(dsn: str, query: str) -> float:
    connection = await asyncpg.connect(dsn)
    try:
        return float(await connection.fetchval(query))
    finally:
        await connection.close()
