"""`open_redis`: the connections of one process to Redis, a deadline on every command, and a breaker.

Three clients, because their commands differ: `reads` may be asked twice, `writes` are sent once, `blocking`
waits longer than any other command may take. Nothing here is the truth: whoever gets `Unavailable` goes on
without Redis. If the process dies here, at most a cached document or a hint is lost.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Final

from redis import exceptions as refused
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.domain.errors import Unavailable
from app.infra.tasks import end
from app.observability import metrics
from app.observability.logging import logger

REQUEST_DEADLINE_S: Final = 0.1
"""What one command may cost a request."""
BLOCK_MAX_S: Final = 5.0
"""The longest BLOCK that `blocking` is used with."""

_CONNECTIONS_MAX: Final = 32
_CONNECT_TIMEOUT_S: Final = 1.0
_SOCKET_TIMEOUT_S: Final = 10.0
_READ_RETRIES: Final = 1
_CLOSE_TIMEOUT_S: Final = 2.0

AWAY: Final = (refused.ConnectionError, refused.TimeoutError, OSError)
"""No answer. (The built-in TimeoutError is an OSError.)"""
NOT_NOW: Final = (
    refused.OutOfMemoryError,
    refused.ReadOnlyError,
    refused.ClusterDownError,
    refused.TryAgainError,
)
"""An answer that says "not now"."""

log = logger("redis")


class Breaker:
    """After a few failures in a row, refuse at once for a second, then let one command try.

    So a dead Redis costs microseconds. It also keeps the metric `holdfast_redis_up` and writes one line per
    change, not per failure.
    """

    FAILURES_MAX: Final = 3
    PAUSE_S: Final = 1.0

    def __init__(self) -> None:
        """Start closed: the first command is tried."""
        self._failures = 0
        self._closed_until = 0.0
        self._trying = False
        self._up: bool | None = None

    def enter(self) -> None:
        """Let a command pass, or raise Unavailable."""
        if self._failures < self.FAILURES_MAX:
            return
        if self._trying or time.monotonic() < self._closed_until:
            raise Unavailable("redis", "it did not answer just now")
        self._trying = True

    def answered(self) -> None:
        """Redis answered, whatever it said."""
        self._failures = 0
        self._trying = False
        self._change(up=True)

    def failed(self) -> None:
        """Redis did not answer."""
        self._failures += 1
        self._trying = False
        self._closed_until = time.monotonic() + self.PAUSE_S
        if self._failures >= self.FAILURES_MAX:
            self._change(up=False)

    def gave_up(self) -> None:
        """Nobody waited for the answer: nothing is known."""
        self._trying = False

    def _change(self, *, up: bool) -> None:
        if up is self._up:
            return
        metrics.REDIS_UP.set(1 if up else 0)
        if not up:
            log.warning("redis_is_away")
        elif self._up is False:
            log.info("redis_is_back")
        self._up = up


class RedisClients:
    """One process's Redis. Use the clients inside `bounded`; `blocking` has its own long timeout."""

    def __init__(self, url: str, db: int | None, environment: str, name: str) -> None:
        """Prepare the clients; each connects when it is first used."""
        self.environment = environment
        self.reads = _client(url, db, f"{name}-reads", retries=_READ_RETRIES)
        self.writes = _client(url, db, f"{name}-writes", retries=0)
        self.blocking = _client(
            url, db, f"{name}-blocking", retries=0, socket_timeout_s=BLOCK_MAX_S + _SOCKET_TIMEOUT_S
        )
        self.breaker = Breaker()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def bounded(self, deadline_s: float = REQUEST_DEADLINE_S) -> AsyncIterator[None]:
        """Run commands within `deadline_s`. Raises Unavailable where Redis does not answer, or not now.

        Other answers that are errors (a missing script, a wrong type) are redis-py's ResponseError.
        """
        self.breaker.enter()
        try:
            async with asyncio.timeout(deadline_s):
                yield
        except AWAY as error:
            self.breaker.failed()
            raise Unavailable("redis", type(error).__name__) from error
        except NOT_NOW as error:
            self.breaker.answered()
            raise Unavailable("redis", str(error)) from error
        except refused.ResponseError:
            self.breaker.answered()
            raise
        except BaseException:
            self.breaker.gave_up()
            raise
        self.breaker.answered()

    async def is_well(self) -> bool:
        """Whether a command is answered."""
        async with self.bounded():
            await command(self.reads, "PING")
        return True

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something in the background until it ends or the clients are closed."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Stop what runs in the background and close all connections."""
        await end(self._tasks, within_s=_CLOSE_TIMEOUT_S)
        for client in (self.reads, self.writes, self.blocking):
            with suppress(*AWAY):
                await asyncio.wait_for(client.aclose(), _CLOSE_TIMEOUT_S)


def _client(
    url: str, db: int | None, name: str, *, retries: int, socket_timeout_s: float = _SOCKET_TIMEOUT_S
) -> Redis:
    pool = BlockingConnectionPool.from_url(
        url,
        db=db or 0,
        protocol=2,
        max_connections=_CONNECTIONS_MAX,
        timeout=_CONNECT_TIMEOUT_S,
        socket_timeout=socket_timeout_s,
        socket_connect_timeout=_CONNECT_TIMEOUT_S,
        client_name=f"holdfast-{name}",
        retry=Retry(NoBackoff(), retries),
    )
    return Redis.from_pool(pool)


async def command(client: Redis, *parts: str | bytes | int) -> Any:  # noqa: ANN401 - whatever it answers
    """Run one command on one of the clients; its reply as redis-py reads it."""
    return await client.execute_command(*parts)  # type: ignore[no-untyped-call]


@asynccontextmanager
async def open_redis(url: str, db: int | None, environment: str, name: str) -> AsyncIterator[RedisClients]:
    """The process's Redis, called `name` in the server's list of clients. Never fails where Redis is dead."""
    async with AsyncExitStack() as stack:
        clients = RedisClients(url, db, environment, name)
        stack.push_async_callback(clients.close)
        yield clients
