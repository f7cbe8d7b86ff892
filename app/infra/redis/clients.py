"""`open_redis`: the connections of one process to Redis, with a deadline on every command.

`hot` is the one that everything goes over: one connection, auto-pipelined, which also says whether Redis is
up. Commands that wait at the server have clients of their own (`waiting`). There are clients of redis-py too,
made when they are first used, for tests and tools: `reads` may be asked twice, `writes` are sent once,
`blocking` waits longer than any other command may take. Nothing here is the truth: whoever gets `Unavailable`
goes on without Redis. If the process dies here, at most a cached document or a hint is lost.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import cached_property
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from redis import exceptions as refused
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.domain.errors import Unavailable
from app.hotpath.address import Address
from app.hotpath.client import Client
from app.hotpath.errors import MayHaveHappened, NotNow, NotSent
from app.hotpath.subscriptions import Subscriptions
from app.infra.markers import Markers
from app.infra.redis import marker
from app.infra.redis.metrics import EXPORT
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
_SETTLE_TIMEOUT_S: Final = 2.0
"""A little more than one attempt to connect may take."""
_HEARTBEAT_S: Final = 1.0
"""A connection that said nothing for this long is asked whether it lives, for `holdfast_redis_up`."""

NO_ANSWER: Final = (NotSent, MayHaveHappened, NotNow)
"""What a hot client raises where Redis does not answer, or not now. Every other error is a defect."""

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

    So a dead Redis costs microseconds. For the clients of redis-py: the hot client has a breaker of its own.
    """

    FAILURES_MAX: Final = 3
    PAUSE_S: Final = 1.0

    def __init__(self) -> None:
        """Start closed: the first command is tried."""
        self._failures = 0
        self._closed_until = 0.0
        self._trying = False

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

    def failed(self) -> None:
        """Redis did not answer."""
        self._failures += 1
        self._trying = False
        self._closed_until = time.monotonic() + self.PAUSE_S

    def gave_up(self) -> None:
        """Nobody waited for the answer: nothing is known."""
        self._trying = False


