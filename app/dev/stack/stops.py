"""Owns in which order a stack is stopped, and by which signals each of its processes.

First those that take work, then those that carry it out, then the servers they need. A table; no state.
"""

from __future__ import annotations

import signal

SHUTDOWN_TIMEOUT_S = 10.0
"""How long a mode may finish what it holds, unless the environment says otherwise."""

_KILL_AFTER_S = 3.0

StopSteps = tuple[tuple[signal.Signals, float], ...]


def of_mode(shutdown_timeout_s: float = SHUTDOWN_TIMEOUT_S) -> StopSteps:
    """A mode stops itself within its own time; SIGKILL comes a little later."""
    return ((signal.SIGTERM, shutdown_timeout_s + _KILL_AFTER_S),)


STOPS: dict[str, StopSteps] = {
    "migrate": ((signal.SIGTERM, 2.0),),
    "seed": ((signal.SIGTERM, 2.0),),
    "gateway": of_mode(),
    "worker": of_mode(),
    "consumer": of_mode(),
    "sandbox": ((signal.SIGTERM, 5.0),),
    "temporal": ((signal.SIGINT, 10.0),),
    "redis": ((signal.SIGTERM, 10.0),),
    "postgres": ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0)),  # fast, then immediate shutdown
}
"""Process → signals and seconds each may take, in the order of stopping."""
