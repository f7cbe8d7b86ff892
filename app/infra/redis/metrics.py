"""What the hot path counts, as Prometheus metrics, and how full the server's memory is.

The hot path counts in plain numbers; they are read when somebody asks for the metrics. Nothing is lost with
the process but its counters.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from app.hotpath.cache import Cache
from app.hotpath.client import Client
from app.hotpath.errors import HotpathError
from app.hotpath.near import Near
from app.hotpath.statistics import BUCKETS_S, Statistics
from app.observability.metrics import REGISTRY

MEMORY_PAUSE_S: Final = 15.0

_CLIENT_COUNTERS: Final = (
    ("commands", "holdfast_redis_commands", "Commands sent"),
    ("batches", "holdfast_redis_batches", "Writes to the socket; commands over batches is the batch size"),
    ("errors", "holdfast_redis_errors", "Error replies"),
    ("timeouts", "holdfast_redis_timeouts", "Commands sent and not answered within their deadline"),
    ("refused", "holdfast_redis_refused", "Commands that never left"),
    ("connections", "holdfast_redis_connections", "Connections made; all but the first are reconnects"),
    ("pushes", "holdfast_redis_pushes", "What the server said unasked: messages, invalidations"),
)
_NEAR_COUNTERS: Final = (
    ("hits", "holdfast_near_hits", "Reads answered from the process's own memory"),
    ("misses", "holdfast_near_misses", "Reads that were not"),
    ("evictions", "holdfast_near_evictions", "Documents that made room"),
    ("invalidations", "holdfast_near_invalidations", "Documents that Redis said have changed"),
    ("overtaken", "holdfast_near_overtaken", "Documents that changed before they could be kept"),
    ("clears", "holdfast_near_clears", "Times that everything was dropped"),
)
_CACHE_COUNTERS: Final = (
    ("early", "holdfast_cache_early_loads", "Loads begun before a document's lifetime ended"),
    ("loads", "holdfast_cache_loads", "Loads begun"),
    ("load_errors", "holdfast_cache_load_errors", "Loads that failed"),
    ("puts", "holdfast_cache_puts", "Documents written"),
    ("older", "holdfast_cache_puts_older", "Documents not written because a newer one was there"),
    ("late", "holdfast_cache_puts_late", "Documents that came to Redis after their time"),
    ("unput", "holdfast_cache_puts_failed", "Documents that may not have been written"),
)


class _Counted(NamedTuple):
    """A client's counters, under the role that it plays."""

    role: str
    statistics: Statistics
    in_flight: Callable[[], int]
    is_up: Callable[[], bool]


class Reads:
    """The reads of cached orders: a near cache, the cache behind it, and PostgreSQL behind that."""

    def __init__(self, near: Near[Any], cache: Cache) -> None:
        """Count what these do not: `from_postgres` answers, and near documents found `behind` PostgreSQL."""
        self.near = near
        self.cache = cache
        self.from_postgres = 0
        self.behind = 0


