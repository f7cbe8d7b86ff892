"""Orders and their first events written by asyncpg alone: one of each a commit, or many by UNNEST.

The rows are the product's (its tables' columns, constraints and indexes, in a schema of their own), built
before anything is timed; only their ids are new in every run. No idempotency, no outboxes, no reading.
How many connections, and how large a batch, is found out by trying before anything is measured.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec

from app.domain.ids import order_id
from app.infra.postgres.order_rows import json_text
from bench import placed, shop
from bench.child import Run
from bench.samples import Sample

SCHEMA = "reference"
TEMPLATES = 2_000
TRY_S = 0.3
_TYPES = (
    ("id", "text"),
    ("customer_id", "text"),
    ("status", "text"),
    ("currency", "text"),
    ("lines", "jsonb"),
    ("total", "bigint"),
    ("payment", "jsonb"),
    ("payment_method", "text"),
    ("stock", "text"),
    ("metadata", "jsonb"),
    ("shipping_address", "jsonb"),
    ("correlation_id", "text"),
    ("last_hash", "bytea"),
    ("created_at", "timestamptz"),
    ("type", "text"),
    ("data", "json"),
)
_SENT = {"jsonb": "text", "json": "text"}
_ORDER = [name for name, _ in _TYPES if name not in {"type", "data"}]
_CASTS = {name: f"{name}::{kind}" if kind in _SENT else name for name, kind in _TYPES}

Row = tuple[Any, ...]


async def make_tables(dsn: str) -> None:
    """The product's two tables once more, empty, in the schema of the references."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(f"CREATE SCHEMA {SCHEMA}")
        for table in ("orders", "events"):
            await connection.execute(f"CREATE TABLE {SCHEMA}.{table} (LIKE public.{table} INCLUDING ALL)")
    finally:
        await connection.close()


def _statement(source: str) -> str:
    order = ", ".join(_CASTS[name] for name in _ORDER)
    return f"""WITH given AS ({source}), placed AS (
        INSERT INTO {SCHEMA}.orders ({", ".join(_ORDER)}, version, updated_at)
        SELECT {order}, 1, created_at FROM given)
    INSERT INTO {SCHEMA}.events (subject, sequence, type, time, correlation_id, data, hash)
    SELECT id, 1, type, created_at, correlation_id, data::json, last_hash FROM given"""


_PARAMETERS = [(n, name, _SENT.get(kind, kind)) for n, (name, kind) in enumerate(_TYPES, 1)]
SINGLE = _statement("SELECT " + ", ".join(f"${n}::{kind} AS {name}" for n, name, kind in _PARAMETERS))
BATCH = _statement(
    f"SELECT * FROM unnest({', '.join(f'${n}::{kind}[]' for n, _, kind in _PARAMETERS)})"
    f" AS g ({', '.join(name for _, name, _ in _PARAMETERS)})"
)


def _templates() -> list[Row]:
    found = []
    for body, _ in zip(shop.bodies(), range(TEMPLATES), strict=False):
        wanted = msgspec.json.decode(body)
        lines = [(line["sku"], line["quantity"]) for line in wanted["lines"]]
        order, event = placed.accepted(wanted["customer_id"], lines)
        first = placed.linked(order, event)
        found.append(
            (
                *(order.id, order.customer_id, order.status, order.currency, json_text(order.lines)),
                *(order.total, json_text(order.payment), order.payment_method, order.stock, "{}"),
                *(json_text(wanted["shipping_address"]), order.correlation_id, first.hash, order.created_at),
                *(first.type, first.data),
            )
        )
    return found


def _rows(templates: Sequence[Row]) -> Iterator[Row]:
    """Rows for ever, each with an id that nobody has."""
    while True:
        now = time.time_ns() // 1_000_000
        for row in templates:
            yield (order_id(now, secrets.token_bytes(10)), *row[1:])


