"""`Pipeline`: commands on their way to a connection. What is issued in one tick leaves in one write.

Everything has a limit: what is sent and not answered, what waits, and the time of each. A command ends with
its answer, with `NotSent` (it never left), with `MayHaveHappened`, or with the server's `ErrorReply`. If the
process dies here, commands that were written may have happened; the others did not.
"""

import asyncio
from math import inf
from time import monotonic
from typing import Any, Final

from app.hotpath.breaker import Breaker
from app.hotpath.connection import (
    IMPATIENT,
    SENT_BEFORE,
    WRITE_BUFFER_BYTES_MAX,
    Connection,
    Entry,
    Part,
    in_doubt,
    pack,
)
from app.hotpath.deadlines import LATE_S, Deadlines
from app.hotpath.errors import HotpathError, NotSent, Overloaded, Unreachable
from app.hotpath.statistics import Statistics

IN_FLIGHT_MAX: Final = 8_192
"""Commands that are sent and not answered; more wait here."""
WAITING_MAX: Final = 8_192
WAITING_BYTES_MAX: Final = 16 * 1024 * 1024
"""Commands that wait to be sent, and their bytes; more are refused. One command may be larger, alone."""
WAVES_MIN: Final = 48
"""So many commands of one tick, for a server that has nothing to do, leave in two waves, a tick apart: it
answers the first while this process sends the second. They stay apart by themselves, one write a tick."""
PING_DEADLINE_MAX_S: Final = 1.0

_COMMAND_BYTES: Final = (
    512  # what a command counts for beside its own bytes, where one tick's worth is limited
)
_TICK_BYTES_MAX: Final = IN_FLIGHT_MAX * _COMMAND_BYTES
_PING: Final = pack(("PING",))

_WORDS: Final = (
    *("SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"),
    *("MONITOR", "SYNC", "PSYNC", "MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH"),
    *("SELECT", "AUTH", "HELLO", "RESET", "QUIT", "CLIENT"),
)
NOT_SHARED: Final = frozenset(
    spelling for word in _WORDS for name in (word, word.lower()) for spelling in (name, name.encode())
)
"""Commands that change the connection for everybody, or that are not answered one by one."""


