"""`Connection`: bytes of one socket. Commands go out in batches, replies come back to their callers in order.

The order of `sent` is the only thing that ties a reply to its caller, so nothing ever leaves its place there:
a caller that gave up is found done when its reply comes, and the reply is dropped. If the process dies here,
commands that were sent may have happened.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Any, Final, TypeAlias, cast

from hiredis import ProtocolError, PushNotification, Reader, pack_command

from app.hotpath.callbacks import call
from app.hotpath.errors import ErrorReply, HotpathError, MayHaveHappened, NotNow, error_reply
from app.hotpath.statistics import Statistics

WRITE_BUFFER_BYTES_MAX: Final = 1024 * 1024
"""Above this the socket's buffer takes no more, until a quarter of it is left."""
STALL_S: Final = 1.0
"""A connection that says nothing for this long, past a command's deadline, is stuck."""
TRICKLE_S: Final = 10.0
"""So is one whose answer is so late, although bytes come."""
UNACKNOWLEDGED_S: Final = 5
"""The kernel gives up a peer that acknowledges nothing for so long."""

SAFE: Final = 1
"""It does no harm twice."""
SENT_BEFORE: Final = 2
"""It was sent already, on a connection that broke."""
IMPATIENT: Final = 4
"""Its deadline is shorter than what is expected of the server."""

Reply: TypeAlias = Any
"""What RESP3 can say: bytes, int, float, bool, None, list, dict."""

Part: TypeAlias = str | bytes | float
"""One word of a command; an int is a float to the type checker."""

pack: Callable[[tuple[Part, ...]], bytes] = cast("Any", pack_command)
"""A command's bytes."""

Entry: TypeAlias = tuple[bytes, "asyncio.Future[Reply]", float, int]
"""A command on its way: its bytes, who waits, until when (monotonic), and SAFE, SENT_BEFORE, IMPATIENT."""

_MORE: Final = object()
_ERRORS: Final = frozenset((ErrorReply, NotNow))
_SOCKET_OPTIONS: Final = {
    "SO_KEEPALIVE": (socket.SOL_SOCKET, 1),
    "TCP_KEEPIDLE": (socket.IPPROTO_TCP, 10),
    "TCP_KEEPINTVL": (socket.IPPROTO_TCP, 3),
    "TCP_KEEPCNT": (socket.IPPROTO_TCP, 3),
    "TCP_USER_TIMEOUT": (socket.IPPROTO_TCP, UNACKNOWLEDGED_S * 1000),
}