class RedisClients:
    """One process's Redis: `hot`, and redis-py's clients, which are used inside `bounded`."""

    def __init__(
        self, url: str, db: int | None, environment: str, name: str, markers: Markers | None = None
    ) -> None:
        """Prepare the clients; `open` connects the hot one, the others connect when they are first used.

        With `markers`, hot clients use no connection to a Redis that may be another environment's.
        """
        self.environment = environment
        self.address = Address.parse(url, None if _names_database(url) else db)
        self.name = f"holdfast-{name}"
        self.examine = marker.examiner(markers) if markers else None
        self.hot = Client(
            self.address,
            name=self.name,
            deadline_s=REQUEST_DEADLINE_S,
            heartbeat_s=_HEARTBEAT_S,
            examine=self.examine,
        )
        self.breaker = Breaker()
        self._url = url
        self._db = db
        self._made: list[Redis] = []
        self._markers = markers
        self._waiting: set[Client] = set()
        self._told = asyncio.Event()  # that Redis is up, or that it is away
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Connect, in the background, and tell operators whenever Redis goes away or comes back."""
        was_away = False

        def up() -> None:
            nonlocal was_away
            metrics.REDIS_UP.set(1)
            self._told.set()
            if was_away:
                log.info("redis_is_back")
            was_away = False

        def down(reason: str) -> None:
            nonlocal was_away
            metrics.REDIS_UP.set(0)
            self._told.set()
            if self._markers is None or self._markers.wrong is None:  # else it was said
                log.warning("redis_is_away", error=reason)
            was_away = True

        self.hot.when_up.append(up)
        self.hot.when_down.append(down)
        self.hot.open()
        if self._markers is not None:
            self.start(marker.keep(self.hot, self._markers))
        EXPORT.add_client("hot", self.hot)

    async def settled(self) -> None:
        """Wait until the first attempt to connect has come to an end, whichever."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLE_TIMEOUT_S):
                await self._told.wait()

    @cached_property
    def subscriptions(self) -> Subscriptions:
        """Pub/sub, on a connection of its own, made when it is first used."""
        return Subscriptions(self.address, name=f"{self.name}-subscriptions", examine=self.examine).open()

    @cached_property
    def reads(self) -> Redis:
        """redis-py, for commands that may be asked twice."""
        return self._make("reads", retries=_READ_RETRIES)

    @cached_property
    def writes(self) -> Redis:
        """redis-py, for commands that are sent once."""
        return self._make("writes", retries=0)

    @cached_property
    def blocking(self) -> Redis:
        """redis-py, for commands that wait, at most BLOCK_MAX_S."""
        return self._make("blocking", retries=0, socket_timeout_s=BLOCK_MAX_S + _SOCKET_TIMEOUT_S)

    def waiting(self, name: str) -> Client:
        """A hot client of its own, for one task's commands that wait at the server, at most BLOCK_MAX_S."""
        client = Client(
            self.address,
            name=f"{self.name}-{name}",
            deadline_s=BLOCK_MAX_S + _CONNECT_TIMEOUT_S,
            breaker=False,
            examine=self.examine,
        ).open()
        self._waiting.add(client)
        return client

    async def dismiss(self, client: Client) -> None:
        """Close a client that `waiting` made; what it waits for is given up."""
        self._waiting.discard(client)
        await client.close()

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
        """Whether a command is answered. Raises Unavailable."""
        with unavailable_when_away():
            await self.hot.execute("PING", safe=True)
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
        self.hot.when_down.clear()  # it goes because we go
        EXPORT.remove_client(self.hot)
        await self.hot.close()
        for waiting in tuple(self._waiting):
            await self.dismiss(waiting)
        if "subscriptions" in vars(self):
            await self.subscriptions.close()
        for client in self._made:
            with suppress(*AWAY):
                await asyncio.wait_for(client.aclose(), _CLOSE_TIMEOUT_S)

    def _make(self, role: str, *, retries: int, socket_timeout_s: float = _SOCKET_TIMEOUT_S) -> Redis:
        pool = BlockingConnectionPool.from_url(
            self._url,
            db=self._db or 0,
            protocol=2,
            max_connections=_CONNECTIONS_MAX,
            timeout=_CONNECT_TIMEOUT_S,
            socket_timeout=socket_timeout_s,
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
            client_name=f"{self.name}-{role}",
            retry=Retry(NoBackoff(), retries),
        )
        self._made.append(Redis.from_pool(pool))
        return self._made[-1]


def _names_database(url: str) -> bool:
    parts = urlsplit(url)
    return "db" in parse_qs(parts.query) or (parts.scheme != "unix" and parts.path.strip("/") != "")


@contextmanager
def unavailable_when_away() -> Iterator[None]:
    """Turn what a hot client raises where Redis does not answer, or not now, into Unavailable."""
    try:
        yield
    except NO_ANSWER as error:
        raise Unavailable("redis", str(error)) from error


async def command(client: Redis, *parts: str | bytes | int) -> Any:  # noqa: ANN401 - whatever it answers
    """Run one command on one of the clients; its reply as redis-py reads it."""
    return await client.execute_command(*parts)  # type: ignore[no-untyped-call]


@asynccontextmanager
async def open_redis(
    url: str, db: int | None, environment: str, name: str, markers: Markers | None = None
) -> AsyncIterator[RedisClients]:
    """The process's Redis, called `holdfast-<name>` in the server's list of clients.

    With `markers`, it is used for nothing if it is another environment's. Never fails where Redis is dead.
    """
    async with AsyncExitStack() as stack:
        clients = RedisClients(url, db, environment, name, markers)
        stack.push_async_callback(clients.close)
        clients.open()
        yield clients
