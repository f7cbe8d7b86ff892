"""`Lease`: one lock, held for a while. What its holder sees of it, and the way to it.

A lock is ours until `lifetime_s` after we last asked for it with success, counted from before the question
was sent: so it is lost here before it is free there, and each side needs only its own steady clock. If the
process dies here, the server frees the lock at the end of that lifetime.
"""

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final, Self

from app.hotpath.errors import ErrorReply, HotpathError, MayHaveHappened, NotSent
from app.hotpath.scripts import Script

if TYPE_CHECKING:
    from app.hotpath.locks import Locks
    from app.hotpath.locks_line import Line


def _joined(*names: str) -> Script:
    return Script.of(b"".join(Script.load(name).source for name in names))


ACQUIRE: Final = _joined("lock_acquire", "lock_pass", "lock_wait")
RELEASE: Final = _joined("lock_release", "lock_pass", "lock_hand_over")
EXTEND: Final = Script.load("lock_extend")
_ACQUIRE: Final = ACQUIRE.sha
_RELEASE: Final = RELEASE.sha
RENEWALS: Final = 3
"""A lock is renewed whenever one of so many parts of its lifetime has passed."""


def is_unknown_script(error: BaseException) -> bool:
    """Whether the server, or a new one in its place, does not have the script yet."""
    return isinstance(error, ErrorReply) and error.code == "NOSCRIPT"


class LockNotAcquired(HotpathError):
    """Others had the lock for as long as the caller would wait."""


class LockLost(HotpathError):
    """The lock is not the caller's any more: its lifetime ended, it was taken away, or it was given back."""