class Export(Collector):
    """The metrics of everything that is added to it. One a process, because the registry is."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._clients: list[_Counted] = []
        self._reads: list[Reads] = []
        self.memory_ratio: float | None = None
        self.evicted_keys: int | None = None

    def add(self, what: Reads) -> None:
        """Export these reads, and their near cache's client as `near`."""
        self._reads.append(what)
        self.add_client("near", what.near.client)

    def remove(self, what: Reads) -> None:
        """Export them no more."""
        self._reads.remove(what)
        self.remove_client(what.near.client)

    def add_client(self, role: str, client: Client) -> None:
        """Export a client's statistics under a role; clients of one role are added up."""
        self._clients.append(
            _Counted(role, client.statistics, lambda: client.in_flight, lambda: client.is_up)
        )

    def remove_client(self, client: Client) -> None:
        """Export them no more."""
        self._clients = [one for one in self._clients if one.statistics is not client.statistics]

    def describe(self) -> Iterator[Metric]:
        """Name the metrics, so that they are registered once."""
        return iter((GaugeMetricFamily("holdfast_redis_memory_ratio", ""),))

    def collect(self) -> Iterator[Metric]:
        """Read the counters."""
        if self.memory_ratio is not None:
            yield GaugeMetricFamily(
                "holdfast_redis_memory_ratio", "Memory used, of what Redis may use", self.memory_ratio
            )
        if self.evicted_keys is not None:
            yield CounterMetricFamily(
                "holdfast_redis_evicted_keys", "Keys thrown out for want of memory", self.evicted_keys
            )
        if self._clients:
            yield from self._of_clients()
        if self._reads:
            yield from self._of_reads()

    def _of_clients(self) -> Iterator[Metric]:
        roles: dict[str, list[_Counted]] = {}
        for client in self._clients:
            roles.setdefault(client.role, []).append(client)
        for field, name, text in _CLIENT_COUNTERS:
            counter = CounterMetricFamily(name, text, labels=("role",))
            for role, clients in roles.items():
                counter.add_metric((role,), sum(getattr(one.statistics, field) for one in clients))
            yield counter
        waiting = GaugeMetricFamily("holdfast_redis_in_flight", "Commands not answered yet", labels=("role",))
        times = HistogramMetricFamily(
            "holdfast_redis_command_seconds", "Time to an answer, of one command a batch", labels=("role",)
        )
        passes = GaugeMetricFamily("holdfast_redis_client_up", "Whether commands pass", labels=("role",))
        for role, clients in roles.items():
            passes.add_metric((role,), min(client.is_up() for client in clients))
            waiting.add_metric((role,), sum(client.in_flight() for client in clients))
            counts = [
                sum(column) for column in zip(*(x.statistics.round_trips for x in clients), strict=True)
            ]
            times.add_metric((role,), _buckets(counts), sum(x.statistics.round_trips_s for x in clients))
        yield passes
        yield waiting
        yield times

    def _of_reads(self) -> Iterator[Metric]:
        reads = self._reads
        for field, name, text in _NEAR_COUNTERS:
            yield CounterMetricFamily(name, text, sum(getattr(one.near.statistics, field) for one in reads))
        yield GaugeMetricFamily(
            "holdfast_near_entries", "Documents in the process's own memory", sum(len(x.near) for x in reads)
        )
        yield GaugeMetricFamily(
            "holdfast_near_bytes", "Bytes they take, about", sum(one.near.bytes for one in reads)
        )
        for field, name, text in _CACHE_COUNTERS:
            yield CounterMetricFamily(name, text, sum(getattr(x.cache.statistics, field) for x in reads))
        places = CounterMetricFamily(
            "holdfast_order_reads", "Reads of one order, by place", labels=("place",)
        )
        places.add_metric(("near",), sum(one.near.statistics.hits for one in reads))
        places.add_metric(("redis",), sum(one.cache.statistics.hits for one in reads))
        places.add_metric(("postgres",), sum(one.from_postgres for one in reads))
        yield places
        yield CounterMetricFamily(
            "holdfast_near_behind",
            "Near documents found older than PostgreSQL's",
            sum(x.behind for x in reads),
        )


def _buckets(counts: Sequence[int]) -> list[tuple[str, float]]:
    """Counts a bucket, as Prometheus wants them: how many were at most so long."""
    bounds = [*(str(bound) for bound in BUCKETS_S), "+Inf"]
    total, buckets = 0, []
    for bound, count in zip(bounds, counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets


EXPORT: Final = Export()
REGISTRY.register(EXPORT)


async def watch_memory(client: Client) -> None:
    """Keep what Redis says of its memory true until cancelled; it is not served while Redis is away."""
    while True:
        try:
            info = await client.execute("INFO", safe=True)
            EXPORT.memory_ratio, EXPORT.evicted_keys = _memory(info)
        except HotpathError:
            EXPORT.memory_ratio = EXPORT.evicted_keys = None
        await asyncio.sleep(MEMORY_PAUSE_S)


def _memory(info: bytes) -> tuple[float | None, int | None]:
    """Memory used over `maxmemory` (the machine's where there is none), and the count of evicted keys."""
    found = dict(line.partition(":")[::2] for line in info.decode().splitlines())
    limit = int(found.get("maxmemory", 0)) or int(found.get("total_system_memory", 0))
    evicted = found.get("evicted_keys")
    ratio = int(found["used_memory"]) / limit if limit else None
    return ratio, None if evicted is None else int(evicted)
