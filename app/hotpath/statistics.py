"""`Statistics`: what a client counts. Plain numbers, so that counting costs next to nothing."""

from bisect import bisect_left
from typing import Final

BUCKETS_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Upper bounds of the round trips' histogram, in seconds; one more bucket holds the rest."""


class Statistics:
    """Counters of one client since it was made; all only grow.

    `commands` were sent, in `batches` writes, those that greet and ask whether the server lives among them;
    `replies` came back, `pushes` came unasked. `errors` are error replies, `timeouts`
    commands whose deadline passed after they were sent, `dropped` replies nobody waited for any more,
    `refused` commands that never left. `connections` were made. `round_trips` is a histogram over BUCKETS_S
    of the first command of a batch (one batch at a time is timed), `round_trips_s` their sum in seconds.
    """

    __slots__ = (
        "batches",
        "commands",
        "connections",
        "dropped",
        "errors",
        "pushes",
        "refused",
        "replies",
        "round_trips",
        "round_trips_s",
        "timeouts",
    )

    def __init__(self) -> None:
        """Start at zero."""
        self.commands = 0
        self.batches = 0
        self.replies = 0
        self.pushes = 0
        self.errors = 0
        self.timeouts = 0
        self.dropped = 0
        self.refused = 0
        self.connections = 0
        self.round_trips = [0] * (len(BUCKETS_S) + 1)
        self.round_trips_s = 0.0

    def timed(self, seconds: float) -> None:
        """Count one round trip."""
        self.round_trips[bisect_left(BUCKETS_S, seconds)] += 1
        self.round_trips_s += seconds
