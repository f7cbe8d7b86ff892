"""Owns the end of processes whose supervisor is gone: they are found by their tags and stopped in order.

Guarantees: when `stop` returns nothing, no process of that stack runs. Safe to run again, and by several at
once; if the process dies here, whoever comes next goes on with what is left.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from app.dev.stack import processes, state
from app.dev.stack.folder import DataFolder
from app.dev.stack.processes import Tagged
from app.dev.stack.stops import STOPS

_KILLED_TIMEOUT_S = 5.0
_ROUNDS_MAX = 5


def find(folder: DataFolder, run: str | None = None) -> list[Tagged]:
    """The living processes of the stack, of one run or of any."""
    found = {one.identity: one for one in processes.tagged(folder.path, run)}
    written = state.load(folder.state_file)
    if written is not None and run in (None, written.run):
        # A process of another user does not show its environment to everybody, but was written down.
        found |= {one.identity: one for one in written.tagged()}
    return list(found.values())


async def stop(
    folder: DataFolder, run: str | None = None, tell: Callable[[str], None] | None = None
) -> list[Tagged]:
    """Stop all processes of the stack in order, at last by SIGKILL; returns those that withstood that."""
    for _ in range(_ROUNDS_MAX):  # again, because one that was just being started shows up late
        found = find(folder, run)
        if not found:
            return []
        for name in [*STOPS, *sorted({one.name for one in found} - set(STOPS))]:
            group = [one.identity for one in found if one.name == name]
            if group and tell is not None:
                tell(name)
            for number, seconds in STOPS.get(name, ((signal.SIGTERM, 5.0),)):
                for identity in group:
                    processes.send(identity, number)
                group = await processes.gone(group, seconds)
            for identity in group:
                processes.send(identity, signal.SIGKILL)
            await processes.gone(group, _KILLED_TIMEOUT_S)
    return find(folder, run)
