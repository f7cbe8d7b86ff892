"""`Client`: one auto-pipelined connection to one server, which comes back by itself.

Callers anywhere in the event loop issue commands and await; what is issued in one tick of the loop leaves in
one write. Every command ends within its deadline: with its answer, with `NotSent` (nothing happened), with
`MayHaveHappened`, or with the server's `ErrorReply`. A server that does not answer is refused to callers at
once and asked by the client itself until it does, so a dead Redis costs microseconds.

If the process dies here, commands that were written may have happened; the others did not.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Self

from app.hotpath.address import Address
from app.hotpath.connection import Connection, Entry, Part, in_doubt, pack
from app.hotpath.dialing import Greeting, dial
from app.hotpath.errors import ErrorReply, HotpathError, NotSent, Overloaded, Unreachable
from app.hotpath.scripts import Script
from app.hotpath.statistics import Statistics

DEADLINE_S: Final = 0.1
IN_FLIGHT_MAX: Final = 8_192
"""Commands that are sent and not answered; more wait here."""
WAITING_MAX: Final = 8_192
WAITING_BYTES_MAX: Final = 16 * 1024 * 1024
"""Commands that wait to be sent, and their bytes; more are refused."""
BACKOFF_FIRST_S: Final = 0.05
BACKOFF_MAX_S: Final = 1.0
STABLE_S: Final = 1.0
"""A connection that lived this long was a good one: the next attempt comes at once."""
STALL_S: Final = 1.0
"""A connection that says nothing for this long, past a command's deadline, is given up."""
SWEEP_S: Final = 0.01
"""How often deadlines are looked at, so how late a command may end."""
SWEEP_LATE_S: Final = 0.03
"""A look that comes later than this found the process itself asleep: what has arrived is read first."""
TIMEOUTS_MAX: Final = 3
"""So many commands in a row without an answer in time open the breaker."""
PROBE_PAUSE_S: Final = 0.2

_PING: Final = pack(("PING",))