class Connection(asyncio.Protocol):
    """One socket, driven by its owner, the client.

    The owner is called back: `on_replies(in_time)` after a chunk of replies (`in_time`: somebody still waited
    for one), `on_room` when the socket takes bytes again, `on_push` for what came unasked, `on_lost` once.
    """

    def __init__(
        self,
        statistics: Statistics,
        *,
        on_replies: Callable[[bool], None],
        on_room: Callable[[], None],
        on_push: Callable[[list[Any]], None],
        on_lost: Callable[["Connection"], None],
    ) -> None:
        """Prepare; the event loop connects."""
        self.sent: deque[Entry] = deque()
        self.lost = asyncio.Event()
        self.is_paused = False
        self.is_ended = False  # nothing more is sent or heard; `lost` follows
        self.heard_at = 0.0  # of answers, not of pushes: they come from a server that is deaf, too
        self.reason: BaseException | None = None
        self._statistics = statistics
        self._on_replies = on_replies
        self._on_room = on_room
        self._on_push = on_push
        self._on_lost = on_lost
        self._reader = Reader(protocolError=ProtocolError, replyError=error_reply, notEnoughData=_MORE)
        self._transport: asyncio.Transport | None = None
        self._timed_from = 0.0
        self._timed_reply = -1  # the number of the reply that ends the round trip being timed
        self._sent_count = 0
        self._reply_count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(WRITE_BUFFER_BYTES_MAX)
        self.heard_at = monotonic()
        socket_ = transport.get_extra_info("socket")
        if socket_ is not None and socket_.family != socket.AF_UNIX:
            for name, (level, value) in _SOCKET_OPTIONS.items():
                with suppress(OSError, AttributeError):  # not on every system
                    socket_.setsockopt(level, getattr(socket, name), value)
        if self.is_ended:  # given up while it was being connected
            self._transport.abort()

    def send(self, batch: Sequence[Entry]) -> None:
        """Send commands in one write; each gets its place in the order of replies."""
        assert self._transport is not None, "only a connected socket is sent to"
        if self._timed_reply < 0:
            self._timed_from, self._timed_reply = monotonic(), self._sent_count
        self._sent_count += len(batch)
        self._statistics.batches += 1
        self._statistics.commands += len(batch)
        self.sent.extend(batch)
        self._transport.write(b"".join([entry[0] for entry in batch]))

    def send_unanswered(self, payload: bytes) -> None:
        """Send what is answered by pushes only (SUBSCRIBE and its kin)."""
        assert self._transport is not None, "only a connected socket is sent to"
        self._transport.write(payload)

    def data_received(self, data: bytes) -> None:
        """Give every complete reply to whoever waits for it."""
        if self.is_ended:
            return
        reader, sent = self._reader, self.sent
        pushes, in_time = 0, False
        reply: Any = None
        try:
            reader.feed(data)
            while True:
                reply = reader.gets()
                if reply is _MORE:
                    break
                kind = reply.__class__
                if kind is PushNotification:
                    pushes += 1
                    call(self._on_push, reply)
                    continue
                future = sent.popleft()[1]
                if future.done():  # cancelled, or its deadline passed: the reply is nobody's
                    self._statistics.dropped += 1
                    continue
                in_time = True
                if kind in _ERRORS:
                    self._statistics.errors += 1
                    future.set_exception(reply)
                else:
                    future.set_result(reply)
        except IndexError:  # nothing is sent that it could answer
            self.abort(reply if isinstance(reply, ErrorReply) else ProtocolError("a reply to nothing"))
        except (ProtocolError, TypeError, ValueError, MemoryError) as error:
            self.abort(error)  # what follows cannot be told apart any more
        self._statistics.pushes += pushes
        count = self._sent_count - len(sent) - self._reply_count
        if count or not pushes:
            self.heard_at = monotonic()
        if count:
            self._answered(count)
            self._on_replies(in_time)

    def _answered(self, count: int) -> None:
        self._statistics.replies += count
        self._reply_count += count
        if 0 <= self._timed_reply < self._reply_count:
            self._statistics.timed(monotonic() - self._timed_from)
            self._timed_reply = -1

    def expire(self, now: float, expected_s: float) -> tuple[int, float]:
        """Fail what is due; how often the server is to blame for that, and when the next is due (inf: never).

        It is not to blame for callers with less patience than `expected_s`, unless it says nothing at all.
        """
        expired = impatient = 0
        next_at = inf
        for _, future, due_at, flags in self.sent:
            if future.done():
                continue
            if due_at <= now:
                future.set_exception(in_doubt("no answer within its deadline"))
                expired += 1
                impatient += flags & IMPATIENT
            elif due_at < next_at:
                next_at = due_at
        self._statistics.timeouts += expired
        is_silent = self._timed_reply >= 0 and now - max(self._timed_from, self.heard_at) >= expected_s
        return expired if is_silent else expired - impatient // IMPATIENT, next_at

    def is_stuck(self, now: float) -> bool:
        """Whether answers are so late that none will come."""
        if not self.sent:
            return False
        late_s = now - self.sent[0][2]
        return late_s >= TRICKLE_S or (late_s >= STALL_S and now - self.heard_at >= STALL_S)

    def pause_writing(self) -> None:
        """The socket's buffer is full."""
        self.is_paused = True

    def resume_writing(self) -> None:
        """The socket takes bytes again."""
        self.is_paused = False
        self._on_room()

    def eof_received(self) -> None:
        """The server says no more; the transport closes itself."""
        self.is_ended = True

    def abort(self, reason: BaseException | None = None) -> None:
        """Give the socket up; `connection_lost` follows."""
        self.is_ended = True
        if self.reason is None:
            self.reason = reason
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """The socket is gone, whoever ended it."""
        self.is_ended = True
        if self.reason is None:
            self.reason = error or ConnectionResetError("the server closed the connection")
        self.lost.set()
        self._on_lost(self)

    def fail_sent(self) -> list[Entry]:
        """Fail what was sent and is not answered; commands that may be sent again are returned instead."""
        again: list[Entry] = []
        for payload, future, due_at, flags in self.sent:
            if future.done():
                continue
            if flags & SAFE:
                again.append((payload, future, due_at, flags | SENT_BEFORE))
            else:
                future.set_exception(in_doubt(f"the connection broke ({self.reason!r})"))
        self.sent.clear()
        return again


def in_doubt(why: str) -> HotpathError:
    """The error of a command that was sent and is not answered."""
    return MayHaveHappened(f"the command may have happened: {why}")
