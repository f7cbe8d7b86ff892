"""Owns what `up` does about a stack that is there already: wait for it, have what is missing started.

Guarantees: two stacks never run in one folder; whoever gets the lock here is alone. Bounded waits. If the
process dies here, the running stack is not touched.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from app.dev.stack import processes, progress, state, status
from app.dev.stack.errors import StackError
from app.dev.stack.folder import DataFolder
from app.dev.stack.progress import Notice, Tell
from app.dev.stack.supervisor import START_MISSING, Options

JOIN_TIMEOUT_S = 120.0
_ASK_AGAIN_S = 0.1
_UNDERSTOOD_S = 3.0  # a request to start what is missing is repeated after this


async def lock_or_join(folder: DataFolder, options: Options, tell: Tell) -> int | dict[str, Any]:
    """The lock of the folder when nothing runs in it, else the status of the stack that does, once ready.

    Raises StackError when the stack that runs does not become ready, or `options` ask for an empty one.
    """
    deadline = time.monotonic() + JOIN_TIMEOUT_S
    told = False
    while True:
        lock = folder.lock()
        if lock is not None:
            return lock
        written = state.load(folder.state_file)
        if written is not None and written.supervised and written.phase != state.STOPPING:
            return await _join(folder, options, tell)
        if not told:
            tell(
                Notice(
                    progress.NOTE,
                    text="An earlier stack in this folder is starting or stopping; waiting for it.",
                )
            )
            told = True
        if time.monotonic() > deadline:
            raise StackError(
                f"Another process holds {folder.lock_file} and does not let go. "
                f"Try `holdfast down{folder.option}`."
            )
        await asyncio.sleep(_ASK_AGAIN_S)


async def _join(folder: DataFolder, options: Options, tell: Tell) -> dict[str, Any]:
    if options.fresh:
        raise StackError(
            "The stack in this folder is running, so --fresh does not empty it: "
            f"`holdfast down{folder.option}` first."
        )
    deadline = time.monotonic() + JOIN_TIMEOUT_S
    asked_at = 0.0
    while True:
        found = await status.snapshot(folder)
        if found["state"] == status.READY:
            if options.gateway_port not in (None, _port(found)):
                tell(Notice(progress.WARNING, text="--gateway-port counts from the next start on."))
            return found
        written = state.load(folder.state_file)
        if written is None or not written.supervised:
            raise StackError(
                "The stack that was starting in this folder gave up; its output or logs say why."
            )
        if found["state"] == status.DEGRADED and time.monotonic() - asked_at > _UNDERSTOOD_S:
            if asked_at == 0.0:
                tell(
                    Notice(
                        progress.NOTE,
                        text=f"Runs already, without {_absent(found)}; starting that.",
                    )
                )
            processes.send(written.supervisor, START_MISSING)
            asked_at = time.monotonic()
        if time.monotonic() > deadline:
            raise StackError(
                f"The stack runs, but {_absent(found)} did not become ready; see the logs in {folder.logs}."
            )
        await asyncio.sleep(_ASK_AGAIN_S)


def _absent(found: dict[str, Any]) -> str:
    return ", ".join([*found["missing"], *found["not_ready"]])


def _port(found: dict[str, Any]) -> int:
    return int(found["gateway"]["url"].rpartition(":")[2])
