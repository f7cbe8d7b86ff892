"""The benchmarks of the platform's ways run from end to end, shortened, and what they did is there."""

from pathlib import Path
from types import ModuleType

import pytest

from bench import hot_sku, intake, order, read, replay, stream
from bench.harness import Setting, Silent, run_benchmark

pytestmark = [pytest.mark.full, pytest.mark.timeout(400)]

FIGURES = {
    intake: {"vs_limit", "vs_single_commit"},
    read: {"redis_hit", "near_hit"},
    hot_sku: {"vs_one_row_update", "hot_vs_uniform"},
    stream: {"vs_raw", "vs_batched_insert"},
    replay: {"vs_read_decode"},
    order: {"vs_regular", "p50_vs_regular", "worker_cpu_vs_regular"},
}


@pytest.mark.parametrize("module", FIGURES, ids=lambda module: module.NAME)
async def test_it_measures_its_figures(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each figure of the contract, from servers of its own, with effects that were counted."""
    for name, shortened in (("SECONDS", 0.3), ("ORDERS", 400), ("ALONE_S", 0.2), ("IN_FLIGHT", 5)):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, shortened)
    measured = await run_benchmark(module.benchmark, Setting(tmp_path, Silent()))
    outcomes = [outcome for one in measured for outcome in one.outcomes()]
    assert {outcome.figure.name for outcome in outcomes} - {"vs_dbos"} == FIGURES[module]
    assert all(outcome.ratio.median > 0 for outcome in outcomes)
    assert module is read or all(one.effects for one in measured)