class Client:
    """Commands to one server. Open it with `async with`; it never fails to open, the server may come later.

    `when_up` and `when_down` are called (with the reason) whenever commands begin to pass, or are refused;
    `when_connected` and `when_lost` with every single connection. `greeting` gives the commands that a new
    connection starts with (CLIENT TRACKING …). `on_push` takes what the server says unasked. Give commands
    that block a client of their own, with `breaker=False` and deadlines longer than they block.
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
        greeting: Greeting = lambda: (),
        on_push: Callable[[list[Any]], None] = lambda _: None,
    ) -> None:
        """Prepare; `open` starts to connect. `name` is shown in the server's CLIENT LIST."""
        self.statistics = Statistics()
        self.when_up: list[Callable[[], None]] = []
        self.when_down: list[Callable[[str], None]] = []
        self.when_connected: list[Callable[[], None]] = []
        self.when_lost: list[Callable[[], None]] = []
        self._address = address
        self._name = name
        self._deadline_s = deadline_s
        self._has_breaker = breaker
        self._heartbeat_s = heartbeat_s
        self._in_flight_max = in_flight_max
        self._greeting = greeting
        self._on_push = on_push
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self._create_future = self._loop.create_future
        self._connection: Connection | None = None
        self._unsent: list[Entry] = []
        self._unsent_bytes = 0
        self._is_clear = False  # nothing stands between a command and the next write
        self._is_flush_due = False
        self._refusal: str | None = "it is not open"  # why commands are refused; None: they are taken
        self._is_up: bool | None = None
        self._timeouts = 0
        self._sweep_due_at = 0.0
        self._sweeping: asyncio.TimerHandle | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()

    # --- for callers ---------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Whether commands are taken and there is a connection that answers."""
        return self._refusal is None and self._connection is not None

    @property
    def in_flight(self) -> int:
        """Commands that are sent and not answered, and those that wait to be sent."""
        return len(self._unsent) + (len(self._connection.sent) if self._connection else 0)

    def execute(
        self, *parts: Part, safe: bool = False, deadline_s: float | None = None
    ) -> "asyncio.Future[Any]":
        """Issue a command; await the answer. It leaves with everything else issued in this tick.

        `safe`: it does no harm twice, so it is sent again should the connection break. `deadline_s` is in
        seconds (the client's own by default). Cancelling is free and never disturbs another command.
        The future raises NotSent, MayHaveHappened or ErrorReply.
        """
        future = self._create_future()
        due_at = self._time() + (self._deadline_s if deadline_s is None else deadline_s)
        entry = (pack(parts), future, due_at, safe)
        if self._is_clear:
            self._unsent.append(entry)
            if not self._is_flush_due:
                self._is_flush_due = True
                self._loop.call_soon(self._flush)
        else:
            self._hold(entry)
        return future

    async def evaluate(
        self,
        script: Script,
        keys: Sequence[str | bytes] = (),
        arguments: Sequence[Part] = (),
        *,
        safe: bool = False,
        deadline_s: float | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the script returns
        """Run a script by its hash, one round trip; a server that does not have it is given it again."""
        parts = (len(keys), *keys, *arguments)
        try:
            return await self.execute("EVALSHA", script.sha, *parts, safe=safe, deadline_s=deadline_s)
        except ErrorReply as error:
            if error.code != "NOSCRIPT":
                raise
        return await self.execute("EVAL", script.source, *parts, safe=safe, deadline_s=deadline_s)

    def send_unanswered(self, *parts: str | bytes) -> bool:
        """Send a command that is answered by pushes only; False when there is no connection."""
        if self._connection is None:
            return False
        self._connection.send_unanswered(pack(parts))
        return True

    async def ready(self, timeout_s: float) -> bool:
        """Wait until there is a connection, at most `timeout_s` seconds; whether there is."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._connected.wait()
        return self.is_up

    def open(self) -> Self:
        """Start to connect, in the background."""
        if self._keeping is None:
            self._refusal = None  # commands wait for the first attempt
            self._keeping = self._loop.create_task(self._keep_connected())
        return self

    async def close(self) -> None:
        """Refuse new commands, wait for the answers to those that are sent (within their deadlines), end."""
        self._refuse("it is closed")
        if self._connection is not None:
            waiting = [entry[1] for entry in self._connection.sent if not entry[1].done()]
            if waiting:
                await asyncio.wait(waiting, timeout=self._deadline_s + SWEEP_S)
        for task in (self._probing, self._keeping):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._connection is not None:
            self._connection.abort()
            await self._connection.lost.wait()
        if self._sweeping is not None:
            self._sweeping.cancel()

    async def __aenter__(self) -> Self:
        return self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- commands on their way ------------------------------------------------------------------------

    def _hold(self, entry: Entry) -> None:
        """Keep a command that cannot be sent in this tick, or refuse it."""
        payload, future = entry[0], entry[1]
        error: HotpathError
        if self._refusal is not None:
            error = Unreachable(f"nothing was sent: {self._refusal}")
        elif len(self._unsent) >= WAITING_MAX or self._unsent_bytes + len(payload) > WAITING_BYTES_MAX:
            error = Overloaded(f"nothing was sent: {len(self._unsent)} commands wait already")
        else:
            self._unsent.append(entry)
            self._unsent_bytes += len(payload)
            self._sweep_soon()
            return
        self.statistics.refused += 1
        future.set_exception(error)

    def _flush(self) -> None:
        """Send what may be sent, in one write. What nobody waits for any more is left out."""
        self._is_flush_due = False
        connection = self._connection
        if connection is None:
            return
        room = self._in_flight_max - len(connection.sent)
        held = self._unsent
        if connection.is_paused or room <= 0:
            batch, self._unsent = [], held
        elif len(held) <= room:
            batch, self._unsent = held, []
        else:
            batch, self._unsent = held[:room], held[room:]
        batch = [entry for entry in batch if not entry[1].done()]
        if batch:
            self.statistics.batches += 1
            self.statistics.commands += len(batch)
            connection.send(batch)
        self._unsent_bytes = sum(len(entry[0]) for entry in self._unsent)
        self._is_clear = self._refusal is None and not self._unsent
        if self._sweeping is None:
            self._sweep_soon()

    def _flush_soon(self) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _replied(self, in_time: bool) -> None:  # noqa: FBT001 - the connection's callback
        if in_time:
            self._timeouts = 0
        if self._unsent and not self._is_flush_due:
            self._flush()

    # --- deadlines ------------------------------------------------------------------------------------

    def _sweep_soon(self) -> None:
        if self._sweeping is None:
            self._sweep_due_at = self._time() + SWEEP_S
            self._sweeping = self._loop.call_at(self._sweep_due_at, self._sweep)

    def _sweep(self) -> None:
        """End every command whose deadline has passed; look again while any is under way."""
        self._sweeping = None
        now, connection = self._time(), self._connection
        if now - self._sweep_due_at > SWEEP_LATE_S:
            self._sweep_soon()
            return
        if self._unsent:
            self._unsent = [entry for entry in self._unsent if not _ended(entry, now)]
            if not self._unsent:
                self._flush()
        if connection is not None and connection.sent:
            self._sweep_sent(connection, now)
        if self._unsent or (connection is not None and connection.sent):
            self._sweep_soon()

    def _sweep_sent(self, connection: Connection, now: float) -> None:
        expired = 0
        for _, future, due_at, _ in connection.sent:
            if due_at <= now and not future.done():
                future.set_exception(in_doubt("no answer within its deadline"))
                expired += 1
        self.statistics.timeouts += expired
        self._timeouts += expired
        if connection.sent[0][2] + STALL_S <= now and connection.heard_at + STALL_S <= now:
            connection.abort(TimeoutError("the server says nothing"))
        elif self._has_breaker and self._timeouts >= TIMEOUTS_MAX and self._refusal is None:
            self._refuse("the server does not answer in time")
            self._probing = self._loop.create_task(self._probe(connection))

    async def _probe(self, connection: Connection) -> None:
        """Ask the server ourselves until it answers in time; callers pay nothing meanwhile."""
        while not connection.lost.is_set():
            future = self._create_future()
            connection.send(((_PING, future, self._time() + self._deadline_s, False),))
            self._sweep_soon()
            with suppress(HotpathError):
                await future
                self._take()
                return
            await asyncio.sleep(PROBE_PAUSE_S * random.uniform(0.5, 1))  # noqa: S311 - jitter

    # --- up and down ----------------------------------------------------------------------------------

    def _refuse(self, reason: str) -> None:
        """Refuse commands from now on, and those that wait to be sent."""
        held, self._unsent, self._unsent_bytes = self._unsent, [], 0
        self._is_clear = False
        self._refusal = reason
        for _, future, _, _ in held:
            if not future.done():
                self.statistics.refused += 1
                future.set_exception(Unreachable(f"nothing was sent: {reason}"))
        if self._is_up is not False:
            self._is_up = False
            for tell in self.when_down:
                tell(reason)

    def _take(self) -> None:
        """Take commands from now on, and send those that wait."""
        self._refusal = None
        self._timeouts = 0
        self._flush()
        if self._is_up is not True:
            self._is_up = True
            for tell in self.when_up:
                tell()

    async def _keep_connected(self) -> None:
        pause_s = 0.0
        while True:
            try:
                connection = await self._connect()
            except (OSError, HotpathError) as error:  # TimeoutError and SSLError are OSErrors
                self._refuse(str(error) or type(error).__name__)
            else:
                since = self._time()
                self._connected.set()
                for tell in self.when_connected:
                    tell()
                self._take()
                await self._watch(connection)
                self._connected.clear()
                if self._time() - since >= STABLE_S:
                    pause_s = 0.0
            if pause_s:
                await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 - jitter
            pause_s = min(max(BACKOFF_FIRST_S, pause_s * 2), BACKOFF_MAX_S)

    async def _connect(self) -> Connection:
        """A connection that has been greeted; it is ours from now on. Raises OSError and HotpathError."""
        connection = Connection(
            self.statistics,
            on_replies=self._replied,
            on_room=self._flush_soon,
            on_push=self._on_push,
            on_lost=self._connection_lost,
        )
        await dial(connection, self._address, name=self._name, greeting=self._greeting)
        self.statistics.connections += 1
        self._connection = connection
        return connection

    async def _watch(self, connection: Connection) -> None:
        """Wait until the connection is lost; ask it now and then whether it lives."""
        while not connection.lost.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._heartbeat_s):
                    await connection.lost.wait()
                    return
            if connection.heard_at + self._heartbeat_s <= self._time() and not connection.sent:
                due_at = self._time() + self._deadline_s
                connection.send(((_PING, self._create_future(), due_at, True),))
                self._sweep_soon()

    def _connection_lost(self, connection: Connection) -> None:
        again = connection.fail_sent()
        if connection is self._connection:
            self._connection = None
            for tell in self.when_lost:
                tell()
            self._is_clear = False
            self._unsent[:0] = again
            self._unsent_bytes += sum(len(entry[0]) for entry in again)
            if self._refusal is not None:
                self._refuse(self._refusal)
            # Until the next attempt has failed, commands wait for it, within their deadlines.
            elif self._unsent:
                self._sweep_soon()


def _ended(entry: Entry, now: float) -> bool:
    """Whether a command that was not sent needs to be sent no more."""
    _, future, due_at, _ = entry
    if not future.done() and due_at <= now:
        future.set_exception(NotSent("nothing was sent: it waited until its deadline"))
    return future.done()
