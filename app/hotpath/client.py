"""`Client`: one auto-pipelined connection to one server, which comes back by itself.

Callers anywhere in the event loop issue commands and await (pipeline.py). This file says when there is a
connection, and when commands are refused: a server that is gone or silent is asked by the client itself until
it answers, so a dead Redis costs its callers microseconds. If the process dies here, commands that were
written may have happened; the others did not.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from time import monotonic
from typing import Any, Final, Self

from app.hotpath.address import Address
from app.hotpath.callbacks import call
from app.hotpath.connection import Connection, Part
from app.hotpath.dialing import Examine, Greeting, dial
from app.hotpath.errors import ErrorReply, NotSent
from app.hotpath.keeper import Keeper
from app.hotpath.pipeline import IN_FLIGHT_MAX, Pipeline
from app.hotpath.scripts import Script

DEADLINE_S: Final = 0.1
GRACE_S: Final = 0.2
"""So long commands wait for a connection that was lost; then they are refused until it is back."""
CLOSE_S: Final = 1.0
"""So long `close` waits for answers, at most, and then for the socket."""


class Client(Pipeline):
    """Commands to one server. Open it with `async with`; it never fails to open, the server may come later.

    `when_up` and `when_down` are called (with the reason) whenever commands begin to pass, or are refused;
    `when_connected` and `when_lost` with every single connection. `examine` is asked of each new connection
    first: what it raises ends it, unused, like any vain attempt. `greeting` gives the commands that a new
    connection starts with (CLIENT TRACKING …). `on_push` takes what the server says unasked. Give commands
    that block a client of their own, with `breaker=False` and deadlines longer than they block. A client
    belongs to one event loop; once closed it stays closed.
    """

    def __init__(
        self,
        address: Address,
        *,
        name: str,
        deadline_s: float = DEADLINE_S,
        breaker: bool = True,
        heartbeat_s: float = 10.0,
        in_flight_max: int = IN_FLIGHT_MAX,
        examine: Examine | None = None,
        greeting: Greeting = lambda: (),
        on_push: Callable[[list[Any]], None] = lambda _: None,
    ) -> None:
        """Prepare; `open` starts to connect. `name`, without spaces, is shown in the server's CLIENT LIST."""
        if not (name.isascii() and name.isprintable()) or " " in name:
            raise ValueError("the name of a client has no spaces and no special characters")
        super().__init__(deadline_s=deadline_s, in_flight_max=in_flight_max, breaker=breaker)
        self.when_up: list[Callable[[], None]] = []
        self.when_down: list[Callable[[str], None]] = []
        self.when_connected: list[Callable[[], None]] = []
        self.when_lost: list[Callable[[], None]] = []
        self._address = address
        self._name = name
        self._examine = examine
        self._greeting = greeting
        self._on_push = on_push
        self._is_open = False
        self._is_closed = False
        self._told: bool | None = None  # that it is up, or that it is down
        self._connected = asyncio.Event()
        self._keeper = Keeper(
            self._dial,
            connected=self._greeted,
            failed=lambda why: self._refuse(f"{address}: {why}"),
            ask=self._ping,
            heartbeat_s=heartbeat_s,
        )

    @property
    def is_up(self) -> bool:
        """Whether commands are taken and there is a connection that answers."""
        return self._refusal is None and self._connection is not None

    async def evaluate(
        self,
        script: Script,
        keys: Sequence[str | bytes] = (),
        arguments: Sequence[Part] = (),
        *,
        safe: bool = False,
        deadline_s: float | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the script returns
        """Run a script by its hash, one round trip; a server that does not have it is given it again.

        Raises what `execute` raises, within `deadline_s` seconds.
        """
        parts = (len(keys), *keys, *arguments)
        due_at = monotonic() + (self._deadline_s if deadline_s is None else deadline_s)
        try:
            return await self.execute("EVALSHA", script.sha, *parts, safe=safe, deadline_s=deadline_s)
        except ErrorReply as error:
            if error.code != "NOSCRIPT":
                raise
        left_s = due_at - monotonic()
        if left_s <= 0:
            raise NotSent("nothing was sent: the server lacks the script, and the deadline has passed")
        return await self.execute("EVAL", script.source, *parts, safe=safe, deadline_s=left_s)

    async def ready(self, timeout_s: float) -> bool:
        """Wait until there is a connection, at most `timeout_s` seconds; whether there is."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._connected.wait()
        return self.is_up

    def open(self) -> Self:
        """Start to connect, in the background."""
        if not self._is_open and not self._is_closed:
            self._is_open = True
            self._refusal = None  # commands wait for the first attempt
            self._keeper.start()
        return self

    async def close(self) -> None:
        """Refuse new commands, wait for the answers to those that are sent (at most CLOSE_S seconds), end.

        Wherever it is cancelled, nothing is left: no task, no timer, no socket.
        """
        if not self._is_closed:
            self._flush()
        self._is_closed = True
        self._refuse("it is closed")
        async with AsyncExitStack() as ending:  # each is done whatever happens to those before it
            ending.callback(self._deadlines.stop)
            ending.push_async_callback(self._hang_up)
            ending.push_async_callback(self._breaker.stop)
            ending.push_async_callback(self._keeper.stop)
            if self._connection is not None:
                waiting = [entry[1] for entry in self._connection.sent if not entry[1].done()]
                if waiting:
                    await asyncio.wait(waiting, timeout=CLOSE_S)

    async def _hang_up(self) -> None:
        connection = self._connection
        if connection is not None:
            connection.abort(ConnectionAbortedError("the client is closed"))
            with suppress(TimeoutError):
                await asyncio.wait_for(connection.lost.wait(), CLOSE_S)

    async def __aenter__(self) -> Self:
        return self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- up and down ----------------------------------------------------------------------------------

    async def _dial(self) -> Connection:
        """A connection that has been greeted. Raises OSError and HotpathError."""
        connection = Connection(
            self.statistics,
            on_replies=self._replied,
            on_room=self._flush_soon,
            on_push=self._on_push,
            on_lost=self._lost,
        )
        await dial(connection, self._address, name=self._name, greeting=self._greeting, examine=self._examine)
        return connection

    def _greeted(self, connection: Connection) -> None:
        self.statistics.connections += 1
        self._use(connection)
        self._connected.set()
        for tell in self.when_connected:
            call(tell)
        self._take()

    def _lost(self, connection: Connection) -> None:
        again = connection.fail_sent()
        if connection is not self._connection:  # it was never ours
            return
        self._use(None)
        self._connected.clear()
        self._send_again(again)
        if self._refusal is not None:
            self._refuse(self._refusal)
        else:  # commands wait for the next attempt, within their deadlines
            self._loop.call_later(GRACE_S, self._grace_is_over)
        for tell in self.when_lost:
            call(tell)

    def _grace_is_over(self) -> None:
        if self._connection is None and self._refusal is None and self._has_breaker:
            self._refuse(f"{self._address}: there is no connection yet")

    def _refuse(self, reason: str) -> None:
        if self._is_closed:
            reason = "it is closed"
        super()._refuse(reason)
        if self._told is not False and not self._is_closed:
            self._told = False
            for tell in self.when_down:
                call(tell, reason)

    def _take(self) -> None:
        if self._is_closed or self._connection is None:
            return
        super()._take()
        if self._told is not True:
            self._told = True
            for tell in self.when_up:
                call(tell)
