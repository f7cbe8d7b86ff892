"""Owns one process of the stack: its start, its readiness, its end, its log.

Guarantees: `start` returns when the process answers its probe, or raises ServiceFailed with the end of the
log and leaves nothing running; `stop` returns when the process is gone, however unwilling it was. Not bound
to an event loop: one loop may start it and another stop it. If this process dies, the child lives on; the
guard (guard.py) or the kernel (`follow`) ends it then.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from app.dev.stack.errors import ServiceFailed, StackError, explain
from app.dev.stack.probes import Probe
from app.dev.stack.processes import Identity, identify, listens
from app.dev.stack.stops import StopSteps

LAUNCHER = (sys.executable, "-I", "-S", str(Path(__file__).with_name("launch.py")))
LOG_BYTES_MAX = 20_000_000
TAIL_LINES = 15
_TAIL_BYTES = 8192
_ASK_AGAIN_S = 0.03


@dataclass(frozen=True, slots=True)
class Spec:
    """What a process is: how it is started, asked whether it serves, and stopped. Times are seconds.

    `port` is where it listens (0: nowhere). `stop_steps` are signals and how long each may take; SIGKILL
    follows the last. `before` runs before every start and may wait. `follow` is the signal by which the
    kernel ends it should this process die.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log: Path
    port: int
    probe: Probe
    stop_steps: StopSteps
    start_timeout_s: float = 30.0
    launch: tuple[str, ...] = ()
    follow: signal.Signals | None = None
    before: Callable[[], Awaitable[None]] | None = None


@dataclass(slots=True)
class Service:
    """A process that is started, watched and stopped; started again it is a new process of the same spec."""

    spec: Spec
    process: subprocess.Popen[bytes] | None = None
    identity: Identity | None = None
    ready: bool = False
    exit_code: int | None = None
    """How the last process ended (negative: the signal), until one is ready again."""
    changed: Callable[[], None] = lambda: None
    _log_from: int = field(default=0)

    @property
    def running(self) -> bool:
        """Whether the process lives (it need not be ready)."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int | None:
        """The pid of the living process."""
        return self.process.pid if self.process is not None and self.running else None

    async def start(self) -> None:
        """Start the process and wait until it answers its probe. Raises ServiceFailed or StackError."""
        if self.running:
            return
        if self.spec.before is not None:
            await self.spec.before()
        self._spawn()
        try:
            await self._await_ready()
        except BaseException:
            await self.stop(at_once=True)
            raise

    def _spawn(self) -> None:
        spec = self.spec
        launch = list(spec.launch)
        if spec.follow is not None:
            launch += ["--follow", f"{os.getpid()}:{int(spec.follow)}"]
        argv = [*LAUNCHER, *launch, "--", *spec.argv] if launch else list(spec.argv)
        try:
            bound(spec.log)
            with spec.log.open("ab") as log:
                self._log_from = log.tell()
                # A session of its own: Ctrl-C reaches only the supervisor, which stops all in order.
                self.process = subprocess.Popen(
                    argv,
                    env=dict(spec.env),
                    cwd=spec.cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except OSError as error:
            raise explain(error, f"Cannot start {spec.name}", spec.log.parent) from error
        self.ready = False
        self.identity = identify(self.process.pid)
        self.changed()

    async def _await_ready(self) -> None:
        deadline = time.monotonic() + self.spec.start_timeout_s
        while self.process is not None:
            if (code := self.process.poll()) is not None:
                raise self.failed(f"ended while it started ({describe(code)})")
            # Somebody else may answer on this port while our process is about to give up on it.
            if await self.spec.probe() and self.running and listens(self.process.pid, self.spec.port):
                self.ready = True
                self.exit_code = None
                self.changed()
                return
            if time.monotonic() > deadline:
                raise self.failed(f"was not ready within {self.spec.start_timeout_s:g} s")
            await asyncio.sleep(_ASK_AGAIN_S)

    async def ended(self) -> int:
        """Wait until the process is gone; its return code (negative: the signal that ended it)."""
        process = self.process
        if process is None:
            raise StackError(f"{self.spec.name} was never started")
        await exit_of(process)
        if process is self.process:
            self.exit_code = process.wait()
            self.ready = False
            self.identity = None
            self.changed()
        return process.wait()

    async def complete(self) -> None:
        """Run a process that ends by itself; raises ServiceFailed unless it ends well and in time."""
        self._spawn()
        try:
            async with asyncio.timeout(self.spec.start_timeout_s):
                code = await self.ended()
        except TimeoutError:
            raise self.failed(f"did not end within {self.spec.start_timeout_s:g} s") from None
        finally:
            await self.stop(at_once=True)
        if code != 0:
            raise self.failed(f"failed ({describe(code)})")

    async def stop(self, *, at_once: bool = False, hurry: asyncio.Event | None = None) -> None:
        """Stop by the steps of the spec, each within its time, at last by SIGKILL (first, when `at_once`).

        `hurry`, once set, cuts the first step short and leaves the escalating ones, if there are any.
        """
        process = self.process
        if process is None:
            return
        for step, (number, seconds) in enumerate(() if at_once else self.spec.stop_steps):
            if process.poll() is not None:
                break
            if step == 0 and hurry is not None and hurry.is_set():
                continue
            process.send_signal(number)
            await _first(exit_of(process), hurry if step == 0 else None, seconds)
        if process.poll() is None:
            process.kill()
        await self.ended()

    def kill(self) -> None:
        """SIGKILL, at once and without waiting; `ended` waits."""
        if self.process is not None:
            self.process.kill()

    def failed(self, reason: str) -> ServiceFailed:
        """The error that says why this service does not run, with the end of what it logged."""
        return ServiceFailed(self.spec.name, reason, self.spec.log, tail(self.spec.log, self._log_from))

    def logged(self, text: str) -> bool:
        """Whether the end of what was logged since the start contains `text`."""
        return any(text in line for line in tail(self.spec.log, self._log_from))


def describe(code: int) -> str:
    """A return code in words."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"ended by {signal.Signals(-code).name}"
    return f"ended by signal {-code}"


