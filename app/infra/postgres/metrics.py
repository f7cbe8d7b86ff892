"""The pools of connections to PostgreSQL, as Prometheus metrics. They are looked at when somebody asks.

Nothing is lost with the process.
"""

from collections.abc import Iterator
from typing import Any, Final

from asyncpg import Pool
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.observability.metrics import REGISTRY


class Pools(Collector):
    """The open connections of everything that is added to it. One a process, because the registry is."""

    def __init__(self) -> None:
        """Start with none."""
        self._pools: list[tuple[str, Pool[Any]]] = []

    def add(self, name: str, pool: "Pool[Any]") -> None:
        """Serve this pool; those of one name are added up."""
        self._pools.append((name, pool))

    def remove(self, pool: "Pool[Any]") -> None:
        """Serve it no more."""
        self._pools = [(name, one) for name, one in self._pools if one is not pool]

    def describe(self) -> Iterator[Metric]:
        """Name the metrics, so that they are registered once."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """Count the connections."""
        found: dict[str, list[int]] = {}
        for name, pool in self._pools:
            sums = found.setdefault(name, [0, 0, 0])
            idle = pool.get_idle_size()
            sums[0] += pool.get_size() - idle
            sums[1] += idle
            sums[2] += pool.get_max_size()
        open_ = GaugeMetricFamily(
            "holdfast_pool_connections", "Open database connections", labels=("pool", "state")
        )
        most = GaugeMetricFamily("holdfast_pool_connections_max", "How many there may be", labels=("pool",))
        for name, (used, idle, limit) in found.items():
            open_.add_metric((name, "used"), used)
            open_.add_metric((name, "idle"), idle)
            most.add_metric((name,), limit)
        yield open_
        yield most


POOLS: Final = Pools()
REGISTRY.register(POOLS)
