"""Owns the end of the stack when its supervisor is killed: the guard, a process of its own session.

It sleeps on a pipe whose other end only the supervisor holds. The supervisor says goodbye when it has stopped
everything; if the pipe closes without that, the supervisor is dead, and the guard stops all of this run's
processes in order. It shares the supervisor's lock of the data folder: a new stack begins only when the old
one is gone. If the guard dies, the supervisor starts another; if both are killed, the next `up` or `down`
stops what they left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from app.dev.stack import leftovers
from app.dev.stack.errors import StackError, explain
from app.dev.stack.folder import DataFolder
from app.dev.stack.service import bound, exit_of

_GOODBYE = b"stopped\n"
_GOODBYE_TIMEOUT_S = 2.0
_AGAIN_S = 0.2


class Guard:
    """The supervisor's end of its guard."""

    def __init__(self, folder: DataFolder, run: str, lock: int, env: Mapping[str, str]) -> None:
        self._folder = folder
        self._run = run
        self._lock = lock
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe = -1

    def start(self) -> None:
        """Start it. Raises StackError."""
        if self._pipe != -1:
            os.close(self._pipe)
        theirs, self._pipe = os.pipe()  # neither end is inherited by other children
        log_file = self._folder.log("guard")
        try:
            bound(log_file)
            with log_file.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "app.dev.stack.guard", str(self._folder.path), self._run],
                    env=dict(self._env),
                    cwd="/",
                    stdin=theirs,
                    stdout=log,
                    stderr=log,
                    pass_fds=(self._lock,),
                    start_new_session=True,
                )
        except OSError as error:
            raise explain(error, "Cannot start the guard", log_file) from error
        finally:
            os.close(theirs)

    async def keep(self) -> None:
        """Start another whenever it dies, for as long as this is not cancelled."""
        while self._process is not None:
            await exit_of(self._process)
            self._process.wait()
            await asyncio.sleep(_AGAIN_S)  # not in a circle, should it die at once
            with contextlib.suppress(StackError):  # a full disk, say: the dead one is found dead again
                self.start()

    async def dismiss(self) -> None:
        """Tell it that everything is stopped, and wait until it is gone."""
        if self._process is None:
            return
        with contextlib.suppress(OSError):
            os.write(self._pipe, _GOODBYE)
        os.close(self._pipe)
        self._pipe = -1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_TIMEOUT_S):
                await exit_of(self._process)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


def _say(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} guard: {text}", flush=True)


def main(argv: list[str]) -> int:
    """Watch over the run `argv[1]` of the stack in the folder `argv[0]`; 1 when something withstood it."""
    folder, run = DataFolder(Path(argv[0])), argv[1]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.read(sys.stdin.fileno(), len(_GOODBYE)):
        return 0
    _say("the supervisor was killed; stopping what it ran")
    left = asyncio.run(leftovers.stop(folder, run, lambda name: _say(f"stopping {name}")))
    for one in left:
        _say(f"{one.name} (pid {one.identity.pid}) could not be stopped")
    _say("done")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
