"""The benchmark `replay`: events of the past run through a projection again.

Ours is `holdfast replay` without its command: the engine, with everything that makes it safe. The shadow is
made and cut where the marks are, events are read and given to the handler of the daily summary in batches,
each batch, cursor and progress one transaction; then it is compared with the live table, row by row and by
hash. The reference reads and decodes the same events in the same batches, and does nothing with them.

The events are whole histories of orders, in place before anything is measured. How many events each replay
went through, and that every rebuilt table was the live one, is looked up in PostgreSQL afterwards.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import asyncpg

from app.contracts.streams import GROUP_PROJECTIONS
from app.domain.upcasters import VERSIONS
from app.garbage import settle
from app.infra.postgres.migrate import migrate
from app.infra.postgres.pool import Database
from app.infra.postgres.replay_events import Wanted, event_batches
from app.infra.postgres.replays import APPLIED, SHOWN, Asked
from app.projections.days import TYPES
from app.replay.asking import ask
from app.replay.engine import BATCH_EVENTS, Engine
from app.replay.registry import handlers
from bench import history
from bench.child import ChildSide, Run
from bench.harness import Contest, Effect, Figure, Setting
from bench.processor import CLIENT_CPU
from bench.samples import BenchmarkFailed, Sample
from bench.servers import postgres

NAME = "replay"
HANDLER = "daily_summary"
ORDERS = 16_000
SECONDS = 0.5
"""A side goes through all events again and again for at least so long."""
DEADLINE_S = 60.0

_REPLAYED = f"SELECT sum(done) FROM replays WHERE state = '{SHOWN}'"
_EVENTS = f"""SELECT count(*) * (SELECT count(*) FROM replays WHERE state = '{SHOWN}')
    FROM events WHERE type = ANY ($1::text[])"""
_WRONG = f"""SELECT count(*) FROM replays WHERE state NOT IN ('{SHOWN}', '{APPLIED}') OR error IS NOT NULL
    OR state = '{SHOWN}' AND (changes > 0 OR summary->>'live_hash' <> summary->>'rebuilt_hash')"""


@asynccontextmanager
async def replaying(dsn: str) -> AsyncIterator[Run]:
    """A worker's engine, and replays of everything, one after another."""
    database = await Database(dsn, size=2, name="worker").open()
    known = handlers()
    engine = Engine(database, known)
    settle()

    async def one(*, is_applied: bool = False) -> int:
        async with database.transaction() as connection:
            asked = await ask(connection, Asked(HANDLER, is_applied=is_applied), known)
        progress = await engine.carry(asked.id, seconds=DEADLINE_S)
        if progress.state not in {SHOWN, APPLIED}:
            raise BenchmarkFailed(f"a replay ended {progress.state}")
        return progress.done

    async def run(seconds: float) -> Sample:
        return await _again_and_again(one, seconds)

    try:
        await one(is_applied=True)  # the live table, from the events
        yield run
    finally:
        await database.close()


@asynccontextmanager
async def reading(dsn: str) -> AsyncIterator[Run]:
    """The same events, in the same batches, read and decoded."""
    connection = await asyncpg.connect(dsn, server_settings={"jit": "off"})
    settle()

    async def one() -> int:
        done = 0
        async for batch in event_batches(connection, Wanted(TYPES), size=BATCH_EVENTS):
            for event in batch.events:
                VERSIONS.read(event.type, event.data)
            done += len(batch.events)
        return done

    async def run(seconds: float) -> Sample:
        return await _again_and_again(one, seconds)

    try:
        yield run
    finally:
        await connection.close()


async def _again_and_again(one: Callable[[], Awaitable[int]], seconds: float) -> Sample:
    done, began, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        done += await one()
    return Sample(done, time.perf_counter() - began, {"client": time.process_time() - cpu})


@asynccontextmanager
async def benchmark(setting: Setting) -> AsyncIterator[Sequence[Contest]]:
    """One contest with one reference."""
    async with postgres(setting) as database:
        await migrate(database.dsn)
        ways = (history.COMPLETED, history.COMPLETED, history.CANCELLED, history.REJECTED)
        kinds = [history.Kind((("a", 1, 100), ("b", 2, 250)), way) for way in ways]
        many = [kinds[number % len(kinds)] for number in range(ORDERS)]
        await history.put(database.dsn, many, until=datetime.now(UTC), marks=[GROUP_PROJECTIONS])
        await _execute(database.dsn, "VACUUM ANALYZE")
        assert database.pid is not None
        servers = {"postgres": database.pid}

        def side(name: str, factory: str) -> ChildSide:
            options = {"dsn": database.dsn}
            where = f"{__name__}:{factory}"
            return ChildSide(name, where, options, log=setting.log(factory), cpu=CLIENT_CPU, servers=servers)

        ours = side("replay", "replaying")

        async def effects(totals: Mapping[str, float]) -> Sequence[Effect]:
            return await _effects(database.dsn, totals[ours.name])

        yield [
            Contest(
                ours=ours,
                references=[side("read and decode", "reading")],
                figures=[Figure("vs_read_decode", goal=0.6)],
                effects=effects,
                seconds=SECONDS,
            )
        ]


async def _effects(dsn: str, done: float) -> list[Effect]:
    connection = await asyncpg.connect(dsn)
    try:
        replayed = float(await connection.fetchval(_REPLAYED))
        events = float(await connection.fetchval(_EVENTS, sorted(TYPES)))
        wrong = float(await connection.fetchval(_WRONG))
        return [
            Effect("events replayed", done, replayed),
            Effect("events there are, times replays", done, events),
            Effect("replays that differ in anything", 0, wrong),
        ]
    finally:
        await connection.close()


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
