"""Owns `down`: the supervisor is asked to stop everything in order, and what it left is stopped here.

Guarantees: when `stop_stack` returns, nothing of the stack runs. Safe to run again and while a stack starts.
If the process dies here, the supervisor (or its guard) goes on stopping.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time

from app.dev.stack import leftovers, processes, progress, state
from app.dev.stack.errors import StackError
from app.dev.stack.folder import DataFolder
from app.dev.stack.progress import Notice, Tell
from app.dev.stack.stops import STOPS

STOP_TIMEOUT_S = 150.0  # more than all bounds of the table of stops together
_GUARD_TIMEOUT_S = 60.0
_ASK_AGAIN_S = 0.05


async def stop_stack(folder: DataFolder, tell: Tell) -> list[str]:
    """Stop the stack in this folder; the names of what ran (empty: nothing did). Raises StackError."""
    if not folder.path.is_dir():
        return []
    seen: dict[str, bool] = {}  # name → whether it still runs
    deadline = time.monotonic() + STOP_TIMEOUT_S
    asked: processes.Identity | None = None
    while (lock := folder.lock()) is None:
        written = state.load(folder.state_file)
        if written is not None and written.supervised:
            if asked != written.supervisor:
                _ask(written.supervisor, signal.SIGTERM)
                asked = written.supervisor
            _look(written, seen, tell)
        if time.monotonic() > deadline:
            if asked is None or not processes.alive(asked):
                raise StackError(f"Another process holds {folder.lock_file} and does not let go.")
            tell(Notice(progress.WARNING, text="The supervisor does not stop; its guard stops the rest."))
            _ask(asked, signal.SIGKILL)
            deadline += _GUARD_TIMEOUT_S
            asked = None
        await asyncio.sleep(_ASK_AGAIN_S)
    try:
        _look(None, seen, tell)
        seen |= {one.name: False for one in leftovers.find(folder)}
        left = await leftovers.stop(
            folder,
            tell=lambda name: tell(Notice(progress.NOTE, text=f"Stopping {name}, left by a killed stack.")),
        )
        folder.state_file.unlink(missing_ok=True)
    finally:
        os.close(lock)
    if left:
        pids = ", ".join(f"{one.name} (pid {one.identity.pid})" for one in left)
        raise StackError(f"These could not be stopped: {pids}.")
    return list(seen)


def _ask(identity: processes.Identity, number: signal.Signals) -> None:
    try:
        processes.send(identity, number)
    except PermissionError:
        raise StackError(
            f"The stack belongs to another user (pid {identity.pid}); stop it as that user."
        ) from None


def _look(written: state.RunState | None, seen: dict[str, bool], tell: Tell) -> None:
    """Tell what is gone since the last look."""
    living = written.living() if written is not None else {}
    seen |= dict.fromkeys(living, True)
    for name in [name for name in STOPS if seen.get(name) and name not in living]:
        tell(Notice(progress.DONE, name, "stopped"))
        seen[name] = False