class Lease:
    """One lock for one holder: `async with locks.hold("name", lifetime_s=10, wait_s=5) as lease`.

    `token` is the fencing token: greater than that of every holder before, for as long as the server keeps
    its data. A lock that is lost says so by `lost`, `is_lost` and `check`; it stops nothing by itself.
    """

    # Defaults stand in the class: one lease is made for every lock taken, and few ever touch them.
    token: int = 0
    owner: str = ""  # unlike any other's: by it the server knows who asks
    asked_at: float = 0.0
    renew_at: float = 0.0
    expires_at: float = 0.0
    is_woken: bool = False
    turn: "asyncio.Future[None] | None" = None
    _is_over: bool = False  # given back, or lost
    _was_ours: bool = False  # when it was given back
    _lost_because: str | None = None
    _lost: "asyncio.Future[str] | None" = None

    def __init__(self, locks: "Locks", name: str, lifetime_s: float, wait_s: float) -> None:
        """Made by `Locks.hold`."""
        self.name = name
        self.keys = locks.keys.get(name) or locks.keys_of(name)
        self.lifetime_s = lifetime_s
        self.lifetime_ms = int(lifetime_s * 1000)
        self.wait_s = wait_s
        self._locks = locks

    @property
    def key(self) -> str:
        """The key that is there while the lock is held."""
        return self.keys[0]

    # --- for the holder ------------------------------------------------------------------------------

    @property
    def is_held(self) -> bool:
        """Whether the lock is ours now, as far as this process can know."""
        return self.token > 0 and not self._is_over and monotonic() < self.expires_at

    @property
    def is_lost(self) -> bool:
        """Whether it was ours and ended before it was given back."""
        if self._is_over or not self.token:
            return self._lost_because is not None
        return monotonic() >= self.expires_at

    @property
    def lost(self) -> "asyncio.Future[str]":
        """Await it to hear why the lock was lost, as soon as it is; cancelled when the lock is given back."""
        if self._lost is None:
            self._lost = asyncio.get_running_loop().create_future()
            if self._is_over:
                self._tell(self._lost)
        return asyncio.shield(self._lost)  # one who listens no more does not deafen the others

    def check(self) -> None:
        """Raise LockLost unless the lock is ours now."""
        if not self.is_held:
            because = self._lost_because or ("it was given back" if self._is_over else "its lifetime ended")
            raise LockLost(f"the lock {self.name!r} is not ours: {because}")

    async def extend(self, lifetime_s: float) -> None:
        """Let a lifetime of so many seconds begin now; renewals keep to it. Raises LockLost, HotpathError."""
        self.check()
        self.lifetime_s = lifetime_s
        self.lifetime_ms = int(lifetime_s * 1000)
        # Should no answer come, only the shorter of both lifetimes is certain.
        now = monotonic()
        self._lives(min(self.expires_at, now + lifetime_s), min(self.renew_at, now + lifetime_s / RENEWALS))
        await self._locks.watch.renew(self)
        self.check()

    async def release(self) -> bool:
        """Give the lock back; whether it was ours until now. Safe to call twice; raises no HotpathError.

        Where Redis does not answer, that goes on in the background until the lifetime has ended.
        """
        await self.__aexit__()
        return self._was_ours

    # --- the way to it, and back ---------------------------------------------------------------------------
    # Both ways are written out, because where nobody else wants the lock each further call can be measured.

    async def __aenter__(self) -> Self:
        """Take the lock. Raises LockNotAcquired, or HotpathError where Redis is away from the start."""
        assert not self.owner, "a lease is for one use"
        locks, name, lifetime_s = self._locks, self.name, self.lifetime_s
        if name in locks.lines:
            await self._wait(self.wait_s)
            return self
        locks.lines[name] = self
        owner = self.owner = f"{locks.process}.{next(locks.numbers)}"
        how = "wait" if self.wait_s > 0 else ""
        held, tokens = self.keys
        asked_at = monotonic()
        try:
            reply = await locks.execute(
                "EVALSHA", _ACQUIRE, "2", held, tokens, owner, self.lifetime_ms, how, safe=True
            )
        except BaseException as error:  # noqa: BLE001 - raised again
            reply = await self._not_answered(error, how)
        if reply <= 0:
            await self._wait(asked_at + self.wait_s - monotonic(), refused_ms=-reply)
            return self
        self.token = reply
        self.expires_at = asked_at + lifetime_s
        renew_at = self.renew_at = asked_at + lifetime_s / RENEWALS
        locks.watch.held[owner] = self
        if renew_at < locks.watch.due_at:
            locks.watch.look_at(renew_at)
        if locks.lines[name] is not self:  # others came meanwhile
            locks.line(self).begin("", 0.0)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give the lock back; as `release`."""
        if self._is_over or not self.token:
            self._was_ours = False
            return
        locks, owner = self._locks, self.owner
        self._is_over = True
        if self._lost is not None:
            self._lost.cancel()
        del locks.watch.held[owner]
        line = locks.lines.get(self.name)
        if line is self:
            del locks.lines[self.name]
            line = None
        heir, asked_at = ((), 0.0) if line is None else (line.place(), monotonic())
        try:
            if heir:
                reply = await locks.execute("EVALSHA", _RELEASE, "1", self.key, owner, *heir, safe=True)
            else:
                reply = await locks.execute("EVALSHA", _RELEASE, "1", self.keys[0], owner, safe=True)
        except BaseException as error:  # noqa: BLE001 - raised again
            reply = await self._not_given_back(error, line, heir)
        if reply < 0 and line is not None:
            line.given(-reply, asked_at, *heir)
        self._was_ours = reply != 0

    async def _not_answered(self, error: BaseException, how: str) -> int:
        """Our question for the lock failed: ask again where that mends it, or leave nothing of it behind."""
        if is_unknown_script(error):
            try:
                return await self._locks.ask(ACQUIRE, self.keys, self.owner, self.lifetime_ms, how)
            except BaseException as another:  # noqa: BLE001 - raised again
                error = another
        if isinstance(error, MayHaveHappened) and how:
            return 0  # the lock may be ours, or we may stand in line: whoever asks again is told
        self._give_up()
        if not isinstance(error, NotSent):
            self._locks.give_back(self.key, self.owner, self.lifetime_s)
        raise error

    async def _not_given_back(
        self, error: BaseException, line: "Lease | Line | None", heir: tuple[str | int, ...]
    ) -> int:
        """Our release failed: do it again where that mends it, else in the background."""
        if is_unknown_script(error):
            try:
                return await self._locks.ask(RELEASE, (self.key,), self.owner, *heir)
            except BaseException as another:  # noqa: BLE001 - raised again
                error = another
        self._locks.give_back(self.key, self.owner, self.lifetime_s)
        if line is not None:
            line.wake()  # it may have the lock already
        if isinstance(error, HotpathError):
            return 0
        raise error

    async def _wait(self, wait_s: float, refused_ms: int | None = None) -> None:
        """Wait in this process's line. `refused_ms`: we stand in the server's line, to ask again then."""
        if self.wait_s <= 0:
            if refused_ms is not None:
                self._give_up()
            raise LockNotAcquired(f"the lock {self.name!r} is another's")
        line = self._locks.line(self)
        loop = asyncio.get_running_loop()
        turn = self.turn = loop.create_future()
        if refused_ms is None:
            line.join(self)
        else:
            line.join(self, first=True)
            line.begin(self.owner, 0.0 if self.is_woken else refused_ms / 1000)
        timer = loop.call_later(wait_s, line.refuse, self)
        try:
            await turn
        except BaseException:
            if self.token and self.end(None):  # the lock came together with the cancellation
                self._locks.give_back(self.key, self.owner, self.lifetime_s)
            line.left(self)
            raise
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        """Ask no more; others of this process who came meanwhile go on by themselves."""
        lines = self._locks.lines
        if lines[self.name] is self:
            del lines[self.name]
        else:
            self._locks.line(self).begin("", 0.0)

    # --- for the locks ---------------------------------------------------------------------------------

    def won(self, token: int, asked_at: float, owner: str) -> None:
        """The lock is ours, as of a question sent at `asked_at`."""
        self.token = token
        self.owner = owner
        self._locks.watch.held[owner] = self
        self.agreed(asked_at)

    def agreed(self, asked_at: float) -> None:
        """The server gave the lock its lifetime at `asked_at` or later."""
        self._lives(asked_at + self.lifetime_s, asked_at + self.lifetime_s / RENEWALS)

    def wake(self) -> None:
        """The lock may be ours by now: ask again."""
        self.is_woken = True

    def place(self) -> tuple[()]:
        """It asks for itself, and has no heir."""
        return ()

    def given(self, *_: object) -> None:
        """It is no heir."""

    def end(self, lost_because: str | None) -> bool:
        """The lease is over, given back or lost; whether it was not over before."""
        if self._is_over:
            return False
        self._is_over = True
        self._lost_because = lost_because
        self._locks.watch.held.pop(self.owner, None)
        self._locks.forget(self, self.name)
        if self._lost is not None:
            self._tell(self._lost)
        return True

    def _lives(self, expires_at: float, renew_at: float) -> None:
        self.expires_at = expires_at
        self.renew_at = renew_at
        if renew_at < self._locks.watch.due_at:
            self._locks.watch.look_at(renew_at)

    def _tell(self, listening: "asyncio.Future[str]") -> None:
        if self._lost_because is None:
            listening.cancel()
        else:
            listening.set_result(self._lost_because)
