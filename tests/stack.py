"""Which servers the tests share. HOLDFAST_TEST_STACK: `embedded` (the default), `containers`, `external`.

Owns what a test knows of a shared server, whichever it is: where it is, whether it serves, and how to get a
place of one's own on it. Every test process has servers, or places, that no other process uses
(docs/TESTING.md). A test that stops, freezes, kills or measures a server takes an embedded one of its own
instead, whatever the stack: see tests/servers.py.
"""

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

import asyncpg
import pytest
import redis.asyncio
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.client import Client

from app.contracts.temporal import ATTRIBUTES

STACK = "HOLDFAST_TEST_STACK"
STACKS = ("embedded", "containers", "external")
TEMPLATE = "migrated"
"""The database of the shared PostgreSQL that is migrated once, and cloned for each test."""


def chosen() -> str:
    """The stack. Raises pytest.UsageError when there is none of that name."""
    stack = os.environ.get(STACK) or STACKS[0]
    if stack not in STACKS:
        raise pytest.UsageError(f"{STACK} must be one of {', '.join(STACKS)}, not {stack!r}")
    return stack


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL. `dsn` is of a role that may create databases; `prefix` begins all names of ours there."""

    dsn: str
    prefix: str = ""

    def address(self, name: str) -> str:
        """Where a database of ours is."""
        return urlsplit(self.dsn)._replace(path=f"/{self.prefix}{name}").geturl()

    async def create(self, name: str, template: str | None = None) -> str:
        """Make a database: empty, or a clone of another one of ours. Where it is."""
        source = f"{self.prefix}{template}" if template else "template0 ENCODING 'UTF8'"
        await self.execute(f"CREATE DATABASE {self.prefix}{name} TEMPLATE {source}")
        return self.address(name)

    async def drop(self, name: str) -> None:
        """Remove a database of ours, whoever is connected to it."""
        await self.execute(f"DROP DATABASE {self.prefix}{name} WITH (FORCE)")

    async def execute(self, statement: str) -> None:
        """Run a statement for the server as a whole."""
        connection = await asyncpg.connect(self.dsn)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def ask(self) -> None:
        """Return when it serves. Raises OSError, TimeoutError or asyncpg.PostgresError when it does not."""
        await self.execute("SELECT")


@dataclass(frozen=True)
class Redis:
    """A Redis that is this test process's alone: tests flush it, set its limits, end its connections."""

    url: str

    async def ask(self) -> None:
        """Return when it serves. Raises redis.RedisError when it does not."""
        async with redis.asyncio.from_url(self.url) as client:
            await client.ping()


@dataclass(frozen=True)
class Temporal:
    """A Temporal with a namespace that is this test process's alone, and our search attributes in it."""

    address: str
    namespace: str

    async def ask(self) -> None:
        """Return when the namespace is served. Raises RuntimeError or RPCError when it is not."""
        client = await Client.connect(self.address, namespace=self.namespace)
        listed = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=self.namespace)
        )
        missing = set(ATTRIBUTES) - set(listed.custom_attributes)
        if missing:
            raise RuntimeError(f"search attributes are missing: {', '.join(sorted(missing))}")
