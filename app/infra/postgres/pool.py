"""The connection pool: few connections, bounded waits, and one error for "PostgreSQL does not answer".

A login that is refused is that error, too: a mode waits until somebody has mended it. Nothing here retries:
whoever asked decides. A transaction whose COMMIT was not answered may have happened; every caller can ask
again safely (idempotency rows, locked decisions).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeAlias

import asyncpg

from app.domain.errors import Unavailable
from app.infra.postgres.metrics import POOLS
from app.observability import metrics

ACQUIRE_TIMEOUT_S: Final = 2.0
COMMAND_TIMEOUT_S: Final = 10.0
CONNECT_TIMEOUT_S: Final = 3.0

Connection: TypeAlias = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy
Examine: TypeAlias = Callable[[Connection], Coroutine[Any, Any, None]]
"""Asked of a new connection before anything else; what it raises ends the connection."""

_AWAY: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
)
"""What means "not now": a dead, starting, stopping, full or overloaded server, or a lost race."""


_REFUSED: Final = (
    asyncpg.InvalidAuthorizationSpecificationError,  # and InvalidPasswordError
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)
"""What PostgreSQL says to a login that it does not take: the password, the role, the database, a GRANT."""


class LoginRefusedError(Unavailable):
    """PostgreSQL is there and does not let us in. `sentence` is its own: it names role and database only."""

    def __init__(self, sentence: str) -> None:
        """Keep what the server said, in one line."""
        self.sentence = "; ".join(sentence.splitlines())
        super().__init__("postgres", self.sentence)


class WrongAddressError(Exception):
    """DATABASE_URL cannot be an address. What is wrong with it is not said: that may quote the password."""


@contextmanager
def login() -> Iterator[None]:
    """Around what connects, inside `unavailable_when_away`.

    Raises LoginRefusedError, and WrongAddressError where nothing could be asked at all.
    """
    try:
        yield
    except _REFUSED as error:
        raise LoginRefusedError(str(error)) from None
    except ValueError:
        raise WrongAddressError("DATABASE_URL must be an address that libpq understands") from None


@contextmanager
def unavailable_when_away() -> Iterator[None]:
    """Turn every error that means "not now" into Unavailable."""
    try:
        yield
    except _AWAY as error:
        if isinstance(error, ValueError):  # asyncpg's complaint about an argument: a defect of ours
            raise
        raise Unavailable("postgres", type(error).__name__) from error


async def _leave_as_it_is(_: Connection) -> None:
    """Save the round trip that asyncpg spends on undoing what a borrower did to the session.

    Borrowers do nothing to it: no SET, no LISTEN, no session lock (whoever needs one has a connection of its
    own). An open transaction is rolled back before this is called.
    """


class Database:
    """A pool. `connection()` lends a connection, `transaction()` one inside a transaction."""

    def __init__(self, dsn: str, *, size: int, name: str, examine: Examine | None = None) -> None:
        """Prepare a pool of at most `size` connections that call themselves `name`; `open` connects.

        `examine` is asked of every new connection before anybody is lent it.
        """
        self._name = name
        self._pool = asyncpg.create_pool(
            dsn,
            min_size=0,
            max_size=size,
            max_inactive_connection_lifetime=300,
            command_timeout=COMMAND_TIMEOUT_S,
            timeout=CONNECT_TIMEOUT_S,
            init=examine,
            reset=_leave_as_it_is,
            server_settings={
                "application_name": f"holdfast-{name}",
                "lock_timeout": "5000",
                "idle_in_transaction_session_timeout": "15000",
                "jit": "off",
            },
        )

    async def open(self) -> "Database":
        """Set the pool up; it connects when it is first used."""
        await self._pool
        POOLS.add(self._name, self._pool)
        return self

    async def close(self) -> None:
        """Give the connections back, at most five seconds long."""
        POOLS.remove(self._pool)
        try:
            await asyncio.wait_for(self._pool.close(), 5)
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection. Raises Unavailable when none can be had in time or the server goes away."""
        with unavailable_when_away():
            started = time.perf_counter()
            try:
                with login():
                    connection = await self._pool.acquire(timeout=ACQUIRE_TIMEOUT_S)
            except Exception:
                metrics.POOL_TIMEOUTS.inc()
                raise
            finally:
                metrics.POOL_WAIT.observe(time.perf_counter() - started)
            try:
                yield connection
            finally:
                await self._pool.release(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside a transaction: committed at the end, rolled back on any error."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def is_well(self) -> bool:
        """Whether a statement is answered."""
        async with self.connection() as connection:
            return bool(await connection.fetchval("SELECT true"))

    async def fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:  # noqa: ANN401
        """All rows of one statement."""
        async with self.connection() as connection:
            rows: list[asyncpg.Record] = await connection.fetch(statement, *arguments)
            return rows

    async def execute(self, statement: str, *arguments: Any) -> str:  # noqa: ANN401
        """Run one statement; its command tag."""
        async with self.connection() as connection:
            return str(await connection.execute(statement, *arguments))