class Pipeline:
    """Issues commands over whatever connection it is given. Its owner connects, and says what is refused."""

    def __init__(self, *, deadline_s: float, in_flight_max: int, breaker: bool) -> None:
        """Refuse everything until `_take`."""
        self.statistics = Statistics()
        self._deadline_s = deadline_s
        self._in_flight_max = in_flight_max
        self._worth_a_write = max(1, in_flight_max // 16)
        self._loop = asyncio.get_running_loop()
        self._create_future = self._loop.create_future
        self._connection: Connection | None = None
        self._unsent: list[Entry] = []
        self._unsent_bytes = 0
        self._room = 0  # bytes that may be issued until the next write; 0: something stands before them
        self._is_flush_due = False
        self._tick_at = inf  # when the first command of this tick was issued
        self._refusal: str | None = "it is not open"  # why commands are refused; None: they are taken
        self._has_breaker = breaker
        self._breaker = Breaker(ask=self._ping, opened=self._refuse, closed=self._take)
        self._deadlines = Deadlines(self._sweep, deadline_s)

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
        The future raises NotSent, MayHaveHappened or ErrorReply. Raises ValueError for a command that changes
        the connection everybody shares (SUBSCRIBE, MULTI, …), TypeError for what is no command.
        """
        if not parts or parts[0] in NOT_SHARED:
            _check_shareable(parts)
        future = self._create_future()
        flags: int = safe
        if deadline_s is None:
            deadline_s = self._deadline_s
        elif deadline_s < self._deadline_s:
            flags |= IMPATIENT
            if deadline_s < self._deadlines.shortest_s:
                self._deadlines.allow(deadline_s)
        now = monotonic()
        payload = pack(parts)
        room = self._room
        if room > 0:
            self._room = room - len(payload) - _COMMAND_BYTES
            self._unsent.append((payload, future, now + deadline_s, flags))
            if not self._is_flush_due:
                self._is_flush_due = True
                self._tick_at = now
                self._loop.call_soon(self._flush)
        else:
            self._hold((payload, future, now + deadline_s, flags))
        return future

    def send_unanswered(self, *parts: str | bytes) -> bool:
        """Send a command that is answered by pushes only; False when there is no connection."""
        if self._connection is None or self._connection.is_ended:
            return False
        self._connection.send_unanswered(pack(parts))
        return True

    # --- on their way --------------------------------------------------------------------------------

    def _hold(self, entry: Entry) -> None:
        """Keep a command that cannot be sent in this tick, or refuse it."""
        size = len(entry[0])
        error: HotpathError | None = None
        if self._refusal is not None:
            error = Unreachable(f"nothing was sent: {self._refusal}")
        elif self._is_full(size):
            if self._has_room():  # more than one write's worth was issued in this tick
                self._flush()
            if self._is_full(size):
                error = Overloaded(f"nothing was sent: {len(self._unsent)} commands wait already")
        if error is not None:
            self.statistics.refused += 1
            entry[1].set_exception(error)
            return
        self._unsent.append(entry)
        self._unsent_bytes += size
        self._flush_soon()

    def _is_full(self, size: int) -> bool:
        waiting = self._unsent_bytes
        return len(self._unsent) >= WAITING_MAX or (waiting > 0 and waiting + size > WAITING_BYTES_MAX)

    def _has_room(self) -> bool:
        """Whether enough may be sent to be worth a write."""
        connection = self._connection
        if connection is None or connection.is_paused or connection.is_ended:
            return False
        return self._in_flight_max - len(connection.sent) >= self._worth_a_write

    def _flush_soon(self) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self._tick_at = monotonic()
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send what may be sent, in one write. What nobody waits for any more is left out."""
        self._is_flush_due = False
        now, connection = monotonic(), self._connection
        lag_s, self._tick_at = now - self._tick_at, inf
        if self._unsent and (self._room <= 0 or lag_s > LATE_S):
            self._look_at_unsent(now, lag_s)
        held, is_too_long = self._unsent, False
        if connection is None or connection.is_ended or connection.is_paused or self._refusal is not None:
            free = 0
        else:
            free = self._in_flight_max - len(connection.sent)
            if self._unsent_bytes > WRITE_BUFFER_BYTES_MAX:
                fitting = _fitting(held)
                is_too_long, free = fitting < len(held), min(free, fitting)
            if len(held) >= WAVES_MIN and not connection.sent:
                is_too_long, free = True, min(free, len(held) // 2)
        if len(held) <= free:
            batch, self._unsent = held, []
        else:
            batch, self._unsent = held[:free], held[free:]
        batch = [entry for entry in batch if not entry[1].done()]
        if batch and connection is not None:
            connection.send(batch)
            free = 0 if connection.is_paused else free - len(batch)
            if is_too_long and not connection.is_paused:
                self._flush_soon()  # the socket took them all: the next may follow
        self._unsent_bytes = sum([len(entry[0]) for entry in self._unsent])
        self._room = 0 if self._unsent else min(_TICK_BYTES_MAX, free * _COMMAND_BYTES)
        if (batch or self._unsent) and not self._deadlines.is_running:
            self._deadlines.start()

    def _look_at_unsent(self, now: float, lag_s: float) -> None:
        """Leave out what is due. A tick that took long is nobody's fault: its time does not count."""
        if lag_s > LATE_S:
            self._unsent = [
                (payload, future, due_at + lag_s, flags) for payload, future, due_at, flags in self._unsent
            ]
        self._unsent = [entry for entry in self._unsent if not self._has_ended(entry, now)]

    def _replied(self, in_time: bool) -> None:  # noqa: FBT001 - the connection's callback
        if in_time:
            self._breaker.timeouts = 0
        if self._unsent and not self._is_flush_due and self._has_room():
            self._flush()

    def _ping(self, connection: Connection) -> "asyncio.Future[Any]":
        """Ask a connection whether it lives."""
        future = self._create_future()
        future.add_done_callback(_retrieved)
        due_at = monotonic() + min(self._deadline_s, PING_DEADLINE_MAX_S)
        connection.send(((_PING, future, due_at, 0),))
        self._deadlines.start()
        return future

    # --- their ends ----------------------------------------------------------------------------------

    def _sweep(self, now: float) -> float:
        """End every command whose deadline has passed; when to look again."""
        next_at, connection = inf, self._connection
        if self._unsent:
            if not self._is_flush_due:  # else they are looked at before they are sent
                self._unsent = [entry for entry in self._unsent if not self._has_ended(entry, now)]
                self._flush_soon()
            next_at = now
        if connection is not None and connection.sent:
            expired, first_due_at = connection.expire(now, self._deadline_s)
            next_at = min(next_at, first_due_at, now + self._deadline_s)
            if connection.is_stuck(now):
                connection.abort(TimeoutError("the server says nothing"))
            elif expired and self._has_breaker:
                self._breaker.expired(expired, connection)
        return next_at

    def _has_ended(self, entry: Entry, now: float) -> bool:
        """Whether a command that waits needs to be sent no more."""
        _, future, due_at, _ = entry
        if not future.done() and due_at <= now:
            self._fail_unsent(entry, NotSent, "it waited until its deadline")
        return future.done()

    def _fail_unsent(self, entry: Entry, error: type[NotSent], why: str) -> None:
        """Fail a command that waits; one that was sent before, on a connection that broke, is in doubt."""
        if entry[3] & SENT_BEFORE:
            entry[1].set_exception(in_doubt(f"the connection broke, and {why}"))
        else:
            self.statistics.refused += 1
            entry[1].set_exception(error(f"nothing was sent: {why}"))

    def _refuse(self, reason: str) -> None:
        """Refuse commands from now on, and those that wait to be sent."""
        held, self._unsent, self._unsent_bytes = self._unsent, [], 0
        self._room = 0
        self._refusal = reason
        for entry in held:
            if not entry[1].done():
                self._fail_unsent(entry, Unreachable, reason)

    def _take(self) -> None:
        """Take commands from now on, and send those that wait."""
        self._refusal = None
        self._flush()

    def _use(self, connection: Connection | None) -> None:
        """Send over this connection from now on; None: there is none."""
        self._connection = connection
        self._breaker.reset()
        if connection is None:
            self._room = 0

    def _send_again(self, entries: list[Entry]) -> None:
        """Send these before all others."""
        if entries:
            self._unsent[:0] = entries
            self._flush_soon()


def _fitting(held: list[Entry]) -> int:
    """How many of these fit into one write, at least one."""
    size = 0
    for count, entry in enumerate(held):
        size += len(entry[0])
        if size > WRITE_BUFFER_BYTES_MAX:
            return max(1, count)
    return len(held)


def _check_shareable(parts: tuple[Part, ...]) -> None:
    if not parts:
        raise TypeError("a command has at least one word")
    words = [part.encode() if isinstance(part, str) else part for part in parts[:2]]
    if words[0] in {b"CLIENT", b"client"} and (len(words) == 1 or str(words[1]).lower() != "b'reply'"):
        return
    raise ValueError(f"{parts[0]!r} changes the connection that everybody shares")


def _retrieved(future: "asyncio.Future[Any]") -> None:
    """Say that somebody looked at the outcome."""
    if not future.cancelled():
        future.exception()
