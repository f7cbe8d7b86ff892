"""Owns the names of the benchmarks and where each is found."""

import importlib

from bench.harness import Benchmark
from bench.samples import BenchmarkFailed

MODULES = {
    "intake": "bench.intake",
    "read": "bench.read",
    "redis": "bench.redis_get",
    "lock": "bench.lock",
    "hot-sku": "bench.hot_sku",
    "stream": "bench.stream",
    "order": "bench.order",
    "replay": "bench.replay",
}


def load(name: str) -> Benchmark:
    """The benchmark of this name. Raises BenchmarkFailed where its module cannot be imported."""
    try:
        module = importlib.import_module(MODULES[name])
    except ImportError as error:
        raise BenchmarkFailed(f"{MODULES[name]} cannot be imported: {error}") from error
    assert name == module.NAME, f"{MODULES[name]} calls itself {module.NAME}"
    found: Benchmark = module.benchmark
    return found
