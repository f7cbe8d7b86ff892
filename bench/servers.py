"""Owns the servers a benchmark starts: real, durable as in production, on processors of its choice.

Guarantees: a server is ready when it is yielded, its version is in the setting, its log lies in the setting's
folder, and it ends with the benchmark or with this process, whichever is first.
"""

import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
import redis.asyncio

from app.dev.servers import EmbeddedPostgres, EmbeddedTemporal, EmbeddedValkey
from bench.harness import Setting
from bench.processor import CPUS, pinned


@asynccontextmanager
async def valkey(
    setting: Setting, *, cpus: Sequence[int] = CPUS, durable: bool = False
) -> AsyncIterator[EmbeddedValkey]:
    """A Valkey."""
    server = EmbeddedValkey(
        setting.folder / "valkey", log=setting.log("valkey"), durable=durable, follow=signal.SIGKILL
    )
    try:
        with pinned(*cpus):
            await server.start()
        async with redis.asyncio.from_url(server.url) as client:
            found = await client.info("server")
        setting.versions["valkey"] = found.get("valkey_version", found["redis_version"])
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def postgres(setting: Setting, *, cpus: Sequence[int] = CPUS) -> AsyncIterator[EmbeddedPostgres]:
    """A PostgreSQL that is durable: every commit is on disk when it is answered."""
    server = EmbeddedPostgres(
        setting.folder / "postgres", log=setting.log("postgres"), durable=True, follow=signal.SIGQUIT
    )
    try:
        with pinned(*cpus):
            await server.start()
        connection = await asyncpg.connect(server.dsn)
        try:
            setting.versions["postgres"] = await connection.fetchval("SHOW server_version")
        finally:
            await connection.close()
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def temporal(setting: Setting, *, cpus: Sequence[int] = CPUS) -> AsyncIterator[EmbeddedTemporal]:
    """A Temporal with our namespace and search attributes."""
    server = EmbeddedTemporal(
        setting.folder / "temporal", log=setting.log("temporal"), durable=True, follow=signal.SIGKILL
    )
    try:
        with pinned(*cpus):
            await server.start()
        yield server
    finally:
        await server.stop()
