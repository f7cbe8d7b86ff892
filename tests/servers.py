"""The servers of a test process: those that its tests share, and embedded ones that are a test's own.

Shared (the fixtures `postgres_server`, `redis_server`, `temporal_server` and all that ask for them): of the
stack that HOLDFAST_TEST_STACK names, see tests/stack.py. A test's own, to be stopped, frozen, killed,
misconfigured or measured (`redis_in`, `embedded_postgres`, whatever comes from app/dev/servers.py):
embedded in every stack, because only of a process of ours is the pid known, and the signal that ends it.
HOLDFAST_TEST_REDIS is the path of another program than Valkey for every embedded Redis.
"""

import os
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from app.dev.servers import EmbeddedPostgres, EmbeddedTemporal, EmbeddedValkey
from tests import stack_external
from tests.stack import Postgres, Redis, Temporal, chosen

if TYPE_CHECKING:
    from tests.stack_containers import Containers


def redis_in(place: Path, port: int = 0, *, settings: Mapping[str, str] | None = None) -> EmbeddedValkey:
    """A server that keeps nothing on disk and dies with this process, not started yet."""
    given = os.environ.get("HOLDFAST_TEST_REDIS")
    return EmbeddedValkey(
        place,
        port,
        durable=False,
        follow=signal.SIGKILL,
        binary=Path(given).absolute() if given else None,  # it runs in another folder
        settings=settings,
    )


class Servers:
    """The servers of one test process, each started when it is first asked for; all stopped at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stack = chosen()
        self._ends = AsyncExitStack()
        self._embedded_postgres: EmbeddedPostgres | None = None
        self._containers: Containers | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._ends.aclose()

    async def embedded_postgres(self) -> EmbeddedPostgres:
        """An embedded PostgreSQL in every stack: for tests that look at its processes."""
        if self._embedded_postgres is None:
            # SIGQUIT: an immediate shutdown, which leaves no shared memory behind as SIGKILL would.
            server = EmbeddedPostgres(self.folder / "postgres", durable=False, follow=signal.SIGQUIT)
            self._ends.push_async_callback(server.stop)
            await server.start()
            self._embedded_postgres = server
        return self._embedded_postgres

    async def postgres(self) -> Postgres:
        """The shared PostgreSQL, with nothing of ours in it yet."""
        if self.stack == "embedded":
            return Postgres((await self.embedded_postgres()).dsn)
        if self.stack == "containers":
            return await (await self._of_engine()).postgres()
        return await self._ends.enter_async_context(stack_external.postgres())

    async def redis(self) -> Redis:
        """The shared Redis."""
        if self.stack == "embedded":
            server = redis_in(self.folder / "redis")
            self._ends.push_async_callback(server.stop)
            await server.start()
            return Redis(server.url)
        if self.stack == "containers":
            return await (await self._of_engine()).redis()
        number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        return await self._ends.enter_async_context(stack_external.own_redis(number))

    async def temporal(self) -> Temporal:
        """The shared Temporal."""
        if self.stack == "embedded":
            server = EmbeddedTemporal(self.folder / "temporal", durable=False, follow=signal.SIGKILL)
            self._ends.push_async_callback(server.stop)
            await server.start()
            return Temporal(server.address, server.namespace)
        if self.stack == "containers":
            return await (await self._of_engine()).temporal()
        return await self._ends.enter_async_context(stack_external.temporal())

    async def _of_engine(self) -> "Containers":
        if self._containers is None:
            from tests.stack_containers import Containers  # its clients are heavy, and only it needs them

            self._containers = await self._ends.enter_async_context(Containers())
        return self._containers