Write = Callable[[asyncpg.Connection, Any], Awaitable[int]]


async def _one(connection: asyncpg.Connection, row: Row) -> int:
    await connection.execute(SINGLE, *row)
    return 1


async def _many(connection: asyncpg.Connection, columns: Sequence[Sequence[Any]]) -> int:
    await connection.execute(BATCH, *columns)
    return len(columns[0])


async def _timed(
    pool: Sequence[asyncpg.Connection], write: Write, work: Sequence[Any], seconds: float
) -> Sample:
    """Have every connection take from `work` until the time is over (or there is none left)."""
    left = iter(work)
    began = time.perf_counter()
    cpu = time.process_time()
    until = began + seconds
    done = 0

    async def taking(connection: asyncpg.Connection) -> None:
        nonlocal done
        while time.perf_counter() < until and (item := next(left, None)) is not None:
            written = await write(connection, item)
            done += written

    await asyncio.gather(*map(taking, pool))
    return Sample(done, time.perf_counter() - began, {"client": time.process_time() - cpu})


class _Writer:
    """Writes rows one way, with as many connections and as large a batch as is best."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._rows = _rows(_templates())
        self._connections: list[asyncpg.Connection] = []
        self._batch = 0
        self._rate = 3_000.0

    async def grow(self, size: int) -> None:
        while len(self._connections) < size:
            self._connections.append(await asyncpg.connect(self._dsn, server_settings={"jit": "off"}))

    async def run(self, seconds: float, size: int, batch: int) -> Sample:
        """Write for so long; `batch` 0 is one row a commit."""
        await self.grow(size)
        wanted = int(self._rate * seconds * 1.5) + size * max(batch, 1)
        rows = [next(self._rows) for _ in range(wanted)]
        pool = self._connections[:size]
        if not batch:
            sample = await _timed(pool, _one, rows, seconds)
        else:
            parts = [rows[at : at + batch] for at in range(0, len(rows), batch)]
            columns = [list(zip(*part, strict=True)) for part in parts]
            sample = await _timed(pool, _many, columns, seconds)
        self._rate = max(self._rate, sample.operations / sample.wall_s)
        return sample

    async def best(self, choices: Sequence[tuple[int, int]]) -> tuple[int, int]:
        """The choice (connections, batch) that writes the most."""
        found = {}
        for size, batch in choices:
            await self.run(TRY_S / 3, size, batch)  # connections, statements, and a guess of the rate
            sample = await self.run(TRY_S, size, batch)
            found[size, batch] = sample.operations / sample.wall_s
        print(
            {f"{size} connections, batches of {batch}": round(rate) for (size, batch), rate in found.items()}
        )
        return max(found, key=lambda choice: found[choice])

    async def forget(self) -> None:
        """Empty the tables: what was tried is not to be counted."""
        await self._connections[0].execute(f"TRUNCATE {SCHEMA}.orders, {SCHEMA}.events")

    async def close(self) -> None:
        for connection in self._connections:
            await connection.close()


@asynccontextmanager
async def _writing(dsn: str, choices: Sequence[tuple[int, int]]) -> AsyncIterator[Run]:
    writer = _Writer(dsn)
    try:
        size, batch = await writer.best(choices)
        await writer.forget()

        async def run(seconds: float) -> Sample:
            return await writer.run(seconds, size, batch)

        yield run
    finally:
        await writer.close()


@asynccontextmanager
async def single(dsn: str) -> AsyncIterator[Run]:
    """One order with its event a commit."""
    async with _writing(dsn, [(size, 0) for size in (8, 16, 32, 64)]) as run:
        yield run


@asynccontextmanager
async def batched(dsn: str) -> AsyncIterator[Run]:
    """Many orders with their events a commit, by UNNEST."""
    choices = [(size, batch) for size in (1, 2, 4) for batch in (100, 256, 1000)]
    async with _writing(dsn, choices) as run:
        yield run
