"""`RequestMetrics`: requests counted and timed, at the cost of two additions.

Plain numbers that only one thread changes; Prometheus' own counters take a lock for each. They are served
under the names `holdfast_http_requests_total` and `holdfast_http_request_duration_seconds`.
"""

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BOUNDS: Final = (*(str(bound) for bound in BUCKETS_S), "+Inf")


class Timer:
    """The requests of one method and route: answers by status, and how long they took."""

    __slots__ = ("answers", "buckets", "seconds")

    def __init__(self) -> None:
        """Start at zero."""
        self.answers: dict[int, int] = {}
        self.buckets = [0] * len(_BOUNDS)
        self.seconds = 0.0

    def count(self, status: int, seconds: float) -> None:
        """Count one answer."""
        self.answers[status] = self.answers.get(status, 0) + 1
        self.buckets[bisect_left(BUCKETS_S, seconds)] += 1
        self.seconds += seconds


class RequestMetrics:
    """A collector of Prometheus."""

    def __init__(self) -> None:
        """Start without any request."""
        self._timers: dict[tuple[str, str], Timer] = {}

    def timer(self, method: str, route: str) -> Timer:
        """The timer of one method and one route's template."""
        timer = self._timers.get((method, route))
        if timer is None:
            timer = self._timers[method, route] = Timer()
        return timer

    def collect(self) -> Iterator[Metric]:
        """Everything counted so far."""
        answers = CounterMetricFamily(
            "holdfast_http_requests_total", "Requests answered", labels=("method", "route", "status")
        )
        times = HistogramMetricFamily(
            "holdfast_http_request_duration_seconds", "Time to answer", labels=("method", "route")
        )
        for (method, route), timer in self._timers.items():
            for status, count in timer.answers.items():
                answers.add_metric((method, route, str(status)), count)
            times.add_metric((method, route), _cumulative(timer.buckets), timer.seconds)
        yield answers
        yield times


def _cumulative(buckets: list[int]) -> list[tuple[str, float]]:
    total = 0
    found: list[tuple[str, float]] = []
    for bound, count in zip(_BOUNDS, buckets, strict=True):
        total += count
        found.append((bound, total))
    return found
