"""Owns processor time and processors: how much a process used, and which one it may use.

Guarantees: time of children is counted, of those that ended too (once their parent collected them).
"""

import contextlib
import os
from collections.abc import Iterator, Mapping

import psutil

CPUS = sorted(os.sched_getaffinity(0))
CLIENT_CPU = CPUS[-1]
"""Where the side under test runs when it is one process."""
SERVER_CPU = CPUS[0]
"""Where the server that both sides use runs (the same one on a machine with one processor)."""


class Processes:
    """Processes by name, each with its children."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._roots = {name: psutil.Process(pid) for name, pid in pids.items()}

    def cpu_s(self) -> dict[str, float]:
        """Processor time used so far, in seconds, by name."""
        return {
            name: sum(map(_cpu_s, [root, *root.children(recursive=True)]))
            for name, root in self._roots.items()
        }


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system + times.children_user + times.children_system


@contextlib.contextmanager
def pinned(*cpus: int) -> Iterator[None]:
    """What this thread starts within runs on these processors only, and so do its children."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