def tail(log: Path, start: int = 0) -> list[str]:
    """The last lines of a log, none from before byte `start`."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start if start <= size else 0, size - _TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if line.strip()][-TAIL_LINES:]


def bound(log: Path) -> None:
    """Move what a log that grew beyond LOG_BYTES_MAX holds to `<name>.1`, and go on with an empty one.

    The file is emptied, not replaced, because its writer holds it open (and appends).
    """
    try:
        if log.stat().st_size <= LOG_BYTES_MAX:
            return
    except FileNotFoundError:
        return
    old = log.with_name(log.name + ".1")
    with log.open("r+b") as source:
        try:
            with old.open("wb") as target:
                source.seek(-LOG_BYTES_MAX // 2, os.SEEK_END)
                target.write(source.read())
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            old.unlink(missing_ok=True)
        source.truncate(0)


async def exit_of(process: subprocess.Popen[bytes]) -> None:
    """Sleep until the process ended, without reaping it under the feet of other waiters."""
    if process.poll() is not None:
        return
    loop = asyncio.get_running_loop()
    finished = asyncio.Event()
    try:
        handle = os.pidfd_open(process.pid)
    except (OSError, AttributeError):  # a kernel, or a Python made for one, that cannot watch a process
        threading.Thread(target=_await_in_thread, args=(process.pid, loop, finished), daemon=True).start()
        await finished.wait()
        return
    try:
        loop.add_reader(handle, finished.set)
        await finished.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


def _await_in_thread(pid: int, loop: asyncio.AbstractEventLoop, finished: asyncio.Event) -> None:
    with contextlib.suppress(ChildProcessError):  # reaped by another waiter
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(finished.set)


async def _first(ending: Awaitable[None], hurry: asyncio.Event | None, seconds: float) -> None:
    tasks = [asyncio.ensure_future(ending)]
    if hurry is not None:
        tasks.append(asyncio.ensure_future(_set(hurry)))
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _set(event: asyncio.Event) -> None:
    await event.wait()
