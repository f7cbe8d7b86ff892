"""`Locks`: one holder at a time for a name, across processes, for efficiency.

Taking, extending and giving back are one round trip each. Who waits is woken, in the order of coming; a
process's waiters share one place in that order, and processes take turns. Locks end by themselves, so nothing
that must be true may rest on one: two holders are possible whenever a process sleeps or Redis loses its data.
What must be exclusive carries a fencing token from the database and is checked where it writes.

If the process dies here, its locks end with their lifetimes, and its places are skipped at once.
"""

import asyncio
import secrets
from collections.abc import Coroutine, Sequence
from itertools import count
from math import inf
from time import monotonic
from typing import Any, Final, Self
from zlib import crc32

from app.hotpath.client import Client
from app.hotpath.connection import Part
from app.hotpath.errors import ErrorReply, HotpathError, MayHaveHappened, NotNow, NotSent
from app.hotpath.locks_lease import RELEASE, Lease, LockLost, LockNotAcquired, is_unknown_script
from app.hotpath.locks_line import Line
from app.hotpath.locks_watch import Watch
from app.hotpath.scripts import Script
from app.hotpath.subscriptions import Subscription, Subscriptions

__all__ = ["Lease", "LockLost", "LockNotAcquired", "Locks"]

SLOTS: Final = 1024
"""Names share so many hash tags, each with a counter of tokens: counters stay for ever, and stay few."""
KEYS_MAX: Final = 4096
"""Names whose keys are remembered."""
LIFETIME_S: Final = 10.0
WAIT_S: Final = 10.0
CLOSE_S: Final = 1.0
PAUSE_FIRST_S: Final = 0.05
PAUSE_MAX_S: Final = 1.0


class Locks:
    """The locks of one process on one server. Use `async with`, inside those of client and subscriptions."""

    def __init__(self, client: Client, subscriptions: Subscriptions, *, prefix: str) -> None:
        """Prepare; `open` begins to listen. Keys are `<prefix>{lock:<slot>}:held:<name>` and the like.

        `prefix` is without braces, as "hf:production:locks:". Processes that share locks share the prefix.
        """
        if "{" in prefix or "}" in prefix or "held:" in prefix:
            raise ValueError("the prefix of locks has no braces, and no `held:`")
        self.prefix = prefix
        self.keys: dict[str, tuple[str, str]] = {}  # of names that were used just now
        self.lines: dict[str, Lease | Line] = {}  # who asks or has it, until there is a line
        self.watch = Watch(self)
        self.execute = client.execute
        self._client = client
        self._subscriptions = subscriptions
        self.process = secrets.token_hex(8)
        self.numbers = count(1)
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._wakes: Subscription | None = None

    # --- for callers ---------------------------------------------------------------------------------

    def hold(self, name: str, *, lifetime_s: float = LIFETIME_S, wait_s: float = WAIT_S) -> Lease:
        """A lock to enter with `async with`; it is renewed until it is left.

        `lifetime_s`: for how long others are kept out should this process vanish. `wait_s`: how long to wait
        for it at most, 0 for one question. A task that has the lock must not enter it again: it would wait.
        """
        return Lease(self, name, lifetime_s, wait_s)

    @property
    def held(self) -> int:
        """How many locks this process has."""
        return len(self.watch.held)

    @property
    def is_listening(self) -> bool:
        """Whether wakes are heard just now; else waiters ask once a second."""
        return self._wakes is not None and self._wakes.is_confirmed

    def open(self) -> Self:
        """Listen for wakes."""
        self._wakes = self._subscriptions.subscribe(
            f"{self.prefix}wake:{self.process}", self._woken, missed=self._wake_all
        )
        self._client.when_connected.append(self._connected)
        return self

    async def close(self) -> None:
        """Give back what is held and refuse who waits; takes CLOSE_S at most."""
        if self._wakes is None:
            return
        self._wakes.close()
        self._client.when_connected.remove(self._connected)
        self.watch.look_at(inf)
        for lease in tuple(self.watch.held.values()):
            lease.end("the locks are closed")
            self.give_back(lease.key, lease.owner, lease.lifetime_s)
        lines = [line for line in self.lines.values() if isinstance(line, Line)]
        await asyncio.gather(*(task for line in lines for task in line.stop()), return_exceptions=True)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=CLOSE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- for leases and lines ------------------------------------------------------------------------

    def new_owner(self) -> str:
        """A name that nobody else has or had."""
        return f"{self.process}.{next(self.numbers)}"

    def keys_of(self, name: str) -> tuple[str, str]:
        """The key that is there while the lock is held, and the counter of its tokens."""
        slot = f"{self.prefix}{{lock:{crc32(name.encode()) % SLOTS:x}}}:"
        if len(self.keys) >= KEYS_MAX:
            self.keys.clear()
        keys = self.keys[name] = (f"{slot}held:{name}", f"{slot}tokens")
        return keys

    async def ask(self, script: Script, keys: Sequence[str], *arguments: Part) -> int:
        """Run one of the locks' scripts; each may be run twice. Raises HotpathError."""
        reply: int
        try:
            reply = await self.execute("EVALSHA", script.sha, len(keys), *keys, *arguments, safe=True)
        except ErrorReply as error:
            if not is_unknown_script(error):
                raise
            reply = await self.execute("EVAL", script.source, len(keys), *keys, *arguments, safe=True)
        return reply

    def line(self, lease: Lease) -> Line:
        """The line for its lock, made if there is none; it begins at once where the lock is held here."""
        found = self.lines[lease.name]
        if isinstance(found, Line):
            return found
        asks = found is not lease and not found.token  # then it tells the line what came of it
        line = self.lines[lease.name] = Line(self, lease.name, lease.keys, found.owner if asks else "")
        if found is not lease and found.token:
            line.begin("", 0.0)
        return line

    def forget(self, one: Lease | Line, name: str) -> None:
        """It has nothing to do with this lock any more."""
        if self.lines.get(name) is one:
            del self.lines[name]

    def give_back(self, key: str, owner: str, within_s: float) -> None:
        """See to it in the background that an owner neither has the lock nor waits for it.

        After `within_s` seconds it goes without saying.
        """
        self.start(self._give_back(key, owner, within_s))

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something in the background until it ends or the locks are closed."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _give_back(self, key: str, owner: str, within_s: float) -> None:
        until, pause_s = monotonic() + within_s, PAUSE_FIRST_S
        while True:
            try:
                await self.ask(RELEASE, (key,), owner)
            except (NotSent, MayHaveHappened, NotNow):
                if monotonic() + pause_s > until:
                    return
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, PAUSE_MAX_S)
            except HotpathError as error:
                self._loop.call_exception_handler(
                    {"message": "a lock was not given back", "exception": error}
                )
                return
            else:
                return

    # --- wakes ---------------------------------------------------------------------------------------

    def _woken(self, payload: bytes) -> None:
        """The lock may have gone to one of ours: it asks. To one who is gone: it goes on to the next."""
        owner, _, key = payload.decode().partition(" ")
        if owner in self.watch.held:
            return
        found = self.lines.get(key.partition("held:")[2])
        if found is not None and found.owner == owner:
            found.wake()
        else:
            self.give_back(key, owner, WAIT_S)

    def _wake_all(self) -> None:
        for one in self.lines.values():
            one.wake()

    def _connected(self) -> None:
        # Commands are taken from the next tick on.
        self._loop.call_soon(self.watch.verify)
        self._loop.call_soon(self._wake_all)
