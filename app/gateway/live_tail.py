"""`Tail`: everybody who follows all events, told each of them at least once.

What is heard is passed on at once. After each new subscription, and every `POLL_AWAY_S` while nothing can be
heard, PostgreSQL is read by time, once for all listeners, and a while back (`LATE`), because an event becomes
visible later than its time; what was told lately is remembered and not told again. Whoever resumes reads its
own way up to now first. If the process dies here, its listeners come again and name the last event they have.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Container
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import msgspec

from app.contracts.streams import Envelope
from app.gateway.live_listener import FRAMES_MAX, Listener, MayStay, frame
from app.gateway.live_looking import PAUSE_S, Looking
from app.infra.postgres.live_events import LATE, LiveEvents
from app.infra.redis.live import Heard
from app.observability import metrics

POLL_AWAY_S: Final = 2.0
NEAR_S: Final = 10.0
"""Whoever resumes reads until a pass through what it misses takes less than this, and then follows."""

_TICK_S: Final = 1.0
_encoder: Final = msgspec.json.Encoder()


class TailListener(Listener):
    """Follows all events whose type it wants. What is told while `held` is a list waits there.

    `known` is what it read for itself lately, until a time of the loop's clock: that is not told again.
    """

    __slots__ = ("held", "known", "known_until", "wants")

    def __init__(self, may_stay: MayStay, wants: Callable[[str], bool]) -> None:
        """Follow the events of which `wants` is true."""
        super().__init__(may_stay)
        self.wants = wants
        self.held: list[tuple[str, bytes]] | None = None
        self.known: Container[str] = ()
        self.known_until = 0.0

    def tell(self, identity: str, told: bytes) -> None:
        """Have an event sent, now or when what was before it is read."""
        if self.held is None:
            if self.known_until and self._loop.time() > self.known_until:
                self.known, self.known_until = (), 0.0
            if identity not in self.known:
                self.push(told)
        elif len(self.held) < FRAMES_MAX:
            self.held.append((identity, told))
        else:
            self.takes_nothing = True
            self.drop()


class Tail:
    """The listeners of one process to all events."""

    def __init__(self, events: LiveEvents, is_heard: Callable[[], bool]) -> None:
        """Read `events`; `is_heard` says whether what is published is heard just now."""
        self._events = events
        self._is_heard = is_heard
        self._listeners: set[TailListener] = set()
        self._told: dict[str, float] = {}  # id → when, of all that was told lately
        self._held: list[tuple[Heard, bytes]] | None = []  # heard while PostgreSQL is read
        self._is_behind = True
        self._since: datetime | None = None  # what was visible until then is told, but for what is late
        self._began = datetime.min.replace(tzinfo=UTC)  # the database's clock when the loop's was zero
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._readying = asyncio.Lock()
        self._looking = Looking("all")
        self._task: asyncio.Task[None] | None = None

    async def ready(self) -> None:
        """Once this has returned, whoever attaches is told all that becomes visible. Raises Unavailable."""
        async with self._readying:
            if self._since is not None:
                return
            now = await self._read_clock()
            async for page in self._events.since(now - LATE):
                at = self._loop.time()
                self._told.update((happened.envelope.id, at) for happened in page)
            self._since = now

    def attach(self, listener: TailListener) -> None:
        """Tell this listener what happens from now on."""
        self._listeners.add(listener)
        if self._task is None:
            self._task = asyncio.create_task(self._look())

    def detach(self, listener: TailListener) -> None:
        """Tell it nothing more."""
        self._listeners.discard(listener)
        if self._listeners:
            return
        if self._task is not None:
            self._task.cancel()
        self._task = self._since = None
        self._told.clear()
        self._held, self._is_behind = [], True

    def heard(self, heard: Heard, payload: bytes) -> None:
        """Pass on what was published."""
        if self._held is None:
            self._tell(heard.id, heard.type, lambda: payload)
        elif len(self._held) < FRAMES_MAX:
            self._held.append((heard, payload))
        else:  # PostgreSQL has them all
            self._held.clear()
            self._is_behind = True

    def missed(self) -> None:
        """Look for what was not heard."""
        self._is_behind = True
        self._held = self._held or []
        self._news.set()

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def resumed(self, listener: TailListener, identity: str, since: datetime) -> AsyncGenerator[bytes]:
        """What a listener misses behind an event of a time, in chunks; then it is attached.

        Events of the last moments before are sent again: some may have become visible after that event.
        """
        sent = {identity: since}
        start = since - LATE
        is_attached = False
        while True:
            began_at, began = self._loop.time(), await self._events.now()
            async for page in self._events.since(start):
                new = [happened for happened in page if happened.envelope.id not in sent]
                sent.update((happened.envelope.id, happened.at) for happened in new)
                wanted = [_frame(item.envelope) for item in new if listener.wants(item.envelope.type)]
                if wanted:
                    metrics.LIVE_EVENTS.inc(len(wanted))
                    yield b"".join(wanted)
            if is_attached:
                break
            start = began - LATE
            sent = {known: at for known, at in sent.items() if at >= start}
            if self._loop.time() - began_at < NEAR_S:
                await self.ready()
                listener.held = []
                self.attach(listener)
                is_attached = True
        listener.known = sent
        listener.known_until = self._loop.time() + 2 * LATE.total_seconds()
        held, listener.held = listener.held or [], None
        for known, told in held:
            listener.tell(known, told)

    def _tell(self, identity: str, kind: str, envelope: Callable[[], bytes]) -> None:
        if identity in self._told:
            return
        self._told[identity] = self._loop.time()
        told: bytes | None = None
        for listener in self._listeners:
            if listener.wants(kind):
                told = told or frame(identity, kind, envelope())
                listener.tell(identity, told)

    async def _look(self) -> None:
        looked_at = 0.0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S):
                    await self._news.wait()
            self._news.clear()
            now = self._loop.time()
            if not self._is_behind and self._is_heard():
                self._since = self._began + timedelta(seconds=now)
            elif self._is_heard() or now - looked_at >= POLL_AWAY_S:
                looked_at = now
                try:
                    await self._catch_up()
                except Exception as error:  # noqa: BLE001 - whatever it is, there are others who listen
                    self._looking.failed(error)
                    self._is_behind = True
                    await asyncio.sleep(PAUSE_S)
            self._forget_old()

    async def _catch_up(self) -> None:
        """Tell what was not heard. What is heard meanwhile waits, so that subjects keep their order.

        Raises Unavailable; then what is heard goes on waiting.
        """
        assert self._since is not None, "a listener is attached when the tail is ready"
        self._is_behind = False
        self._held = self._held or []
        now = await self._read_clock()
        async for page in self._events.since(self._since - LATE):
            for happened in page:
                event = happened.envelope
                self._tell(event.id, event.type, partial(_encoder.encode, event))
        self._looking.well()
        self._since = now
        if self._is_behind:  # it was missed again meanwhile
            self._news.set()
            return
        held, self._held = self._held, None
        for heard, payload in held:
            self._tell(heard.id, heard.type, partial(bytes, payload))

    async def _read_clock(self) -> datetime:
        now = await self._events.now()
        self._began = now - timedelta(seconds=self._loop.time())
        return now

    def _forget_old(self) -> None:
        """Forget what no look into PostgreSQL can find again."""
        if self._since is None:
            return
        limit = (self._since - 2 * LATE - self._began).total_seconds()
        while self._told and next(iter(self._told.values())) < limit:
            del self._told[next(iter(self._told))]


def _frame(event: Envelope) -> bytes:
    return frame(event.id, event.type, _encoder.encode(event))
